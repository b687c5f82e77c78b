"""The rules about what was done to a version: declared or recognised exports, casts, derivations, quantisations."""

from __future__ import annotations

from typing import Any

import pytest

from layerwatch.config.rules import SpectralOutlierSettings
from layerwatch.metrics.change import Method
from layerwatch.metrics.examination import Examination, ExaminedLayer, context_of
from layerwatch.metrics.expectation import expectation_of
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.recognition import Recognised, recognised_relation
from layerwatch.metrics.relation import Relation
from layerwatch_testing.examinations import (
    aligned,
    change,
    examination,
    findings_of,
    layer,
    measurement,
    row_change,
    vector,
)


def recognised(found: Examination) -> Recognised:
    return recognised_relation(found, context_of(found, SpectralOutlierSettings()))


def unchanged(name: str = "same") -> ExaminedLayer:
    return layer(name, change=change(aligned=aligned(0.0, 1.0, method=Method.IDENTICAL)))


def moved(
    name: str, relative: float, *, noise_ratio: float = 1.0, dtype: str = "F32", **other: Any
) -> ExaminedLayer:
    values: dict[str, Any] = {
        "measurement": measurement(digest="11", dtype=dtype),
        "dtype": dtype,
        "change": change(aligned=aligned(relative, 1.0, rows=row_change(noise_ratio=noise_ratio))),
    }
    return layer(name, **(values | other))


def trained_vector() -> ExaminedLayer:
    return vector(measurement=measurement(digest="22", norm=8.4, shape=(64,), numbers=None, folded=None))


def test_what_is_declared_is_believed() -> None:
    found = recognised(examination(layer(), relation=Relation.PRUNED))

    assert (found.relation, found.declared) == (Relation.PRUNED, True)


@pytest.mark.parametrize(
    ("layers", "relation"),
    [
        ([unchanged("a"), unchanged("b"), vector()], Relation.REEXPORTED),
        ([unchanged("a"), unchanged("b"), trained_vector()], Relation.FINETUNED),
        ([moved(f"l{n}", 2e-4, dtype="F16") for n in range(3)], Relation.CAST),
        ([moved(f"l{n}", 2e-2, dtype="F16", noise_ratio=4.0) for n in range(3)], Relation.FINETUNED),
        ([*(moved(f"l{n}", 0.01, dtype="I8") for n in range(3)), unchanged()], Relation.QUANTIZED),
        ([*(moved(f"l{n}", 0.1) for n in range(4)), vector()], Relation.QUANTIZED),
        ([*(moved(f"l{n}", 0.1) for n in range(4)), trained_vector()], Relation.FINETUNED),
        ([*(moved(f"l{n}", 0.1, noise_ratio=3.0) for n in range(4)), vector()], Relation.FINETUNED),
        ([layer(f"l{n}", change=change(aligned=aligned(1.4, 0.0))) for n in range(4)], Relation.RETRAINED),
        ([], None),
    ],
)
def test_the_relation_is_recognised_from_types_equality_and_residual(
    layers: list[ExaminedLayer], relation: Relation | None
) -> None:
    found = recognised(examination(*layers))

    assert (found.relation, found.declared) == (relation, False)
    assert found.why


def test_pruning_is_recognised_by_the_norm_that_it_takes_away() -> None:
    # 50 % pruned (field report, section 7.5): relative change 0.267, norm ratio 0.964.
    pruned = [
        layer(
            f"l{number}",
            measurement=measurement(digest="11", zero_share=0.5),
            change=change(aligned=aligned(0.267, 0.964), norm_ratio=0.9637),
        )
        for number in range(3)
    ]

    assert recognised(examination(*pruned)).relation is Relation.PRUNED


@pytest.mark.parametrize(("raw_norm", "is_it"), [(0.985, True), (1.02, False)])
def test_pruning_is_recognised_where_the_batch_norm_was_taken_again_afterwards(
    raw_norm: float, is_it: bool
) -> None:
    # The demonstration's conv1: 30 % of the elements and 3 % of the energy gone, all that is left 6 % larger.
    layers = [
        layer(
            f"conv{number}",
            measurement=measurement(zero_share=0.30, norm=raw_norm * 8.0, folded_by="bn"),
            baseline=measurement(zero_share=0.0, norm=8.0, folded_by="bn"),
            change=change(aligned=aligned(0.192, 0.985), norm_ratio=1.043),
        )
        for number in range(3)
    ]

    assert (recognised(examination(*layers)).relation is Relation.PRUNED) is is_it


@pytest.mark.parametrize(
    ("relative", "grade"), [(0.008, "int8"), (0.026, "fp8"), (0.117, "int4"), (0.274, "int3"), (0.6, "int3")]
)
def test_the_degree_of_rounding_is_read_off_the_median_change(relative: float, grade: str) -> None:
    # Field report, section 7.5.
    found = examination(*(moved(f"l{n}", relative) for n in range(4)), relation=Relation.QUANTIZED)

    expected = expectation_of(found, recognised(found))

    assert expected is not None
    assert expected.grade is not None
    assert expected.grade.name == grade


@pytest.mark.parametrize("relation", Relation)
def test_every_relation_leads_to_expect_something(relation: Relation) -> None:
    found = examination(moved("l", 0.01), relation=relation)

    expected = expectation_of(found, recognised(found))

    assert expected is not None
    assert expected.relation is relation
    assert expected.aligned is relation.keeps_alignment


def test_a_declared_reexport_must_not_differ_at_all() -> None:
    found = examination(unchanged(), moved("odd", 1e-9), vector(), relation=Relation.REEXPORTED)

    (finding,) = findings_of("export_differs", found)

    assert (finding.layer, finding.severity) == ("odd", Severity.CRITICAL)


def test_a_reexport_into_a_wider_type_holds_the_same_numbers() -> None:
    wider = moved("l", 0.0, dtype="F64")

    assert findings_of("export_differs", examination(wider, relation=Relation.REEXPORTED)) == []


def test_a_bias_that_differs_is_seen_in_a_reexport() -> None:
    found = examination(unchanged(), trained_vector(), relation=Relation.REEXPORTED)

    assert [finding.layer for finding in findings_of("export_differs", found)] == ["fc.bias"]


@pytest.mark.parametrize(
    ("dtype", "relative", "fires"),
    [("F16", 9e-4, False), ("F16", 1.1e-3, True), ("BF16", 3.8e-3, False), ("BF16", 4.1e-3, True)],
)
def test_a_cast_rounds_no_further_than_its_type(dtype: str, relative: float, fires: bool) -> None:
    layers = [moved(f"l{n}", 1e-4, dtype=dtype) for n in range(3)]

    findings = findings_of("export_differs", examination(*layers, moved("odd", relative, dtype=dtype)))

    assert [finding.layer for finding in findings] == ["odd"] * fires


def test_a_finetune_may_differ_and_is_no_export() -> None:
    assert findings_of("export_differs", examination(layer(), layer("b"), trained_vector())) == []


@pytest.mark.parametrize("relation", [one for one in Relation if one.keeps_alignment])
def test_a_derivation_that_does_not_point_its_parents_way_is_critical(relation: Relation) -> None:
    other_seed = [layer(f"l{n}", change=change(aligned=aligned(1.4, 0.01))) for n in range(4)]

    (finding,) = findings_of("unrelated_to_parent", examination(*other_seed, relation=relation))

    assert (finding.layer, finding.severity) == (None, Severity.CRITICAL)
    assert finding.evidence["aligned_share"] == 0.0


@pytest.mark.parametrize("relation", [None, Relation.RETRAINED, Relation.DISTILLED])
def test_a_retrain_and_an_undeclared_step_may_be_unrelated(relation: Relation | None) -> None:
    other_seed = [layer(f"l{n}", change=change(aligned=aligned(1.4, 0.01))) for n in range(4)]

    assert findings_of("unrelated_to_parent", examination(*other_seed, relation=relation)) == []


def test_one_layer_that_is_another_does_not_make_the_version_unrelated() -> None:
    found = examination(
        layer("odd", change=change(aligned=aligned(1.4, 0.0))),
        layer("a"),
        layer("b"),
        relation=Relation.FINETUNED,
    )

    assert findings_of("unrelated_to_parent", found) == []


def quantised(odd: float, **other: Any) -> Examination:
    return examination(*(moved(f"l{n}", 0.117) for n in range(4)), moved("odd", odd, **other), vector())


@pytest.mark.parametrize(
    ("relative", "fires"),
    # Field report, section 7.5: int4 in groups and per row; wrong group size; scales shifted by one row.
    [(0.117, False), (0.143, False), (0.16, False), (0.218, True), (0.227, True)],
)
def test_a_layer_that_lost_more_than_int4_costs_is_critical(relative: float, fires: bool) -> None:
    findings = findings_of("beyond_conversion", quantised(relative))

    assert [(finding.layer, finding.severity) for finding in findings] == [("odd", Severity.CRITICAL)] * fires


def test_fewer_bits_in_one_layer_are_a_warning() -> None:
    levels = [
        layer(
            f"l{n}",
            measurement=measurement(digest="11", levels_per_row=30.0),
            change=change(aligned=aligned(0.1, 1.0, rows=row_change(noise_ratio=1.0))),
        )
        for n in range(4)
    ]
    odd = moved("odd", 0.25, measurement=measurement(digest="11", levels_per_row=14.0))

    (finding,) = findings_of("beyond_conversion", examination(*levels, odd, vector()))

    assert (finding.layer, finding.severity) == ("odd", Severity.WARNING)


def test_a_training_that_looks_like_noise_is_no_conversion() -> None:
    found = examination(*(moved(f"l{n}", 0.1) for n in range(4)), moved("odd", 0.3), trained_vector())

    assert findings_of("beyond_conversion", found) == []


def test_an_estimate_must_lie_beyond_by_two_errors() -> None:
    unsure = layer(
        "odd",
        measurement=measurement(digest="11"),
        change=change(aligned=aligned(0.21, 0.98, error=0.1, method=Method.SKETCH)),
    )
    layers = [moved(f"l{n}", 0.117) for n in range(4)]

    assert findings_of("beyond_conversion", examination(*layers, unsure, relation=Relation.QUANTIZED)) == []
