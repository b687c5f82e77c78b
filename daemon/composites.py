"""Composites: each is a model of a registry of its own, whose versions are sets of versions of its members.

Everything follows from what the refs point at, inside one transaction: done twice, or again after a kill, it changes
nothing more. Reports, gauges, alerts and acceptance are those of any other model.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from layerwatch.config.composites import COMPOSITES, CompositeSettings, Member
from layerwatch.config.rules import RulesSettings
from layerwatch.daemon.alerting import AlertPolicy, follow_refs
from layerwatch.daemon.store import baselines, refs, versions
from layerwatch.daemon.store.records import Lineage, VersionKey, VersionRecord, VersionState
from layerwatch.daemon.store.summaries import layers_of
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from layerwatch.metrics.judge import Judgement, judge
from layerwatch.metrics.members import MemberVerdict, composite_verdict, with_changes, worst_verdict
from layerwatch.metrics.report import ModelPart, build_report

_LOGGER = logging.getLogger(__name__)

LATEST = "latest"
"""The only ref of a composite."""

_NOTHING = "none"
_LONGEST_NAME = 100
_BLIND_SPOT = "Members were judged each by itself: whether they still fit together is not seen."

_Names = tuple[tuple[str, str], ...]
"""(member, version) pairs; members that have no version are left out."""


def follow_composites(
    connection: Connection,
    composites: Sequence[CompositeSettings],
    rules: RulesSettings,
    policy: AlertPolicy,
    now: datetime,
) -> bool:
    """Bring the composites, and their alerts, in line with their members.

    A composite that is no longer configured is gone, and its alert resolves. Needs a write transaction.

    Returns:
        True when anything that is shown or told changed.
    """
    changed = False
    for composite in composites:
        changed |= _follow(connection, composite, rules, policy, now)
    names = {composite.name for composite in composites}
    for record in versions.current_of_registry(connection, COMPOSITES):
        if record.key.model not in names and record.gone_at is None:
            changed |= _mark_gone(connection, record, now)
    for model in {record.model for record in refs.list_refs(connection, COMPOSITES)} - names:
        changed |= follow_refs(connection, COMPOSITES, model, {}, policy, now)
    return changed


@dataclass(frozen=True, slots=True)
class _Found:
    """One member now; fingerprint of its bytes, None where there is no version."""

    verdict: MemberVerdict
    fingerprint: str | None


def _follow(
    connection: Connection,
    composite: CompositeSettings,
    rules: RulesSettings,
    policy: AlertPolicy,
    now: datetime,
) -> bool:
    found = [_find(connection, member) for member in composite.parsed]
    pointed = _pointed(connection, composite.name)
    if pointed is None and all(one.verdict.version is None for one in found):
        # Nothing was ever seen of it: the registries were not looked at yet.
        return False
    fingerprint = _digest([[one.verdict.name, one.verdict.version, one.fingerprint] for one in found])
    key = VersionKey(COMPOSITES, composite.name, _version_name([one.verdict for one in found]))
    is_same = pointed is not None and (pointed.key, pointed.fingerprint) == (key, fingerprint)
    before = _before(pointed, is_same=is_same)
    members = with_changes([one.verdict for one in found], before)
    judgement = _judge(members, rules)

    if pointed is not None and is_same and pointed.current and pointed.gone_at is None:
        record = pointed
    else:
        location = _location(members, before)
        record = versions.register(connection, key, fingerprint, location, now.isoformat(), Lineage(), now)
    changed = _record(connection, record, members, judgement, is_same=is_same, now=now)
    changed |= follow_refs(connection, COMPOSITES, composite.name, {LATEST: key.version}, policy, now)
    for other in versions.current_of_registry(connection, COMPOSITES):
        if other.key.model == composite.name and other.id != record.id and other.gone_at is None:
            changed |= _mark_gone(connection, other, now)
    return changed


def _find(connection: Connection, member: Member) -> _Found:
    for ref in refs.list_refs(connection, member.registry, member.model):
        version = versions.get_without_report(connection, ref.version_id) if ref.ref == member.ref else None
        if version is not None:
            verdict = MemberVerdict(member.name, version.key.version, _verdict(connection, version))
            return _Found(verdict, version.fingerprint)
    return _Found(MemberVerdict(member.name, None, None), None)


def _verdict(connection: Connection, version: VersionRecord) -> Verdict | None:
    """The verdict of a member; what a person accepted is held against it no more."""
    if not baselines.was_accepted(connection, version.key, version.fingerprint):
        return version.verdict
    left = [one for one in versions.findings(connection, version.id) if one.group is not RuleGroup.WEIGHTS]
    if any(one.severity is Severity.CRITICAL for one in left):
        return Verdict.FAIL
    if version.verdict is Verdict.UNDECIDED or any(one.group is RuleGroup.EXAMINATION for one in left):
        return Verdict.UNDECIDED
    return Verdict.WARN if any(one.severity is Severity.WARNING for one in left) else Verdict.PASS


def _pointed(connection: Connection, name: str) -> VersionRecord | None:
    for ref in refs.list_refs(connection, COMPOSITES, name):
        if ref.ref == LATEST:
            return versions.get_without_report(connection, ref.version_id)
    return None


def _judge(members: tuple[MemberVerdict, ...], rules: RulesSettings) -> Judgement:
    judgement = judge(Examination((), (), (), has_baseline=False, members=members), rules)
    verdict = worst_verdict((composite_verdict(members), judgement.verdict))
    return replace(judgement, verdict=verdict, blind_spots=(_BLIND_SPOT,))


def _record(
    connection: Connection,
    record: VersionRecord,
    members: Sequence[MemberVerdict],
    judgement: Judgement,
    *,
    is_same: bool,
    now: datetime,
) -> bool:
    """Keep verdict and findings, unless they are those that the composite has already."""
    known = [_shown(finding) for finding in versions.findings(connection, record.id)]
    if is_same and record.verdict is judgement.verdict and known == [*map(_shown, judgement.findings)]:
        return False
    if record.state is VersionState.JUDGED:
        versions.reopen(connection, record.id)
    model = ModelPart(
        source=", ".join(f"{member.name}: {member.version or _NOTHING}" for member in members),
        name=record.key.model,
        version=record.key.version,
        fingerprint=record.fingerprint,
        format=None,
        size_bytes=None,
    )
    nothing = Examination((), (), (), has_baseline=False)
    report = build_report(model, None, nothing, judgement, (), {})
    versions.record_verdict(
        connection,
        record.id,
        judgement.verdict,
        report.to_json(),
        judgement.findings,
        now,
        layers_of(report),
    )
    _LOGGER.info("composite %s %s: %s", record.key.model, record.key.version, judgement.verdict)
    for finding in judgement.findings:
        _LOGGER.info("composite %s: %s", record.key.model, finding.message)
    return True


def _shown(finding: Finding) -> tuple[str, Severity, str]:
    return finding.rule, finding.severity, finding.message


def _mark_gone(connection: Connection, record: VersionRecord, now: datetime) -> bool:
    """Superseded sets of members are forgotten in time, unlike versions that a registry still offers."""
    key = record.key
    return versions.mark_gone(connection, key.registry, key.model, key.version, now)


def _version_name(members: Sequence[MemberVerdict]) -> str:
    """For example ``v7+v3``, in the order of the configuration."""
    name = "+".join(member.version or _NOTHING for member in members)
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}~{_digest(name)[:12]}"


def _location(members: Sequence[MemberVerdict], before: _Names) -> str:
    """What a composite's version consists of, and what the one before it did."""
    now = [(member.name, member.version) for member in members if member.version is not None]
    return json.dumps({"members": now, "before": before})


def _before(pointed: VersionRecord | None, *, is_same: bool) -> _Names:
    """The members that the composite was judged with before it had those of now."""
    if pointed is None:
        return ()
    try:
        kept = json.loads(pointed.source_path)["before" if is_same else "members"]
        return tuple((name, version) for name, version in kept)
    except (ValueError, KeyError, TypeError):
        # Left by a registry that had the name of the composites' once.
        return ()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode("ascii")).hexdigest()
