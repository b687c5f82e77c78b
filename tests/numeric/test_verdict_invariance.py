"""The verdict belongs to the weights: not to their order, nor to the file format, nor to the day."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.judge import Judgement, judge
from layerwatch_testing.models import examination_of, scan, write_safetensors
from layerwatch_testing.networks import Network, finetuned, network, with_nan, with_wrong_scale


def permuted_rows(state: Network) -> Network:
    return {**state, "fc2.weight": state["fc2.weight"][::-1].copy()}


def emptied(state: Network) -> Network:
    return {**state, "fc3.weight": np.zeros_like(state["fc3.weight"])}


def flipped(state: Network) -> Network:
    return {**state, "fc1.weight": -state["fc1.weight"]}


def untouched(state: Network) -> Network:
    return dict(state)


CHANGES: tuple[Callable[[Network], Network], ...] = (
    untouched,
    with_nan,
    with_wrong_scale,
    permuted_rows,
    emptied,
    flipped,
)


def save_torch(path: Path, state: Network) -> Path:
    torch.save({name: torch.from_numpy(values) for name, values in state.items()}, path)
    return path


def judged(new: Path, baseline: Path, exact: bool) -> Judgement:
    return judge(examination_of(scan(new, baseline if exact else None), scan(baseline)), RulesSettings())


def told(judgement: Judgement) -> tuple[object, ...]:
    """All that a reader is told, without the order in which the file lists its layers."""
    return judgement.verdict, judgement.findings, dict(judgement.statuses), judgement.blind_spots


@pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    defects=st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3),
    seed=st.integers(0, 3),
    order=st.permutations(sorted(network())),
)
def test_the_order_of_the_layers_and_the_format_of_the_file_do_not_matter(
    tmp_path: Path, exact: bool, defects: list[Callable[[Network], Network]], seed: int, order: list[str]
) -> None:
    old = network(seed)
    new = finetuned(old)
    for defect in defects:
        new = defect(new)
    baseline = write_safetensors(tmp_path / "old.safetensors", old)
    expected = judged(write_safetensors(tmp_path / "new.safetensors", new), baseline, exact)
    reordered = {name: new[name] for name in order}

    for path in (
        write_safetensors(tmp_path / "reordered.safetensors", reordered),
        save_torch(tmp_path / "new.pt", new),
    ):
        assert told(judged(path, baseline, exact)) == told(expected)
    again = judged(tmp_path / "reordered.safetensors", save_torch(tmp_path / "old.pt", old), exact)
    assert told(again) == told(expected)
