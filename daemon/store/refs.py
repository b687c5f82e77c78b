"""Refs: movable names for versions."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from layerwatch.daemon.store import modelsummaries, tables
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import RefRecord
from layerwatch.daemon.store.versionrows import describe, fetch

_REFS = tables.refs


def point(
    connection: sa.Connection, registry: str, model: str, ref: str, version_id: int, now: datetime
) -> bool:
    """Let a ref point at a version row.

    Returns:
        True when it is new or pointed elsewhere before.

    Raises:
        StoreError: ``not_found`` when there is no such row or it belongs to another model.
    """
    version = fetch(connection, version_id)
    if (version.key.registry, version.key.model) != (registry, model):
        detail = f"ref {ref!r} of {registry}/{model} cannot point at {describe(version)}"
        raise StoreError(StoreReason.NOT_FOUND, detail)
    known = _where(registry, model, ref)
    before = connection.execute(sa.select(_REFS.c.version_id).where(*known)).scalar()
    if before == version_id:
        return False
    values = {"version_id": version_id, "moved_at": now}
    if before is None:
        connection.execute(sa.insert(_REFS).values(registry=registry, model=model, ref=ref, **values))
    else:
        connection.execute(sa.update(_REFS).where(*known).values(**values))
    modelsummaries.touch(connection, registry, model)
    return True


def remove(connection: sa.Connection, registry: str, model: str, ref: str) -> bool:
    """Forget a ref.

    Returns:
        True when there was one.
    """
    modelsummaries.touch(connection, registry, model)
    return connection.execute(sa.delete(_REFS).where(*_where(registry, model, ref))).rowcount > 0


def targets(connection: sa.Connection, registry: str, model: str) -> dict[str, str]:
    """Name of the version that each ref of a model points at."""
    versions = tables.versions
    query = (
        sa.select(_REFS.c.ref, versions.c.version)
        .join_from(_REFS, versions, _REFS.c.version_id == versions.c.id)
        .where(_REFS.c.registry == registry, _REFS.c.model == model)
        .order_by(_REFS.c.ref)
    )
    return {ref: version for ref, version in connection.execute(query)}


def registries(connection: sa.Connection) -> set[str]:
    """Every registry that has a ref."""
    return set(connection.execute(sa.select(_REFS.c.registry).distinct()).scalars())


def list_refs(
    connection: sa.Connection, registry: str | None = None, model: str | None = None
) -> list[RefRecord]:
    """All refs, or those of a registry or a model, sorted by registry, model and name."""
    query = sa.select(_REFS.c.registry, _REFS.c.model, _REFS.c.ref, _REFS.c.version_id)
    if registry is not None:
        query = query.where(_REFS.c.registry == registry)
    if model is not None:
        query = query.where(_REFS.c.model == model)
    query = query.order_by(_REFS.c.registry, _REFS.c.model, _REFS.c.ref)
    return [RefRecord(row.registry, row.model, row.ref, row.version_id) for row in connection.execute(query)]


def _where(registry: str, model: str, ref: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _REFS.c.registry == registry, _REFS.c.model == model, _REFS.c.ref == ref
