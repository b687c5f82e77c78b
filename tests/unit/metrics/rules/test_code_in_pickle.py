"""Rule code_in_pickle: a file that runs code where others load it."""

from __future__ import annotations

from layerwatch.metrics.census.remark import StorageRemark, StorageRemarkKind
from layerwatch.metrics.findings import RuleGroup, Severity, Verdict
from layerwatch.metrics.judge import judge
from layerwatch_testing.examinations import among_healthy, findings_of, rule_named, settings

RULE = "code_in_pickle"
REMARK = StorageRemark(
    "", StorageRemarkKind.CODE_IN_PICKLE, "m.bin: its pickle asks for os.system", "m.bin", "os.system"
)


def test_it_is_critical_and_says_which_file_asks_for_what() -> None:
    (finding,) = findings_of(RULE, among_healthy(remarks=(REMARK,)))

    assert (finding.severity, finding.group, finding.layer) == (
        Severity.CRITICAL,
        RuleGroup.INTEGRITY,
        None,
    )
    assert finding.message == "m.bin: its pickle asks for os.system"
    assert finding.evidence == {"file": "m.bin", "asks_for": "os.system"}


def test_a_baseline_with_the_same_file_does_not_make_it_harmless() -> None:
    (finding,) = findings_of(RULE, among_healthy(remarks=(REMARK,), baseline_remarks=(REMARK,)))

    assert finding.severity is Severity.CRITICAL


def test_other_remarks_and_files_of_the_baseline_are_not_its_business() -> None:
    others = tuple(
        StorageRemark("fc", kind, "is wrong")
        for kind in StorageRemarkKind
        if kind is not StorageRemarkKind.CODE_IN_PICKLE
    )

    assert findings_of(RULE, among_healthy(remarks=others, baseline_remarks=(REMARK,))) == []


def test_a_healthy_version_with_such_a_file_fails_unless_the_rule_is_off() -> None:
    version = among_healthy(remarks=(REMARK,))

    assert judge(version, settings(RULE)).verdict is Verdict.FAIL
    assert judge(version, settings(RULE, severity="warning")).verdict is Verdict.WARN
    assert judge(version, settings(RULE, enabled=False)).verdict is Verdict.PASS
    assert not rule_named(RULE).needs_baseline
