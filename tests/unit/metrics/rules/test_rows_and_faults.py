"""Rules that read what both weights tell: rows_replaced, row_scales, spectral_change and the faults of storage."""

from __future__ import annotations

from typing import Any

import pytest

from layerwatch.metrics.change import Change, Method
from layerwatch.metrics.examination import Examination, ExaminedLayer
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.rowmatching import Axis
from layerwatch.metrics.storagefaults import StorageFaultKind
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    examination,
    findings_of,
    layer,
    row_change,
    settings,
    storage_fault,
)

FAULTS = {
    "zero_point": StorageFaultKind.ZERO_POINT,
    "scales_shifted": StorageFaultKind.SHIFTED_SCALES,
    "group_scales": StorageFaultKind.GROUP_SCALES,
}


def with_rows(relative: float = 0.05, **rows: Any) -> Change:
    return change(aligned=aligned(relative, rows=row_change(**rows)))


def several(count: int, **rows: Any) -> list[ExaminedLayer]:
    return [layer(f"other{number}", change=with_rows(**rows)) for number in range(count)]


def version(*others: ExaminedLayer, **rows: Any) -> Examination:
    return examination(*(others or several(4)), layer("fc", change=with_rows(**rows)))


CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("rows_replaced", {"low_rows": 1, "live_rows": 64}, False),
    ("rows_replaced", {"low_rows": 2, "live_rows": 64}, True),
    ("rows_replaced", {"low_rows": 0, "live_rows": 0}, False),
    ("row_scales", {"row_norm_ratio": 3.1}, False),
    ("row_scales", {"row_norm_ratio": 3.3}, True),
    ("row_scales", {"row_norm_ratio": None, "rescaled_row": None}, False),
    ("spectral_change", {"spectral_change": 0.44}, False),
    ("spectral_change", {"spectral_change": 0.46}, True),
    ("spectral_change", {"spectral_change": None}, False),
]


@pytest.mark.parametrize(("rule", "rows", "fires"), CASES)
def test_a_number_beyond_its_limit_fires(rule: str, rows: dict[str, Any], fires: bool) -> None:
    findings = findings_of(rule, version(**{"low_rows": 0, **rows}))

    # One of 64 rows is 1.6 %, two are 3.1 %.
    assert [(one.layer, one.severity) for one in findings] == [("fc", Severity.CRITICAL)] * fires


@pytest.mark.parametrize(("rule", "rows", "fires"), CASES)
def test_without_the_weights_nothing_is_said(rule: str, rows: dict[str, Any], fires: bool) -> None:
    assert findings_of(rule, among_healthy()) == []


@pytest.mark.parametrize("rule", ["rows_replaced", "spectral_change"])
def test_what_all_layers_share_is_normal(rule: str) -> None:
    rows = {"low_rows": 4, "spectral_change": 0.7}

    assert findings_of(rule, version(*several(4, **rows), **rows)) == []


def test_the_limit_of_the_spectral_change_is_four_times_the_others_median() -> None:
    others = several(4, spectral_change=0.2)

    assert findings_of("spectral_change", version(*others, spectral_change=0.79)) == []
    (finding,) = findings_of("spectral_change", version(*others, spectral_change=0.81))

    assert finding.evidence["limit"] == pytest.approx(0.8)


@pytest.mark.parametrize(("rule", "fires"), [("rows_replaced", 0), ("row_scales", 0), ("spectral_change", 1)])
def test_rows_are_judged_only_where_the_version_hardly_moved(rule: str, fires: int) -> None:
    others = [layer(f"other{number}", change=with_rows(0.3)) for number in range(4)]
    found = version(*others, low_rows=9, row_norm_ratio=9.0, spectral_change=2.0)

    assert len(findings_of(rule, found)) == fires


@pytest.mark.parametrize("rule", ["rows_replaced", "row_scales", "spectral_change", *FAULTS])
def test_silent_where_nothing_is_aligned(rule: str) -> None:
    others = [layer(f"fc{number}", change=change(aligned=aligned(1.4, 0.0))) for number in range(4)]
    rows = row_change(low_rows=9, row_norm_ratio=9.0, spectral_change=2.0)
    faults = [
        layer(kind, change=change(aligned=aligned(1.4, 0.0, rows=rows, fault=storage_fault(kind))))
        for kind in StorageFaultKind
    ]

    assert findings_of(rule, examination(*others, *faults)) == []


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        ("rows_replaced", {"share": 0.5}),
        ("row_scales", {"limit": 10}),
        ("spectral_change", {"limit": 3}),
        ("spectral_change", {"times_median": 100}),
    ],
)
def test_limits_come_from_the_settings(rule: str, values: dict[str, Any]) -> None:
    found = version(low_rows=9, row_norm_ratio=9.0, spectral_change=2.0)

    assert len(findings_of(rule, found)) == 1
    assert findings_of(rule, found, settings(rule, **values)) == []


@pytest.mark.parametrize("rule", FAULTS)
def test_a_fault_of_storage_is_named_by_its_own_rule(rule: str) -> None:
    fault = storage_fault(FAULTS[rule], group=128, explained=0.83, spread=1.5)
    found = among_healthy(layer("fc", change=change(aligned=aligned(0.3, 0.95, fault=fault))))

    fired = {name: findings_of(name, found) for name in FAULTS}

    assert [name for name, findings in fired.items() if findings] == [rule]
    (finding,) = fired[rule]
    assert (finding.layer, finding.severity) == ("fc", Severity.CRITICAL)
    assert "run of 128 along its rows" in finding.message
    assert "83%" in finding.message
    assert findings_of(rule, found, settings(rule, explained=0.9)) == []


@pytest.mark.parametrize(
    ("group", "axis", "words"),
    [
        (None, Axis.COLUMNS, "whole row"),
        (None, Axis.ROWS, "whole column"),
        (32, Axis.ROWS, "of 32 along its columns"),
    ],
)
def test_the_group_is_told_in_words(group: int | None, axis: Axis, words: str) -> None:
    fault = storage_fault(group=group, axis=axis)

    (finding,) = findings_of(
        "zero_point", among_healthy(layer("fc", change=change(aligned=aligned(fault=fault))))
    )

    assert words in finding.message


@pytest.mark.parametrize(
    ("usual", "value", "fires"),
    [(0.0, 0.049, False), (0.0, 0.051, True), (0.02, 0.119, False), (0.02, 0.121, True)],
)
@pytest.mark.parametrize("method", [Method.EXACT, Method.SKETCH])
def test_rows_whose_norms_scatter_far_more_than_the_other_layers_are_critical(
    usual: float, value: float, fires: bool, method: Method
) -> None:
    def scattered(name: str, scatter: float, cosine: float = 0.98) -> ExaminedLayer:
        numbers = change(aligned=aligned(0.15, cosine, method=method), row_norm_scatter=scatter)
        return layer(name, change=numbers)

    others = [scattered(f"other{number}", usual) for number in range(4)]

    findings = findings_of("row_scales", examination(*others, scattered("fc", value)))
    assert [(one.layer, one.severity) for one in findings] == [("fc", Severity.CRITICAL)] * fires
    # Rows that were exchanged have other norms as well.
    assert findings_of("row_scales", examination(*others, scattered("fc", value, cosine=0.7))) == []


@pytest.mark.parametrize(("spread", "fires"), [(1.01, False), (1.3, True)])
def test_groups_whose_factors_are_nearly_equal_have_no_scales_of_their_own(
    spread: float, fires: bool
) -> None:
    # Dead rows and two exchanged ones leave all other groups as they were.
    fault = storage_fault(StorageFaultKind.GROUP_SCALES, spread=spread)
    changed = layer("fc", change=change(aligned=aligned(0.3, fault=fault)))

    assert len(findings_of("group_scales", among_healthy(changed))) == fires
