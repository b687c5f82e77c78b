"""Rule zero_tail: a tensor that ends in zeros, and the tails that mean nothing."""

from __future__ import annotations

from typing import Any

import pytest

from layerwatch.metrics.examination import ExaminedLayer
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.measurement import LayerKind
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
    vector,
)

RULE = "zero_tail"
ELEMENTS = 64 * 64


def cut_off(tail: int, energy: float | None = 1.0, elsewhere: float = 0.0, **other: Any) -> ExaminedLayer:
    """A 64 x 64 layer with this tail, and this share of zeros in front of it."""
    share = (tail + elsewhere * (ELEMENTS - tail)) / ELEMENTS
    changed = change(
        zero_tail_energy=energy, zero_rows=tuple(range(64 - tail // 64, 64)), **other.pop("change", {})
    )
    return layer("fc", measurement=measurement(zero_tail=tail, zero_share=share), change=changed, **other)


@pytest.mark.parametrize(("tail", "fires"), [(31, False), (32, True), (2000, True)])
def test_thirty_two_weights_are_enough_where_they_are_half_a_percent(tail: int, fires: bool) -> None:
    findings = findings_of(RULE, among_healthy(cut_off(tail)))

    assert [finding.layer for finding in findings] == ["fc"] * fires
    assert all(finding.severity is Severity.CRITICAL for finding in findings)


@pytest.mark.parametrize(("tail", "fires"), [(500, False), (501, True)])
def test_a_large_tensor_needs_more_than_half_a_percent(tail: int, fires: bool) -> None:
    large = layer(
        "fc",
        shape=(1000, 100),
        measurement=measurement(shape=(1000, 100), zero_tail=tail, zero_share=tail / 1e5),
        baseline=measurement(shape=(1000, 100)),
        change=change(zero_tail_energy=0.9),
    )

    assert len(findings_of(RULE, among_healthy(large))) == fires


@pytest.mark.parametrize(("energy", "fires"), [(0.2, False), (0.21, True), (None, False)])
def test_a_tail_that_was_weak_before_was_pruned(energy: float | None, fires: bool) -> None:
    assert len(findings_of(RULE, among_healthy(cut_off(100, energy)))) == fires


@pytest.mark.parametrize(("elsewhere", "fires"), [(0.3, True), (0.49, True), (0.51, False)])
def test_a_tail_that_zeros_elsewhere_explain_is_chance(elsewhere: float, fires: bool) -> None:
    assert len(findings_of(RULE, among_healthy(cut_off(200, elsewhere=elsewhere)))) == fires


def test_a_short_tail_of_a_half_empty_tensor_is_chance() -> None:
    # 0.49^28 is 2e-9, 0.49^32 is 1e-10; the limit is 1e-9.
    looser = settings(RULE, min_elements=20)

    assert findings_of(RULE, among_healthy(cut_off(28, elsewhere=0.49)), looser) == []
    assert len(findings_of(RULE, among_healthy(cut_off(32, elsewhere=0.49)), looser)) == 1


def test_the_message_tells_what_was_there_before() -> None:
    (finding,) = findings_of(RULE, among_healthy(cut_off(1024, 0.87)))

    assert "the last 1024 of 4096 weights" in finding.message
    assert "87% of its average energy" in finding.message
    assert finding.strength == 32.0


def test_whole_rows_that_are_zero_along_with_others_are_left_to_zero_rows() -> None:
    rows = change(zero_tail_energy=1.0, zero_rows=(5, 62, 63), newly_zero_rows=(5, 62, 63), new_zero_rows=3)
    dead = layer("fc", measurement=measurement(zero_tail=128, zero_share=192 / ELEMENTS), change=rows)

    assert findings_of(RULE, among_healthy(dead)) == []


def removed_behind(tail: int, unread: tuple[int, ...]) -> list[str | None]:
    """Layer net.0 lost its last rows, and net.2 does not read these."""
    rows = tuple(range(64 - tail // 64, 64))
    first = layer(
        "net.0",
        measurement=measurement(zero_tail=tail, zero_share=tail / ELEMENTS),
        change=change(zero_tail_energy=1.0, newly_zero_rows=rows, zero_rows=rows, new_zero_rows=len(rows)),
    )
    second = layer("net.2", change=change(zero_columns=unread))
    return [finding.layer for finding in findings_of(RULE, among_healthy(first, second))]


def test_whole_rows_that_nobody_reads_any_more_were_removed_on_purpose() -> None:
    assert removed_behind(128, (62, 63)) == []
    assert removed_behind(128, (63,)) == ["net.0"]
    assert removed_behind(160, (61, 62, 63)) == ["net.0"]


def test_an_empty_layer_is_left_to_its_own_rule() -> None:
    empty = layer("fc", measurement=measurement(max_abs=0.0, zero_tail=ELEMENTS, zero_share=1.0))

    assert findings_of(RULE, among_healthy(empty)) == []


def test_a_retrain_with_shifted_spectra_gives_a_warning() -> None:
    far = {"aligned": aligned(1.4, 0.0), "norm_ratio": 3.0}
    others = [layer(f"other{number}", change=change(**far)) for number in range(4)]

    (finding,) = findings_of(RULE, examination(*others, cut_off(200, change=far)))

    assert finding.severity is Severity.WARNING


def bias(tail: int, tail_before: int = 0) -> ExaminedLayer:
    before = measurement(kind=LayerKind.BIAS, shape=(64,), zero_tail=tail_before, numbers=None, folded=None)
    now = measurement(
        kind=LayerKind.BIAS, shape=(64,), zero_tail=tail, zero_share=tail / 64, numbers=None, folded=None
    )
    return vector(measurement=now, baseline=before)


@pytest.mark.parametrize(
    ("tail", "before", "fires"), [(40, 0, True), (40, 19, True), (40, 21, False), (31, 0, False)]
)
def test_of_a_vector_it_is_known_whether_it_ended_so_before(tail: int, before: int, fires: bool) -> None:
    findings = findings_of(RULE, among_healthy(bias(tail, before)))

    assert [finding.severity for finding in findings] == [Severity.CRITICAL] * fires


def alone(tail: int, elsewhere: float = 0.0) -> list[Severity]:
    share = (tail + elsewhere * (ELEMENTS - tail)) / ELEMENTS
    one = new_layer("fc", measurement=measurement(zero_tail=tail, zero_share=share))
    return [finding.severity for finding in findings_of(RULE, examination(one, has_baseline=False))]


def test_without_a_baseline_only_zeros_that_begin_within_a_row_are_told_as_a_warning() -> None:
    assert alone(3 * 64 + 32) == [Severity.WARNING]
    assert alone(3 * 64 + 31) == []
    assert alone(3 * 64) == []
    assert alone(40) == []
    assert alone(3 * 64 + 32, elsewhere=0.1) == []


def test_a_layer_that_the_baseline_lacks_is_judged_alone() -> None:
    one = new_layer("fc", measurement=measurement(zero_tail=224, zero_share=224 / ELEMENTS))

    assert [finding.severity for finding in findings_of(RULE, among_healthy(one))] == [Severity.WARNING]


def test_limits_come_from_the_settings() -> None:
    assert findings_of(RULE, among_healthy(cut_off(100)), settings(RULE, min_elements=101)) == []
    assert findings_of(RULE, among_healthy(cut_off(100)), settings(RULE, share=0.1)) == []
    assert findings_of(RULE, among_healthy(cut_off(100, 0.5)), settings(RULE, energy=0.6)) == []
    (finding,) = findings_of(RULE, among_healthy(cut_off(100)), settings(RULE, severity="info"))
    assert finding.severity is Severity.INFO
