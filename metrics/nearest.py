"""Which stored model a version was made from, whatever its card says: the nearest one, by sketches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.estimate import (
    ROUNDING,
    Estimate,
    LayerSketch,
    check_sketches,
    cosine,
    relative_change,
    standard_error,
)

LEAST_COVERAGE = 0.5
"""Share of the version's weights that a candidate must have in layers of the same name and shape."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One stored model beside the version.

    Attributes:
        name: as given.
        distance: ||W - W_candidate|| / ||W|| over the joined layers together, in units of the version, so that
            candidates of any norm can be put in order: 0 for the same weights, 1 for an empty model. None where no
            layers are joined, or either side is empty there.
        relative_change: ||W - W_candidate|| / ||W_candidate||: the same with the candidate as the baseline.
        cosine: of all joined weights together, -1..1; near 0 for a model of another seed.
        layers: layers of equal name and shape with usable sketches on both sides, which the numbers are taken over.
        missing: layers of the version that the candidate lacks.
        mismatched: layers of the candidate's that have another shape.
        coverage: share of the version's weights that lie in joined layers, 0..1.
        comparable: False where the coverage is too little to call the candidate near or far.
    """

    name: str
    distance: Estimate | None
    relative_change: Estimate | None
    cosine: Estimate | None
    layers: int
    missing: int
    mismatched: int
    coverage: float
    comparable: bool


@dataclass(frozen=True, slots=True)
class Nearest:
    """The candidates in order, and whether the first stands alone.

    Attributes:
        candidates: comparable ones first, by distance; then the others, by coverage.
        decisive: True when the first is nearer to the version than an empty model would be, and nearer than every
            other comparable candidate on the layers that all three share, both by more than two standard errors.
    """

    candidates: tuple[Candidate, ...]
    decisive: bool


def nearest_parent(
    version: Mapping[str, LayerSketch],
    candidates: Mapping[str, Mapping[str, LayerSketch]],
    least_coverage: float = LEAST_COVERAGE,
) -> Nearest:
    """Order stored models by their distance to a version.

    Distances are Frobenius norms over all joined layers, so large layers weigh most. Two candidates are compared by
    the difference of their squared distances, cell by cell: what both have in common with the version drops out of
    its error, which a comparison of two error bars would count twice.

    Args:
        version: sketches by layer name.
        candidates: sketches by layer name, by candidate name.
        least_coverage: share of the version's weights below which a candidate is not comparable, 0..1.

    Raises:
        TypeError: something else than sketches was given.
    """
    check_sketches(version, *candidates.values())
    total = sum(_elements(layer) for layer in version.values())
    judged = [_candidate(name, version, model, total, least_coverage) for name, model in candidates.items()]
    judged.sort(key=_order)
    comparable = [one.name for one in judged if one.comparable]
    decisive = bool(comparable) and _is_near(judged[0])
    for rival in comparable[1:]:
        if not decisive:
            break
        decisive = _is_nearer(version, candidates[comparable[0]], candidates[rival], total * least_coverage)
    return Nearest(tuple(judged), decisive)


def _candidate(
    name: str,
    version: Mapping[str, LayerSketch],
    model: Mapping[str, LayerSketch],
    total: int,
    least_coverage: float,
) -> Candidate:
    joined = _joined(version, model)
    mismatched = sum(1 for key in version if key in model and model[key].shape != version[key].shape)
    coverage = sum(_elements(version[key]) for key in joined) / total if total else 0.0
    old_norm, new_norm = _norm(model, joined), _norm(version, joined)
    distance = change = alike = None
    if old_norm > 0.0 and new_norm > 0.0:
        ratio = new_norm / old_norm
        new = [_cells(version[key], old_norm) for key in joined]
        old = [_cells(model[key], old_norm) for key in joined]
        change = relative_change([x - y for x, y in zip(new, old, strict=True)], 1.0, ratio)
        distance = Estimate(change.value / ratio, change.error / ratio)
        alike = cosine(new, old)
    return Candidate(
        name=name,
        distance=distance,
        relative_change=change,
        cosine=alike,
        layers=len(joined),
        missing=sum(1 for key in version if key not in model),
        mismatched=mismatched,
        coverage=coverage,
        comparable=distance is not None and coverage >= least_coverage,
    )


def _order(candidate: Candidate) -> tuple[bool, float, float]:
    distance = candidate.distance.value if candidate.distance and candidate.comparable else 0.0
    return (not candidate.comparable, distance, -candidate.coverage)


def _is_near(candidate: Candidate) -> bool:
    distance = candidate.distance
    return distance is not None and distance.value + 2 * distance.error < 1.0


def _is_nearer(
    version: Mapping[str, LayerSketch],
    one: Mapping[str, LayerSketch],
    other: Mapping[str, LayerSketch],
    least_elements: float,
) -> bool:
    of_other = set(_joined(version, other))
    shared = [key for key in _joined(version, one) if key in of_other]
    unit = _norm(version, shared)
    if unit <= 0.0 or sum(_elements(version[key]) for key in shared) < least_elements:
        return False
    margin: NDArray[np.float64] = np.zeros((1, 1))
    far = near = 0.0
    for key in shared:
        new = _cells(version[key], unit)
        near_cells = np.square(new - _cells(one[key], unit))
        far_cells = np.square(new - _cells(other[key], unit))
        margin = margin + far_cells - near_cells
        near += float(near_cells.sum())
        far += float(far_cells.sum())
    distances = far**0.5 + near**0.5
    if distances == 0.0:
        return False
    # far - near = (far^2 - near^2) / (far + near)
    rounding = ROUNDING * (1.0 + _norm(one, shared) / unit + _norm(other, shared) / unit)
    error = float(np.hypot(standard_error(margin) / distances, rounding))
    return bool(float(margin.sum()) / distances > 2 * error)


def _joined(version: Mapping[str, LayerSketch], model: Mapping[str, LayerSketch]) -> list[str]:
    return [
        key
        for key, layer in version.items()
        if key in model and model[key].shape == layer.shape and layer.usable and model[key].usable
    ]


def _norm(model: Mapping[str, LayerSketch], names: list[str]) -> float:
    """Exact norm over the named layers; hypot keeps squares in range."""
    total = 0.0
    for name in names:
        total = float(np.hypot(total, model[name].norm))
    return total


def _cells(layer: LayerSketch, unit: float) -> NDArray[np.float64]:
    return np.asarray(layer.sketch.astype(np.float64) / unit)


def _elements(layer: LayerSketch) -> int:
    return int(np.prod(layer.shape, dtype=np.int64))
