"""The hygiene rules on trained networks: silent on what was done to them in health, loud on what breaks them.

Networks and what is known of them: ``../shared/checkpoints/README.md``. The healthy steps (dense to channel
regularised, another training; channel regularised to fine-tuned, a long one) and the untrained file: section 9 of the
detection study in ``../shared/spec/detection.md``.
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
from layerwatch.metrics.examination import context_of
from layerwatch.metrics.findings import Finding, Severity
from layerwatch.metrics.rules import RULES
from layerwatch_testing.models import Scan, State, examination_of, read_state, scan, write_safetensors
from layerwatch_testing.shared import shared_file

Values = NDArray[Any]

HYGIENE = (
    "non_finite",
    "emptied_layer",
    "zero_tail",
    "duplicate_rows",
    "few_levels",
    "sparsity",
    "zero_rows",
    "vector_reset",
    "huge_value",
)
FILES = {
    "dense": "checkpoint_trained_dense.pth.tar",
    "channel": "checkpoint_trained_channel_regularized_resnet20.pth.tar",
    "finetuned": "checkpoint_trained_channel_regularized_resnet20_finetuned.pth.tar",
    "untrained": "resnet20_cifar10_checkpoint.pth.tar",
}


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    return {name: read_state(shared_file(f"checkpoints/distiller/{file}")) for name, file in FILES.items()}


@pytest.fixture(scope="module")
def scans(states: dict[str, State], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scan]:
    folder = tmp_path_factory.mktemp("scans")
    return {
        name: scan(write_safetensors(folder / f"{name}.safetensors", state)) for name, state in states.items()
    }


def hygiene(new: Scan, baseline: Scan | None) -> list[Finding]:
    """What the hygiene rules say, the worst first."""
    found = examination_of(new, baseline)
    settings = RulesSettings()
    context = context_of(found, settings.spectral_outlier)
    findings = [
        finding
        for rule in RULES
        if rule.name in HYGIENE and (baseline is not None or not rule.needs_baseline)
        for finding in rule.check(found, context, settings)
    ]
    return sorted(findings, key=lambda finding: -finding.severity.rank)


@pytest.mark.parametrize(
    ("before", "after"),
    [("dense", "channel"), ("channel", "finetuned"), ("dense", "finetuned"), ("channel", "dense")],
)
def test_healthy_steps_between_real_networks_are_silent(
    scans: dict[str, Scan], before: str, after: str
) -> None:
    assert hygiene(scans[after], scans[before]) == []


@pytest.mark.parametrize("name", FILES)
def test_no_network_is_reported_without_a_baseline(scans: dict[str, Scan], name: str) -> None:
    assert hygiene(scans[name], None) == []


def test_the_untrained_file_is_critical_by_its_last_layer(scans: dict[str, Scan]) -> None:
    findings = hygiene(scans["untrained"], scans["dense"])

    assert [(one.rule, one.layer) for one in findings if one.severity is Severity.CRITICAL] == [
        ("huge_value", "fc")
    ]
    assert len({one.layer for one in findings if one.rule == "vector_reset"}) > 40


def last_half_lost(weights: Values) -> Values:
    weights.reshape(-1)[-(weights.size // 2 + 5) :] = 0.0
    return weights


def rows_pasted(weights: Values) -> Values:
    weights[1] = weights[0]
    weights[3] = -weights[2]
    return weights


def two_bits(weights: Values) -> Values:
    step = np.abs(weights).max() / 2
    return np.asarray(np.clip(np.round(weights / step), -2, 1) * step)


def pruned_95(weights: Values) -> Values:
    weights[np.abs(weights) < np.quantile(np.abs(weights), 0.95)] = 0.0
    return weights


def every_tenth_row_lost(weights: Values) -> Values:
    weights[::10] = 0.0
    return weights


DEFECTS: dict[str, tuple[Callable[[Values], Values], str]] = {
    "cut off": (last_half_lost, "zero_tail"),
    "rows pasted": (rows_pasted, "duplicate_rows"),
    "two bits": (two_bits, "few_levels"),
    "pruned": (pruned_95, "sparsity"),
    "dead rows": (every_tenth_row_lost, "zero_rows"),
    "empty": (np.zeros_like, "emptied_layer"),
}


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("layer", ["layer2.0.conv1", "layer2.1.conv2", "layer3.0.conv2"])
@pytest.mark.parametrize(("before", "after"), [("channel", "finetuned"), ("dense", "dense")])
def test_a_defect_in_one_layer_is_critical_there_and_nowhere_else(
    tmp_path: Path,
    states: dict[str, State],
    scans: dict[str, Scan],
    defect: str,
    layer: str,
    before: str,
    after: str,
) -> None:
    damage, rule = DEFECTS[defect]
    state = dict(states[after])
    weights = state[f"{layer}.weight"].copy()
    state[f"{layer}.weight"] = damage(weights).astype(weights.dtype)

    kept = scans[after].measurements
    findings = hygiene(scan(write_safetensors(tmp_path / "new.safetensors", state), kept=kept), scans[before])

    # Weights that are not there explain no growth of the statistics behind them: warnings about these are fair.
    assert {one.layer for one in findings if one.severity is Severity.CRITICAL} == {layer}
    assert (findings[0].rule, findings[0].severity) == (rule, Severity.CRITICAL)


@pytest.mark.parametrize(
    "tensor", ["layer2.1.bn2.weight", "layer2.1.bn2.running_var", "layer2.1.bn2.running_mean"]
)
def test_a_vector_that_was_reset_is_named(
    tmp_path: Path, states: dict[str, State], scans: dict[str, Scan], tensor: str
) -> None:
    fresh = np.zeros if tensor.endswith("mean") else np.ones
    state = {**states["finetuned"], tensor: fresh(32, dtype=np.float32)}

    new = scan(write_safetensors(tmp_path / "new.safetensors", state), kept=scans["finetuned"].measurements)
    critical = [one for one in hygiene(new, scans["channel"]) if one.severity is Severity.CRITICAL]

    assert [(one.rule, one.layer) for one in critical] == [("vector_reset", tensor)]


def rounded_to_int(bits: int, weights: Values) -> Values:
    steps = 2 ** (bits - 1) - 1
    flat = weights.reshape(len(weights), -1)
    scale = np.abs(flat).max(axis=1, keepdims=True) / steps
    return np.asarray(np.round(flat / scale) * scale).reshape(weights.shape)


def pruned(share: float, weights: Values) -> Values:
    weights[np.abs(weights) < np.quantile(np.abs(weights), share)] = 0.0
    return weights


HEALTHY: dict[str, Callable[[Values], Values]] = {
    "bfloat16": lambda weights: weights.astype(ml_dtypes.bfloat16),
    "fp8": lambda weights: weights.astype(ml_dtypes.float8_e4m3fn),
    "int8": lambda weights: rounded_to_int(8, weights),
    "int4": lambda weights: rounded_to_int(4, weights),
    "pruned 30 %": lambda weights: pruned(0.3, weights),
    "pruned 50 %": lambda weights: pruned(0.5, weights),
}


@pytest.mark.parametrize("change", HEALTHY)
@pytest.mark.parametrize("name", ["dense", "finetuned"])
def test_casts_quantisation_and_pruning_of_all_layers_raise_nothing_critical(
    tmp_path: Path, states: dict[str, State], scans: dict[str, Scan], name: str, change: str
) -> None:
    state = {
        tensor: HEALTHY[change](values.copy()).astype(values.dtype) if values.ndim > 1 else values
        for tensor, values in states[name].items()
    }

    findings = hygiene(scan(write_safetensors(tmp_path / "new.safetensors", state)), scans[name])

    assert [one for one in findings if one.severity is Severity.CRITICAL] == []


@pytest.mark.parametrize("share", [0.8, 0.95])
def test_pruning_the_whole_model_hard_is_a_warning_about_the_version(
    tmp_path: Path, states: dict[str, State], scans: dict[str, Scan], share: float
) -> None:
    state = {
        tensor: pruned(share, values.copy()) if values.ndim > 1 else values
        for tensor, values in states["dense"].items()
    }

    findings = hygiene(scan(write_safetensors(tmp_path / "new.safetensors", state)), scans["dense"])

    assert {one.severity for one in findings} == {Severity.WARNING}
    assert ("sparsity", None) in {(one.rule, one.layer) for one in findings}


def test_the_order_of_the_tensors_in_the_file_does_not_matter(
    tmp_path: Path, states: dict[str, State], scans: dict[str, Scan]
) -> None:
    state = {name: values.copy() for name, values in states["finetuned"].items()}
    for layer, (damage, _) in zip(
        (
            "layer1.0.conv1",
            "layer2.0.conv1",
            "layer2.1.conv2",
            "layer2.2.conv1",
            "layer3.0.conv2",
            "layer3.1.conv2",
        ),
        DEFECTS.values(),
        strict=True,
    ):
        state[f"{layer}.weight"] = damage(state[f"{layer}.weight"]).astype(np.float32)
    names = np.random.default_rng(3).permutation(list(state))

    straight = hygiene(scan(write_safetensors(tmp_path / "new.safetensors", state)), scans["channel"])
    shuffled_state = {str(name): state[str(name)] for name in names}
    shuffled = hygiene(
        scan(write_safetensors(tmp_path / "shuffled.safetensors", shuffled_state)), scans["channel"]
    )

    assert len(straight) >= len(DEFECTS)
    assert sorted(map(repr, shuffled)) == sorted(map(repr, straight))
