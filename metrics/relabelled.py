"""Whether a few outputs, such as classes, stand in each other's places: which names fit the relations best."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.association import Floats

MOST = 16
"""With more, single units are told apart by their own relations (``unitplaces.py``)."""

_LARGEST = 0.999
"""Correlations above this are taken for it: two tables are never told to be equal for certain."""


@dataclass(frozen=True, slots=True)
class Relabelling:
    """The names, and signs, by which one table of relations fits another best.

    Attributes:
        moved: how many have another name.
        turned: how many have the other sign; at most half of them, since relations do not know the sign of all.
        own, best: correlation of the two tables, as they are and by those names.
        evidence: that these are their names, against that they are called what they are; a logarithm of a likelihood
            ratio, less what the best of so many choices gains by chance. 0 where the names fit as they are.
    """

    moved: int
    turned: int
    own: float
    best: float
    evidence: float


def relabelling(table: Floats, table0: Floats) -> Relabelling:
    """Exchange two names, or turn one sign, as long as that makes two tables more alike.

    The step that gains most is taken first: where several classes were moved, or turned, the end need not be the best.

    Args:
        table, table0: symmetric, zero on the diagonal, shape (units, units), four units at least.
    """
    count = len(table)
    above = np.triu_indices(count, 1)
    target = _direction(table[above])

    def fit(order: NDArray[np.intp], signs: Floats) -> float:
        return float(target @ _direction((table0[np.ix_(order, order)] * np.outer(signs, signs))[above]))

    order, signs = np.arange(count), np.ones(count)
    own = best = fit(order, signs)
    steps = 0
    while steps < count:
        tried = []
        for one in range(count):
            turned = signs.copy()
            turned[one] *= -1.0
            tried.append((fit(order, turned), order, turned))
            for other in range(one):
                exchanged = order.copy()
                exchanged[[one, other]] = exchanged[[other, one]]
                tried.append((fit(exchanged, signs), exchanged, signs))
        found = max(tried, key=lambda choice: choice[0])
        if found[0] <= best + 1e-9:
            break
        best, order, signs = found
        steps += 1
    choices = count * (count + 1) / 2.0
    free = len(above[0]) - count
    gain = 0.5 * free * log((1.0 - _kept(own) ** 2) / (1.0 - _kept(best) ** 2)) - steps * log(choices)
    minus = int((signs < 0.0).sum())
    moved = int((order != np.arange(count)).sum())
    return Relabelling(moved, min(minus, count - minus), own, best, max(0.0, gain) if steps else 0.0)


def _direction(values: Floats) -> Floats:
    centred = values - values.mean()
    found: Floats = centred / max(float(np.linalg.norm(centred)), 1e-300)
    return found


def _kept(correlation: float) -> float:
    return min(_LARGEST, max(0.0, correlation))
