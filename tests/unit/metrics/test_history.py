"""What a model's healthy versions say about each of its layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.history import (
    CALM_CHANGE,
    CALM_STEPS,
    FLOORS,
    calm_versions,
    layer_histories,
    median_change,
)
from layerwatch.metrics.measurement import Measurement
from layerwatch_testing.examinations import measurement, numbers
from layerwatch_testing.models import Scan, scan, write_safetensors
from layerwatch_testing.networks import Network, finetuned, network


def with_norm(decades: float) -> Measurement:
    folded = numbers(log_norm=decades)
    return measurement(numbers=folded, folded=folded)


def steps(*changes: float | None) -> int:
    """Versions in the history after these steps, oldest first."""
    return calm_versions(len(changes) + 1, lambda step: changes[step])


def by_layer(found: Scan) -> dict[str, Measurement]:
    entries = [entry for entry in found.content.layers if len(entry.shape) > 1]
    return {entry.name: found.measurements[entry.digest or ""] for entry in entries}


@pytest.fixture
def versions(tmp_path: Path) -> list[dict[str, Measurement]]:
    """Four consecutive fine-tunes of one network, really measured."""
    states: list[Network] = [network()]
    for seed in range(1, 4):
        states.append(finetuned(states[-1], seed))
    return [
        by_layer(scan(write_safetensors(tmp_path / f"v{i}.safetensors", state)))
        for i, state in enumerate(states)
    ]


# Spread


def test_the_spread_of_a_number_is_its_sample_standard_deviation_in_decades() -> None:
    decades = [1.0, 1.3, 0.9, 1.6]
    history = layer_histories([{"fc": with_norm(one)} for one in decades])["fc"]
    assert history.versions == 4
    assert history.log_norm == pytest.approx(stdev(decades))


def test_no_spread_falls_below_the_floor_of_the_study() -> None:
    history = layer_histories([{"fc": with_norm(1.0)}] * 4)["fc"]
    assert {key: getattr(history, key) for key in FLOORS} == FLOORS


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"fc": measurement(shape=(3, 3))},
        {"fc": measurement(numbers=None, folded=None)},
        {"fc": measurement(kurtosis=None)},
        {"fc": with_norm(math.nan)},
    ],
    ids=["missing", "another shape", "no numbers", "no kurtosis", "not finite"],
)
def test_a_layer_that_some_version_lacks_has_no_history(other: dict[str, Measurement]) -> None:
    both = {"fc": with_norm(1.0), "other": with_norm(1.0)}
    assert list(layer_histories([both, both, {**both, **other} if other else {"other": both["other"]}])) == [
        "other"
    ]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_versions_scatter_by_nothing_that_is_known(count: int) -> None:
    assert layer_histories([{"fc": with_norm(1.0)}] * count) == {}


@given(st.permutations([0.1, 0.5, 0.2, 0.9]))
def test_the_order_of_versions_does_not_matter(decades: Sequence[float]) -> None:
    history = layer_histories([{"fc": with_norm(one)} for one in decades])["fc"]
    assert history.log_norm == pytest.approx(stdev([0.1, 0.5, 0.2, 0.9]))


def test_real_fine_tunes_scatter_by_little(versions: list[dict[str, Measurement]]) -> None:
    histories = layer_histories(versions)
    assert set(histories) == {"fc1", "fc2", "fc3"}
    for history in histories.values():
        assert all(getattr(history, key) <= 3 * floor for key, floor in FLOORS.items())


# Calm


def test_the_change_of_a_step_is_that_of_its_median_layer(versions: list[dict[str, Measurement]]) -> None:
    before, after = versions[0], versions[1]
    moved = median_change([(before[name], after[name]) for name in before])
    # Every weight moved by 2 % of the standard deviation (``networks.finetuned``).
    assert moved == pytest.approx(0.02, rel=0.3)


def test_frozen_layers_count_as_unchanged(versions: list[dict[str, Measurement]]) -> None:
    before, after = versions[0], versions[1]
    pairs = [(before[name], before[name]) for name in ("fc1", "fc2")] + [(before["fc3"], after["fc3"])]
    assert median_change(pairs) == 0.0


def test_layers_that_cannot_be_compared_say_nothing() -> None:
    bare = measurement()
    assert median_change([]) is None
    assert median_change([(bare, measurement(digest="other", sketch=None))]) is None


def test_a_history_needs_three_calm_steps_in_a_row() -> None:
    assert steps(0.1, 0.1) == 0
    assert steps(0.1, 0.1, 0.1) == 4
    assert steps(0.1, 0.3, 0.1, 0.1) == 0


def test_what_happened_before_the_last_restless_step_is_no_part_of_it() -> None:
    assert steps(0.1, 0.9, 0.1, 0.1, 0.1) == 4
    assert steps(0.1, None, 0.1, 0.1, 0.1, 0.1) == 5


def test_a_step_that_reaches_the_limit_is_not_calm() -> None:
    assert steps(0.1, 0.1, CALM_CHANGE) == 0
    assert steps(0.1, 0.1, float(np.nextafter(CALM_CHANGE, 0))) == 4


def test_no_step_is_looked_at_that_cannot_matter() -> None:
    asked: list[int] = []

    def change(step: int) -> float:
        asked.append(step)
        return 0.9

    assert calm_versions(8, change) == 0
    assert asked == [6]


@given(st.lists(st.floats(0, 1), max_size=12))
def test_a_history_is_none_or_long_enough(changes: list[float]) -> None:
    found = steps(*changes)
    assert found == 0 or CALM_STEPS + 1 <= found <= len(changes) + 1
