"""The table of rules, their files, their settings and their explanations belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics import rules as package
from layerwatch.metrics.census.remark import StorageRemark, StorageRemarkKind
from layerwatch.metrics.coupling import CouplingKind
from layerwatch.metrics.estimate import Estimate
from layerwatch.metrics.examination import (
    Examination,
    ExaminedLayer,
    InPlaceChange,
    MissingLayer,
    Resemblance,
)
from layerwatch.metrics.experts import Expert, ExpertGroup
from layerwatch.metrics.findings import RuleGroup, Verdict
from layerwatch.metrics.judge import judge
from layerwatch.metrics.lineage import LineageEvidence
from layerwatch.metrics.members import MemberVerdict
from layerwatch.metrics.merge import MergedLayer, MergeEvidence
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rescaling import RescaledLayer, UnsharedRescaling
from layerwatch.metrics.rules import RULES, Rule
from layerwatch.metrics.storagefaults import StorageFaultKind
from layerwatch_testing.examinations import (
    aligned,
    change,
    coupling,
    examination,
    layer,
    measurement,
    new_layer,
    numbers,
    reordering,
    row_change,
    rule_named,
    settings,
    storage_fault,
    unreadable_layer,
    vector,
)

NAMES = [rule.name for rule in RULES]

each_rule = pytest.mark.parametrize("rule", RULES, ids=NAMES)


def test_every_rule_has_its_file_and_every_file_its_rule() -> None:
    assert package.__file__ is not None
    files = {path.stem for path in Path(package.__file__).parent.glob("*.py")} - {"__init__", "base"}

    assert sorted(NAMES) == sorted(files)


def test_every_rule_has_its_settings_and_every_section_its_rule() -> None:
    with_switch = {
        name for name in RulesSettings.model_fields if hasattr(getattr(RulesSettings(), name), "enabled")
    }

    assert sorted(NAMES) == sorted(with_switch)


@each_rule
def test_a_rule_is_explained_to_whoever_meets_it_at_night(rule: Rule) -> None:
    assert rule.title
    assert len(rule.title) < 60
    assert rule.what_to_do
    assert rule.likely_cause or rule.group is not RuleGroup.WEIGHTS
    if rule.likely_cause:
        assert rule.explanation.index("\n\nLikely cause:") < rule.explanation.index("\n\nWhat to do:")
        assert len(rule.likely_cause) <= 240
    # A part that could not be read is not a number that could be misjudged: there is nothing it cannot see.
    assert "Cannot see:" in rule.explanation or rule.name == "unreadable"
    assert all(len(line) <= 120 for line in rule.explanation.splitlines())


@each_rule
def test_a_rule_belongs_to_the_group_of_its_purpose(rule: Rule) -> None:
    others = {
        "unreadable": RuleGroup.EXAMINATION,
        "content_changed_in_place": RuleGroup.INTEGRITY,
        "code_in_pickle": RuleGroup.INTEGRITY,
    }

    assert rule.group is others.get(rule.name, RuleGroup.WEIGHTS)


def changed_element_by_element() -> list[ExaminedLayer]:
    """One layer for each rule that compares the weights themselves."""
    rows = {
        "transposed": row_change(transposed_cosine=0.9),
        "signs": row_change(low_rows=1, flipped_rows=1),
        "packed": row_change(reordering=reordering(block=8)),
        "permuted": row_change(reordering=reordering()),
        "other rows": row_change(low_rows=5),
        "row scale": row_change(row_norm_ratio=9.0),
        "one direction": row_change(spectral_change=2.0),
    }
    return [
        layer("swapped", change=change(aligned=aligned(1.4, 0.0)), resembles=Resemblance("healthy0", 0.99)),
        layer("replaced", change=change(aligned=aligned(1.4, 0.0))),
        *(layer(name, change=change(aligned=aligned(rows=found))) for name, found in rows.items()),
        *(
            layer(kind, change=change(aligned=aligned(fault=storage_fault(kind))))
            for kind in StorageFaultKind
        ),
    ]


def everything_wrong() -> Examination:
    """One version that violates every rule there is."""
    return examination(
        *(layer(f"healthy{number}") for number in range(8)),
        layer("nan", measurement=measurement(non_finite=1, numbers=None, folded=None), change=None),
        layer("empty", measurement=measurement(max_abs=0.0, norm=0.0)),
        layer("rows", change=change(new_zero_rows=20)),
        layer("huge", change=change(max_abs_ratio=1e6)),
        layer("scale", change=change(aligned=aligned(9.0), norm_ratio=10.0)),
        layer(
            "alpha",
            measurement=measurement(numbers=numbers(alpha=8.0)),
            change=change(alpha_shift=5.0, alpha_shift_sigmas=9.0),
        ),
        *changed_element_by_element(),
        layer(
            "tail",
            # Three rows and a half at the end, and no zeros elsewhere.
            measurement=measurement(zero_tail=224, zero_share=224 / 4096),
            change=change(zero_tail_energy=1.0),
        ),
        layer("copies", measurement=measurement(duplicate_rows=9), baseline=measurement(duplicate_rows=0)),
        layer(
            "levels", measurement=measurement(levels_per_row=3.0), baseline=measurement(levels_per_row=64.0)
        ),
        layer("sparse", measurement=measurement(zero_share=0.9)),
        layer("rank", change=change(rank_loss_shift=0.5)),
        vector(
            "reset",
            measurement=measurement(shape=(64,), constant=True, numbers=None, folded=None),
            baseline=measurement(shape=(64,), max_abs=3.0, numbers=None, folded=None),
        ),
        unreadable_layer("unreadable"),
        vector(),
        missing=(MissingLayer("missing", (3, 3)),),
        in_place=InPlaceChange("a" * 64, "b" * 64, True),
    )


def converted_wrongly() -> Examination:
    """Quantised, one layer worse than the others, which all lost more than int4 costs."""
    noise = [
        layer(
            f"noise{number}",
            change=change(aligned=aligned(0.2, rows=row_change(noise_ratio=1.0, structure=0.78))),
        )
        for number in range(4)
    ]
    odd = layer("odd", change=change(aligned=aligned(0.6, rows=row_change(noise_ratio=1.0, structure=1.2))))
    return examination(*noise, odd, vector())


def exported_wrongly() -> Examination:
    """Declared a re-export, and scaled as a whole."""
    scaled = change(aligned=aligned(0.3, 1.0), norm_ratio=1.3)
    others = measurement(digest="11", traps=3, largest_trap=2.0)
    layers = (
        layer(f"l{number}", change=scaled, measurement=others, baseline=measurement(traps=0))
        for number in range(4)
    )
    return examination(
        *layers,
        relation=Relation.REEXPORTED,
        permuted=("p",),
        left_behind=("l0",),
        rescaled=(RescaledLayer("r", 0.5, 2.0),),
        not_rescaled=(UnsharedRescaling("l1", "l0", 3, 0.4),),
    )


def mislabelled() -> Examination:
    """Moved far along few directions."""
    rows = row_change(residual_kurtosis=2.0, spectral_change=0.3)
    return examination(
        *(layer(f"l{number}", change=change(aligned=aligned(0.2, rows=rows))) for number in range(4))
    )


def of_another_seed() -> Examination:
    """Declared a fine-tune of one model, and near another."""
    lineage = LineageEvidence(
        declared="base",
        source="card",
        confidence=0.4,
        relation=Relation.FINETUNED,
        distance=Estimate(1.4, 0.01),
        cosine=Estimate(0.0, 0.01),
        nearest="reg/other/v1",
        nearest_distance=Estimate(0.05, 0.001),
        nearest_cosine=Estimate(0.99, 0.001),
        is_nearer=True,
    )
    unlike = change(aligned=aligned(1.4, 0.0))
    return examination(
        *(layer(f"l{number}", change=unlike) for number in range(4)),
        relation=Relation.FINETUNED,
        lineage=lineage,
    )


def merged_wrongly() -> Examination:
    """Parents of unrelated bases that cancel each other, one of them counted twice in one layer."""
    values: dict[str, Any] = {
        "errors": (0.01, 0.01),
        "expected": (0.5, 0.5),
        "left_over": 0.0,
        "norm_ratio": 0.7,
        "parents_cosine": 0.0,
        "base_cosine": 0.0,
        "task_cosine": -0.9,
        "amplification": 1.0,
    }
    common = MergedLayer("common", coefficients=(0.5, 0.5), deviation=0.0, follows=True, **values)
    odd = MergedLayer("odd", coefficients=(2.0, 0.5), deviation=1.5, follows=False, **values)
    merge = MergeEvidence(
        ("a", "b"), "base", None, (0.5, 0.5), (common, replace(common, name="more"), odd), ()
    )
    return examination(layer(), merge=merge, relation=Relation.MERGED)


def composed_wrongly() -> Examination:
    """A mixture with a dead expert and a copied one, an adapter that does nothing and fits nothing, a failed member."""
    experts = tuple(
        Expert(
            f"e{number}", number, 0.0 if number == 0 else 1.0, twin=2, twin_cosine=1.0 if number == 1 else 0.0
        )
        for number in range(5)
    )
    factors = (
        new_layer("fc.lora_A", shape=(4, 9)),
        new_layer("fc.lora_B", shape=(8, 4), measurement=measurement(max_abs=0.0)),
    )
    return examination(
        *factors,
        missing=(MissingLayer("fc", (8, 8)),),
        relation=Relation.ADAPTER,
        experts=(ExpertGroup("e", False, experts),),
        members=(MemberVerdict("local/a@latest", "v1", Verdict.FAIL),),
    )


def out_of_step() -> Examination:
    """Of another seed, with one layer each whose couplings are gone."""
    kinds = (CouplingKind.INTERFACE_UNITS, CouplingKind.STREAM_CHANNELS)
    statistics = coupling(CouplingKind.BATCHNORM_STATISTICS, 0.1, "conv", "bn.running_mean", slope=1.0)
    return examination(
        layer(),
        couplings=(*(coupling(kind, 0.0, f"{kind}") for kind in kinds), statistics),
        baseline_couplings=(
            *(coupling(kind, 20.0, f"{kind}") for kind in kinds),
            replace(statistics, value=0.99),
        ),
    )


def blurred() -> Examination:
    """Of another seed, with one layer that is larger and less in step than the others."""
    other = change(aligned=aligned(1.4, 0.0))
    layers = [layer(f"l{number}", change=other) for number in range(4)]
    layers.append(layer("l4", change=replace(other, norm_ratio=1.41)))
    before = tuple(coupling(CouplingKind.INTERFACE_UNITS, 40.0, f"l{number}") for number in range(5))
    return examination(
        *layers, couplings=(*before[:4], replace(before[4], value=24.0)), baseline_couplings=before
    )


def stored_wrongly() -> Examination:
    """With a remark of each kind about its storage."""
    return examination(
        layer(), remarks=tuple(StorageRemark("fc", kind, "is wrong", "1", "2") for kind in StorageRemarkKind)
    )


def wrong_versions() -> list[Examination]:
    """Versions that violate every rule between them; some rules exclude each other."""
    return [
        everything_wrong(),
        converted_wrongly(),
        exported_wrongly(),
        mislabelled(),
        of_another_seed(),
        merged_wrongly(),
        composed_wrongly(),
        out_of_step(),
        blurred(),
        stored_wrongly(),
    ]


def violated(rules: RulesSettings, *, has_baseline: bool = True) -> set[str]:
    return {
        finding.rule
        for version in wrong_versions()
        for finding in judge(replace(version, has_baseline=has_baseline), rules).findings
    }


def test_versions_with_every_defect_violate_every_rule() -> None:
    assert violated(RulesSettings()) == set(NAMES)


@each_rule
def test_a_disabled_rule_is_silent_and_the_others_are_not(rule: Rule) -> None:
    assert violated(settings(rule.name, enabled=False)) == set(NAMES) - {rule.name}


@each_rule
def test_without_a_baseline_only_rules_that_need_none_are_run(rule: Rule) -> None:
    assert (rule.name in violated(RulesSettings(), has_baseline=False)) is not rule.needs_baseline


def test_rules_can_be_found_by_name() -> None:
    assert rule_named("non_finite") is RULES[NAMES.index("non_finite")]
    assert len(set(NAMES)) == len(NAMES)
