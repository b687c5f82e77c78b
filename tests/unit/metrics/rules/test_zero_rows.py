"""Rule zero_rows: rows from 2 % (at least one), columns from 10 % (at least two)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from layerwatch.metrics.examination import Examination, ExaminedLayer
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
    new_layer,
    settings,
)

RULE = "zero_rows"


def version(rows: int, zero_rows: int, columns: int = 64, zero_columns: int = 0) -> Examination:
    return among_healthy(
        layer(
            "fc",
            change=change(rows=rows, new_zero_rows=zero_rows, columns=columns, new_zero_columns=zero_columns),
        )
    )


@pytest.mark.parametrize(
    ("rows", "zero", "fires"), [(10, 1, True), (10, 0, False), (1000, 20, True), (1000, 19, False)]
)
def test_rows_are_reported_from_two_percent_and_at_least_one(rows: int, zero: int, fires: bool) -> None:
    findings = findings_of(RULE, version(rows, zero))

    assert [finding.layer for finding in findings] == ["fc"] * fires
    assert all(finding.severity is Severity.CRITICAL for finding in findings)


@pytest.mark.parametrize(
    ("columns", "zero", "fires"), [(10, 2, True), (10, 1, False), (200, 20, True), (200, 19, False)]
)
def test_columns_are_reported_from_ten_percent_and_at_least_two(columns: int, zero: int, fires: bool) -> None:
    assert len(findings_of(RULE, version(100, 0, columns, zero))) == fires


def test_the_message_counts_rows_and_columns() -> None:
    (finding,) = findings_of(RULE, version(64, 7, 64, 9))

    assert "7 of 64 output rows and 9 of 64 input columns" in finding.message
    assert finding.strength == pytest.approx(7 / 1.28)


def test_an_emptied_layer_is_left_to_its_own_rule() -> None:
    emptied = layer("fc", change=change(new_zero_rows=64, new_zero_columns=64, emptied=True))

    assert findings_of(RULE, among_healthy(emptied)) == []


def test_a_layer_whose_rows_are_not_known_is_silent() -> None:
    assert findings_of(RULE, version(rows=0, zero_rows=0, columns=0)) == []


def test_no_baseline_no_finding() -> None:
    assert findings_of(RULE, examination(new_layer("fc"), has_baseline=False)) == []


def unaligned_wide() -> Examination:
    far = change(aligned=aligned(1.4, 0.0), norm_ratio=3.0)
    others = [layer(f"other{number}", change=far) for number in range(4)]
    pruned = change(aligned=aligned(1.4, 0.0), norm_ratio=3.0, new_zero_rows=30)
    return examination(*others, layer("fc", change=pruned))


def test_a_retrain_that_shifted_every_spectrum_may_have_been_pruned_so_it_is_a_warning() -> None:
    (finding,) = findings_of(RULE, unaligned_wide())

    assert finding.severity is Severity.WARNING


def test_a_configured_info_is_not_raised_to_a_warning() -> None:
    (finding,) = findings_of(RULE, unaligned_wide(), settings(RULE, severity="info"))

    assert finding.severity is Severity.INFO


def test_shares_come_from_the_settings() -> None:
    stricter = settings(RULE, row_share=0.5, column_share=0.5)

    assert findings_of(RULE, version(64, 31, 64, 31), stricter) == []
    assert len(findings_of(RULE, version(64, 32), stricter)) == 1
    assert len(findings_of(RULE, version(64, 0, 64, 32), stricter)) == 1


def chain(
    rows: tuple[int, ...], unread: tuple[int, ...], width: int = 1, columns: tuple[int, ...] = ()
) -> Examination:
    """Two layers of which the first lost rows and the second does not read some columns, ``width`` per row."""
    first = layer(
        "net.0",
        change=change(new_zero_rows=len(rows), newly_zero_rows=rows, zero_rows=rows),
        shape=(64, 3, 3, 3),
    )
    second = layer(
        "net.2",
        shape=(64, 64 * width),
        change=change(
            columns=64 * width,
            zero_columns=unread,
            newly_zero_columns=columns,
            new_zero_columns=len(columns),
        ),
    )
    return among_healthy(first, second)


def severities(found: Examination) -> dict[str | None, Severity]:
    return {finding.layer: finding.severity for finding in findings_of(RULE, found)}


def test_rows_that_nobody_reads_any_more_were_removed_on_purpose() -> None:
    assert severities(chain((3, 9), (3, 9, 20))) == {"net.0": Severity.INFO}
    assert severities(chain((3, 9), (6, 7, 18, 19), width=2)) == {"net.0": Severity.INFO}


def test_rows_whose_reader_still_listens_are_dead() -> None:
    assert severities(chain((3, 9), (3,))) == {"net.0": Severity.CRITICAL}
    assert severities(chain((3, 9), (6, 7, 18), width=2)) == {"net.0": Severity.CRITICAL}


def test_columns_that_nobody_fills_any_more_were_removed_on_purpose() -> None:
    lost = tuple(range(8))

    assert severities(chain(lost, lost, columns=lost)) == {"net.0": Severity.INFO, "net.2": Severity.INFO}
    assert severities(chain(lost[:7], lost, columns=lost)) == {
        "net.0": Severity.INFO,
        "net.2": Severity.CRITICAL,
    }


def test_the_message_names_the_layer_on_the_other_side() -> None:
    (finding,) = findings_of(RULE, chain((3, 9), (3, 9)))

    assert "net.2 does not read them any more: units that were removed on both sides" in finding.message


def sparse(share: float, name: str, zero_columns: int = 0) -> ExaminedLayer:
    return layer(
        name, measurement=measurement(zero_share=share), change=change(new_zero_columns=zero_columns)
    )


def test_columns_that_a_pruned_model_lost_give_one_warning_for_the_version() -> None:
    layers = [sparse(0.9, f"fc{number}", zero_columns=10) for number in range(3)]
    version = examination(*layers, sparse(0.7, "a"), sparse(0.8, "b"))

    (finding,) = findings_of(RULE, version)

    assert (finding.layer, finding.severity) == (None, Severity.WARNING)
    assert "columns of 3 layers" in finding.message
    (declared,) = findings_of(RULE, replace(version, relation=Relation.PRUNED))
    assert declared.severity is Severity.INFO


def test_columns_of_one_layer_that_was_pruned_alone_are_critical() -> None:
    others = [sparse(0.1, f"fc{number}") for number in range(4)]

    (finding,) = findings_of(RULE, examination(*others, sparse(0.9, "fc", zero_columns=10)))

    assert (finding.layer, finding.severity) == ("fc", Severity.CRITICAL)
