"""Warnings about a version as a whole: noise, shifted spectra, common factors, wrong labels, traps."""

from __future__ import annotations

import pytest

from layerwatch.metrics.change import Method
from layerwatch.metrics.examination import Examination, ExaminedLayer
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.merge import MergeEvidence, MergeMethod, MergeRecipe
from layerwatch.metrics.relation import Relation
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


def noisy(name: str, relative: float, ratio: float = 1.0) -> ExaminedLayer:
    return layer(name, change=change(aligned=aligned(relative, 0.98, rows=row_change(noise_ratio=ratio))))


def all_noisy(relative: float, **other: object) -> Examination:
    return examination(*(noisy(f"l{n}", relative) for n in range(4)), vector(), **other)


@pytest.mark.parametrize(("relative", "fires"), [(0.14, False), (0.16, True)])
def test_noise_in_all_layers_is_one_warning_for_the_version(relative: float, fires: bool) -> None:
    findings = findings_of("noise_like", all_noisy(relative))

    assert [(one.layer, one.severity) for one in findings] == [(None, Severity.WARNING)] * fires


def test_noise_in_one_layer_while_the_rest_stands_still_names_it() -> None:
    still = [
        layer(f"l{n}", change=change(aligned=aligned(0.0, 1.0, method=Method.IDENTICAL))) for n in range(4)
    ]

    (finding,) = findings_of("noise_like", examination(*still, noisy("odd", 0.3)))

    assert finding.layer == "odd"


def test_a_noisy_layer_among_trained_ones_is_left_to_other_rules() -> None:
    trained = [noisy(f"l{n}", 0.1, ratio=3.0) for n in range(4)]

    assert findings_of("noise_like", examination(*trained, noisy("odd", 0.3))) == []


def test_structure_is_no_noise_however_large() -> None:
    assert findings_of("noise_like", examination(*(noisy(f"l{n}", 0.3, ratio=2.5) for n in range(4)))) == []


def test_a_declared_quantisation_may_cost_what_it_costs() -> None:
    assert findings_of("noise_like", all_noisy(0.25, relation=Relation.QUANTIZED)) == []


def test_elements_that_were_dropped_at_random_by_a_merge_are_noise_by_design() -> None:
    recipe = MergeRecipe(MergeMethod.DARE_LINEAR, (0.5, 0.5), "base")
    evidence = MergeEvidence(("a", "b"), "base", recipe, (0.5, 0.5), (), ())

    assert findings_of("noise_like", all_noisy(0.2, merge=evidence)) == []


@pytest.mark.parametrize(("relative", "fires"), [(0.44, False), (0.46, True)])
def test_all_weights_together_have_a_limit_whatever_the_structure(relative: float, fires: bool) -> None:
    found = examination(*(noisy(f"l{n}", relative, ratio=3.0) for n in range(4)))

    assert len(findings_of("noise_like", found)) == fires


def shifted(decades: float, count: int = 4, cosine: float = 0.999) -> Examination:
    numbers = change(norm_ratio=10.0 ** (decades / 2), aligned=aligned(0.05 if cosine else 1.4, cosine))
    return examination(*(layer(f"l{n}", change=numbers) for n in range(count)))


@pytest.mark.parametrize(("decades", "fires"), [(0.11, False), (0.13, True), (-0.13, True)])
def test_spectra_that_moved_in_all_layers_are_a_warning(decades: float, fires: bool) -> None:
    # One unit of severity is 0.20 decades of the squared norm; the limit is 0.6.
    findings = findings_of("model_wide_shift", shifted(decades))

    assert [(one.layer, one.severity) for one in findings] == [(None, Severity.WARNING)] * fires


@pytest.mark.parametrize(("decades", "fires"), [(0.135, False), (0.137, True)])
def test_after_another_seed_spectra_must_have_moved_by_more(decades: float, fires: bool) -> None:
    findings = findings_of("model_wide_shift", shifted(decades, cosine=0.0))

    assert len(findings) == fires
    for finding in findings:
        assert finding.evidence["limit"] == 0.68


def test_one_layer_that_moved_is_not_the_model() -> None:
    found = examination(*(layer(f"l{n}") for n in range(4)), layer("odd", change=change(norm_ratio=3.0)))

    assert findings_of("model_wide_shift", found) == []


def test_two_layers_are_no_model() -> None:
    assert findings_of("model_wide_shift", shifted(0.3, count=2)) == []


def scaled(gain: float, cosine: float = 1.0) -> ExaminedLayer:
    return layer(f"l{gain}", change=change(aligned=aligned(abs(gain - 1), cosine), norm_ratio=gain))


@pytest.mark.parametrize(("gain", "fires"), [(0.9, True), (1.1, True), (0.99, False), (1.0, False)])
def test_a_factor_that_all_layers_share_is_a_warning(gain: float, fires: bool) -> None:
    findings = findings_of("uniform_scaling", examination(*(scaled(gain) for _ in range(4))))

    assert [(one.layer, one.severity) for one in findings] == [(None, Severity.WARNING)] * fires


def test_a_training_that_turned_the_weights_is_no_scaling() -> None:
    assert findings_of("uniform_scaling", examination(*(scaled(0.9, 0.999) for _ in range(4)))) == []


def test_a_few_scaled_layers_are_not_the_model() -> None:
    assert (
        findings_of(
            "uniform_scaling", examination(scaled(0.9), scaled(0.8), *map(scaled, (1.0, 1.001, 0.999)))
        )
        == []
    )


def far(name: str, kurtosis: float = 2.0, spectral: float = 0.3, ratio: float = 3.0) -> ExaminedLayer:
    rows = row_change(residual_kurtosis=kurtosis, spectral_change=spectral, noise_ratio=ratio)
    return layer(name, change=change(aligned=aligned(0.2, 0.98, rows=rows)))


def test_light_tailed_changes_along_few_directions_are_a_warning() -> None:
    (finding,) = findings_of("label_noise", examination(far("a"), far("b"), layer("c")))

    assert (finding.layer, finding.severity) == (None, Severity.WARNING)


@pytest.mark.parametrize(
    "layers",
    [
        [far("a"), layer("b", change=change(aligned=aligned(rows=row_change())))],
        [far("a", kurtosis=2.7), far("b", kurtosis=3.0)],
        [far("a", spectral=0.1), far("b", spectral=0.19)],
        [far("a", ratio=1.0), far("b", ratio=1.1)],
        [layer("a"), layer("b")],
    ],
    ids=["one layer", "heavy tails", "small", "noise", "sketches"],
)
def test_less_than_that_is_none(layers: list[ExaminedLayer]) -> None:
    assert findings_of("label_noise", examination(*layers)) == []


def trapped(traps: int, largest: float | None) -> ExaminedLayer:
    return layer(
        measurement=measurement(traps=traps, largest_trap=largest),
        baseline=measurement(traps=1, largest_trap=1.5),
    )


@pytest.mark.parametrize(
    ("traps", "largest", "fires"), [(2, 1.4, True), (2, 1.2, False), (1, 9.0, False), (0, None, False)]
)
def test_more_traps_than_before_are_information(traps: int, largest: float | None, fires: bool) -> None:
    findings = findings_of("new_traps", examination(trapped(traps, largest)))

    assert [one.severity for one in findings] == [Severity.INFO] * fires


@pytest.mark.parametrize("rule", ["noise_like", "uniform_scaling", "label_noise"])
def test_nothing_is_said_of_unaligned_weights(rule: str) -> None:
    other = change(
        aligned=aligned(1.4, 0.0, rows=row_change(noise_ratio=1.0, residual_kurtosis=2.0)), norm_ratio=0.9
    )

    assert findings_of(rule, examination(*(layer(f"l{n}", change=other) for n in range(4)))) == []


def test_limits_and_severity_come_from_the_settings() -> None:
    rules = settings("noise_like", limit=0.05, severity="info")

    assert [one.severity for one in findings_of("noise_like", all_noisy(0.1), rules)] == [Severity.INFO]


def test_one_layer_that_changed_by_a_multiple_is_not_all_weights_together() -> None:
    found = examination(*(noisy(f"l{n}", 0.05, ratio=3.0) for n in range(3)), noisy("odd", 7.0, ratio=3.0))

    assert findings_of("noise_like", found) == []
