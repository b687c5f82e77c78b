"""Rules swapped, transposed, sign_flipped, order_not_undone, permuted, replaced: one layer gets one answer."""

from __future__ import annotations

from typing import Any

import pytest

from layerwatch.metrics.change import Method
from layerwatch.metrics.examination import Examination, ExaminedLayer, Resemblance
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.rowmatching import Axis
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    examination,
    findings_of,
    layer,
    measurement,
    new_layer,
    outline,
    reordering,
    row_change,
    settings,
)

RULES = ("swapped", "transposed", "sign_flipped", "order_not_undone", "permuted", "replaced")


def answers(found: Examination) -> list[str]:
    """Rules that fire on any layer, at most one per layer."""
    return [rule for rule in RULES for _ in findings_of(rule, found)]


def exact(cosine: float = 0.0, **rows: Any) -> ExaminedLayer:
    return layer("fc", change=change(aligned=aligned(1.4, cosine, rows=row_change(low_rows=64, **rows))))


def estimated(cosine: float, relative: float = 1.4, largest: float = 0.5, **kept: Any) -> ExaminedLayer:
    sketched = aligned(relative, cosine, method=Method.SKETCH, error=0.02)
    return layer(
        "fc",
        measurement=measurement(max_abs=largest),
        change=change(aligned=sketched, outline=outline(**kept)),
    )


def swapped(cosine: float) -> ExaminedLayer:
    found = change(aligned=aligned(1.4, 0.0, rows=row_change(low_rows=64)))
    return layer("fc", change=found, resembles=Resemblance("other", cosine))


MOVED = {"rows": 0.4, "columns": 0.3}

CASES: dict[str, tuple[ExaminedLayer, str | None]] = {
    "itself": (layer("fc", change=change(aligned=aligned(rows=row_change()))), None),
    "another layer": (swapped(0.9), "swapped"),
    "hardly another layer": (swapped(0.7), "replaced"),
    "transposed": (exact(transposed_cosine=0.97), "transposed"),
    "hardly transposed": (exact(transposed_cosine=0.4), "replaced"),
    "the opposite": (exact(-0.98, flipped_rows=64), "sign_flipped"),
    "rows flipped": (exact(0.4, flipped_rows=40), "sign_flipped"),
    "a few rows flipped by chance": (exact(0.0, flipped_rows=2), "replaced"),
    "rows elsewhere": (exact(reordering=reordering()), "permuted"),
    "columns elsewhere": (exact(reordering=reordering(axis=Axis.COLUMNS)), "permuted"),
    "one row elsewhere": (exact(reordering=reordering(matched=1)), "replaced"),
    "few rows elsewhere": (exact(reordering=reordering(matched=20)), "replaced"),
    "rows elsewhere in runs of eight": (exact(reordering=reordering(block=8)), "order_not_undone"),
    "three rows elsewhere in one run": (
        exact(0.9, reordering=reordering(block=8, moved=3, examined=3, matched=3)),
        "permuted",
    ),
    "nothing in common": (exact(0.1), "replaced"),
    "something in common": (exact(0.35), None),
    "estimated: norms in place": (estimated(0.4), "sign_flipped"),
    "estimated: the opposite": (estimated(-0.9, 1.9), "sign_flipped"),
    "estimated: norms elsewhere": (estimated(0.0, **MOVED), "permuted"),
    "estimated: columns elsewhere": (estimated(0.0, columns=0.3), "permuted"),
    "estimated: norms exchanged": (
        estimated(0.0, **MOVED, sorted_rows=0.2, sorted_columns=0.2, exchanged=0.001),
        "transposed",
    ),
    "estimated: other norms": (estimated(0.0, **MOVED, sorted_rows=0.2, sorted_columns=0.2), "replaced"),
    "estimated: another spectrum": (estimated(0.0, **MOVED, spectrum=0.2), "replaced"),
    "estimated: another largest weight": (estimated(0.0, **MOVED, largest=0.6), "replaced"),
    "estimated: moved little": (estimated(0.95, 0.3, **MOVED), None),
    "estimated: folded, raw rows elsewhere": (
        estimated(0.0, **MOVED, sorted_rows=0.3, sorted_columns=0.2, folded=True, concentrations=0.0),
        "permuted",
    ),
    "estimated: folded, raw norms exchanged": (
        estimated(
            0.0,
            **MOVED,
            sorted_rows=0.3,
            sorted_columns=0.2,
            folded=True,
            concentrations=0.2,
            exchanged_concentrations=0.0,
        ),
        "transposed",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_layer_gets_the_most_specific_answer_and_no_other(case: str) -> None:
    damaged, rule = CASES[case]

    assert answers(among_healthy(damaged)) == ([rule] if rule else [])


@pytest.mark.parametrize("rule", RULES)
def test_severity_comes_from_the_settings_and_the_evidence_stands_beside_its_limit(rule: str) -> None:
    damaged = next(found for found, answer in CASES.values() if answer == rule)

    (finding,) = findings_of(rule, among_healthy(damaged), settings(rule, severity="info"))

    assert (finding.severity, finding.layer) == (Severity.INFO, "fc")
    assert "limit" in finding.evidence
    assert finding.strength >= 1.0


def test_the_message_names_the_other_layer() -> None:
    (finding,) = findings_of("swapped", among_healthy(swapped(0.93)))

    assert "the baseline's other (cosine 0.93" in finding.message


def test_a_permutation_of_columns_hints_at_an_activation_order() -> None:
    rows, columns = (
        findings_of("permuted", among_healthy(exact(reordering=reordering(axis=axis))))[0] for axis in Axis
    )

    assert "g_idx" not in rows.message
    assert "g_idx" in columns.message


@pytest.mark.parametrize("case", CASES)
def test_after_a_retrain_only_an_order_of_packing_is_told(case: str) -> None:
    damaged, rule = CASES[case]
    others = [layer(f"fc{number}", change=change(aligned=aligned(1.4, 0.0))) for number in range(4)]

    found = answers(examination(*others, damaged))

    assert found == (["order_not_undone"] if rule == "order_not_undone" else [])


def test_without_a_baseline_nothing_is_said() -> None:
    assert answers(examination(new_layer("fc"), has_baseline=False)) == []


def test_a_layer_is_replaced_only_while_the_others_are_themselves() -> None:
    others = [layer(f"fc{number}", change=change(aligned=aligned(0.8, 0.55))) for number in range(4)]

    assert answers(examination(*others, exact(0.1))) == []
    assert findings_of("replaced", examination(*others, exact(0.1)), settings("replaced", median_cosine=0.5))


@pytest.mark.parametrize(
    ("case", "rule", "values"),
    [
        ("hardly another layer", "swapped", {"cosine": 0.6}),
        ("hardly transposed", "transposed", {"cosine": 0.3}),
        ("few rows elsewhere", "permuted", {"share": 0.2}),
        ("three rows elsewhere in one run", "order_not_undone", {"least": 3}),
        ("something in common", "replaced", {"cosine": 0.4}),
    ],
)
def test_limits_come_from_the_settings(case: str, rule: str, values: dict[str, Any]) -> None:
    version = among_healthy(CASES[case][0])

    assert findings_of(rule, version) == []
    assert len(findings_of(rule, version, settings(rule, **values))) == 1
