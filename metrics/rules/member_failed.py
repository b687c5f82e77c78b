"""A composite with a member that failed, is missing, or is another version than before."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.member_failed
    for member in examination.members:
        version = member.version or "no version"
        if member.verdict is not Verdict.PASS:
            severity = settings.severity if member.verdict is Verdict.FAIL else settings.unsure_severity
            word = "was not judged yet" if member.verdict is None else f"has the verdict {member.verdict}"
            # An alert that fires for a failed member says nothing more when nobody knows any more how that one is.
            group = RuleGroup.EXAMINATION if member.verdict is Verdict.UNDECIDED else RULE.group
            yield Finding(
                RULE.name,
                group,
                Severity(severity),
                None,
                f"its member {member.name} ({version}) {word}",
                {"member": member.name, "version": member.version, "verdict": str(member.verdict or "none")},
                strength=2.0,
            )
        if member.changed_from is not None:
            yield Finding(
                RULE.name,
                RULE.group,
                Severity(settings.changed_severity),
                None,
                f"its member {member.name} is another version now, {version} instead of {member.changed_from}: what "
                "was fitted to the members (a stacker, calibration, thresholds) may not fit any more",
                {"member": member.name, "version": member.version, "previous_version": member.changed_from},
            )


RULE = Rule(
    name="member_failed",
    group=RuleGroup.WEIGHTS,
    title="a member of a composite failed or changed",
    explanation="""\
An ensemble, a soup or a pipeline is made of other models (members in the configuration), and is as healthy as the worst
of them. Critical when a member failed; a warning when one warns, is undecided or missing. Information when one was
exchanged for another version, since whatever was fitted to the members was fitted to the old one. A member that a
person accepted counts as passed. An undecided member fires, whatever its severity, as anything does that could not be
examined, and is told also where an alert about a failed member fires already.

A composite is a model of the registry "composites": each set of members' versions is one of its versions, named after
them, and accepting it (layerwatch baseline accept composites/NAME VERSION) ends its alert.

Likely cause: a member's ref was moved to a new version, by promotion or by a retrain.

What to do: look at the member's own report; fit and test the composite again after a member changed.

Cannot see: whether the members still fit together.""",
    needs_baseline=False,
    check=check,
)
