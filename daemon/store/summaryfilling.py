"""Numbers for the summaries of versions that were judged before summaries were kept, from the reports that still are."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from layerwatch.daemon.store import summaries, tables
from layerwatch.daemon.store.database import Database

_SUMMARIES = tables.version_summaries
_VERSIONS = tables.versions


def fill(database: Database, most: int, stopping: Callable[[], bool]) -> int:
    """Fill in what is missing, the newest rows first. Done once, it finds nothing the next time.

    One report at a time, which may be megabytes: nobody waits long for the write transactions, and what is done stays
    done.

    Args:
        most: so many versions at a call.
        stopping: True once it must end; the next call goes on.

    Returns:
        How many versions were filled in; fewer than ``most`` when nothing is left.

    Raises:
        StoreError: the database cannot be read or written, or is busy.
    """
    filled = 0
    for version_id in _lacking(database, most):
        if stopping():
            break
        with database.read() as connection:
            report = connection.scalar(sa.select(_VERSIONS.c.report).where(_VERSIONS.c.id == version_id))
        layers = summaries.layers_of_text(report) if report is not None else ()
        with database.write() as connection:
            # Unless it was judged again meanwhile.
            connection.execute(
                sa.update(_SUMMARIES)
                .where(_SUMMARIES.c.version_id == version_id, _SUMMARIES.c.layers.is_(None))
                .values(**summaries.numbers_of(layers))
            )
        filled += 1
    return filled


def _lacking(database: Database, most: int) -> list[int]:
    query = (
        sa.select(_SUMMARIES.c.version_id)
        .join_from(_SUMMARIES, _VERSIONS)
        .where(_SUMMARIES.c.layers.is_(None), _VERSIONS.c.report.is_not(None))
        .order_by(_SUMMARIES.c.version_id.desc())
        .limit(most)
    )
    with database.read() as connection:
        return list(connection.scalars(query))
