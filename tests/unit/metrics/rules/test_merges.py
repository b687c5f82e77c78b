"""The rules about merges: on hand-made evidence, and on small models merged for the purpose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import Finding, Severity
from layerwatch.metrics.merge import MergedLayer, MergeEvidence, MergeMethod, MergeRecipe
from layerwatch.metrics.relation import Relation
from layerwatch_testing.examinations import (
    aligned,
    change,
    examination,
    findings_of,
    layer,
    measurement,
    settings,
)


def merged(name: str, *coefficients: float, **other: Any) -> MergedLayer:
    values: dict[str, Any] = {
        "coefficients": coefficients or (0.5, 0.5),
        "errors": (0.001, 0.001),
        "expected": (0.5, 0.5),
        "deviation": 0.001,
        "left_over": 0.001,
        "follows": True,
        "norm_ratio": 0.99,
        "parents_cosine": 0.98,
        "base_cosine": None,
        "task_cosine": None,
        "amplification": None,
    }
    return MergedLayer(name=name, **(values | other))


def version(*layers: MergedLayer, base: str | None = None, recipe: MergeRecipe | None = None) -> Examination:
    others = tuple(merged(f"healthy{number}") for number in range(4))
    if base is not None:
        others = tuple(replace(one, base_cosine=0.98, task_cosine=0.1, amplification=0.7) for one in others)
    evidence = MergeEvidence(("a", "b"), base, recipe, (0.5, 0.5), (*others, *layers), ())
    return examination(merge=evidence, relation=Relation.MERGED)


def bad(findings: list[Finding]) -> list[tuple[str | None, Severity]]:
    return [(one.layer, one.severity) for one in findings if one.severity is not Severity.INFO]


def test_a_merge_by_the_recipe_is_information_with_the_coefficients() -> None:
    (finding,) = findings_of("merge_recipe", version(recipe=MergeRecipe(MergeMethod.LINEAR, (1.0, 1.0))))

    assert finding.severity is Severity.INFO
    assert "verified in 4 of 4 layers: 0.5 x a + 0.5 x b" in finding.message


def test_a_layer_with_other_coefficients_is_critical_and_the_only_one() -> None:
    odd = merged("odd", 0.9, 0.1, follows=False, deviation=0.8)

    findings = findings_of("merge_recipe", version(odd))

    assert bad(findings) == [("odd", Severity.CRITICAL)]
    assert "0.9 x a + 0.1 x b instead of 0.5 x a + 0.5 x b" in findings[0].message


def not_following(name: str, *coefficients: float) -> MergedLayer:
    return merged(name, *coefficients, follows=False, deviation=0.6, left_over=0.6)


def test_where_a_method_drops_elements_layers_are_held_against_each_other() -> None:
    layers = [not_following(f"ties{number}", 0.7 + 0.01 * number, 0.7) for number in range(8)]
    evidence = MergeEvidence(
        ("a", "b"), "base", MergeRecipe(MergeMethod.TIES, (1.0, 1.0)), (0.73, 0.7), (), ()
    )
    healthy = replace(evidence, layers=tuple(layers))
    broken = replace(evidence, layers=(*layers, not_following("doubled", 1.5, 1.4)))

    assert bad(findings_of("merge_recipe", examination(merge=healthy))) == []
    assert bad(findings_of("merge_recipe", examination(merge=broken))) == [("doubled", Severity.CRITICAL)]


@pytest.mark.parametrize(
    ("method", "size", "expected"),
    [
        # Sizes and shares are those of a healthy merge of two small classifiers, in the head and elsewhere.
        (MergeMethod.TIES, 0.15, []),
        (MergeMethod.TIES, 0.26, [("head", Severity.CRITICAL)]),
        (MergeMethod.DARE_LINEAR, 0.15, [("head", Severity.CRITICAL)]),
    ],
)
def test_ties_gives_a_change_that_is_small_beside_the_other_another_share(
    method: MergeMethod, size: float, expected: list[tuple[str, Severity]]
) -> None:
    def of_size(one: MergedLayer, small: float) -> MergedLayer:
        return replace(one, task_sizes=(small, 1.0))

    layers = [of_size(not_following(f"fc{number}", 0.05, 0.81), 0.26) for number in range(4)]
    head = of_size(not_following("head", -0.40, 0.76), size)
    evidence = MergeEvidence(("a", "b"), "base", MergeRecipe(method, None), (0.05, 0.81), (*layers, head), ())

    assert bad(findings_of("merge_recipe", examination(merge=evidence))) == expected


@pytest.mark.parametrize(
    ("left_over", "words"),
    [(0.001, "found 0.5 x a + 0.5 x b, declared 0.8 x a + 0.2 x b"), (3.0, "another base")],
)
def test_a_declared_recipe_that_most_layers_do_not_follow_is_critical_for_the_version(
    left_over: float, words: str
) -> None:
    recipe = MergeRecipe(MergeMethod.LINEAR, (0.8, 0.2))
    layers = tuple(
        merged(f"l{number}", follows=False, deviation=0.6, left_over=left_over, expected=(0.8, 0.2))
        for number in range(5)
    )
    evidence = MergeEvidence(("a", "b"), None, recipe, (0.5, 0.5), layers, ())

    (finding,) = findings_of("merge_recipe", examination(merge=evidence))

    assert (finding.layer, finding.severity) == (None, Severity.CRITICAL)
    assert words in finding.message


def test_unrelated_parents_are_critical_for_the_version() -> None:
    layers = tuple(merged(f"l{number}", parents_cosine=0.02, norm_ratio=0.71) for number in range(4))
    evidence = MergeEvidence(("a", "b"), None, None, (0.5, 0.5), layers, ())

    (finding,) = findings_of("merge_norm_collapse", examination(merge=evidence))

    assert (finding.layer, finding.severity) == (None, Severity.CRITICAL)
    assert finding.evidence["expected_norm_ratio"] == pytest.approx(0.714, abs=0.001)


def test_one_layer_in_which_the_parents_are_unrelated_is_named() -> None:
    findings = findings_of("merge_norm_collapse", version(merged("odd", parents_cosine=0.1)))

    assert bad(findings) == [("odd", Severity.CRITICAL)]


@pytest.mark.parametrize(
    ("relation", "severity"), [(Relation.MERGED, Severity.CRITICAL), (None, Severity.WARNING)]
)
def test_without_parents_a_collapsed_norm_in_most_layers_tells(
    relation: Relation | None, severity: Severity
) -> None:
    # An average with an unrelated model of the same norm: half along the baseline, half across.
    halved = change(aligned=aligned(0.707, 0.707), norm_ratio=0.707)

    (finding,) = findings_of(
        "merge_norm_collapse",
        examination(*(layer(f"l{n}", change=halved) for n in range(4)), relation=relation),
    )

    assert (finding.layer, finding.severity) == (None, severity)
    assert finding.evidence["parents_cosine_if_two_were_averaged"] == pytest.approx(0.0, abs=0.01)


def test_pruning_loses_norm_too_and_is_no_collapse() -> None:
    # 90 % pruned (field report, section 7.5): norm ratio 0.663, relative change 0.749; the two squares add up to 1.
    pruned = [
        layer(
            f"l{number}",
            measurement=measurement(zero_share=0.9),
            change=change(aligned=aligned(0.749, 0.663), norm_ratio=0.663),
        )
        for number in range(4)
    ]

    assert findings_of("merge_norm_collapse", examination(*pruned)) == []


def test_a_base_that_the_parents_were_not_made_from_is_critical() -> None:
    layers = tuple(merged(f"l{number}", base_cosine=0.01) for number in range(4))
    whole = MergeEvidence(("a", "b"), "other", None, (0.5, 0.5), layers, ())

    assert bad(findings_of("merge_wrong_base", examination(merge=whole))) == [(None, Severity.CRITICAL)]
    odd = version(merged("odd", base_cosine=0.2), base="base")
    assert bad(findings_of("merge_wrong_base", odd)) == [("odd", Severity.CRITICAL)]
    assert findings_of("merge_wrong_base", version(base="base")) == []


def test_an_adapter_that_was_applied_twice_in_one_layer_is_named_there() -> None:
    odd = merged("odd", 2.0, 0.5, follows=False, left_over=0.01, base_cosine=0.98)

    assert bad(findings_of("merge_overcounted", version(odd, base="base"))) == [("odd", Severity.CRITICAL)]


def test_a_weight_of_two_that_is_declared_is_no_mistake() -> None:
    recipe = MergeRecipe(MergeMethod.TASK_ARITHMETIC, (2.0, 0.5), "base")
    layers = tuple(
        merged(f"l{number}", 2.0, 0.5, expected=(2.0, 0.5), base_cosine=0.98) for number in range(4)
    )
    evidence = MergeEvidence(("a", "b"), "base", recipe, (2.0, 0.5), layers, ())

    assert findings_of("merge_overcounted", examination(merge=evidence)) == []


def test_parents_that_learned_the_same_and_were_added_up_are_a_warning() -> None:
    layers = tuple(
        merged(f"l{number}", 1.0, 1.0, task_cosine=0.9, amplification=1.95, base_cosine=0.9)
        for number in range(4)
    )
    evidence = MergeEvidence(("a", "b"), "base", None, (1.0, 1.0), layers, ())

    assert bad(findings_of("merge_overcounted", examination(merge=evidence))) == [(None, Severity.WARNING)]


@pytest.mark.parametrize(("cosine", "fires"), [(-0.2, False), (-0.3, True), (0.0, False)])
def test_changes_that_cancel_each_other_are_a_warning(cosine: float, fires: bool) -> None:
    # acos(-0.25) / pi = 0.58.
    layers = tuple(merged(f"l{number}", task_cosine=cosine) for number in range(3))
    evidence = MergeEvidence(("a", "b"), "base", None, (0.5, 0.5), layers, ())

    assert (
        bad(findings_of("merge_sign_conflict", examination(merge=evidence)))
        == [(None, Severity.WARNING)] * fires
    )


@pytest.mark.parametrize(
    "rule", ["merge_recipe", "merge_wrong_base", "merge_overcounted", "merge_sign_conflict"]
)
def test_without_parents_there_is_nothing_to_say(rule: str) -> None:
    assert findings_of(rule, examination(layer(), relation=Relation.MERGED)) == []


def test_severity_comes_from_the_settings() -> None:
    odd = version(merged("odd", 0.9, 0.1, follows=False, deviation=0.8))

    findings = findings_of("merge_recipe", odd, settings("merge_recipe", severity="warning"))

    assert bad(findings) == [("odd", Severity.WARNING)]
