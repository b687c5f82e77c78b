"""How results show themselves in a terminal and in a notebook. Names come from files and are not trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

MOST_ROWS = 60
MOST_NOTES = 20
_WIDEST = 48


@dataclass(frozen=True, slots=True)
class Shown:
    """A title, remarks and a table.

    Attributes:
        title: one line.
        notes: what must be seen, one line each.
        columns: headings.
        rows: cells, as many as headings.
        always: positions of rows that are shown however many there are.
    """

    title: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    always: frozenset[int] = frozenset()

    def text(self) -> str:
        """Plain text, columns aligned, long cells cut in all columns but the last."""
        table = [self.columns, *self._rows()]
        last = len(self.columns) - 1
        cells = [
            [shown_text(cell) if i == last else _cut(shown_text(cell)) for i, cell in enumerate(row)]
            for row in table
        ]
        widths = [max(len(row[column]) for row in cells) for column in range(last + 1)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
        ]
        body = lines if self.rows else []
        return "\n".join([self.title, *self._notes(), *(line.rstrip() for line in body), *self._rest()])

    def html(self) -> str:
        """The same as a table; every text is escaped."""
        notes = "".join(f"<li>{escape(note)}</li>" for note in self._notes())
        head = "".join(f"<th>{escape(column)}</th>" for column in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(shown_text(cell))}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        rest = "".join(f"<p>{escape(line)}</p>" for line in self._rest())
        listed = f"<ul>{notes}</ul>" if notes else ""
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div><b>{escape(self.title)}</b>{listed}{table}{rest}</div>"

    def _rows(self) -> Sequence[tuple[str, ...]]:
        return [row for i, row in enumerate(self.rows) if i < MOST_ROWS or i in self.always]

    def _notes(self) -> Iterator[str]:
        yield from self.notes[:MOST_NOTES]
        if len(self.notes) > MOST_NOTES:
            yield f"... and {len(self.notes) - MOST_NOTES} more findings"

    def _rest(self) -> Iterator[str]:
        left = len(self.rows) - len(self._rows())
        if left:
            yield f"... and {left} more; frame() has every layer"


def shown_text(text: str) -> str:
    """Text without control characters, which a terminal would obey."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown_number(value: float | None) -> str:
    """Four digits; "-" for what is undefined."""
    return "-" if value is None else f"{value:.4g}"


def shown_shape(shape: tuple[int, ...]) -> str:
    """For example ``64x32x3x3``; "-" for a single number or a file."""
    return "x".join(map(str, shape)) or "-"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
