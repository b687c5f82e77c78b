"""Layers by versions, a colour for each: where a model changed, and since when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from layerwatch.daemon.web.charts import heatscale
from layerwatch.daemon.web.charts.drawing import (
    CHARACTER,
    Key,
    columns,
    figure,
    labels,
    picture,
    scrolling,
    shortened,
    tag,
    told,
    units,
)
from layerwatch.daemon.web.charts.heatcells import cell_rows
from layerwatch.daemon.web.charts.model import HeatCell, HeatScale
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.plots.wording import counted

_LAYER_WIDTH, _VERSION_WIDTH = 38, 18
_PLOT_WIDTH = 840.0
_CELL_WIDTHS = (14.0, 48.0)
_HEIGHTS = ((24, 22.0), (60, 18.0), (160, 14.0))
_LOWEST_CELL = 11.0
_LABEL_SPACING = 12.0
_TALL = 600.0
_SHARE = 0.93
"""Of its place that a cell fills, as the stylesheet says too."""

_SIGNS = {
    LayerStatus.BROKEN: "×",
    LayerStatus.SUSPECT: "!",
    LayerStatus.UNDECIDED: "?",
    LayerStatus.INFO: "i",
}


def heatmap(
    layers: Sequence[str],
    versions: Sequence[str],
    cells: Sequence[Sequence[HeatCell | None]],
    scale: HeatScale,
    title: str,
) -> Markup:
    """One row per layer and one column per version; empty without layers or without versions.

    A cell of None is blank: the version has no such layer.

    Args:
        layers, versions: names, any text; versions oldest first.
        cells: ``cells[layer][version]``.
        scale: what the colours mean.
        title: may be any text.

    Raises:
        ValueError: ``cells`` is not as many rows and columns as there are layers and versions.
    """
    if len(cells) != len(layers) or any(len(row) != len(versions) for row in cells):
        raise ValueError("a heatmap needs a row of cells per layer and a cell per version")
    if not layers or not versions:
        return Markup("")
    grid = _grid(layers, versions)
    has_links = any(cell is not None and cell.href is not None for row in cells for cell in row)
    bottom = grid.top + grid.height * len(layers)
    below = grid.head + 4 if bottom - grid.top > _TALL else 6.0
    image = picture(
        grid.left + grid.width * len(versions) + grid.overhang,
        bottom + below,
        title,
        _description(layers, versions, cells),
        [
            *_layer_names(grid),
            *_version_names(grid, grid.top - 6, is_above=True),
            *(_version_names(grid, bottom + 6, is_above=False) if below > 6.0 else ()),
            *_rows(grid, cells, scale),
            *_signs(grid, cells),
        ],
        css=f"wide heat {_css(scale)}",
        has_links=has_links,
    )
    return figure(scrolling(image, title), _keys(cells, scale), css=_css(scale))


@dataclass(frozen=True, slots=True)
class _Grid:
    """Sizes in units.

    Attributes:
        layers, versions: names as they are told.
        layer_labels, version_labels: names as they are drawn.
        left, top: corner of the first cell.
        width, height: of a cell with its gap.
        head: height of the names of versions.
        overhang: what the last name of a version needs beyond its column.
    """

    layers: list[str]
    versions: list[str]
    layer_labels: list[str]
    version_labels: list[str]
    left: float
    top: float
    width: float
    height: float
    head: float
    overhang: float

    def middle(self, column: int) -> float:
        """Of a column."""
        return self.left + (column + _SHARE / 2) * self.width

    @property
    def is_upright(self) -> bool:
        """Whether names of versions are too long for their columns."""
        return max(map(columns, self.version_labels)) * CHARACTER + 6 > self.width


def _grid(layers: Sequence[str], versions: Sequence[str]) -> _Grid:
    layer_labels = labels(layers, _LAYER_WIDTH)
    version_labels = [shortened(version, _VERSION_WIDTH) for version in versions]
    longest = max(map(columns, version_labels)) * CHARACTER
    width = min(max(_PLOT_WIDTH / len(versions), _CELL_WIDTHS[0]), _CELL_WIDTHS[1])
    head = longest + 10 if longest + 6 > width else 20.0
    return _Grid(
        layers=[told(layer) for layer in layers],
        versions=[told(version) for version in versions],
        layer_labels=layer_labels,
        version_labels=version_labels,
        left=max(map(columns, layer_labels)) * CHARACTER + 12,
        top=head + 2.0,
        width=float(int(width)),
        height=next((height for most, height in _HEIGHTS if len(layers) <= most), _LOWEST_CELL),
        head=head,
        overhang=10.0,
    )


def _layer_names(grid: _Grid) -> Iterator[Markup]:
    every = 1 if grid.height >= _LABEL_SPACING else 2
    for place in range(0, len(grid.layers), every):
        y = grid.top + (place + 0.5) * grid.height + 3.5
        yield tag("text", grid.layer_labels[place], class_="name end", x=grid.left - 7, y=y)


def _version_names(grid: _Grid, y: float, *, is_above: bool) -> Iterator[Markup]:
    for place, name in enumerate(grid.version_labels):
        x = grid.middle(place)
        if not grid.is_upright:
            yield tag("text", name, class_="name middle", x=x, y=y if is_above else y + 9)
            continue
        x += 3.5
        turned = f"rotate(-90 {units(x)} {units(y)})"
        yield tag("text", name, class_="name" if is_above else "name end", x=x, y=y, transform=turned)


def _rows(grid: _Grid, cells: Sequence[Sequence[HeatCell | None]], scale: HeatScale) -> Iterator[Markup]:
    size = f"scale({units(grid.width)} {units(grid.height)})"
    for place, (usual, row) in enumerate(cell_rows(grid.layers, grid.versions, cells, scale)):
        moved = f"translate({units(grid.left)} {units(grid.top + place * grid.height)}) {size}"
        yield tag("g", row, class_=usual, transform=moved)


def _signs(grid: _Grid, cells: Sequence[Sequence[HeatCell | None]]) -> Iterator[Markup]:
    """A letter over each cell that is not well, all of a row and a status in one element."""
    middles = [f"{grid.middle(column):.0f}" for column in range(len(grid.versions))]
    for row, line in enumerate(cells):
        y = grid.top + (row + _SHARE / 2) * grid.height + 4
        for status, sign in _SIGNS.items():
            x = [
                middles[place]
                for place, cell in enumerate(line)
                if cell is not None and cell.status is status
            ]
            if x:
                yield tag("text", sign * len(x), class_=f"sign {status.value}", x=" ".join(x), y=y)


def _description(
    layers: Sequence[str], versions: Sequence[str], cells: Sequence[Sequence[HeatCell | None]]
) -> str:
    newest = [row[-1].status for row in cells if row[-1] is not None]
    states = ", ".join(f"{newest.count(status)} {status.value}" for status in LayerStatus if status in newest)
    size = f"{counted(len(layers), 'layer')} by {counted(len(versions), 'version')}, oldest on the left"
    return f"{size}. In {told(versions[-1])}: {states or 'nothing judged'}."


def _keys(cells: Sequence[Sequence[HeatCell | None]], scale: HeatScale) -> list[Key]:
    there = [cell for row in cells for cell in row if cell is not None]
    used = {heatscale.class_of(cell, scale) for cell in there}
    keys = [
        Key(_sample(name) + (_sign_sample(words) if scale is HeatScale.STATUS else ""), words)
        for name, words in heatscale.classes(scale)
        if name != heatscale.NO_VALUE or name in used
    ]
    if scale is not HeatScale.STATUS:
        statuses = {cell.status for cell in there}
        keys += [Key(_sign_sample(status), status.value) for status in _SIGNS if status in statuses]
    if len(there) < sum(len(row) for row in cells):
        keys.append(Key(_sample("blank"), "not in the version"))
    return keys


def _sample(name: str) -> Markup:
    return tag("rect", class_=name, x=2.0, y=0.0, width=14.0, height=12.0)


def _sign_sample(status: str) -> Markup:
    if status not in _SIGNS:
        return Markup("")
    outline = _sample("outline") if status == LayerStatus.BROKEN else Markup("")
    return outline + tag("text", _SIGNS[LayerStatus(status)], class_=f"sign {status}", x=9.0, y=10.0)


def _css(scale: HeatScale) -> str:
    return f"heat-{scale.value.replace('_', '-')}"
