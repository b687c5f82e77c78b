"""Networks of one, two or three layers: a broken layer must not be its own yardstick."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layerwatch.metrics.findings import Verdict
from layerwatch_testing.models import State, judge_states


def network(layers: int) -> State:
    random = np.random.default_rng(7)
    return {f"fc{n}.weight": random.standard_normal((80, 64)).astype(np.float32) for n in range(layers)}


@pytest.mark.parametrize("layers", [1, 2, 3, 5])
@pytest.mark.parametrize("factor", [5.0, 0.15, 0.001])
def test_one_wrongly_scaled_layer_fails_however_few_layers_there_are(
    tmp_path: Path, layers: int, factor: float
) -> None:
    old = network(layers)
    new = {**old, "fc0.weight": old["fc0.weight"] * np.float32(factor)}
    judgement = judge_states(tmp_path, new, old)
    assert judgement.verdict is Verdict.FAIL
    assert {finding.layer for finding in judgement.findings} == {"fc0"}


@pytest.mark.parametrize("layers", [2, 3])
def test_a_small_network_whose_layers_all_moved_a_little_passes(tmp_path: Path, layers: int) -> None:
    old = network(layers)
    random = np.random.default_rng(8)
    new = {
        name: (weights + 0.1 * random.standard_normal(weights.shape)).astype(np.float32)
        for name, weights in old.items()
    }
    assert judge_states(tmp_path, new, old).verdict is Verdict.PASS
