"""Couplings of real trained residual networks: what is healthy passes, what is put out of step is named."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.metrics.coupling import CouplingKind
from layerwatch.metrics.findings import Finding, Severity
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.readers.detect import open_model
from layerwatch_testing.coupled import State, couplings_of
from layerwatch_testing.examinations import examination, findings_of, layer
from layerwatch_testing.shared import shared_file

RULES = ("batchnorm_statistics", "incoherent_interface")
HEALTHY = (
    "checkpoints/resnet20-12fca82f.th",
    "checkpoints/resnet32-d509ac18.th",
    "checkpoints/distiller/checkpoint_trained_dense.pth.tar",
    "checkpoints/distiller/checkpoint_trained_channel_regularized_resnet20.pth.tar",
    "checkpoints/distiller/checkpoint_trained_channel_regularized_resnet20_finetuned.pth.tar",
)
UNTRAINED = "checkpoints/distiller/resnet20_cifar10_checkpoint.pth.tar"


@cache
def _state(relative: str) -> State:
    path = shared_file(relative)
    reader = open_model(path)
    model = OpenModel(reader, str(path))
    state = {
        one.tensor: np.asarray(model.values(one), dtype=np.float32)
        for one in (*model.plan.layers, *model.plan.vectors)
    }
    reader.close()
    return state


def _critical(state: State, baseline: State | None) -> list[Finding]:
    before = () if baseline is None else couplings_of(baseline)
    version = examination(layer(), couplings=couplings_of(state), baseline_couplings=before)
    found = [one for rule in RULES for one in findings_of(rule, version)]
    return sorted((one for one in found if one.severity is Severity.CRITICAL), key=lambda one: -one.strength)


@pytest.mark.parametrize("relative", HEALTHY)
def test_stored_means_follow_from_the_weights_along_the_whole_residual_stream(relative: str) -> None:
    # Detection study, section 8: 0.94 to 1.00 and slopes 0.90 to 1.48 on the second convolutions of ten networks.
    found = [
        one
        for one in couplings_of(_state(relative))
        if one.kind is CouplingKind.BATCHNORM_STATISTICS and one.part != "stem"
    ]
    assert len(found) >= 18
    assert all(one.value > 0.94 for one in found)
    assert all(one.slope is not None and 0.8 < one.slope < 1.5 for one in found)


@pytest.mark.parametrize("relative", HEALTHY)
def test_a_healthy_network_raises_nothing_without_a_baseline(relative: str) -> None:
    assert _critical(_state(relative), None) == []


def test_another_training_and_its_fine_tune_raise_nothing_critical() -> None:
    dense, regularised, finetuned = (_state(relative) for relative in HEALTHY[2:])
    assert _critical(regularised, dense) == []
    assert _critical(finetuned, regularised) == []
    assert _critical(finetuned, dense) == []
    assert _critical(_state(HEALTHY[0]), dense) == []


def test_an_untrained_network_contradicts_its_statistics() -> None:
    assert _critical(_state(UNTRAINED), None)
    assert _critical(_state(UNTRAINED), _state(HEALTHY[2]))


def _permuted_rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values[np.random.default_rng(0).permutation(len(values))]


def _permuted_columns(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values[:, np.random.default_rng(0).permutation(values.shape[1])]


def _random(values: NDArray[np.float32]) -> NDArray[np.float32]:
    random = values.std() * np.random.default_rng(0).standard_normal(values.shape)
    return np.asarray(random, dtype=np.float32)


_DAMAGES: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "permuted rows": _permuted_rows,
    "permuted columns": _permuted_columns,
    "random": _random,
    "turned sign": lambda values: -values,
    "transposed": lambda values: np.ascontiguousarray(values.swapaxes(0, 1)),
    "x 3": lambda values: 3 * values,
    "x 0.3": lambda values: 0.3 * values,
}


@pytest.mark.parametrize("damage", _DAMAGES)
@pytest.mark.parametrize(
    "name", ["layer1.1.conv1", "layer1.1.conv2", "layer2.1.conv1", "layer3.2.conv1", "layer3.1.conv2"]
)
def test_a_damaged_convolution_of_another_training_is_named(name: str, damage: str) -> None:
    dense, finetuned = _state(HEALTHY[2]), _state(HEALTHY[0])
    changed = _DAMAGES[damage](finetuned[f"{name}.weight"])
    found = _critical(finetuned | {f"{name}.weight": changed}, dense)
    assert found
    assert found[0].layer == name
