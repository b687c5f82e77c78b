"""Which verdicts were written back to their registries, so that each is written once, also over a restart."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.records import VersionRecord, VersionState
from layerwatch.daemon.store.versionrows import LISTED, PRESENT, to_record

_TABLE = tables.verdict_notes
_VERSIONS = tables.versions


def due(
    connection: sa.Connection, registry: str, limit: int, put_off: Sequence[int] = ()
) -> list[VersionRecord]:
    """Judged versions whose verdict their registry does not show yet, latest judged first, without their reports.

    Args:
        put_off: rows that are left out.
    """
    shown = sa.exists().where(_TABLE.c.version_id == _VERSIONS.c.id, _TABLE.c.verdict == _VERSIONS.c.verdict)
    query = (
        sa.select(*LISTED)
        .where(
            _VERSIONS.c.registry == registry,
            PRESENT,
            _VERSIONS.c.state == VersionState.JUDGED.value,
            _VERSIONS.c.verdict.is_not(None),
            sa.not_(shown),
            _VERSIONS.c.id.not_in(put_off),
        )
        .order_by(_VERSIONS.c.judged_at.desc(), _VERSIONS.c.id.desc())
        .limit(limit)
    )
    return [to_record(row) for row in connection.execute(query)]


def save(connection: sa.Connection, version: VersionRecord, now: datetime) -> None:
    """Note that the registry shows the verdict of this record."""
    connection.execute(sa.delete(_TABLE).where(_TABLE.c.version_id == version.id))
    connection.execute(
        sa.insert(_TABLE).values(version_id=version.id, verdict=str(version.verdict), written_at=now)
    )
