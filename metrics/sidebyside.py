"""Jobs under way at the same time, their results handed on in the order of the jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from layerwatch.metrics.threads import use_threads

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job takes while it is under way: computing threads, and elements held in memory."""

    threads: int
    elements: int


@dataclass(frozen=True, slots=True)
class _Job(Generic[Result]):
    future: Future[Result]
    cost: Cost


class SideBySide(Generic[Result]):
    """Runs jobs in the threads of a pool, as many together as a budget allows.

    Args:
        pool: with at least ``budget.threads`` threads.
        budget: what all jobs under way together may take. Of larger jobs two of one size may be under way, if they
            leave threads for each other; a job that needs all threads runs alone.
    """

    def __init__(self, pool: ThreadPoolExecutor, budget: Cost) -> None:
        self._pool = pool
        self._budget = budget
        self._jobs: deque[_Job[Result]] = deque()

    def make_room(self, cost: Cost) -> Iterator[Result]:
        """Wait until a job of this cost may begin; hands on what is done meanwhile."""
        while not self._fits(cost):
            wait([job.future for job in self._jobs if not job.future.done()], return_when=FIRST_COMPLETED)
            yield from self.ready()

    def begin(self, work: Callable[[], Result], cost: Cost) -> None:
        """Begin with a job, for which there is room."""

        def run() -> Result:
            use_threads(cost.threads)
            return work()

        self._jobs.append(_Job(self._pool.submit(run), cost))

    def add(self, result: Result) -> None:
        """Put a result that took no work into its place in the order."""
        future: Future[Result] = Future()
        future.set_result(result)
        self._jobs.append(_Job(future, Cost(0, 0)))

    def ready(self) -> Iterator[Result]:
        """Everything that is done and whose turn it is."""
        while self._jobs and self._jobs[0].future.done():
            yield self._jobs.popleft().future.result()

    def rest(self) -> Iterator[Result]:
        """Everything that was begun or added and not yet handed on."""
        while self._jobs:
            yield self._jobs.popleft().future.result()

    def _fits(self, cost: Cost) -> bool:
        busy = [job.cost for job in self._jobs if not job.future.done()]
        threads = sum(one.threads for one in busy) + cost.threads
        elements = sum(one.elements for one in busy) + cost.elements
        room = max(self._budget.elements, 2 * cost.elements)
        return not busy or (threads <= self._budget.threads and elements <= room)
