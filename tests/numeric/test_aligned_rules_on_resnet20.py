"""Each defect of one layer of a trained network is named by its own rule, from both weights and from sketches.

The network and its origin: ``../shared/checkpoints/README.md``. Defects and healthy changes are those of the detection
study (``../shared/spec/detection.md``, sections 6 and 10) and, for quantised storage, of the field report
(``../shared/reference/field.md``, section 7.5).
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
from layerwatch.metrics.findings import LayerStatus, Severity, Verdict
from layerwatch.metrics.judge import Judgement, judge
from layerwatch_testing.models import Scan, State, examination_of, read_state, scan, write_safetensors
from layerwatch_testing.shared import shared_file

Values = NDArray[Any]
Damage = Callable[[Values], Values]

LAYERS = ("layer1.1.conv2", "layer2.1.conv2", "layer3.2.conv1", "linear")


class Version:
    """Judges versions against the trained network; what did not change is not measured again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = read_state(shared_file("checkpoints/resnet20-12fca82f.th"))
        self.path = write_safetensors(folder / "baseline.safetensors", self.state)
        self.baseline: Scan = scan(self.path)

    def judged(self, state: State, exact: bool) -> Judgement:
        path = write_safetensors(self.folder / "version.safetensors", state)
        found = scan(path, self.path if exact else None, self.baseline.measurements)
        return judge(examination_of(found, self.baseline), RulesSettings())


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return Version(tmp_path_factory.mktemp("resnet20"))


def generator() -> np.random.Generator:
    return np.random.default_rng(11)


def rows_permuted(weights: Values) -> Values:
    return weights[generator().permutation(len(weights))]


def quarter_of_the_rows_permuted(weights: Values) -> Values:
    chosen = generator().choice(len(weights), max(4, len(weights) // 4), replace=False)
    weights[chosen] = weights[np.roll(chosen, 1)]
    return weights


def columns_permuted(weights: Values) -> Values:
    return weights[:, generator().permutation(weights.shape[1])]


def transposed(weights: Values) -> Values:
    return weights.swapaxes(0, 1)


def some_signs_flipped(weights: Values) -> Values:
    weights[::3] *= -1
    return weights


def reinitialised(weights: Values) -> Values:
    fresh = generator().standard_normal(weights.shape)
    return np.asarray(fresh * (np.linalg.norm(weights) / np.linalg.norm(fresh)))


def one_row_scaled(weights: Values) -> Values:
    weights[1] *= 5
    return weights


def zero_point_off_by_one(weights: Values) -> Values:
    """4 bits per row, read with a zero point that is one too large."""
    rows = weights.reshape(len(weights), -1)
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    scale = (high - low) / 15
    zero = np.round(-low / scale)
    codes = np.clip(np.round(rows / scale) + zero, 0, 15)
    return np.asarray((codes - zero - 1) * scale).reshape(weights.shape)


def blocks_of_rows_in_packed_order(weights: Values) -> Values:
    """The order of AWQ's nibbles."""
    order = np.arange(len(weights)).reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]]
    return weights[order.reshape(-1)]


SQUARE = LAYERS[:3]
DEFECTS: dict[str, tuple[Damage, tuple[str, ...], str, str]] = {
    # defect: (what is done, to which layers, the rule that names it from both weights, from sketches)
    "rows permuted": (rows_permuted, LAYERS, "permuted", "permuted"),
    "a quarter of the rows permuted": (quarter_of_the_rows_permuted, LAYERS, "permuted", "permuted"),
    "columns permuted": (columns_permuted, LAYERS, "permuted", "permuted"),
    "transposed": (transposed, SQUARE, "transposed", "transposed"),
    "all signs flipped": (np.negative, LAYERS, "sign_flipped", "sign_flipped"),
    "a third of the signs flipped": (some_signs_flipped, LAYERS, "sign_flipped", "sign_flipped"),
    "re-initialised": (reinitialised, LAYERS, "replaced", "replaced"),
    "times 10": (lambda weights: weights * 10, LAYERS, "scaled", "scaled"),
    "packed order": (blocks_of_rows_in_packed_order, SQUARE, "order_not_undone", "permuted"),
    "zero point": (zero_point_off_by_one, LAYERS[2:3], "zero_point", "relative_change"),
}


@pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])
@pytest.mark.parametrize(
    ("defect", "layer"),
    [(defect, layer) for defect, (_, layers, _, _) in DEFECTS.items() for layer in layers],
)
@pytest.mark.parametrize("update", [0.0, 0.05], ids=["alone", "on an update"])
def test_a_defect_is_named_by_its_own_rule(
    version: Version, defect: str, layer: str, exact: bool, update: float
) -> None:
    damage, _, from_weights, from_sketches = DEFECTS[defect]
    state = {
        name: with_noise(update)(values) if values.ndim > 1 else values
        for name, values in version.state.items()
    }
    name = f"{layer}.weight"

    judgement = version.judged({**state, name: damage(state[name].copy()).astype(np.float32)}, exact)

    first = judgement.findings[0]
    assert (first.layer, first.severity) == (layer, Severity.CRITICAL)
    assert first.rule == (from_weights if exact else from_sketches), first.message
    assert [one for one, status in judgement.statuses.items() if status is LayerStatus.BROKEN] == [layer]


@pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])
def test_swapped_layers_name_each_other(version: Version, exact: bool) -> None:
    first, second = "layer2.1.conv1", "layer2.2.conv2"
    names = [f"{layer}.weight" for layer in (first, second)]
    swapped = {names[0]: version.state[names[1]], names[1]: version.state[names[0]]}

    judgement = version.judged({**version.state, **swapped}, exact)

    named = {
        finding.layer: finding.evidence["resembles"]
        for finding in judgement.findings
        if finding.rule == "swapped"
    }
    assert named == {first: second, second: first}
    assert judgement.findings[0].rule == "swapped"


@pytest.mark.parametrize(
    ("damage", "rule"),
    [(one_row_scaled, "row_scales"), (lambda weights: half_replaced(weights), "rows_replaced")],
)
def test_damaged_rows_are_named_where_both_weights_are_at_hand(
    version: Version, damage: Damage, rule: str
) -> None:
    name = "layer3.2.conv1.weight"
    state = {**version.state, name: damage(version.state[name].copy()).astype(np.float32)}

    judgement = version.judged(state, exact=True)

    assert (judgement.findings[0].layer, judgement.findings[0].rule) == ("layer3.2.conv1", rule)


def half_replaced(weights: Values) -> Values:
    weights[::4] = reinitialised(weights)[::4]
    return weights


def with_noise(share: float) -> Damage:
    def change(weights: Values) -> Values:
        noise = np.random.default_rng(weights.size).standard_normal(weights.shape)
        return np.asarray(weights + share * weights.std() * noise, dtype=np.float32)

    return change


def rounded(bits: int, group: int | None) -> Damage:
    """Symmetric integers and back, in groups along the inputs, or by row."""

    def change(weights: Values) -> Values:
        rows = weights.reshape(len(weights), -1)
        width = group or rows.shape[1]
        padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % width))).reshape(len(rows), -1, width)
        scale = np.maximum(np.abs(padded).max(axis=2, keepdims=True), 1e-30) / (2 ** (bits - 1) - 1)
        back = (np.round(padded / scale) * scale).reshape(len(rows), -1)[:, : rows.shape[1]]
        return np.asarray(back.reshape(weights.shape), dtype=np.float32)

    return change


HEALTHY: dict[str, Damage] = {
    "int8": rounded(8, None),
    "int4 in groups of 32": rounded(4, 32),
    "float8": lambda weights: weights.astype(ml_dtypes.float8_e4m3fn).astype(np.float32),
    "bfloat16": lambda weights: weights.astype(ml_dtypes.bfloat16),
    "2 % noise": with_noise(0.02),
    "30 % pruned": lambda weights: np.where(
        np.abs(weights) < np.quantile(np.abs(weights), 0.3), 0, weights
    ).astype(np.float32),
}


@pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])
@pytest.mark.parametrize("change", HEALTHY)
def test_healthy_changes_of_all_layers_raise_nothing_critical(
    version: Version, change: str, exact: bool
) -> None:
    state = {
        name: HEALTHY[change](values) if values.ndim > 1 else values for name, values in version.state.items()
    }

    judgement = version.judged(state, exact)

    assert judgement.verdict in (Verdict.PASS, Verdict.WARN), judgement.findings
