"""Whether two descriptions of the same units agree: scores in standard deviations of what chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST = 8
"""Fewer units than this say nothing: four can be put in the right order by chance."""


def gram(features: Floats) -> Floats:
    """Inner products of units, shape (units, units), without those of a unit with itself.

    Args:
        features: shape (units, features).
    """
    products = features @ features.T
    np.fill_diagonal(products, 0.0)
    return products


def agreement(one: Floats, other: Floats) -> float:
    """How well two tables of relations between the same units agree.

    The sum over pairs of the products, in standard deviations of its law under all permutations of the units of one
    table; exact mean and variance (Mantel 1967, Cancer Research 27:209; Cliff and Ord, Spatial Processes, 1981,
    section 2.4). About 0 when one side was permuted, or is random.

    Args:
        one, other: symmetric, shape (units, units), zero on the diagonal; four units at least.
    """
    return _standardised(len(one), float(np.vdot(one, other)), _sums(one), _sums(other))


def agreements(tables: Sequence[NDArray[np.floating[Any]]]) -> Floats:
    """Of each of several tables with each other, shape (tables, tables)."""
    sums = [_sums(table) for table in tables]
    found = np.zeros((len(tables), len(tables)))
    for number, table in enumerate(tables):
        for place, other in enumerate(tables[:number]):
            score = _standardised(len(table), float(np.vdot(table, other)), sums[number], sums[place])
            found[number, place] = found[place, number] = score
    return found


_Sums = tuple[float, float, float]


def _standardised(n: int, total: float, one: _Sums, other: _Sums) -> float:
    (s0, s1, s2), (t0, t1, t2) = one, other
    pairs = n * (n - 1.0)
    triples, fours = pairs * (n - 2.0), pairs * (n - 2.0) * (n - 3.0)
    mean = s0 * t0 / pairs
    square = (
        s1 * t1 / (2.0 * pairs)
        + (s2 - 2.0 * s1) * (t2 - 2.0 * t1) / (4.0 * triples)
        + (s0 * s0 + s1 - s2) * (t0 * t0 + t1 - t2) / fours
    )
    variance = square - mean * mean
    # What is left of the variance of two constant tables is rounding.
    return (total - mean) / sqrt(variance) if variance > 1e-12 * abs(square) else 0.0


def _sums(table: NDArray[np.floating[Any]]) -> _Sums:
    margins = table.sum(axis=1, dtype=np.float64)
    return float(margins.sum()), 2.0 * float(np.vdot(table, table)), 4.0 * float(margins @ margins)


def rank_score(one: Floats, other: Floats) -> float:
    """Spearman's correlation times the square root of the number of units less one."""
    return correlation_score(_ranks(one), _ranks(other))


def correlation_score(one: Floats, other: Floats) -> float:
    """Pearson's correlation times the square root of the number of units less one; 0 where either is constant."""
    return correlation(one, other) * sqrt(len(one) - 1)


def correlation(one: Floats, other: Floats) -> float:
    """Pearson's correlation, -1..1; 0 where either is constant."""
    first, second = one - one.mean(), other - other.mean()
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    floor = 1e-12 * float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(first @ second) / scale if scale > floor else 0.0


def _ranks(values: Floats) -> Floats:
    # Equal values share the mean of their places: else their order in the file would count.
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2.0)[places]
    return ranks


def cosine_score(one: Floats, other: Floats) -> float:
    """Mean cosine of the two feature vectors of each unit, in standard deviations of chance; signed.

    Args:
        one, other: shape (units, features), over the same features.
    """
    return float((_directions(one) * _directions(other)).sum(axis=1).mean() * sqrt(one.size))


def _directions(features: Floats) -> Floats:
    sizes: Floats = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(sizes > 0.0, sizes, 1.0)


def lengths(features: Floats) -> Floats:
    """Norm of each unit's features, shape (units,)."""
    found: Floats = np.linalg.norm(features, axis=1)
    return found


def partial_correlation(one: Floats, other: Floats, given: Floats) -> float:
    """Correlation of what is left of both after a straight line on ``given``."""
    line = given - given.mean()
    square = float(line @ line)

    def rest(values: Floats) -> Floats:
        centred = values - values.mean()
        left: Floats = centred - line * (float(line @ centred) / square) if square > 0.0 else centred
        return left

    return correlation(rest(one), rest(other))


def fisher_score(correlation_: float, units: int, given: int = 0) -> float:
    """A correlation in standard deviations (Fisher's z): ``atanh(r) sqrt(n - 3 - given)``."""
    bounded = min(0.999, max(-0.999, correlation_))
    return float(np.arctanh(bounded) * sqrt(max(1, units - 3 - given)))
