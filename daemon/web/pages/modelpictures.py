"""The pictures on the page of a model: where its versions come from, and its layers along depth and over versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from layerwatch.daemon.store.lineage import LineageEdge
from layerwatch.daemon.store.summaries import LayerSummary, VersionSummary
from layerwatch.daemon.store.timeline import TimelineEntry
from layerwatch.daemon.web.charts.depth import alpha_by_depth
from layerwatch.daemon.web.charts.heatmap import heatmap
from layerwatch.daemon.web.charts.model import DepthPoint, HeatCell, HeatScale, TreeVersion
from layerwatch.daemon.web.charts.tree import lineage_tree
from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.daemon.web.pages.modelview import links_of, parents_of
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.report import Report

HEAT_VERSIONS = 30
HEAT_LAYERS = 200

HISTORY_LAYERS = 60_000
"""Of all versions together; of a model with 46,000 layers the last two are shown."""

_CONSPICUOUS = {
    LayerStatus.BROKEN: 4,
    LayerStatus.SUSPECT: 3,
    LayerStatus.UNDECIDED: 2,
    LayerStatus.INFO: 1,
    LayerStatus.OK: 0,
}
_TITLES = {
    HeatScale.ALPHA: "Alpha of every layer in the last versions",
    HeatScale.RELATIVE_CHANGE: "Relative change of every layer from the baseline of each version",
    HeatScale.STATUS: "Status of every layer in the last versions",
}


def tree_of(
    entries: Sequence[TimelineEntry],
    edges: Mapping[int, Sequence[LineageEdge]],
    registry: str,
    model: str,
    current: int | None,
    baseline: int | None,
) -> Markup:
    """Where versions come from.

    Args:
        entries: newest first, as in the timeline.
        edges: of the same versions, by row.
        current, baseline: rows of the version that stands for the model, and of what it was judged against.
    """
    shown = list(reversed(entries))
    places = {entry.id: place for place, entry in enumerate(shown)}
    names = {entry.version: place for place, entry in enumerate(shown) if entry.is_current}
    versions = []
    for place, entry in enumerate(shown):
        known: dict[int, str | None] = {}
        outside = ""
        parents = [
            (edge.parent_id, edge.parent, edge.relation) for edge in parents_of(edges.get(entry.id, ()))
        ]
        if not parents and entry.parent is not None:
            parents = [(None, entry.parent, entry.relation)]
        for row, name, relation in parents:
            found = places.get(row) if row is not None else names.get(name)
            if found is None:
                outside = outside or name
            elif found != place:
                known.setdefault(found, relation)
        versions.append(
            TreeVersion(
                version=entry.version if entry.is_current else f"{entry.version} (replaced)",
                verdict=entry.verdict,
                parents=tuple(known.items()),
                parent_outside=outside,
                is_baseline=entry.id == baseline,
                is_current=entry.id == current,
                href=links_of(entry, registry, model).this(),
            )
        )
    return lineage_tree(versions, "Where the versions come from")


def depth_of(report: Report, links: VersionLinks, baseline: VersionSummary | None) -> Markup:
    """Alpha of every layer over the baseline's; empty where no layer has one."""
    before = {layer.name: layer for layer in baseline.layers} if baseline is not None else {}
    points = []
    for layer in report.layers:
        if len(layer.shape) < 2:
            continue
        of_baseline = before.get(layer.name, LayerSummary(layer.name, LayerStatus.OK))
        points.append(
            DepthPoint(
                layer=layer.name,
                status=layer.status,
                alpha=layer.metrics.alpha,
                sigma=layer.metrics.alpha_sigma,
                baseline=layer.change.alpha_baseline if layer.change is not None else of_baseline.alpha,
                baseline_sigma=of_baseline.sigma,
                href=links.layer(layer.name),
            )
        )
    if all(point.alpha is None for point in points):
        return Markup("")
    return alpha_by_depth(points, "Alpha of every layer, in the order of the file, over its baseline's")


def heat_of(
    history: Sequence[VersionSummary], scale: HeatScale, registry: str, model: str
) -> tuple[Markup, int]:
    """The heatmap of some versions, and how many layers it leaves out.

    Args:
        history: oldest first; those whose numbers are not kept any more are left out.
    """
    kept = [version for version in history if version.layers]
    by_version = [{layer.name: layer for layer in version.layers} for version in kept]
    # In the order of the newest version; layers that it has not stand at the end.
    names = list(dict.fromkeys(layer.name for version in reversed(kept) for layer in version.layers))
    shown = _most_conspicuous(names, by_version)
    links = [VersionLinks(registry, model, version.version) for version in kept]
    cells = [
        [_cell(layers.get(name), scale, link) for layers, link in zip(by_version, links, strict=True)]
        for name in shown
    ]
    picture = heatmap(shown, [version.version for version in kept], cells, scale, _TITLES[scale])
    return picture, len(names) - len(shown)


def _cell(layer: LayerSummary | None, scale: HeatScale, links: VersionLinks) -> HeatCell | None:
    if layer is None:
        return None
    values = {HeatScale.ALPHA: layer.alpha, HeatScale.RELATIVE_CHANGE: layer.relative_change}
    return HeatCell(layer.status, values.get(scale), links.layer(layer.name))


def _most_conspicuous(names: Sequence[str], by_version: Sequence[Mapping[str, LayerSummary]]) -> list[str]:
    """At most `HEAT_LAYERS` names, in their order: those with the worst status, then those that changed most."""
    if len(names) <= HEAT_LAYERS:
        return list(names)

    def rank(name: str) -> tuple[int, float]:
        found = [layers[name] for layers in by_version if name in layers]
        return (
            max(_CONSPICUOUS[layer.status] for layer in found),
            max(layer.relative_change or 0.0 for layer in found),
        )

    worst = set(sorted(names, key=rank, reverse=True)[:HEAT_LAYERS])
    return [name for name in names if name in worst]
