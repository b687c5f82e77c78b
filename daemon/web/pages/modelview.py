"""What the page of a model says of its versions: rows of the timeline, and what changed since the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerwatch.daemon.store.lineage import WEIGHTS, LineageEdge
from layerwatch.daemon.store.records import ContentRecord
from layerwatch.daemon.store.timeline import TimelineEntry
from layerwatch.daemon.web.pages.findingview import Named
from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.daemon.web.pages.numbertext import with_error
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.plots.wording import number as fixed
from layerwatch.metrics.report import Report

MOST_CHANGES = 12


@dataclass(frozen=True, slots=True)
class Origin:
    """What a version was made from. ``relation`` and ``parent`` are foreign and may be empty.

    Attributes:
        others: further parents, of a merge.
        is_found: it was found in the weights, and nobody declared it.
    """

    relation: str = ""
    parent: str = ""
    others: int = 0
    is_found: bool = False


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One revision as the timeline shows it.

    Attributes:
        compare: link that holds the current version against it; None for itself.
    """

    entry: TimelineEntry
    link: str
    layer_link: str | None
    origin: Origin
    mean_alpha: str
    compare: str | None


@dataclass(frozen=True, slots=True)
class ChangedLayer:
    """One layer beside the baseline's. The name is foreign; numbers are text."""

    layer: Named
    status: LayerStatus
    relative_change: str
    alpha: str
    baseline: str


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of the layers. All names are foreign.

    Attributes:
        layers: those that changed most; ``more`` others changed less.
        unchanged: layers with equal weights.
        new, removed: names that only one of both has.
        dtypes: (dtype of the baseline, dtype now, layers) of what is stored in another way.
    """

    layers: tuple[ChangedLayer, ...]
    more: int
    unchanged: int
    new: tuple[str, ...]
    removed: tuple[str, ...]
    dtypes: tuple[tuple[str, str, int], ...]


def timeline_rows(
    entries: Sequence[TimelineEntry],
    edges: Mapping[int, Sequence[LineageEdge]],
    registry: str,
    model: str,
    current: VersionLinks | None,
) -> list[TimelineRow]:
    """The rows of a page of the timeline.

    Args:
        edges: of the same versions, by row.
        current: the version that stands for the model; None where its registry offers it no longer.
    """
    rows = []
    for entry in entries:
        links = links_of(entry, registry, model)
        is_itself = current is not None and (links.version, links.fingerprint) == (
            current.version,
            current.fingerprint,
        )
        rows.append(
            TimelineRow(
                entry=entry,
                link=links.this(),
                layer_link=links.layer(entry.worst_layer) if entry.worst_layer else None,
                origin=origin_of(entry, edges.get(entry.id, ())),
                mean_alpha=fixed(entry.mean_alpha, 2),
                compare=None
                if current is None or is_itself or entry.judged_at is None or not entry.is_current
                else current.compare(registry, model, entry.version),
            )
        )
    return rows


def links_of(entry: TimelineEntry, registry: str, model: str) -> VersionLinks:
    """Links to a revision; of one that was replaced, with its fingerprint."""
    return VersionLinks(registry, model, entry.version, "" if entry.is_current else entry.fingerprint)


def parents_of(edges: Sequence[LineageEdge]) -> list[LineageEdge]:
    """The edges that count: what is declared, or else the surest of what the weights show."""
    declared = [edge for edge in edges if edge.source != WEIGHTS]
    return declared or sorted(edges, key=lambda edge: -edge.confidence)[:1]


def origin_of(entry: TimelineEntry, edges: Sequence[LineageEdge]) -> Origin:
    """What a version was made from, as far as it is known."""
    found = parents_of(edges)
    if entry.parent is not None or entry.relation is not None:
        others = sum(edge.parent != entry.parent for edge in found if edge.source != WEIGHTS)
        return Origin(entry.relation or "", entry.parent or "", others)
    if not found:
        return Origin()
    first = found[0]
    return Origin(first.relation or "", first.parent, len(found) - 1, first.source == WEIGHTS)


def changes_of(
    report: Report, links: VersionLinks, content: ContentRecord | None, baseline: ContentRecord | None
) -> Changes:
    """What became of the layers since the baseline.

    Args:
        content, baseline: what was found in both; None where it is not kept.
    """
    changed = [
        (layer.change.relative_change, layer)
        for layer in report.layers
        if layer.change is not None and layer.change.relative_change is not None
    ]
    moved = sorted((pair for pair in changed if pair[0] != 0.0), key=lambda pair: -pair[0])
    rows = tuple(
        ChangedLayer(
            layer=Named(layer.name, links.layer(layer.name)),
            status=layer.status,
            relative_change=fixed(share, 3),
            alpha=with_error(layer.metrics.alpha, layer.metrics.alpha_sigma, 2),
            baseline=fixed(layer.change.alpha_baseline if layer.change is not None else None, 2),
        )
        for share, layer in moved[:MOST_CHANGES]
    )
    now = {layer.name: layer.dtype for layer in content.layers} if content is not None else {}
    before = {layer.name: layer.dtype for layer in baseline.layers} if baseline is not None else {}
    both_known = content is not None and baseline is not None
    stored: dict[tuple[str, str], int] = {}
    for name in now.keys() & before.keys():
        if now[name] != before[name]:
            stored[before[name], now[name]] = stored.get((before[name], now[name]), 0) + 1
    return Changes(
        layers=rows,
        more=len(moved) - len(rows),
        unchanged=len(changed) - len(moved),
        new=tuple(name for name in now if name not in before) if both_known else (),
        removed=tuple(name for name in before if name not in now) if both_known else (),
        dtypes=tuple((*pair, count) for pair, count in sorted(stored.items())),
    )
