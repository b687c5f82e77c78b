"""Mixtures of experts, adapters and composites."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.metrics import compare_models, measure_model
from layerwatch.metrics.adapters import adapter_pairs, is_adapter_factor
from layerwatch.metrics.examination import ExaminedLayer, MissingLayer
from layerwatch.metrics.experts import Expert, ExpertGroup
from layerwatch.metrics.findings import Finding, Severity, Verdict
from layerwatch.metrics.members import MemberVerdict, composite_verdict, with_changes
from layerwatch.metrics.relation import Relation
from layerwatch_testing.examinations import examination, findings_of, measurement, new_layer

State = dict[str, NDArray[np.float32]]


def mixture(seed: int = 0, experts: int = 6) -> State:
    random = np.random.default_rng(seed)
    state = {"model.layers.0.mlp.gate.weight": random.standard_normal((experts, 40)).astype(np.float32)}
    for number in range(experts):
        name = f"{expert(number)}.weight"
        state[name] = random.standard_normal((56, 40)).astype(np.float32)
    return state


def expert(number: int) -> str:
    return f"model.layers.0.mlp.experts.{number}.gate_proj"


def said(findings: tuple[Finding, ...], rule: str) -> list[tuple[str | None, Severity]]:
    return [(finding.layer, finding.severity) for finding in findings if finding.rule == rule]


def test_a_healthy_mixture_says_nothing_of_its_experts() -> None:
    found = compare_models(mixture(), mixture())

    assert not {"expert_outlier", "expert_duplicate"} & {finding.rule for finding in found.judgement.findings}


@pytest.mark.parametrize("factor", [3.0, 0.3])
def test_an_expert_whose_scale_went_wrong_is_critical_against_the_baseline(factor: float) -> None:
    broken = mixture()
    broken[f"{expert(3)}.weight"] *= np.float32(factor)

    assert said(compare_models(broken, mixture()).judgement.findings, "expert_outlier") == [
        (expert(3), Severity.CRITICAL)
    ]


def group(norms: list[float], before: list[float] | None = None, *, router: bool = False) -> ExpertGroup:
    return ExpertGroup(
        "experts",
        router,
        tuple(
            Expert("gate" if router else f"experts.{n}", n, norm, baseline_norm=before[n] if before else None)
            for n, norm in enumerate(norms)
        ),
    )


def outliers(one: ExpertGroup) -> list[tuple[str | None, Severity]]:
    return said(tuple(findings_of("expert_outlier", examination(experts=(one,)))), "expert_outlier")


def test_without_a_baseline_an_outlier_is_a_warning_and_an_empty_expert_critical() -> None:
    assert outliers(group([1, 1, 1, 1, 4])) == [("experts.4", Severity.WARNING)]
    assert outliers(group([1, 1, 1, 1, 0])) == [("experts.4", Severity.CRITICAL)]


def test_an_expert_that_was_an_outlier_before_is_part_of_the_model() -> None:
    assert outliers(group([1, 1, 1, 1, 4], [1, 1, 1, 1, 4])) == []


def test_experts_that_differ_widely_have_no_outlier() -> None:
    assert outliers(group([0.5, 0.8, 1, 1.4, 2])) == []


def test_a_router_row_that_is_next_to_nothing_is_critical() -> None:
    assert outliers(group([1, 1, 1, 1, 1e-6], router=True)) == [("gate", Severity.CRITICAL)]


def test_rows_of_a_router_and_parts_of_a_stacked_tensor_are_experts() -> None:
    random = np.random.default_rng(1)
    stacked = {
        "model.layers.0.mlp.experts.down_proj": random.standard_normal((8, 24, 24)).astype(np.float32),
        "model.layers.0.mlp.gate.weight": random.standard_normal((8, 24)).astype(np.float32),
    }
    broken = {name: values.copy() for name, values in stacked.items()}
    broken["model.layers.0.mlp.experts.down_proj"][5] *= 4
    broken["model.layers.0.mlp.gate.weight"][2] *= 0.01

    findings = compare_models(broken, stacked).judgement.findings

    assert set(said(findings, "expert_outlier")) == {
        ("model.layers.0.mlp.experts.5.down_proj", Severity.CRITICAL),
        ("model.layers.0.mlp.gate", Severity.CRITICAL),
    }


def test_a_copied_expert_is_critical_against_the_baseline_and_a_warning_without() -> None:
    broken = mixture()
    broken[f"{expert(4)}.weight"] = broken[f"{expert(1)}.weight"].copy()

    against = said(compare_models(broken, mixture()).judgement.findings, "expert_duplicate")
    alone = {
        (one.layer, one.severity)
        for one in measure_model(broken).report.findings
        if one.rule == "expert_duplicate"
    }

    assert set(against) == {(expert(1), Severity.CRITICAL), (expert(4), Severity.CRITICAL)}
    assert alone == {(expert(1), "warning"), (expert(4), "warning")}


def test_copies_of_one_model_are_how_a_mixture_may_begin() -> None:
    upcycled = mixture()
    for number in range(6):
        upcycled[f"{expert(number)}.weight"] = upcycled[f"{expert(0)}.weight"].copy()

    findings = [one for one in measure_model(upcycled).report.findings if one.rule == "expert_duplicate"]

    assert [one.severity for one in findings] == ["info"]


def factor(name: str, shape: tuple[int, ...], max_abs: float = 0.1) -> ExaminedLayer:
    return new_layer(name, shape=shape, measurement=measurement(shape=shape, max_abs=max_abs))


def adapter(*empty: str) -> list[ExaminedLayer]:
    found = []
    for target in ("q_proj", "v_proj"):
        name = f"base_model.model.model.layers.0.self_attn.{target}"
        found.append(factor(f"{name}.lora_A", (8, 64)))
        found.append(factor(f"{name}.lora_B", (32, 8), 0.0 if target in empty else 0.1))
    return found


def test_factors_are_paired_by_their_target() -> None:
    pairs = adapter_pairs(adapter())

    assert [pair.target.rsplit(".")[-1] for pair in pairs] == ["q_proj", "v_proj"]
    assert "layers.0.self_attn.q_proj" in pairs[0].names_of_target
    assert (pairs[0].a.shape, pairs[0].b.shape) == ((8, 64), (32, 8))


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("base_model.model.fc.lora_A", True),
        ("fc.lora_B.default", True),
        ("unet.down.0.lora_down", True),
        ("emb.lora_embedding_A", True),
        ("model.layers.0.q_proj", False),
        ("flora_b", False),
    ],
)
def test_factors_are_known_by_their_names(name: str, is_one: bool) -> None:
    assert is_adapter_factor(name) is is_one


def test_an_adapter_that_was_never_trained_is_a_warning() -> None:
    (finding,) = findings_of("adapter_no_op", examination(*adapter("q_proj", "v_proj"), has_baseline=False))

    assert (finding.layer, finding.severity) == (None, Severity.WARNING)
    assert "as before training" in finding.message


def test_a_part_of_an_adapter_that_does_nothing_is_named() -> None:
    (finding,) = findings_of("adapter_no_op", examination(*adapter("v_proj"), has_baseline=False))

    assert finding.layer is not None
    assert finding.layer.endswith("v_proj.lora_B")


def base(columns: int = 64) -> tuple[MissingLayer, ...]:
    return tuple(
        MissingLayer(f"model.layers.0.self_attn.{name}", (32, columns)) for name in ("q_proj", "v_proj")
    )


def test_an_adapter_that_fits_its_base_is_silent() -> None:
    found = examination(*adapter(), missing=base(), relation=Relation.ADAPTER)

    assert findings_of("adapter_wrong_base", found) == []


def test_an_adapter_for_a_wider_model_is_critical_on_each_layer() -> None:
    findings = findings_of(
        "adapter_wrong_base", examination(*adapter(), missing=base(128), relation=Relation.ADAPTER)
    )

    assert [finding.severity for finding in findings] == [Severity.CRITICAL] * 2


def test_an_adapter_needs_no_declaration_to_be_held_against_its_base() -> None:
    undeclared = examination(*adapter(), missing=base(128))
    among_others = examination(*adapter(), new_layer("fc"), missing=base(128))

    assert len(findings_of("adapter_wrong_base", undeclared)) == 2
    assert findings_of("adapter_wrong_base", among_others) == []


def test_an_adapter_whose_layers_the_base_lacks_is_critical() -> None:
    missing = (MissingLayer("blocks.0.attn", (32, 64)),)

    (finding,) = findings_of(
        "adapter_wrong_base", examination(*adapter(), missing=missing, relation=Relation.ADAPTER)
    )

    assert (finding.layer, finding.severity) == (None, Severity.CRITICAL)


PASS, WARN, FAIL, UNDECIDED = Verdict.PASS, Verdict.WARN, Verdict.FAIL, Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [
        ([], PASS),
        ([PASS, PASS], PASS),
        ([PASS, WARN], WARN),
        ([WARN, UNDECIDED], UNDECIDED),
        ([UNDECIDED, FAIL, PASS], FAIL),
        ([PASS, None], UNDECIDED),
    ],
)
def test_a_composite_is_as_healthy_as_its_worst_member(
    verdicts: list[Verdict | None], worst: Verdict
) -> None:
    assert (
        composite_verdict(MemberVerdict(f"r/m{n}@latest", "v1", one) for n, one in enumerate(verdicts))
        is worst
    )


def test_a_failed_member_is_critical_and_an_unjudged_one_a_warning() -> None:
    members = (
        MemberVerdict("r/a@prod", "v3", FAIL),
        MemberVerdict("r/b@prod", "v1", None),
        MemberVerdict("r/c@prod", "v1", PASS),
    )

    findings = findings_of("member_failed", examination(members=members))

    assert [finding.severity for finding in findings] == [Severity.CRITICAL, Severity.WARNING]
    assert "r/a@prod (v3) has the verdict fail" in findings[0].message


def test_a_member_that_is_another_version_now_is_told_to_the_composites_owner() -> None:
    now = [
        MemberVerdict("r/a@prod", "v4", PASS),
        MemberVerdict("r/b@prod", "v1", PASS),
        MemberVerdict("r/c@x", "v1", PASS),
    ]

    members = with_changes(now, [("r/a@prod", "v3"), ("r/b@prod", "v1")])

    (finding,) = findings_of("member_failed", examination(members=members))
    assert finding.severity is Severity.INFO
    assert "v4 instead of v3" in finding.message
