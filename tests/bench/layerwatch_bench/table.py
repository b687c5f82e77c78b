"""Results, one row each, and the table that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Row:
    """One result.

    Attributes:
        part: letter of the part of the benchmark.
        case: what was measured.
        seen: the measured numbers in words.
        result: what the target is about, in words.
        target: what it should be; empty where there is nothing to meet.
        met: whether it is; None where there is no target or it does not apply.
        figures: everything behind it, for the JSON file.
    """

    part: str
    case: str
    seen: str
    result: str
    target: str = ""
    met: bool | None = None
    figures: dict[str, object] = field(default_factory=dict)


_HEADINGS = ("", "case", "measured", "result", "target", "")


def as_table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    lines = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    ]
    padded.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in padded)


def _cells(row: Row) -> tuple[str, ...]:
    verdict = {True: "met", False: "MISSED", None: ""}[row.met]
    return row.part, row.case, row.seen, row.result, row.target, verdict
