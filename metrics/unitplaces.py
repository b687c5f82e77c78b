"""Which units of a layer stand where another one belongs, by what they have to do with the others.

Two descriptions of the same units agree unit by unit, too: the relations of unit i in one table are those of unit i in
the other. Where some units changed places in one of the two, each of them has the relations of *another* unit, and that
one's partner likewise: the two find each other (mutual best match) away from their own place. The units that stayed
are enough to tell. A unit whose sign was turned has its own relations times minus one.

Healthy trainings have few such units, whatever the strength of the coupling (own measurements, networks of six seeds):
after a quarter of the units changed places a coupling keeps half of its strength, as it does from seed to seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.association import FEWEST, Floats

_PASSES = 3
"""Units that are out of place blur the relations of the others: they are left out when these are looked at again."""

_AT_HOME = 0.5
_AWAY = 1.0 / 3.0
_FOUND = 2.0 / 3.0
_REVERSED = -0.5
"""Of the typical agreement of a unit with itself: what counts as in step, as not at its place, as found elsewhere, as
turned. Between a third and two thirds nothing is said."""

_EXPECTED_AT_LEAST = 0.5

_CHANCE = 1.4826
"""Median absolute deviation to standard deviation, for a Gaussian."""


@dataclass(frozen=True, slots=True)
class UnitPlaces:
    """How the units of two descriptions find each other.

    Attributes:
        displaced: units that are found at the place of another one, clearly and mutually.
        reversed: units that agree with themselves after a change of sign.
        clarity: typical agreement with itself of a unit that is in its place, in standard deviations of that with any other; below about 1
            units are not told apart.
    """

    displaced: int
    reversed: int
    clarity: float


def unit_places(one: Floats, other: Floats, together: Floats | None = None) -> UnitPlaces:
    """Look for units that are out of place.

    Args:
        one, other: symmetric tables of relations between the same units, shape (units, units), zero on the diagonal.
        together: 1 where the relation of two units means something, 0 elsewhere, same shape; all by default.
    """
    count = len(one)
    apart = 1.0 - np.eye(count)
    counts = apart if together is None else together * apart
    first, second = evened(one), evened(other)
    in_step = np.ones(count, dtype=bool)
    for _ in range(_PASSES):
        alike = _row_correlations(first, second, counts * in_step)
        own = np.diag(alike)
        typical = float(np.median(own[in_step]))
        if typical <= 0.0:
            return UnitPlaces(0, 0, 0.0)
        now = own > _AT_HOME * typical
        if now.sum() >= FEWEST:
            in_step = now
    place = np.arange(count)
    there = alike.argmax(axis=1)
    mutual = (alike.argmax(axis=0)[there] == place) & (there != place)
    displaced = mutual & (own < _AWAY * typical) & (alike[place, there] > _FOUND * typical)
    chance = _CHANCE * float(np.median(np.abs(alike[apart > 0.0])))
    return UnitPlaces(
        int(displaced.sum()),
        int((own < _REVERSED * typical).sum()),
        typical / chance if chance > 0.0 else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Scatter:
    """Share of units that seem out of place in a healthy layer: ``exp(-2.5 (clarity - offset))``, at most ``most``."""

    most: float
    offset: float


def surprise(found: int, units: int, clarity: float, scatter: Scatter, before: int = 0) -> float:
    """How unlikely it is that so many units of a healthy layer seem out of place, as a natural logarithm; >= 0.

    Counts scatter more than Poisson's: a negative binomial law of size 2.

    Args:
        found: units that are displaced, or reversed.
        units: of how many.
        clarity: of the same places.
        scatter: what is expected at this clarity.
        before: as many as there were in the baseline are expected at least.
    """
    share = min(scatter.most, exp(-2.5 * (clarity - scatter.offset)))
    expected = max(_EXPECTED_AT_LEAST, before, units * share)
    ratio = expected / (2.0 + expected)
    return max(0.0, -found * log(ratio) - log(1.0 + found * (1.0 - ratio)))


def evened(table: Floats) -> Floats:
    """The same table with its large eigenvalues made equal, as ``l / sqrt(l^2 + m^2)`` with the median size m.

    A few directions that all units share would make them look alike.
    """
    count = len(table)
    centred = table - table.sum() / (count * (count - 1.0))
    np.fill_diagonal(centred, 0.0)
    values, vectors = np.linalg.eigh(centred)
    size = np.sqrt(values**2 + float(np.median(np.abs(values))) ** 2)
    found: Floats = (vectors * (values / np.where(size > 0.0, size, 1.0))) @ vectors.T
    np.fill_diagonal(found, 0.0)
    return found


def _row_correlations(one: Floats, other: Floats, counts: NDArray[np.float64]) -> Floats:
    """Correlation of row i of one with row j of the other over the columns that count for j, shape (units, units)."""
    total = np.maximum(counts.sum(axis=1), 1.0)
    kept = other * counts
    sums, squares = one @ counts.T, (one * one) @ counts.T
    sums0, squares0 = kept.sum(axis=1), (other * kept).sum(axis=1)
    shared = one @ kept.T - sums * (sums0 / total)
    spread = np.maximum(squares - sums * sums / total, 0.0) * np.maximum(
        squares0 - sums0 * sums0 / total, 0.0
    )
    floor = 1e-24 * squares * squares0
    found: Floats = np.where(spread > floor, shared / np.sqrt(np.where(spread > floor, spread, 1.0)), 0.0)
    return found
