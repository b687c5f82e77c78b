"""One row for each model that its registry offers: which version stands for it, and its place in the fleet.

Whoever changes what a row is made from calls `touch`; the rows of all models that were touched are made anew at the end
of the same transaction. However many versions a registry brings or loses at once, that is once for each model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.columns import safe_text
from layerwatch.daemon.store.upserts import upsert
from layerwatch.daemon.store.versionrows import PRESENT
from layerwatch.metrics.findings import Verdict

LATEST = "latest"
"""The ref whose target stands for its model."""

RANKS = {
    Verdict.FAIL.value: 4,
    Verdict.UNDECIDED.value: 3,
    Verdict.WARN.value: 2,
    None: 1,
    Verdict.PASS.value: 0,
}
"""How bad a verdict is; None for none yet, which may be anything."""

_TABLE = tables.model_summaries
_VERSIONS = tables.versions
_REFS = tables.refs
_TOUCHED = "layerwatch_touched_models"
_CURRENT = (_VERSIONS.c.id, _VERSIONS.c.verdict, _VERSIONS.c.judged_at)


def touch(connection: sa.Connection, registry: str, model: str) -> None:
    """Note that versions, verdicts or the latest version of a model changed in this transaction."""
    connection.info.setdefault(_TOUCHED, set()).add((safe_text(registry), safe_text(model)))


@contextmanager
def kept_in_step(connection: sa.Connection) -> Iterator[None]:
    """Around the statements of a write transaction: at their end the touched models are summed up again."""
    connection.info.pop(_TOUCHED, None)
    yield
    refresh(connection, connection.info.pop(_TOUCHED, ()))


def refresh(connection: sa.Connection, models: Iterable[tuple[str, str]]) -> None:
    """Sum up these models anew. One that its registry offers no longer has no row."""
    rows = []
    for registry, model in sorted(models):
        row = _row(connection, registry, model)
        if row is None:
            connection.execute(sa.delete(_TABLE).where(*_of(_TABLE, registry, model)))
        else:
            rows.append(row)
    upsert(connection, _TABLE, rows, ["registry", "model"])


def current_version(connection: sa.Connection, registry: str, model: str) -> int | None:
    """The row of the version that stands for a model; None where its registry does not offer the model.

    It is what the ref `LATEST` points at. Without such a ref it is the newest version that was judged: one that waits
    for its scan must not hide that the one before it failed. Where none was judged, it is the newest one.
    """
    found = _current(connection, registry, model)
    return None if found is None else found.id


def _row(connection: sa.Connection, registry: str, model: str) -> dict[str, Any] | None:
    count = connection.execute(
        sa.select(sa.func.count()).where(*_of(_VERSIONS, registry, model), PRESENT)
    ).scalar_one()
    current = _current(connection, registry, model) if count else None
    if current is None:
        return None
    return {
        "registry": registry,
        "model": model,
        "version_id": current.id,
        "rank": RANKS[current.verdict],
        "judged_at": current.judged_at,
        "versions": count,
        "search": searched(registry, model),
    }


def searched(registry: str, model: str) -> str:
    """The text in which a search looks for a model."""
    return f"{registry}/{model}".casefold()


def _current(connection: sa.Connection, registry: str, model: str) -> sa.Row[Any] | None:
    latest = (
        sa.select(*_CURRENT)
        .join_from(_REFS, _VERSIONS, _REFS.c.version_id == _VERSIONS.c.id)
        .where(*_of(_REFS, registry, model), _REFS.c.ref == LATEST)
    )
    newest = (
        sa.select(*_CURRENT)
        .where(*_of(_VERSIONS, registry, model), PRESENT)
        .order_by(_VERSIONS.c.sort_key.desc(), _VERSIONS.c.id.desc())
        .limit(1)
    )
    queries: tuple[sa.Select[Any], ...] = (latest, newest.where(_VERSIONS.c.verdict.is_not(None)), newest)
    for query in queries:
        found: sa.Row[Any] | None = connection.execute(query).first()
        if found is not None:
            return found
    return None


def _of(table: sa.Table, registry: str, model: str) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.registry == registry, table.c.model == model
