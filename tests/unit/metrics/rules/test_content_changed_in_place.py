"""Rule content_changed_in_place: other bytes under a known version name."""

from __future__ import annotations

from layerwatch.metrics.examination import Examination, InPlaceChange
from layerwatch.metrics.findings import RuleGroup, Severity
from layerwatch_testing.examinations import among_healthy, examination, findings_of, new_layer, settings

RULE = "content_changed_in_place"


def version(was_readable: bool = True) -> Examination:
    return among_healthy(in_place=InPlaceChange("a" * 64, "b" * 64, was_readable))


def test_other_bytes_under_the_same_name_are_critical_and_concern_the_whole_version() -> None:
    (finding,) = findings_of(RULE, version())

    assert (finding.layer, finding.severity, finding.group) == (None, Severity.CRITICAL, RuleGroup.INTEGRITY)
    assert "aaaaaaaaaaaa became bbbbbbbbbbbb" in finding.message
    assert finding.evidence == {"fingerprint": "b" * 64, "previous_fingerprint": "a" * 64}


def test_a_version_that_could_not_be_read_before_was_probably_completed() -> None:
    (finding,) = findings_of(RULE, version(was_readable=False))

    assert finding.severity is Severity.INFO


def test_the_same_bytes_are_silent() -> None:
    assert findings_of(RULE, among_healthy()) == []


def test_no_baseline_is_needed() -> None:
    change = InPlaceChange("a" * 64, "b" * 64, True)

    assert len(findings_of(RULE, examination(new_layer(), has_baseline=False, in_place=change))) == 1


def test_the_severity_comes_from_the_settings() -> None:
    (finding,) = findings_of(RULE, version(), settings(RULE, severity="warning"))

    assert finding.severity is Severity.WARNING
