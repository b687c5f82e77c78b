"""The table of layers, as wide as the terminal: what matters least is left out where there is no room."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from layerwatch.daemon.gate.printable import printable
from layerwatch.daemon.terminal.glyphs import Glyphs
from layerwatch.metrics.findings import LayerStatus
from layerwatch.metrics.report import LayerPart, Report

STATUS_STYLE = {
    LayerStatus.OK: "green",
    LayerStatus.INFO: "cyan",
    LayerStatus.SUSPECT: "yellow",
    LayerStatus.BROKEN: "bold red",
    LayerStatus.UNDECIDED: "magenta",
}

_DISPENSABLE = ("kind", "log norm", "D", "tail", "shape", "stable rank", "before", "fit")
"""In this order; a layer, its alpha, its change and its status are always there."""

_WORDS = frozenset({"kind", "shape", "fit", "status"})
_SHORTEST_NAME = 16
_GAP = 2


@dataclass(frozen=True, slots=True)
class _Column:
    """A title and a cell for each layer."""

    title: str
    cells: tuple[Text, ...]

    @property
    def width(self) -> int:
        return max(len(self.title), *(cell.cell_len for cell in self.cells)) + _GAP


def layer_table(report: Report, width: int, glyphs: Glyphs) -> tuple[Table, tuple[str, ...]]:
    """Every layer with its numbers, and the titles of the columns that were left out.

    Args:
        report: with at least one layer.
        width: of the terminal.
    """
    names, *columns = _columns(report, glyphs)
    # A name longer than half of the line is folded: it must not cost all the numbers.
    room = width - min(names.width, max(_SHORTEST_NAME, width // 2))
    left_out: list[str] = []
    for title in _DISPENSABLE:
        if sum(column.width for column in columns) - _GAP <= room:
            break
        if any(column.title == title for column in columns):
            left_out.append(title)
            columns = [column for column in columns if column.title != title]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(names.title, overflow="fold", min_width=min(names.width - _GAP, _SHORTEST_NAME))
    for column in columns:
        table.add_column(column.title, justify="left" if column.title in _WORDS else "right", no_wrap=True)
    for row in zip(names.cells, *(column.cells for column in columns), strict=True):
        table.add_row(*row)
    return table, tuple(left_out)


def _columns(report: Report, glyphs: Glyphs) -> list[_Column]:
    compared = report.baseline is not None
    rows = [_cells(layer, compared, glyphs) for layer in report.layers]
    return [_Column(title, tuple(row[title] for row in rows)) for title in rows[0]]


def _cells(layer: LayerPart, compared: bool, glyphs: Glyphs) -> dict[str, Text]:
    """By title, in the order of the columns."""
    metrics, change = layer.metrics, layer.change
    alpha = "-" if metrics.alpha is None else f"{metrics.alpha:.2f}"
    if metrics.alpha is not None and metrics.alpha_sigma is not None:
        alpha += f" {glyphs.plus_minus}{metrics.alpha_sigma:.2f}"
    cells = {
        "layer": printable(layer.name),
        "kind": layer.kind,
        "shape": "x".join(map(str, layer.shape)),
        "alpha": alpha,
        "before": _number(change.alpha_baseline, 2) if change else "-",
        "D": _number(metrics.ks_distance, 3),
        "tail": "-" if metrics.tail_size is None else f"{metrics.tail_size}/{metrics.num_eigenvalues}",
        "log norm": _number(metrics.log_norm, 2),
        "stable rank": _number(metrics.stable_rank, 1),
        "change": _number(change.relative_change, 3) if change else "-",
        "fit": (metrics.fit_status or "-").replace("_", " "),
    }
    if not compared:
        del cells["before"], cells["change"]
    status = Text(str(layer.status), style=STATUS_STYLE[layer.status])
    return {**{title: Text(cell) for title, cell in cells.items()}, "status": status}


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
