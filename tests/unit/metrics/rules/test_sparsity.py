"""Rule sparsity: one layer lost most of its weights, or the whole model was pruned."""

from __future__ import annotations

import pytest

from layerwatch.metrics.examination import ExaminedLayer
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.relation import Relation
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    examination,
    findings_of,
    layer,
    measurement,
    settings,
)

RULE = "sparsity"


def pruned(
    share: float, before: float = 0.0, name: str = "fc", rows: int = 0, columns: int = 0, cosine: float = 0.9
) -> ExaminedLayer:
    """A 64 x 64 layer with this share of zeros, and so many rows and columns that are zero throughout."""
    return layer(
        name,
        measurement=measurement(zero_share=share),
        baseline=measurement(zero_share=before),
        change=change(
            aligned=aligned(0.3, cosine),
            norm_ratio=3.0 if cosine == 0.0 else 1.0,
            zero_rows=tuple(range(rows)),
            zero_columns=tuple(range(columns)),
        ),
    )


@pytest.mark.parametrize(
    ("share", "before", "fires"), [(0.75, 0.0, False), (0.76, 0.0, True), (0.95, 0.3, False)]
)
def test_a_rise_by_more_than_three_quarters_is_critical(share: float, before: float, fires: bool) -> None:
    findings = findings_of(RULE, among_healthy(pruned(share, before)))

    assert [(finding.layer, finding.severity) for finding in findings] == [("fc", Severity.CRITICAL)] * fires


def test_the_message_tells_what_the_others_did() -> None:
    (finding,) = findings_of(RULE, among_healthy(pruned(0.9)))

    assert "90.0% of the weights are exactly zero, in the baseline 0.0%" in finding.message
    assert "the other layers rose by 0.0%" in finding.message
    assert finding.strength == pytest.approx(1.2)


def test_a_pruned_model_gives_one_warning_for_the_version() -> None:
    version = examination(*(pruned(share, name=f"fc{share}") for share in (0.78, 0.8, 0.9, 0.95, 0.5)))

    (finding,) = findings_of(RULE, version)

    assert (finding.layer, finding.severity) == (None, Severity.WARNING)
    assert "in 4 of 5 layers" in finding.message


def test_a_model_that_is_declared_as_pruned_gives_information() -> None:
    layers = [pruned(0.9, name=f"fc{number}") for number in range(5)]

    (finding,) = findings_of(RULE, examination(*layers, relation=Relation.PRUNED))

    assert finding.severity is Severity.INFO


def test_one_layer_out_of_line_with_a_light_pruning_is_critical() -> None:
    others = [pruned(0.3, name=f"fc{number}") for number in range(5)]

    (finding,) = findings_of(RULE, examination(*others, pruned(0.95)))

    assert (finding.layer, finding.severity) == ("fc", Severity.CRITICAL)


def test_rows_and_columns_that_are_zero_throughout_are_left_to_zero_rows() -> None:
    # 52 dead rows of 64 are 81 % of the weights; of what is left nothing is zero.
    assert findings_of(RULE, among_healthy(pruned(52 / 64, rows=52))) == []
    # A sparse layer that lost a few columns by chance is sparse all the same.
    assert len(findings_of(RULE, among_healthy(pruned(0.95, columns=10)))) == 1


def test_an_empty_layer_is_left_to_its_own_rule() -> None:
    empty = layer("fc", measurement=measurement(max_abs=0.0, zero_share=1.0))

    assert findings_of(RULE, among_healthy(empty)) == []


@pytest.mark.parametrize(("others_lost", "severity"), [(0.0, Severity.CRITICAL), (0.1, Severity.WARNING)])
def test_a_retrain_with_shifted_spectra_gives_a_warning_where_others_lost_weights_too(
    others_lost: float, severity: Severity
) -> None:
    others = [pruned(others_lost, name=f"other{number}", cosine=0.0) for number in range(4)]

    (finding,) = findings_of(RULE, examination(*others, pruned(0.9, cosine=0.0)))

    assert finding.severity is severity


def test_the_limit_comes_from_the_settings() -> None:
    assert findings_of(RULE, among_healthy(pruned(0.8)), settings(RULE, rise=0.9)) == []
    assert len(findings_of(RULE, among_healthy(pruned(0.5)), settings(RULE, rise=0.4))) == 1
