"""How a merged version follows from its parents, layer by layer, from sketches.

Every number is one of the linear algebra of few sketches per layer (``recipe.py``, ``estimate.py``): coefficients by
least squares, what declared coefficients leave unexplained, and the cosines of the parents, which say whether there
was anything to merge. Distances are told in units of the spread of the parents: what a merge decides about is how far
apart they lie, not how large they are.

Methods and their conventions are mergekit's (``docs/merge_methods.md``): ``linear`` and ``ties`` divide the weights by
their sum unless told otherwise, ``slerp`` interpolates tensor by tensor and falls back to a straight line above a
cosine of 0.9995.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from math import acos, pi, sin
from statistics import median

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.estimate import LayerSketch, layer_sketch, unfolded
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.recipe import LeftOut, RecipeStatus, merge_coefficients, reason_to_leave_out
from layerwatch.metrics.rounding import unit_roundoff

TOLERANCE = 0.05
"""Share of the parents' spread that may stay unexplained in a layer that was made by the recipe."""

_STRAIGHT = 0.9995
_ROUNDING_OF_SKETCHES = 1e-6


class MergeMethod(StrEnum):
    """How parents are combined, in mergekit's words."""

    LINEAR = "linear"
    SLERP = "slerp"
    TASK_ARITHMETIC = "task_arithmetic"
    TIES = "ties"
    DARE_LINEAR = "dare_linear"
    DARE_TIES = "dare_ties"

    @property
    def is_exact(self) -> bool:
        """True where the merge is a fixed mixture of the parents, with nothing left over but rounding."""
        return self in (MergeMethod.LINEAR, MergeMethod.SLERP, MergeMethod.TASK_ARITHMETIC)

    @property
    def needs_base(self) -> bool:
        """True where differences from a base are added up."""
        return self not in (MergeMethod.LINEAR, MergeMethod.SLERP)


@dataclass(frozen=True, slots=True)
class MergeRecipe:
    """A recipe as its author declares it.

    Attributes:
        method: None when only parents are known.
        weights: one per parent (for ``slerp`` the two shares at the ends, 1 - t and t); None when not said.
        base: name of the base; None when there is none.
        normalize: whether weights are divided by their sum; None for the method's habit.
        scale: factor of the whole sum (mergekit's lambda).
    """

    method: MergeMethod | None = None
    weights: tuple[float, ...] | None = None
    base: str | None = None
    normalize: bool | None = None
    scale: float = 1.0

    def coefficients(self, parents_cosine: float | None = None) -> tuple[float, ...] | None:
        """What each parent should count for in a layer; None where the recipe does not say.

        Args:
            parents_cosine: of the two parents' weights in that layer, for ``slerp``.
        """
        if self.weights is None or self.method is None:
            return None
        if self.method is MergeMethod.SLERP:
            return _spherical(self.weights, parents_cosine)
        habit = self.method in (MergeMethod.LINEAR, MergeMethod.TIES)
        total = sum(self.weights)
        unit = total if (habit if self.normalize is None else self.normalize) and total else 1.0
        return tuple(self.scale * weight / unit for weight in self.weights)


@dataclass(frozen=True, slots=True)
class MergeParent:
    """One model that went into a merge.

    Attributes:
        name: of the version, for messages.
        sketches: by layer name.
    """

    name: str
    sketches: Mapping[str, LayerSketch]


@dataclass(frozen=True, slots=True)
class MergedLayer:
    """One layer of a merge.

    Attributes:
        name: the layer.
        coefficients: those that explain it best, one per parent; None where they cannot be told.
        errors: their standard errors.
        expected: what the recipe asks for, or the model's median; None where neither is known.
        deviation: ||W - what the expected coefficients make|| over the parents' spread; None without expected ones.
        left_over: the same of the best coefficients: what no mixture explains.
        follows: whether the deviation is no more than rounding and the tolerance.
        norm_ratio: ||W|| over the root mean square of the parents' norms.
        parents_cosine: the smallest between two parents; None for one parent.
        base_cosine: the smallest between a parent and the base; None without a base.
        task_cosine: mean cosine between the parents' differences from the base; None without a base, or for one.
        amplification: ||W - base|| over the mean of ||parent - base||; None without a base.
        task_sizes: ||parent - base|| of each parent over the largest of them, 0..1; empty without a base, and where no
            parent differs from it.
    """

    name: str
    coefficients: tuple[float, ...] | None
    errors: tuple[float, ...]
    expected: tuple[float, ...] | None
    deviation: float | None
    left_over: float | None
    follows: bool
    norm_ratio: float | None
    parents_cosine: float | None
    base_cosine: float | None
    task_cosine: float | None
    amplification: float | None
    task_sizes: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class MergeEvidence:
    """How a version follows from its parents.

    Attributes:
        parents: their names.
        base: name of the base, or None.
        recipe: as declared, or None.
        coefficients: the median over the layers; None where no layer tells.
        layers: every layer that could be compared, in the version's order.
        left_out: names of the others, with the reason.
    """

    parents: tuple[str, ...]
    base: str | None
    recipe: MergeRecipe | None
    coefficients: tuple[float, ...] | None
    layers: tuple[MergedLayer, ...]
    left_out: tuple[tuple[str, LeftOut], ...]

    @property
    def explained(self) -> float:
        """Share of the layers that follow the recipe, 0..1."""
        return sum(layer.follows for layer in self.layers) / len(self.layers) if self.layers else 0.0

    def median_of(self, name: str) -> float | None:
        """Median over the layers of one of their numbers; None where no layer has it."""
        values = [value for layer in self.layers if (value := getattr(layer, name)) is not None]
        return float(median(values)) if values else None


def stored_sketches(
    layers: Iterable[LayerEntry], load: Callable[[str], Measurement | None]
) -> dict[str, LayerSketch]:
    """Sketches of a stored model's weights by layer name, without folds, one measurement in memory at a time.

    Args:
        layers: what was found in it.
        load: a measurement with its arrays, by digest.
    """
    found: dict[str, LayerSketch] = {}
    for entry in layers:
        measurement = load(entry.digest) if entry.digest and len(entry.shape) >= 2 else None
        sketch = None if measurement is None else layer_sketch(measurement)
        if sketch is not None:
            found[entry.name] = sketch.unfolded
    return found


def sign_conflict(task_cosine: float) -> float:
    """Share of the elements at which two task vectors disagree in sign, 0..1, if their elements are jointly Gaussian.

    Sheppard's formula (Phil. Trans. R. Soc. A 192, 1899): acos(cosine) / pi. The exact count needs the weights.
    """
    return acos(max(-1.0, min(1.0, task_cosine))) / pi


def merge_evidence(
    merged: Mapping[str, LayerSketch],
    parents: Sequence[MergeParent],
    base: MergeParent | None = None,
    recipe: MergeRecipe | None = None,
) -> MergeEvidence:
    """Hold a merged version against its parents: their weights as stored, no batch norm folded in.

    Args:
        merged: the version's sketches by layer name.
        parents: what it was merged from, at least one, in the order of the recipe's weights; not the base.
        base: what the parents were made from, for methods that add up differences.
        recipe: as declared.

    Raises:
        ValueError: no parents, or not one weight for each.
    """
    if not parents:
        raise ValueError("a merge needs at least one parent")
    if recipe is not None and recipe.weights is not None and len(recipe.weights) != len(parents):
        raise ValueError(f"{len(recipe.weights)} weights are declared for {len(parents)} parents")
    merged = unfolded(merged)
    parents = [MergeParent(parent.name, unfolded(parent.sketches)) for parent in parents]
    base = None if base is None else MergeParent(base.name, unfolded(base.sketches))
    others = [*(parent.sketches for parent in parents), *(() if base is None else (base.sketches,))]
    left_out: list[tuple[str, LeftOut]] = []
    joined: list[_Joined] = []
    for name, layer in merged.items():
        reason = reason_to_leave_out(name, layer, others)
        if reason is not None:
            left_out.append((name, reason))
            continue
        joined.append(
            _joined(
                name,
                layer,
                [parent.sketches[name] for parent in parents],
                None if base is None else base.sketches[name],
            )
        )
    told = [one.coefficients for one in joined if one.coefficients is not None]
    common = tuple(float(median(column)) for column in zip(*told, strict=True)) if told else None
    return MergeEvidence(
        parents=tuple(parent.name for parent in parents),
        base=None if base is None else base.name,
        recipe=recipe,
        coefficients=common,
        layers=tuple(_held(one, recipe, common) for one in joined),
        left_out=tuple(left_out),
    )


@dataclass(frozen=True, slots=True)
class _Joined:
    name: str
    merged: LayerSketch
    parents: list[LayerSketch]
    base: LayerSketch | None
    spread: float
    coefficients: tuple[float, ...] | None
    errors: tuple[float, ...]


def _joined(name: str, merged: LayerSketch, parents: list[LayerSketch], base: LayerSketch | None) -> _Joined:
    fit = merge_coefficients(
        merged.sketch, [one.sketch for one in parents], None if base is None else base.sketch
    )
    found = fit.coefficients if fit.status is RecipeStatus.OK else None
    return _Joined(
        name,
        merged,
        parents,
        base,
        _spread(parents, base),
        None if found is None else tuple(one.value for one in found),
        () if found is None else tuple(one.error for one in found),
    )


def _held(one: _Joined, recipe: MergeRecipe | None, common: tuple[float, ...] | None) -> MergedLayer:
    parents_cosine = _least_cosine([(a, b) for a, b in combinations(one.parents, 2)])
    expected = recipe.coefficients(parents_cosine) if recipe is not None else None
    if expected is None:
        expected = common
    tasks = [] if one.base is None else [_difference(parent, one.base) for parent in one.parents]
    task_cosines = [_cosine(a, b) for a, b in combinations(tasks, 2)]
    known_tasks = [value for value in task_cosines if value is not None]
    norms = [float(np.linalg.norm(task)) for task in tasks]
    mean_task = float(np.mean(norms)) if norms else 0.0
    deviation = None if expected is None else _unexplained(one, expected)
    return MergedLayer(
        name=one.name,
        coefficients=one.coefficients,
        errors=one.errors,
        expected=expected,
        deviation=_in_units(deviation, one.spread),
        left_over=_in_units(
            None if one.coefficients is None else _unexplained(one, one.coefficients), one.spread
        ),
        follows=deviation is not None and deviation <= _allowed(one),
        norm_ratio=_in_units(
            one.merged.norm, float(np.sqrt(np.mean([parent.norm**2 for parent in one.parents])))
        ),
        parents_cosine=parents_cosine,
        base_cosine=None
        if one.base is None
        else _least_cosine([(parent, one.base) for parent in one.parents]),
        task_cosine=float(np.mean(known_tasks)) if known_tasks else None,
        amplification=None
        if one.base is None
        else _in_units(float(np.linalg.norm(_difference(one.merged, one.base))), mean_task),
        task_sizes=tuple(norm / max(norms) for norm in norms)
        if 0.0 < max(norms, default=0.0) < np.inf
        else (),
    )


def _allowed(one: _Joined) -> float:
    """Rounding of the stored types, of the sketches, and the tolerance."""
    roundoff = max(unit_roundoff(layer.dtype) for layer in (one.merged, *one.parents))
    return (max(roundoff, _ROUNDING_OF_SKETCHES) * one.merged.norm) + TOLERANCE * one.spread


def _unexplained(one: _Joined, coefficients: Sequence[float]) -> float:
    rest = one.merged.sketch.astype(np.float64)
    for coefficient, parent in zip(coefficients, one.parents, strict=True):
        rest = rest - coefficient * parent.sketch
    if one.base is not None:
        rest = rest - (1.0 - sum(coefficients)) * one.base.sketch
    return float(np.linalg.norm(rest))


def _spread(parents: Sequence[LayerSketch], base: LayerSketch | None) -> float:
    """Root mean square distance of the parents from the base, or from their mean."""
    sketches = [parent.sketch.astype(np.float64) for parent in parents]
    if base is not None:
        origin = base.sketch.astype(np.float64)
    elif len(sketches) > 1:
        origin = np.asarray(np.mean(sketches, axis=0))
    else:
        return float(np.linalg.norm(sketches[0]))
    return float(np.sqrt(np.mean([np.square(one - origin).sum() for one in sketches])))


def _spherical(weights: tuple[float, ...], cosine: float | None) -> tuple[float, ...] | None:
    total = sum(weights)
    if len(weights) != 2 or cosine is None or total <= 0.0:
        return None
    t = weights[1] / total
    if abs(cosine) > _STRAIGHT:
        return (1.0 - t, t)
    angle = acos(max(-1.0, min(1.0, cosine)))
    return (sin((1.0 - t) * angle) / sin(angle), sin(t * angle) / sin(angle))


def _difference(one: LayerSketch, other: LayerSketch) -> NDArray[np.float64]:
    return np.asarray(one.sketch.astype(np.float64) - other.sketch.astype(np.float64))


def _least_cosine(pairs: Sequence[tuple[LayerSketch, LayerSketch]]) -> float | None:
    found = [_cosine(a.sketch.astype(np.float64), b.sketch.astype(np.float64)) for a, b in pairs]
    return min((value for value in found if value is not None), default=None)


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    norms = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    if not 0.0 < norms < np.inf:
        return None
    return max(-1.0, min(1.0, float(np.vdot(a, b)) / norms))


def _in_units(value: float | None, unit: float) -> float | None:
    if value is None or unit <= 0.0:
        return None
    ratio = value / unit
    return ratio if np.isfinite(ratio) else None
