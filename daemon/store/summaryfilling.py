"""Numbers for the summaries of versions that were judged before summaries were kept, from the reports that still are."""

from __future__ import annotations

import logging
from collections.abc import Callable

import sqlalchemy as sa

from layerwatch.daemon.store import summaries, tables
from layerwatch.daemon.store.database import Database

_LOGGER = logging.getLogger(__name__)
_SUMMARIES = tables.version_summaries
_VERSIONS = tables.versions
_AT_A_TIME = 20
"""Reports may be megabytes each."""


def fill(database: Database, stopping: Callable[[], bool]) -> int:
    """Fill in what is missing, the newest rows first. Done once, it finds nothing the next time.

    A few reports at a time: nobody waits long for the write transactions, and what is done stays done.

    Args:
        stopping: True once it must end; the next call goes on.

    Returns:
        How many versions were filled in.

    Raises:
        StoreError: the database cannot be read or written, or is busy.
    """
    filled = 0
    before = None
    while not stopping() and (reports := _reports(database, before)):
        found = {version_id: _layers(version_id, report) for version_id, report in reports}
        with database.write() as connection:
            for version_id, layers in found.items():
                # Unless it was judged again meanwhile.
                connection.execute(
                    sa.update(_SUMMARIES)
                    .where(_SUMMARIES.c.version_id == version_id, _SUMMARIES.c.layers.is_(None))
                    .values(**summaries.numbers_of(layers))
                )
        filled += len(found)
        before = min(found)
    return filled


def _reports(database: Database, before: int | None) -> list[tuple[int, str]]:
    query = (
        sa.select(_VERSIONS.c.id, _VERSIONS.c.report)
        .join_from(_SUMMARIES, _VERSIONS)
        .where(_SUMMARIES.c.layers.is_(None), _VERSIONS.c.report.is_not(None))
        .order_by(_SUMMARIES.c.version_id.desc())
        .limit(_AT_A_TIME)
    )
    if before is not None:
        query = query.where(_SUMMARIES.c.version_id < before)
    with database.read() as connection:
        return [(version_id, report) for version_id, report in connection.execute(query)]


def _layers(version_id: int, report: str) -> tuple[summaries.LayerSummary, ...]:
    try:
        return summaries.layers_of_text(report)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # It would be as unreadable the next time.
        _LOGGER.warning("the report of version row %d cannot be read: %s", version_id, error)
        return ()
