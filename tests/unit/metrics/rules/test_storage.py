"""Rules packing, left_unquantised and config_contradicted: remarks about storage become findings."""

from __future__ import annotations

import pytest

from layerwatch.metrics.census.remark import StorageRemark, StorageRemarkKind
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import RuleGroup, Severity, Verdict
from layerwatch.metrics.judge import judge
from layerwatch_testing.examinations import (
    among_healthy,
    examination,
    findings_of,
    layer,
    new_layer,
    rule_named,
    settings,
    unreadable_layer,
)

K = StorageRemarkKind
RULE_OF = {
    **dict.fromkeys((K.FORMAT, K.BITS, K.GROUP_INDEX, K.EXCLUDED, K.CODEBOOK), ("packing", Severity.WARNING)),
    **dict.fromkeys(
        (K.GROUP_SIZE, K.ZERO_POINT, K.MISSING_PART, K.SHAPES, K.SCALES), ("packing", Severity.CRITICAL)
    ),
    K.LEFT_UNQUANTISED: ("left_unquantised", Severity.CRITICAL),
    K.QUANTISED_ALONE: ("left_unquantised", Severity.WARNING),
    K.NOTHING_QUANTISED: ("left_unquantised", Severity.WARNING),
    **dict.fromkeys((K.MISSING_BLOCKS, K.VOCABULARY), ("config_contradicted", Severity.CRITICAL)),
    **dict.fromkeys((K.EXTRA_BLOCKS, K.EXTRA_ROWS, K.HIDDEN_SIZE), ("config_contradicted", Severity.WARNING)),
}
RULES = ("packing", "left_unquantised", "config_contradicted")

# The other kind is about a file as a whole, and has a rule and tests of its own.
KINDS = [kind for kind in StorageRemarkKind if kind is not K.CODE_IN_PICKLE]

each_kind = pytest.mark.parametrize("kind", KINDS)
each_rule = pytest.mark.parametrize("rule", RULES)


def remark(kind: StorageRemarkKind, layer: str = "fc", stored: str = "2") -> StorageRemark:
    return StorageRemark(layer, kind, "is not as declared", "1", stored)


def stored(*remarks: StorageRemark, before: tuple[StorageRemark, ...] = ()) -> Examination:
    return among_healthy(layer("fc"), remarks=remarks, baseline_remarks=before)


def one_of_each_kind() -> Examination:
    return stored(*map(remark, KINDS))


@each_kind
def test_each_contradiction_belongs_to_one_rule_and_has_its_severity(kind: StorageRemarkKind) -> None:
    found = {rule: findings_of(rule, stored(remark(kind))) for rule in RULES}

    rule, severity = RULE_OF[kind]
    assert {name for name, findings in found.items() if findings} == {rule}
    ((finding,),) = (findings for findings in found.values() if findings)
    assert (finding.layer, finding.severity, finding.group) == ("fc", severity, RuleGroup.WEIGHTS)
    assert finding.message == "is not as declared"
    assert finding.evidence["contradiction"] == kind.value
    assert (str(finding.evidence["declared"]), str(finding.evidence["stored"])) == ("1", "2")


@each_rule
def test_a_model_without_remarks_is_silent(rule: str) -> None:
    assert findings_of(rule, stored()) == []


@each_kind
def test_what_was_so_in_the_baseline_is_information(kind: StorageRemarkKind) -> None:
    rule, severity = RULE_OF[kind]

    (same,) = findings_of(rule, stored(remark(kind), before=(remark(kind),)))
    (worse,) = findings_of(rule, stored(remark(kind), before=(remark(kind, stored="3"),)))
    (other,) = findings_of(rule, stored(remark(kind), before=(remark(kind, layer="other"),)))

    assert same.severity is Severity.INFO
    assert same.message.endswith("as in the baseline")
    assert worse.severity is other.severity is severity


@each_rule
def test_what_the_baseline_alone_has_is_silent(rule: str) -> None:
    before = tuple(map(remark, StorageRemarkKind))

    assert findings_of(rule, stored(before=before)) == []


def test_a_remark_about_the_whole_model_names_no_layer() -> None:
    (finding,) = findings_of("left_unquantised", stored(remark(K.NOTHING_QUANTISED, layer="")))

    assert finding.layer is None


def test_siblings_alone_are_no_proof() -> None:
    undeclared = StorageRemark("fc", K.LEFT_UNQUANTISED, "unlike its siblings", "", "full precision")

    (finding,) = findings_of("left_unquantised", stored(undeclared))

    assert finding.severity is Severity.WARNING


@pytest.mark.parametrize(("readable", "severity"), [(True, Severity.WARNING), (False, Severity.CRITICAL)])
def test_an_index_of_groups_by_which_nothing_can_be_read_is_critical(
    readable: bool, severity: Severity
) -> None:
    fc = layer("fc") if readable else unreadable_layer("fc")

    (finding,) = findings_of("packing", among_healthy(fc, remarks=(remark(K.GROUP_INDEX),)))

    assert finding.severity is severity


def test_a_missing_scale_fails_where_the_layer_alone_would_be_undecided() -> None:
    lost = among_healthy(unreadable_layer("fc"))
    told = among_healthy(unreadable_layer("fc"), remarks=(remark(K.MISSING_PART),))

    assert judge(lost, settings("packing")).verdict is Verdict.UNDECIDED
    judged = judge(told, settings("packing"))
    assert judged.verdict is Verdict.FAIL
    assert judged.diagnoses[0].defect == "packing"
    assert judge(told, settings("packing", enabled=False)).verdict is Verdict.UNDECIDED


@each_rule
def test_no_baseline_is_needed(rule: str) -> None:
    alone = examination(new_layer("fc"), has_baseline=False, remarks=tuple(map(remark, StorageRemarkKind)))

    assert len(findings_of(rule, alone)) == sum(name == rule for name, _ in RULE_OF.values())
    assert not rule_named(rule).needs_baseline


@each_rule
@pytest.mark.parametrize("severity", ["info", "warning", "critical"])
def test_the_settings_say_how_bad_the_certain_ones_are(rule: str, severity: str) -> None:
    findings = findings_of(rule, one_of_each_kind(), settings(rule, severity=severity))

    assert {finding.severity.value for finding in findings} == (
        {"info"} if severity == "info" else {"warning", severity}
    )


def test_the_same_fault_in_most_layers_is_one_diagnosis() -> None:
    names = [f"l{number}" for number in range(6)]
    version = examination(
        *map(layer, names), remarks=tuple(remark(K.ZERO_POINT, layer=name) for name in names)
    )

    (diagnosis,) = judge(version, settings("packing")).diagnoses

    assert (diagnosis.layer, diagnosis.defect, diagnosis.layers) == (None, "packing", 6)
