"""Ten defects, injected into real networks that lost channels in training and were fine-tuned, are found on their layer.

The networks and what is known about them: ``../shared/checkpoints/README.md``; section 9 of the detection study.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.metrics import compare_models
from layerwatch.metrics.findings import Verdict
from layerwatch_testing.models import State, read_state
from layerwatch_testing.shared import shared_file

Values = NDArray[Any]

_FOLDER = "checkpoints/distiller/"
_THINNED = "checkpoint_trained_channel_regularized_resnet20.pth.tar"
PAIRS = {
    "a long fine-tune against its parent": (
        "checkpoint_trained_channel_regularized_resnet20_finetuned.pth.tar",
        _THINNED,
    ),
    "another recipe with fewer channels": (_THINNED, "checkpoint_trained_dense.pth.tar"),
}


def _reinitialised(weights: Values) -> Values:
    fresh = np.random.default_rng(0).standard_normal(weights.shape)
    return np.asarray(fresh * (np.linalg.norm(weights) / np.linalg.norm(fresh)))


def _with_one(factor: float) -> Callable[[Values], Values]:
    def change(weights: Values) -> Values:
        weights.flat[7] *= factor
        return weights

    return change


def _dead_quarter(weights: Values) -> Values:
    weights[::4] = 0
    return weights


def _rank_an_eighth(weights: Values) -> Values:
    left, values, right = np.linalg.svd(weights.reshape(len(weights), -1), full_matrices=False)
    rank = max(1, len(values) // 8)
    return np.asarray(((left[:, :rank] * values[:rank]) @ right[:rank]).reshape(weights.shape))


def _rows_permuted(weights: Values) -> Values:
    return np.asarray(weights[np.random.default_rng(1).permutation(len(weights))])


DEFECTS: dict[str, Callable[[Values], Values]] = {
    "NaN": _with_one(np.nan),
    "zeroed": np.zeros_like,
    "times 10": lambda weights: weights * 10,
    "times 0.1": lambda weights: weights * 0.1,
    "re-initialised": _reinitialised,
    "a weight times 2^20": _with_one(2.0**20),
    "a quarter of the rows dead": _dead_quarter,
    "signs flipped": lambda weights: -weights,
    "rows permuted": _rows_permuted,
    "an eighth of the rank": _rank_an_eighth,
}


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[State, State]:
    new, old = PAIRS[request.param]
    return read_state(shared_file(_FOLDER + new)), read_state(shared_file(_FOLDER + old))


def _layer(state: State, number: int) -> str:
    """A convolution that was not emptied in training, from the front, the middle or the back."""
    names = [name for name, values in state.items() if values.ndim == 4 and np.abs(values).max() > 0]
    return [names[1], names[4], names[9], names[-3]][number]


def test_the_untouched_network_raises_nothing_critical(pair: tuple[State, State]) -> None:
    new, old = pair

    assert compare_models(new, old).judgement.verdict in (Verdict.PASS, Verdict.WARN)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_fails_the_version_and_its_layer_comes_first(
    pair: tuple[State, State], defect: str, number: int
) -> None:
    new, old = pair
    name = _layer(new, number)
    broken = {**new, name: np.asarray(DEFECTS[defect](new[name].copy())).astype(np.float32)}

    judgement = compare_models(broken, old).judgement

    assert judgement.verdict is Verdict.FAIL
    assert judgement.findings[0].layer == name.removesuffix(".weight")
    assert judgement.diagnoses[0].what_to_do
