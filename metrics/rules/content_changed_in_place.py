"""Other bytes under the name of a version that was examined before."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    changed = examination.in_place
    if changed is None:
        return
    evidence = {"fingerprint": changed.fingerprint, "previous_fingerprint": changed.previous_fingerprint}
    if not changed.was_readable:
        yield Finding(
            RULE.name,
            RULE.group,
            Severity.INFO,
            None,
            "the version's bytes changed after it could not be examined: it was completed or replaced",
            evidence,
        )
        return
    yield Finding(
        RULE.name,
        RULE.group,
        Severity(rules.content_changed_in_place.severity),
        None,
        f"the version's bytes changed under its name: fingerprint {changed.previous_fingerprint[:12]} became "
        f"{changed.fingerprint[:12]}",
        evidence,
        strength=300.0,
    )


RULE = Rule(
    name="content_changed_in_place",
    group=RuleGroup.INTEGRITY,
    title="a version's bytes changed under its name",
    explanation="""\
A version is one immutable state. Whoever deployed it yesterday and whoever deploys it today must get the same
bytes; when they do not, something overwrote the file, the disk returned other data, or somebody tampered.

The fingerprint (sha256 over the manifest of weight files) is compared with the one examined before under the
same registry, model and version. Information only when the earlier bytes could not be read: then the version
was most likely still being written.

Likely cause: a job that overwrote a published version instead of making a new one, or a disk or a mirror that serves
damaged bytes.

What to do: find out who wrote it; publish changes as a new version. Accepting the version as baseline
(layerwatch baseline accept) does not silence this finding; publishing a new version does.

Cannot see: bytes that changed before the first scan.""",
    needs_baseline=False,
    check=check,
)
