"""Rule structured_rounding: a quantisation error that is no rounding.

Numbers: the trained mixture of ``tests/acceptance/test_packed_transformer.py``, layers of 64 x 64 in int4.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.examination import Examination, ExaminedLayer
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.measurement import LayerKind
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rowchange import compare_elements
from layerwatch_testing.examinations import (
    aligned,
    change,
    examination,
    findings_of,
    layer,
    measurement,
    row_change,
    settings,
    vector,
)

RULE = "structured_rounding"


def rounded(name: str, structure: float | None, noise_ratio: float | None = 1.0) -> ExaminedLayer:
    rows = row_change(noise_ratio=noise_ratio, structure=structure)
    return layer(name, change=change(aligned=aligned(0.09, 0.996, rows=rows)))


def version(odd: float | None, others: float = 0.78, noise_ratio: float = 1.0) -> Examination:
    healthy = (rounded(f"l{number}", others, noise_ratio) for number in range(6))
    return examination(*healthy, rounded("odd", odd, noise_ratio), relation=Relation.QUANTIZED)


@pytest.mark.parametrize(
    ("structure", "severity"),
    # Rounding to the nearest; an adapter of 5 % of the norm merged once too often; one of 10 %.
    [(0.87, None), (0.96, Severity.WARNING), (1.16, Severity.CRITICAL)],
)
def test_directions_that_rounding_has_not_are_told(structure: float, severity: Severity | None) -> None:
    findings = findings_of(RULE, version(structure))

    assert [(one.layer, one.severity) for one in findings] == ([("odd", severity)] if severity else [])


@pytest.mark.parametrize(("structure", "fires"), [(1.11, False), (1.5, True)])
def test_errors_that_were_fed_back_have_structure_and_only_warn(structure: float, fires: bool) -> None:
    findings = findings_of(RULE, version(structure, others=0.85, noise_ratio=1.34))

    assert [(one.layer, one.severity) for one in findings] == [("odd", Severity.WARNING)] * fires


def test_the_message_tells_the_number_and_the_others() -> None:
    (finding,) = findings_of(RULE, version(1.17))

    assert "1.17 of its largest row and column norms together, 1.5 times as much" in finding.message


def test_another_relation_an_estimate_or_few_layers_say_nothing() -> None:
    finetuned = examination(
        *(rounded(f"l{n}", 0.78) for n in range(6)), rounded("odd", 2.0), relation=Relation.FINETUNED
    )
    few = examination(rounded("a", 0.78), rounded("odd", 2.0), relation=Relation.QUANTIZED)

    assert findings_of(RULE, finetuned) == []
    assert findings_of(RULE, version(None)) == []
    assert findings_of(RULE, few) == []


@pytest.mark.parametrize(("norm", "fires"), [(8.0, True), (8.2, False)])
def test_a_version_that_was_trained_and_then_stored_as_integers_is_left_alone(
    norm: float, fires: bool
) -> None:
    healthy = [replace(rounded(f"l{number}", 0.78), dtype="I8") for number in range(6)]
    biases = [
        vector(
            f"l{number}.bias",
            measurement=measurement(kind=LayerKind.BIAS, shape=(64,), norm=norm, digest="new"),
            baseline=measurement(kind=LayerKind.BIAS, shape=(64,), norm=8.0, digest="old"),
        )
        for number in range(6)
    ]
    odd = replace(rounded("odd", 1.2), dtype="I8")

    assert bool(findings_of(RULE, examination(*healthy, odd, *biases))) is fires


def test_the_limit_is_a_setting() -> None:
    limits = settings(RULE, times_median=3.0, critical_times_median=3.0)

    assert findings_of(RULE, version(1.3), limits) == []


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(16, 96),
    columns=st.integers(16, 96),
    spread=st.floats(0.0, 1.5),
)
def test_independent_errors_stay_below_the_norms_of_their_rows_and_columns(
    seed: int, rows: int, columns: int, spread: float
) -> None:
    """However unequal rows and columns are: Bandeira and van Handel, Annals of Probability 44, 2016, theorem 1.1."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, columns)).astype(np.float32)
    sizes = np.exp(spread * random.standard_normal((rows, 1))) * np.exp(
        spread * random.standard_normal(columns)
    )
    error = 0.05 * sizes * random.uniform(-1, 1, (rows, columns))

    found = compare_elements(weight + error.astype(np.float32), weight, None, None)

    assert found is not None
    assert found.rows.structure is not None
    exact = np.linalg.norm(error, 2) / (
        np.linalg.norm(error, axis=1).max() + np.linalg.norm(error, axis=0).max()
    )
    assert found.rows.structure == pytest.approx(exact, rel=0.05)
    assert found.rows.structure < 1.05


def test_one_direction_over_all_rows_has_as_much_as_there_can_be() -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((64, 64)).astype(np.float32)
    change = np.outer(np.sign(random.standard_normal(64)), np.sign(random.standard_normal(64))) / 64

    found = compare_elements(weight + change.astype(np.float32), weight, None, None)

    # A matrix of signs has the norm 64 and rows and columns of norm 8.
    assert found is not None
    assert found.rows.structure == pytest.approx(64 / 16, rel=1e-3)
