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


LAYERS = ["fc1", "fc2", "fc3", "fc4"]


def test_an_export_that_differs_in_most_layers_is_one_diagnosis_of_the_version() -> None:
    found = diagnoses(
        [
            finding("export_differs", "fc3"),
            finding("scaled", "fc4"),
            finding("export_differs", "fc4"),
            finding("export_differs", "fc1"),
            finding("relative_change", "fc1"),
            finding("export_differs", "fc2"),
            finding("export_differs", "fc1.bias"),
            finding("unrelated_to_parent", None),
        ],
        LAYERS,
    )

    assert [(one.layer, one.defect, one.layers) for one in found] == [
        (None, "export_differs", 4),
        ("fc4", "scaled", 1),
        (None, "unrelated_to_parent", 0),
    ]
    assert found[0].confirmed_by == ("relative_change",)
    assert found[0].severity is Severity.CRITICAL


def test_an_export_that_differs_in_half_of_the_layers_is_told_of_each() -> None:
    found = diagnoses(
        [finding("export_differs", name) for name in ("fc1", "fc2", "fc1.bias", "fc2.bias")], LAYERS
    )

    assert [(one.layer, one.layers) for one in found] == [
        ("fc1", 1),
        ("fc2", 1),
        ("fc1.bias", 1),
        ("fc2.bias", 1),
    ]


def test_what_is_wrong_with_most_layers_by_themselves_stays_theirs() -> None:
    found = diagnoses([finding("zero_rows", name) for name in LAYERS], LAYERS)

    assert [one.layer for one in found] == LAYERS
