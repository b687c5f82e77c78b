"""What lists and pictures show of judged versions, kept beside them so that no report need be read.

A summary is written with its verdict. Its numbers of single layers are dropped with the report; the rest stays as long
as the version.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.columns import safe_text
from layerwatch.daemon.store.upserts import upsert
from layerwatch.daemon.store.versionrows import PRESENT
from layerwatch.metrics.findings import Finding, LayerStatus, Verdict
from layerwatch.metrics.measurement import FitStatus

if TYPE_CHECKING:
    from layerwatch.metrics.report import Report

_LOGGER = logging.getLogger(__name__)
_TABLE = tables.version_summaries
_VERSIONS = tables.versions
_LONGEST_WORDS = 500


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """One layer of a report. Numbers have six digits; None where there is none.

    Attributes:
        sigma: standard error of alpha.
        relative_change: from the baseline of the report.
        is_fit_ok: whether alpha's fit deserves to be read.
    """

    name: str
    status: LayerStatus
    alpha: float | None = None
    sigma: float | None = None
    relative_change: float | None = None
    is_fit_ok: bool = False


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """One judged version.

    Attributes:
        id: its row.
        relation, parent: as declared.
        mean_alpha: over the layers that have one.
        layer_count, broken, suspect, undecided: layers in the report, and those with each status; None where the report
            was dropped before summaries were kept.
        worst_layer: what the worst finding is about; None for the version as a whole.
        worst_words: the sentence of that finding; None where nothing is wrong.
        layers: as in the report; empty once retention dropped it.
    """

    id: int
    version: str
    verdict: Verdict
    judged_at: datetime
    relation: str | None
    parent: str | None
    mean_alpha: float | None
    layer_count: int | None
    broken: int | None
    suspect: int | None
    undecided: int | None
    worst_layer: str | None
    worst_words: str | None
    layers: tuple[LayerSummary, ...]


COUNTS = (
    _TABLE.c.mean_alpha,
    _TABLE.c.layers.label("layer_count"),
    _TABLE.c.broken,
    _TABLE.c.suspect,
    _TABLE.c.undecided,
    _TABLE.c.worst_layer,
    _TABLE.c.worst_words,
)
"""The columns of a list: everything but the numbers of single layers."""

_LISTED = (
    _VERSIONS.c.id,
    _VERSIONS.c.version,
    _VERSIONS.c.verdict,
    _VERSIONS.c.judged_at,
    _VERSIONS.c.relation,
    _VERSIONS.c.parent,
    *COUNTS,
    _TABLE.c.numbers,
)


def of_version(connection: sa.Connection, version_id: int) -> VersionSummary | None:
    """The summary of a version, or None while it has no verdict."""
    query: sa.Select[Any] = (
        sa.select(*_LISTED).join_from(_VERSIONS, _TABLE).where(_VERSIONS.c.id == version_id)
    )
    row = connection.execute(query).first()
    return None if row is None else _summary(row)


def of_bytes(connection: sa.Connection, fingerprint: str, version: str) -> VersionSummary | None:
    """The summary of the newest version of this name with these bytes, in any model; None where none was judged."""
    query: sa.Select[Any] = (
        sa.select(*_LISTED)
        .join_from(_VERSIONS, _TABLE)
        .where(_VERSIONS.c.fingerprint == fingerprint, _VERSIONS.c.version == version)
        .order_by(_VERSIONS.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else _summary(row)


def history(
    connection: sa.Connection, registry: str, model: str, limit: int, most_layers: int
) -> list[VersionSummary]:
    """The last judged versions of a model that the registry still offers, in natural order, oldest first.

    Args:
        limit: most versions.
        most_layers: of all versions together, so that a huge model costs no more than others; two versions come in any
            case, if there are as many.
    """
    counts = connection.execute(_newest((_TABLE.c.layers,), registry, model, limit)).scalars()
    together = accumulate(count or 0 for count in counts)
    affordable = sum(1 for place, layers in enumerate(together) if place < 2 or layers <= most_layers)
    rows = connection.execute(_newest(_LISTED, registry, model, affordable)).all()
    return [_summary(row) for row in reversed(rows)]


def mean_alphas(
    connection: sa.Connection, registry: str, model: str, limit: int
) -> list[tuple[float | None, Verdict]]:
    """Mean alpha and verdict of the same versions, oldest first."""
    rows = connection.execute(
        _newest((_TABLE.c.mean_alpha, _VERSIONS.c.verdict), registry, model, limit)
    ).all()
    return [(alpha, Verdict(verdict)) for alpha, verdict in reversed(rows)]


def save(
    connection: sa.Connection,
    version_id: int,
    verdict: Verdict,
    layers: Sequence[LayerSummary],
    findings: Iterable[Finding],
) -> None:
    """Keep the summary of a verdict in place of an earlier one."""
    worst = max(findings, key=lambda one: one.severity.rank, default=None) if _tells(verdict) else None
    row = {
        "version_id": version_id,
        **numbers_of(layers),
        "worst_layer": worst.layer if worst is not None else None,
        "worst_words": worst.message[:_LONGEST_WORDS] if worst is not None else None,
    }
    upsert(connection, _TABLE, [row], ["version_id"])


def drop_numbers(connection: sa.Connection, version_ids: Sequence[int]) -> None:
    """Forget the numbers of single layers of some versions."""
    connection.execute(
        sa.update(_TABLE)
        .where(_TABLE.c.version_id.in_(version_ids), _TABLE.c.numbers.is_not(None))
        .values(numbers=None)
    )


def numbers_of(layers: Sequence[LayerSummary]) -> dict[str, Any]:
    """What of a summary follows from its layers, by column."""
    alphas = [layer.alpha for layer in layers if layer.alpha is not None]
    statuses = [layer.status for layer in layers]
    return {
        "mean_alpha": math.fsum(alphas) / len(alphas) if alphas else None,
        "layers": len(layers),
        "broken": statuses.count(LayerStatus.BROKEN),
        "suspect": statuses.count(LayerStatus.SUSPECT),
        "undecided": statuses.count(LayerStatus.UNDECIDED),
        "numbers": [
            [
                safe_text(one.name),
                one.status.value,
                one.alpha,
                one.sigma,
                one.relative_change,
                one.is_fit_ok,
            ]
            for one in layers
        ],
    }


def layers_of(report: Report) -> tuple[LayerSummary, ...]:
    """The layers of a report."""
    return tuple(
        LayerSummary(
            layer.name,
            layer.status,
            _short(layer.metrics.alpha),
            _short(layer.metrics.alpha_sigma),
            _short(layer.change.relative_change if layer.change is not None else None),
            layer.metrics.fit_status == FitStatus.OK,
        )
        for layer in report.layers
    )


def layers_of_text(report: str) -> tuple[LayerSummary, ...]:
    """The same from a report's JSON text, whichever release wrote it; none where it holds none or cannot be read."""
    try:
        return tuple(
            LayerSummary(
                layer["name"],
                LayerStatus(layer["status"]),
                _short((layer.get("metrics") or {}).get("alpha")),
                _short((layer.get("metrics") or {}).get("alpha_sigma")),
                _short((layer.get("change") or {}).get("relative_change")),
                (layer.get("metrics") or {}).get("fit_status") == FitStatus.OK,
            )
            for layer in json.loads(report).get("layers") or ()
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        # It would be as unreadable the next time, and a verdict does not wait for its summary.
        _LOGGER.warning("a stored report cannot be read, its layers are not summed up: %s", error)
        return ()


def _newest(
    columns: Iterable[sa.ColumnElement[Any]], registry: str, model: str, limit: int
) -> sa.Select[Any]:
    return (
        sa.select(*columns)
        .join_from(_VERSIONS, _TABLE)
        .where(
            _VERSIONS.c.registry == registry,
            _VERSIONS.c.model == model,
            PRESENT,
            _VERSIONS.c.verdict.is_not(None),
        )
        .order_by(_VERSIONS.c.sort_key.desc(), _VERSIONS.c.id.desc())
        .limit(limit)
    )


def _summary(row: sa.Row[Any]) -> VersionSummary:
    layers = tuple(
        LayerSummary(name, LayerStatus(status), *numbers) for name, status, *numbers in row.numbers or ()
    )
    values = {name: value for name, value in row._mapping.items() if name not in ("verdict", "numbers")}
    return VersionSummary(verdict=Verdict(row.verdict), layers=layers, **values)


def _tells(verdict: Verdict) -> bool:
    return verdict is not Verdict.PASS


def _short(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(f"{number:.6g}")
