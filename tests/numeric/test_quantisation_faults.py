"""Faults of quantised storage in one layer of a quantised version fail it, each with its own explanation.

The faults are those of the field report (``../shared/reference/field.md``, section 7.5), in a model of matrices like a
transformer's, read back to floating point.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.metrics.findings import LayerStatus, Severity, Verdict
from layerwatch_testing.models import judge_states

Values = NDArray[Any]
Read = Callable[[Values, int], Values]

DAMAGED = "blocks.1.up"


def matrix(seed: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Heavy-tailed spectrum and elements, rows and columns of unequal norm."""
    generator = np.random.default_rng(seed)
    rank = min(shape)
    left, right = (np.linalg.qr(generator.standard_normal((side, rank)))[0] for side in shape)
    values = (left * np.arange(1, rank + 1) ** -0.4) @ right.T
    values += 0.5 * values.std() * generator.standard_t(6, shape)
    values *= np.exp(0.3 * generator.standard_normal((shape[0], 1)))
    values *= np.exp(0.2 * generator.standard_normal((1, shape[1])))
    return np.asarray(0.02 * values / values.std(), dtype=np.float32)


@pytest.fixture(scope="module")
def parent() -> dict[str, Values]:
    shapes = {"q": (256, 256), "o": (256, 256), "up": (512, 256), "down": (256, 512)}
    return {
        f"blocks.{block}.{name}.weight": matrix(10 * block + place, shape)
        for block in range(2)
        for place, (name, shape) in enumerate(shapes.items())
    }


def read_back(bits: int = 4, off: int = 0, scales: Callable[[Values], Values] = lambda table: table) -> Read:
    """Codes with a zero point, in groups along the inputs; read with the zero point off, or with other scales."""

    def read(weights: Values, group: int) -> Values:
        grouped = weights.astype(np.float64).reshape(len(weights), -1, group)
        low, high = grouped.min(axis=2, keepdims=True), grouped.max(axis=2, keepdims=True)
        scale = (high - low) / (2**bits - 1)
        zero = np.round(-low / scale)
        codes = np.clip(np.round(grouped / scale) + zero, 0, 2**bits - 1)
        back = (codes - zero - off) * scales(scale[:, :, 0])[:, :, None]
        return np.asarray(back, dtype=np.float32).reshape(weights.shape)

    return read


HEALTHY = read_back()


def in_packed_order(weights: Values, group: int) -> Values:
    order = np.arange(len(weights)).reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(-1)
    return HEALTHY(weights, group)[order]


def in_activation_order(weights: Values, group: int) -> Values:
    return HEALTHY(weights, group)[:, np.random.default_rng(4).permutation(weights.shape[1])]


def with_dead_rows(weights: Values, group: int) -> Values:
    values = HEALTHY(weights, group)
    values[::8] = 0
    return values


def with_a_giant(weights: Values, group: int) -> Values:
    values = HEALTHY(weights, group)
    values[5, 7] = 2000 * values.std()
    return values


FAULTS: dict[str, tuple[Read, str]] = {
    "zero point one too large": (read_back(off=1), "zero_point"),
    "zero point one too small": (read_back(off=-1), "zero_point"),
    "every second scale used twice": (
        read_back(scales=lambda table: np.repeat(table[:, ::2], 2, axis=1)[:, : table.shape[1]]),
        "group_scales",
    ),
    "scales shifted by a row": (read_back(scales=lambda table: np.roll(table, 1, axis=0)), "scales_shifted"),
    "packed order": (in_packed_order, "order_not_undone"),
    "activation order": (in_activation_order, "permuted"),
    "dead rows": (with_dead_rows, "zero_rows"),
    "a giant": (with_a_giant, "huge_value"),
}


@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_the_version_with_its_own_explanation(
    tmp_path: Path, parent: dict[str, Values], fault: str, group: int
) -> None:
    damage, rule = FAULTS[fault]
    version = {
        name: (damage if name == f"{DAMAGED}.weight" else HEALTHY)(values, group)
        for name, values in parent.items()
    }

    judgement = judge_states(tmp_path, version, parent, exact=True)

    assert judgement.verdict is Verdict.FAIL
    first = judgement.findings[0]
    assert (first.layer, first.rule, first.severity) == (DAMAGED, rule, Severity.CRITICAL)
    assert [name for name, status in judgement.statuses.items() if status is LayerStatus.BROKEN] == [DAMAGED]


WHOLE = ("zero point one too large", "scales shifted by a row", "packed order")


@pytest.mark.parametrize("fault", WHOLE)
def test_a_fault_in_all_layers_is_named_in_each(
    tmp_path: Path, parent: dict[str, Values], fault: str
) -> None:
    damage, rule = FAULTS[fault]

    judgement = judge_states(
        tmp_path, {name: damage(values, 32) for name, values in parent.items()}, parent, exact=True
    )

    assert judgement.verdict is Verdict.FAIL
    named = {finding.layer for finding in judgement.findings if finding.rule == rule}
    assert {f"{layer}.weight" for layer in named} == set(parent)


def rounded(bits: int, group: int) -> Callable[[Values], Values]:
    return lambda weights: read_back(bits)(weights, group)


ROUNDED: dict[str, Callable[[Values], Values]] = {
    **{f"int{bits}, groups of {group}": rounded(bits, group) for bits in (8, 4) for group in (32, 128)},
    "float8": lambda weights: weights.astype(ml_dtypes.float8_e4m3fn).astype(np.float32),
    "bfloat16": lambda weights: weights.astype(ml_dtypes.bfloat16),
}


@pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])
@pytest.mark.parametrize("rounding", ROUNDED)
def test_what_was_rounded_well_raises_nothing_critical(
    tmp_path: Path, parent: dict[str, Values], rounding: str, exact: bool
) -> None:
    judgement = judge_states(
        tmp_path, {name: ROUNDED[rounding](values) for name, values in parent.items()}, parent, exact
    )

    assert judgement.verdict in (Verdict.PASS, Verdict.WARN), judgement.findings
