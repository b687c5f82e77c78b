"""The models that registries offer, a page at a time: searched, filtered and sorted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from layerwatch.daemon.store import modelsummaries, tables
from layerwatch.metrics.findings import Verdict

_TABLE = tables.model_summaries
_VERSIONS = tables.versions
_SUMMARIES = tables.version_summaries
_VERDICT_OF_RANK = {
    rank: Verdict(verdict) if verdict is not None else None for verdict, rank in modelsummaries.RANKS.items()
}


class FleetOrder(StrEnum):
    """How models are sorted; among equals by registry and model.

    ``worst``: by verdict, of equal ones what was judged last first. ``scanned``: what was judged last first.
    """

    WORST = "worst"
    NAME = "name"
    SCANNED = "scanned"


@dataclass(frozen=True, slots=True)
class FleetFilter:
    """Which models.

    Attributes:
        text: what ``registry/model`` contains, in any case; empty for all.
        registry: only of this one; None for all.
    """

    text: str = ""
    registry: str | None = None


@dataclass(frozen=True, slots=True)
class FleetModel:
    """One model and the version that stands for it (`modelsummaries.current_version`).

    Attributes:
        version, fingerprint, verdict, judged_at: of that version.
        version_id: its row.
        versions: how many its registry offers.
        worst_layer, worst_words: as in `summaries.VersionSummary`.
    """

    registry: str
    model: str
    version_id: int
    version: str
    fingerprint: str
    is_replaced: bool
    verdict: Verdict | None
    judged_at: datetime | None
    versions: int
    worst_layer: str | None
    worst_words: str | None


def counts(connection: sa.Connection, wanted: FleetFilter) -> dict[Verdict | None, int]:
    """How many of these models have each verdict, the worst first; None stands for none yet."""
    query = (
        sa.select(_TABLE.c.rank, sa.func.count())
        .where(*_conditions(connection, wanted))
        .group_by(_TABLE.c.rank)
    )
    found = {rank: count for rank, count in connection.execute(query)}
    return {_VERDICT_OF_RANK[rank]: found.get(rank, 0) for rank in sorted(_VERDICT_OF_RANK, reverse=True)}


def page(
    connection: sa.Connection,
    wanted: FleetFilter,
    verdicts: Sequence[Verdict | None],
    order: FleetOrder,
    limit: int,
    offset: int,
) -> list[FleetModel]:
    """Some of these models.

    Args:
        verdicts: only with one of these; none for all.
    """
    ranks = [modelsummaries.RANKS[None if verdict is None else verdict.value] for verdict in verdicts]
    query = (
        sa.select(_TABLE.c.registry, _TABLE.c.model, _TABLE.c.version_id, _TABLE.c.versions)
        .where(*_conditions(connection, wanted), *([_TABLE.c.rank.in_(ranks)] if ranks else ()))
        .order_by(*_ORDERS[order], _TABLE.c.registry, _TABLE.c.model)
        .limit(limit)
        .offset(offset)
    )
    rows = connection.execute(query).all()
    details = _details(connection, [row.version_id for row in rows])
    return [
        FleetModel(registry=row.registry, model=row.model, versions=row.versions, **details[row.version_id])
        for row in rows
    ]


def registries(connection: sa.Connection) -> list[str]:
    """The registries that offer any model, sorted."""
    query = sa.select(_TABLE.c.registry).distinct().order_by(_TABLE.c.registry)
    return list(connection.execute(query).scalars())


def names(connection: sa.Connection, wanted: FleetFilter, limit: int) -> list[tuple[str, str]]:
    """(registry, model) of some of these models, sorted."""
    columns = (_TABLE.c.registry, _TABLE.c.model)
    query = sa.select(*columns).where(*_conditions(connection, wanted)).order_by(*columns).limit(limit)
    return [(registry, model) for registry, model in connection.execute(query)]


_ORDERS: dict[FleetOrder, tuple[sa.ColumnElement[Any], ...]] = {
    # Nulls last, which is SQLite's own order; PostgreSQL's is the other.
    FleetOrder.WORST: (_TABLE.c.rank.desc(), _TABLE.c.judged_at.desc().nulls_last()),
    FleetOrder.NAME: (),
    FleetOrder.SCANNED: (_TABLE.c.judged_at.desc().nulls_last(),),
}


def _conditions(connection: sa.Connection, wanted: FleetFilter) -> list[sa.ColumnElement[bool]]:
    conditions = []
    if wanted.registry is not None:
        conditions.append(_TABLE.c.registry == wanted.registry)
    if wanted.text:
        # LIKE would know no case but ASCII's on one of the databases, and read % and _ as patterns.
        find = sa.func.instr if connection.dialect.name == "sqlite" else sa.func.strpos
        text = sa.literal(wanted.text.casefold(), _TABLE.c.search.type)
        conditions.append(find(_TABLE.c.search, text) > 0)
    return conditions


def _details(connection: sa.Connection, version_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    query = (
        sa.select(
            _VERSIONS.c.id,
            _VERSIONS.c.version,
            _VERSIONS.c.fingerprint,
            _VERSIONS.c.is_current,
            _VERSIONS.c.verdict,
            _VERSIONS.c.judged_at,
            _SUMMARIES.c.worst_layer,
            _SUMMARIES.c.worst_words,
        )
        .join_from(_VERSIONS, _SUMMARIES, isouter=True)
        .where(_VERSIONS.c.id.in_(version_ids))
    )
    return {
        row.id: {
            "version_id": row.id,
            "version": row.version,
            "fingerprint": row.fingerprint,
            "is_replaced": not row.is_current,
            "verdict": None if row.verdict is None else Verdict(row.verdict),
            "judged_at": row.judged_at,
            "worst_layer": row.worst_layer,
            "worst_words": row.worst_words,
        }
        for row in connection.execute(query)
    }
