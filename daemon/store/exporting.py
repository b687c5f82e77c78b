"""What the exporter reads: a query each, however many models pass."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.baselines import was_accepted
from layerwatch.daemon.store.records import VersionKey, VersionState
from layerwatch.daemon.store.verdicts import findings
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
    found = []
    for row in connection.execute(query).all():
        verdict = Verdict(row.verdict)
        key = VersionKey(row.registry, row.model, row.version)
        # Asked for the few that need it: most versions pass.
        accepted = (
            verdict is not Verdict.PASS
            and was_accepted(connection, key, row.fingerprint)
            and not _beyond_acceptance(connection, row.version_id)
        )
        found.append(JudgedRef(*row[:-1], verdict, accepted))
    return found


def _beyond_acceptance(connection: sa.Connection, version_id: int) -> bool:
    return any(
        one.severity is Severity.CRITICAL and one.group is not RuleGroup.WEIGHTS
        for one in findings(connection, version_id)
    )


def oldest_waiting(connection: sa.Connection) -> datetime | None:
    """When the version that waits longest for its scan was found; None when none waits."""
    versions = tables.versions
    query = sa.select(sa.func.min(versions.c.discovered_at, type_=versions.c.discovered_at.type)).where(
        versions.c.state == VersionState.PENDING.value, PRESENT
    )
    found: datetime | None = connection.execute(query).scalar()
    return found
