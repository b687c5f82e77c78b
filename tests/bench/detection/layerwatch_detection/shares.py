"""Shares with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import sqrt
from typing import TypeVar

T = TypeVar("T")

_Z = 1.959964
"""Two-sided 95 % point of the normal law."""


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """0..1; not a number where there is nothing to count."""
        return self.count / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of Wilson (Journal of the American Statistical Association 22, 1927)."""
        if not self.total:
            return (0.0, 1.0)
        n, p = self.total, self.value
        middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        return (max(0.0, middle - half), min(1.0, middle + half))

    @property
    def text(self) -> str:
        """For a cell of a table."""
        return f"{self.value:.3f}" if self.total else "-"

    @property
    def whole_text(self) -> str:
        """With the counts and the interval."""
        low, high = self.interval
        return (
            f"{self.count} of {self.total} = {self.value:.2%} ({low:.2%} .. {high:.2%})"
            if self.total
            else "-"
        )


def share_of(things: Iterable[T], holds: Callable[[T], bool]) -> Share:
    """How many of them are so."""
    answers = [holds(thing) for thing in things]
    return Share(sum(answers), len(answers))
