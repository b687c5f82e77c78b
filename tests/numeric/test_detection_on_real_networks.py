"""Defects injected into trained networks are named, and what is done to healthy networks is not called a defect.

The networks, their origin and what is known about them: ``../shared/checkpoints/README.md``. Which signals must
find what: sections 9 and 10 of the detection study in ``../shared/spec/detection.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Regime
from layerwatch.metrics.findings import LayerStatus, Severity, Verdict
from layerwatch.metrics.judge import Judgement, judge
from layerwatch_testing.models import (
    Scan,
    State,
    examination_of,
    judge_states,
    read_state,
    scan,
    write_safetensors,
)
from layerwatch_testing.shared import shared_file

Values = NDArray[Any]

LAYERS = ("conv1", "layer2.1.conv2", "layer3.2.conv1", "linear")


@pytest.fixture(scope="module")
def resnet20() -> State:
    return read_state(shared_file("checkpoints/resnet20-12fca82f.th"))


@pytest.fixture(scope="module")
def baseline_path(resnet20: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_safetensors(tmp_path_factory.mktemp("baseline") / "resnet20.safetensors", resnet20)


@pytest.fixture(scope="module")
def baseline(baseline_path: Path) -> Scan:
    return scan(baseline_path)


class Registry:
    """Judges versions against the trained network; what did not change is not measured again."""

    def __init__(self, folder: Path, state: State, baseline_path: Path, baseline: Scan) -> None:
        self.folder = folder
        self.state = state
        self.baseline_path = baseline_path
        self.baseline = baseline

    def judged(self, state: State, exact: bool = False) -> Judgement:
        path = write_safetensors(self.folder / "version.safetensors", state)
        version = scan(path, self.baseline_path if exact else None, self.baseline.measurements)
        return judge(examination_of(version, self.baseline), RulesSettings())

    def with_tensor(self, name: str, change: Callable[[Values], Values]) -> State:
        """The network with one tensor changed."""
        values = self.state[name]
        return {**self.state, name: change(values.copy()).astype(values.dtype)}

    def with_weights(self, change: Callable[[Values], Values]) -> State:
        """The network with every tensor of two or more dimensions changed."""
        return {name: change(values) if values.ndim > 1 else values for name, values in self.state.items()}


@pytest.fixture
def registry(tmp_path: Path, resnet20: State, baseline_path: Path, baseline: Scan) -> Registry:
    return Registry(tmp_path, resnet20, baseline_path, baseline)


def with_nan(weights: Values) -> Values:
    weights.flat[17] = np.nan
    return weights


def reinitialised(weights: Values) -> Values:
    """He initialisation, as the network's first epoch had it, at the trained layer's own scale."""
    fresh = np.random.default_rng(1).standard_normal(weights.shape)
    return np.asarray(fresh * (np.linalg.norm(weights) / np.linalg.norm(fresh)))


def with_flipped_bits(weights: Values) -> Values:
    """One weight times 2^20."""
    weights.flat[77] *= 2.0**20
    return weights


def with_flipped_top_bit(weights: Values) -> Values:
    """The top exponent bit of a typical weight: 0.05 becomes about 1.7e37."""
    bits = weights.reshape(-1).view(np.uint32)
    bits[int(np.argmin(np.abs(np.abs(weights) - 0.05)))] ^= np.uint32(1 << 30)
    return weights


def with_zero_rows(weights: Values) -> Values:
    """Ten percent of the output units lost."""
    weights[::10] = 0
    return weights


DEFECTS: dict[str, tuple[Callable[[Values], Values], str]] = {
    # defect: (what is done to the layer, the rule that must name it first)
    "NaN": (with_nan, "non_finite"),
    "zeroed": (np.zeros_like, "emptied_layer"),
    "times 10": (lambda weights: weights * 10, "scaled"),
    "times 0.1": (lambda weights: weights * 0.1, "scaled"),
    "re-initialised": (reinitialised, "replaced"),
    "flipped bit, x 2^20": (with_flipped_bits, "huge_value"),
    "flipped top exponent bit": (with_flipped_top_bit, "huge_value"),
    "10 % of the rows zeroed": (with_zero_rows, "zero_rows"),
    "signs flipped": (lambda weights: -weights, "sign_flipped"),
    "rows permuted": (lambda weights: weights[::-1], "permuted"),
}


@pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_in_one_layer_fails_the_version_and_names_that_layer(
    registry: Registry, defect: str, layer: str, exact: bool
) -> None:
    damage, rule = DEFECTS[defect]

    judgement = registry.judged(registry.with_tensor(f"{layer}.weight", damage), exact)

    assert judgement.verdict is Verdict.FAIL
    first = judgement.findings[0]
    assert (first.layer, first.rule, first.severity) == (layer, rule, Severity.CRITICAL)
    broken = {name for name, status in judgement.statuses.items() if status is LayerStatus.BROKEN}
    assert broken == {layer}
    assert judgement.context.regime is Regime.ALIGNED


@pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])
@pytest.mark.parametrize("layer", ["layer2.1.conv2", "linear"])
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_on_top_of_a_healthy_update_of_all_layers_is_found_just_as_well(
    registry: Registry, defect: str, layer: str, exact: bool
) -> None:
    damage, _ = DEFECTS[defect]
    updated = registry.with_weights(with_noise(0.05))
    name = f"{layer}.weight"

    judgement = registry.judged({**updated, name: damage(updated[name].copy()).astype(np.float32)}, exact)

    assert judgement.verdict is Verdict.FAIL
    assert judgement.findings[0].layer == layer
    assert [name for name, status in judgement.statuses.items() if status is LayerStatus.BROKEN] == [layer]


def with_noise(share: float) -> Callable[[Values], Values]:
    def change(weights: Values) -> Values:
        noise = np.random.default_rng(weights.size).standard_normal(weights.shape)
        return np.asarray(weights + share * weights.std() * noise, dtype=np.float32)

    return change


def pruned(share: float) -> Callable[[Values], Values]:
    def change(weights: Values) -> Values:
        return np.where(np.abs(weights) < np.quantile(np.abs(weights), share), 0, weights).astype(np.float32)

    return change


def int8_per_row(weights: Values) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    rows = weights.reshape(len(weights), -1)
    scale = np.abs(rows).max(axis=1, keepdims=True) / 127
    return np.round(rows / scale).astype(np.int8).reshape(weights.shape), scale.astype(np.float32)


def int8_round_trip(weights: Values) -> Values:
    stored, scale = int8_per_row(weights)
    return np.asarray(stored * scale.reshape((-1,) + (1,) * (weights.ndim - 1)), dtype=np.float32)


HEALTHY: dict[str, Callable[[Values], Values]] = {
    "bfloat16": lambda weights: weights.astype(ml_dtypes.bfloat16),
    "float16": lambda weights: weights.astype(np.float16),
    "int8 per row and back": int8_round_trip,
    "2 % noise": with_noise(0.02),
    "30 % pruned": pruned(0.3),
}


@pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])
@pytest.mark.parametrize("change", HEALTHY)
def test_what_is_done_to_healthy_networks_is_no_defect(registry: Registry, change: str, exact: bool) -> None:
    judgement = registry.judged(registry.with_weights(HEALTHY[change]), exact)

    assert judgement.verdict is Verdict.PASS, judgement.findings


def test_a_network_stored_as_int8_with_scales_is_read_and_is_no_defect(registry: Registry) -> None:
    quantised: dict[str, Values] = {}
    for name, values in registry.state.items():
        if values.ndim > 1:
            quantised[name], quantised[f"{name}_scale"] = int8_per_row(values)
        else:
            quantised[name] = values

    judgement = registry.judged(quantised, exact=True)

    assert judgement.verdict is Verdict.PASS, judgement.findings


def test_a_rescaling_that_the_batch_norm_divides_out_is_no_defect(registry: Registry) -> None:
    # The raw convolution grows twentyfold, its variance by the square: the same function.
    grown = dict(registry.with_tensor("layer1.1.conv1.weight", lambda weights: weights * 20))
    grown["layer1.1.bn1.running_mean"] = grown["layer1.1.bn1.running_mean"] * np.float32(20)
    grown["layer1.1.bn1.running_var"] = grown["layer1.1.bn1.running_var"] * np.float32(400)

    judgement = registry.judged(grown)

    assert judgement.statuses["layer1.1.conv1"] is LayerStatus.OK


def test_the_untouched_network_passes_against_itself_and_alone(registry: Registry, tmp_path: Path) -> None:
    same = registry.judged(registry.state)
    alone = judge_states(tmp_path, registry.state)

    assert (same.verdict, same.findings) == (Verdict.PASS, ())
    assert (alone.verdict, alone.findings) == (Verdict.PASS, ())
    assert any("no baseline" in spot for spot in alone.blind_spots)


def test_a_damaged_statistic_is_named_before_the_convolution_it_is_folded_into(registry: Registry) -> None:
    name = "layer2.1.bn2.running_var"

    judgement = registry.judged(registry.with_tensor(name, lambda values: values * np.nan))

    assert judgement.verdict is Verdict.FAIL
    assert (judgement.findings[0].layer, judgement.findings[0].rule) == (name, "non_finite")


def test_without_a_baseline_missing_numbers_and_empty_layers_are_still_found(
    registry: Registry, tmp_path: Path
) -> None:
    for change, rule in ((with_nan, "non_finite"), (np.zeros_like, "emptied_layer")):
        judgement = judge_states(tmp_path, registry.with_tensor("linear.weight", change))
        assert judgement.verdict is Verdict.FAIL
        assert [(finding.layer, finding.rule) for finding in judgement.findings] == [("linear", rule)]


DENSE = "checkpoint_trained_dense.pth.tar"
THINNED = "checkpoint_trained_channel_regularized_resnet20.pth.tar"
FINETUNED = "checkpoint_trained_channel_regularized_resnet20_finetuned.pth.tar"
UNTRAINED = "resnet20_cifar10_checkpoint.pth.tar"


def distiller_pair(new: str, old: str, exact: bool) -> Judgement:
    new_path, old_path = (shared_file(f"checkpoints/distiller/{name}") for name in (new, old))
    return judge(examination_of(scan(new_path, old_path if exact else None), scan(old_path)), RulesSettings())


@pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])
def test_a_real_long_fine_tune_is_comparable_and_nothing_in_it_is_critical(exact: bool) -> None:
    judgement = distiller_pair(FINETUNED, THINNED, exact)

    # Section 9 of the study: "channel -> channel_finetuned: aligned, long; critical: none".
    assert judgement.context.regime is Regime.LONG
    assert judgement.verdict in (Verdict.PASS, Verdict.WARN)
    assert LayerStatus.BROKEN not in judgement.statuses.values()


@pytest.mark.parametrize("new", [THINNED, FINETUNED])
def test_a_real_retrain_with_fewer_channels_is_a_warning_about_its_shapes(new: str) -> None:
    judgement = distiller_pair(new, DENSE, exact=False)

    # "dense -> channel_regularized: unaligned, 14 of 22 shapes changed; critical: none".
    assert judgement.context.regime in (Regime.UNALIGNED, Regime.UNALIGNED_WIDE)
    assert judgement.verdict is Verdict.WARN
    reshaped = [finding for finding in judgement.findings if finding.rule == "structure_changed"]
    assert (
        sum(
            "running" not in str(finding.layer) and "x" in str(finding.evidence["shape"])
            for finding in reshaped
        )
        == 14
    )


def test_a_network_that_was_never_trained_is_found_against_a_trained_one() -> None:
    judgement = distiller_pair(UNTRAINED, DENSE, exact=False)

    # "dense -> tests (untrained): unaligned; critical: fc (huge values)".
    assert judgement.verdict is Verdict.FAIL
    critical = [(f.layer, f.rule) for f in judgement.findings if f.severity is Severity.CRITICAL]
    assert critical == [("fc", "huge_value")]
