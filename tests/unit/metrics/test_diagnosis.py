"""What a reader is told first: which layer, what is wrong with it, why, and what to do."""

from __future__ import annotations

from layerwatch.metrics.diagnosis import diagnoses
from layerwatch.metrics.findings import Finding, RuleGroup, Severity


def finding(rule: str, layer: str | None, severity: Severity = Severity.CRITICAL) -> Finding:
    return Finding(rule, RuleGroup.WEIGHTS, severity, layer, "as it is")


def test_the_type_of_defect_is_the_first_of_a_layers_findings_and_the_others_confirm_it() -> None:
    found = diagnoses(
        [
            finding("scaled", "fc2"),
            finding("relative_change", "fc2"),
            finding("spectral_outlier", "fc2"),
            finding("zero_rows", "fc1", Severity.WARNING),
        ]
    )

    assert [(one.layer, one.defect, one.severity) for one in found] == [
        ("fc2", "scaled", Severity.CRITICAL),
        ("fc1", "zero_rows", Severity.WARNING),
    ]
    assert found[0].confirmed_by == ("relative_change", "spectral_outlier")
    assert found[1].confirmed_by == ()


def test_it_says_what_to_do_in_one_line() -> None:
    (found,) = diagnoses([finding("spectral_outlier", "fc2")])

    assert found.title == "one layer's spectrum moved alone"
    assert found.what_to_do.startswith("open the spectrum")
    assert found.likely_cause.startswith("rank that was lost")
    assert "\n" not in found.what_to_do + found.likely_cause


def test_information_is_no_diagnosis() -> None:
    assert diagnoses([finding("tail_exponent", "fc2", Severity.INFO)]) == ()


def test_findings_about_the_whole_version_make_one_diagnosis_without_a_layer() -> None:
    (found,) = diagnoses([finding("spectral_outlier", None), finding("zero_rows", None)])

    assert (found.layer, found.defect, found.confirmed_by) == (None, "spectral_outlier", ("zero_rows",))
