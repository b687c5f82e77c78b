"""Something that had to be examined could not be."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    severity = Severity(rules.unreadable.severity)
    for what, problem in (("", examination.problem), ("the baseline ", examination.baseline_problem)):
        if problem is not None:
            yield Finding(
                RULE.name,
                RULE.group,
                severity,
                None,
                f"{what}could not be examined: {problem.detail}",
                {"reason": problem.reason},
                strength=200.0,
            )
    for layer in examination.undecided:
        if layer.problem is not None:
            yield Finding(
                RULE.name,
                RULE.group,
                severity,
                layer.name,
                f"could not be examined: {layer.problem.detail}",
                {"reason": layer.problem.reason},
                strength=100.0,
            )


RULE = Rule(
    name="unreadable",
    group=RuleGroup.EXAMINATION,
    title="a file or layer could not be examined",
    explanation="""\
A file that is truncated, damaged, of an unknown format or too large for the limits, or a layer stored in a way
that cannot be undone, was not examined. Silence about it would look like health, so the verdict is
"undecided" (unless something else is critical, which makes it "fail").

Switching this rule off, or lowering its severity, hides the finding but never turns "undecided" into "pass".

Likely cause: a transfer that broke off, a file still being written, or a format that no reader here knows.

What to do: the finding names file, tensor and reason. Publish the file again, raise scan.memory_limit or
scan.timeout, or convert the format.""",
    needs_baseline=False,
    check=check,
)
