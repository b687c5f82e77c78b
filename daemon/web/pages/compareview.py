"""Two versions side by side, layer by layer: numbers of their spectra as the store holds them. No verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf

from markupsafe import Markup
from sqlalchemy import Connection

from layerwatch.daemon.store import contents, measurements, summaries
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.daemon.web.charts.depth import alpha_by_depth
from layerwatch.daemon.web.charts.model import DepthPoint
from layerwatch.daemon.web.pages.aligning import aligned
from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.daemon.web.pages.numbertext import with_error
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.measurement import METRIC_SET
from layerwatch.metrics.plots.wording import number as fixed
from layerwatch.metrics.report import LayerMetrics, metrics_of

MOST_ROWS = 500
FAR = 3.0
"""Sigmas from which on a shift is counted."""


@dataclass(frozen=True, slots=True)
class ComparedLayer:
    """A layer of one side. The name is foreign; numbers are text.

    Attributes:
        status: in the version's last report; None where none is kept.
    """

    name: str
    link: str
    status: LayerStatus | None
    alpha: str
    stable_rank: str
    log_norm: str
    metrics: LayerMetrics


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One layer of both sides, or of one; None where the other has no such layer.

    Attributes:
        sigmas: shift of alpha from B to A in standard errors of both; None where it is not defined.
    """

    a: ComparedLayer | None
    b: ComparedLayer | None
    shift: str
    sigmas: float | None

    @property
    def is_far(self) -> bool:
        """Whether alpha moved by more than chance does."""
        return self.sigmas is not None and abs(self.sigmas) >= FAR


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions.

    Attributes:
        rows: in the order of A; ``left_out`` less conspicuous ones are not among them.
        both, only_a, only_b: layers.
        far: layers of both whose alpha moved far.
        depth: alpha of A along its depth over B's.
    """

    rows: tuple[ComparedRow, ...]
    left_out: int
    both: int
    only_a: int
    only_b: int
    far: int
    depth: Markup


def layers_of(
    connection: Connection, record: VersionRecord, links: VersionLinks
) -> dict[str, ComparedLayer] | None:
    """The layers of a version by name, in the order of the file; None where its numbers are not kept (any more)."""
    content = contents.load(connection, record.fingerprint, METRIC_SET)
    if content is None:
        return None
    matrices = [layer for layer in content.layers if len(layer.shape) > 1]
    known = measurements.load_scalars(
        connection, [layer.digest for layer in matrices if layer.digest is not None]
    )
    summary = summaries.of_version(connection, record.id)
    statuses = {layer.name: layer.status for layer in summary.layers} if summary is not None else {}
    found = {}
    for layer in matrices:
        metrics = metrics_of(known.get(layer.digest) if layer.digest is not None else None)
        found[layer.name] = ComparedLayer(
            name=layer.name,
            link=links.layer(layer.name),
            status=statuses.get(layer.name),
            alpha=with_error(metrics.alpha, metrics.alpha_sigma, 2),
            stable_rank=fixed(metrics.stable_rank, 2),
            log_norm=fixed(metrics.log_norm, 3),
            metrics=metrics,
        )
    return found


def compared(a: Mapping[str, ComparedLayer], b: Mapping[str, ComparedLayer]) -> Comparison:
    """Two sets of layers side by side."""
    rows = [
        _row(a[one] if one is not None else None, b[other] if other is not None else None)
        for one, other in aligned(list(a), list(b))
    ]
    shown = _most_conspicuous(rows)
    return Comparison(
        rows=tuple(shown),
        left_out=len(rows) - len(shown),
        both=sum(row.a is not None and row.b is not None for row in rows),
        only_a=sum(row.b is None for row in rows),
        only_b=sum(row.a is None for row in rows),
        far=sum(row.is_far for row in rows),
        depth=_depth(rows),
    )


def _row(a: ComparedLayer | None, b: ComparedLayer | None) -> ComparedRow:
    if a is None or b is None or a.metrics.alpha is None or b.metrics.alpha is None:
        return ComparedRow(a, b, "-", None)
    moved = a.metrics.alpha - b.metrics.alpha
    error = hypot(a.metrics.alpha_sigma or 0.0, b.metrics.alpha_sigma or 0.0)
    if not error:
        return ComparedRow(a, b, f"{moved:+.2f}", None)
    return ComparedRow(a, b, f"{moved:+.2f}", moved / error)


def _most_conspicuous(rows: Sequence[ComparedRow]) -> list[ComparedRow]:
    """At most `MOST_ROWS`, in their order: those of one side only, then those that moved furthest."""
    if len(rows) <= MOST_ROWS:
        return list(rows)

    def rank(place: int) -> float:
        row = rows[place]
        return inf if row.a is None or row.b is None else abs(row.sigmas or 0.0)

    return [rows[place] for place in sorted(sorted(range(len(rows)), key=rank, reverse=True)[:MOST_ROWS])]


def _depth(rows: Sequence[ComparedRow]) -> Markup:
    points = [
        DepthPoint(
            layer=row.a.name,
            status=row.a.status or LayerStatus.OK,
            alpha=row.a.metrics.alpha,
            sigma=row.a.metrics.alpha_sigma,
            baseline=row.b.metrics.alpha if row.b is not None else None,
            baseline_sigma=row.b.metrics.alpha_sigma if row.b is not None else None,
            href=row.a.link,
        )
        for row in rows
        if row.a is not None
    ]
    if all(point.alpha is None for point in points):
        return Markup("")
    return alpha_by_depth(
        points, "Alpha of every layer of A, in the order of its file; B in the place of a baseline"
    )
