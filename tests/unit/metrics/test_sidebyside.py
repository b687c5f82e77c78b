"""Jobs side by side: order, budget, and what happens when one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from layerwatch.metrics.sidebyside import Cost, SideBySide


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    before = torch.get_num_threads()
    with ThreadPoolExecutor(4) as found:
        yield found
    torch.set_num_threads(before)


class Watched:
    """Jobs that note how much is under way at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: list[Cost] = []
        self.most_threads = self.most_elements = self.most_jobs = 0

    def job(self, name: int, cost: Cost) -> Callable[[], int]:
        """A job of this cost that returns its name."""

        def run() -> int:
            with self._lock:
                self._jobs.append(cost)
                self.most_jobs = max(self.most_jobs, len(self._jobs))
                self.most_threads = max(self.most_threads, sum(one.threads for one in self._jobs))
                self.most_elements = max(self.most_elements, sum(one.elements for one in self._jobs))
            threading.Event().wait(0.01)
            with self._lock:
                self._jobs.remove(cost)
            return name

        return run


def run_all(pool: ThreadPoolExecutor, costs: list[Cost], budget: Cost) -> tuple[list[int], Watched]:
    watched = Watched()
    found: list[int] = []
    bench = SideBySide[int](pool, budget)
    for name, cost in enumerate(costs):
        found += bench.make_room(cost)
        bench.begin(watched.job(name, cost), cost)
        found += bench.ready()
    return found + list(bench.rest()), watched


def test_results_come_in_the_order_of_the_jobs_whatever_they_cost(pool: ThreadPoolExecutor) -> None:
    costs = [Cost(1 + index % 4, 10 * (index % 7)) for index in range(30)]
    found, _ = run_all(pool, costs, Cost(4, 100))
    assert found == list(range(30))


def test_jobs_under_way_together_stay_within_threads_and_elements(pool: ThreadPoolExecutor) -> None:
    found, watched = run_all(pool, [Cost(1, 30)] * 20, Cost(4, 100))
    assert len(found) == 20
    assert 2 <= watched.most_jobs <= 3
    assert watched.most_elements <= 100


def test_two_large_jobs_share_the_threads_and_a_third_waits(pool: ThreadPoolExecutor) -> None:
    _, watched = run_all(pool, [Cost(2, 1000)] * 6, Cost(4, 100))
    assert (watched.most_jobs, watched.most_threads) == (2, 4)


def test_a_job_that_needs_all_threads_runs_alone(pool: ThreadPoolExecutor) -> None:
    _, watched = run_all(pool, [Cost(4, 10)] * 5, Cost(4, 100))
    assert watched.most_jobs == 1


def test_each_job_has_the_threads_it_was_given(pool: ThreadPoolExecutor) -> None:
    bench = SideBySide[int](pool, Cost(4, 100))
    found: list[int] = []
    for count in (1, 3, 2, 4, 1):
        found += bench.make_room(Cost(count, 1))
        bench.begin(torch.get_num_threads, Cost(count, 1))
    assert found + list(bench.rest()) == [1, 3, 2, 4, 1]


def test_what_a_job_raises_is_raised_in_its_turn(pool: ThreadPoolExecutor) -> None:
    def broken() -> int:
        raise ValueError("broken")

    bench = SideBySide[int](pool, Cost(4, 100))
    bench.begin(lambda: 1, Cost(1, 1))
    bench.begin(broken, Cost(1, 1))
    results = bench.rest()
    assert next(results) == 1
    with pytest.raises(ValueError, match="broken"):
        next(results)
