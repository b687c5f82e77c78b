"""What the exporter reads, in a few queries however many models there are and however they were judged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.baselines import accepted_among
from layerwatch.daemon.store.chunks import chunks
from layerwatch.daemon.store.records import VersionKey, VersionState
from layerwatch.daemon.store.versionrows import PRESENT
from layerwatch.metrics.findings import RuleGroup, Severity, Verdict


@dataclass(frozen=True, slots=True)
class JudgedRef:
    """A ref that points at a version with a verdict.

    Attributes:
        version_id: number of the version's row.
        accepted: the version did not pass, a person called it normal, and nothing is left that only another version
            ends (bytes changed in place, a lineage that does not hold).
    """

    registry: str
    model: str
    ref: str
    version_id: int
    version: str
    fingerprint: str
    judged_at: datetime
    verdict: Verdict
    accepted: bool


def judged_refs(connection: sa.Connection) -> list[JudgedRef]:
    """All refs that point at a judged version, sorted by registry, model and name."""
    refs, versions = tables.refs, tables.versions
    query = (
        sa.select(
            refs.c.registry,
            refs.c.model,
            refs.c.ref,
            refs.c.version_id,
            versions.c.version,
            versions.c.fingerprint,
            versions.c.judged_at,
            versions.c.verdict,
        )
        .join_from(refs, versions, refs.c.version_id == versions.c.id)
        .where(versions.c.judged_at.is_not(None), versions.c.verdict.is_not(None))
        .order_by(refs.c.registry, refs.c.model, refs.c.ref)
    )
    rows = connection.execute(query).all()
    failing = {
        row.version_id: (VersionKey(row.registry, row.model, row.version), row.fingerprint)
        for row in rows
        if row.verdict != Verdict.PASS.value
    }
    among = accepted_among(connection, failing.values())
    accepted = {version_id for version_id, version in failing.items() if version in among}
    accepted -= _beyond_acceptance(connection, accepted)
    return [JudgedRef(*row[:-1], Verdict(row.verdict), row.version_id in accepted) for row in rows]


def _beyond_acceptance(connection: sa.Connection, version_ids: Iterable[int]) -> set[int]:
    """Those of these versions that have a critical finding about something else than their weights."""
    findings = tables.findings
    beyond: set[int] = set()
    for chunk in chunks(version_ids):
        query = sa.select(findings.c.version_id).where(
            findings.c.version_id.in_(chunk),
            findings.c.severity == Severity.CRITICAL.value,
            findings.c.rule_group != RuleGroup.WEIGHTS.value,
        )
        beyond.update(connection.execute(query).scalars())
    return beyond


def oldest_waiting(connection: sa.Connection) -> datetime | None:
    """When the version that waits longest for its scan was found; None when none waits."""
    versions = tables.versions
    query = sa.select(sa.func.min(versions.c.discovered_at, type_=versions.c.discovered_at.type)).where(
        versions.c.state == VersionState.PENDING.value, PRESENT
    )
    found: datetime | None = connection.execute(query).scalar()
    return found
