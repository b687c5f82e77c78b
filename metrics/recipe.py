"""What a merged model was merged from: coefficients of its parents, from sketches.

Sketches are linear, so a merge ``W = sum c_i W_i`` is one of sketches too, and least squares over the sketches'
4096 cells gives the coefficients that least squares over the weights would give. Nothing is estimated where the
recipe holds exactly; where something was done besides, its sketch is the residual, and the coefficients scatter
around those of the weights by ``sum of p_i(cell) residual(cell)``, whose standard error follows from the cells
(``estimate.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.estimate import (
    ROUNDING,
    Estimate,
    LayerSketch,
    check_sketches,
    is_usable,
    standard_error,
    unfolded,
)
from layerwatch.metrics.rounding import unit_roundoff

_RESOLVED = 100.0
"""Parents count as independent when their smallest singular value is this many times what rounding of the sketches
alone could make of it. Rounded parents bias coefficients by one part in 100^2 then, less than their error."""

_ROUNDS = 10


class RecipeStatus(StrEnum):
    """Whether the coefficients can be told.

    ``ok``; ``collinear``: the parents are not independent (two of them equal, one of them zero, or equal to the
    base), so that many coefficients explain the merge equally well and none is given; ``empty``: there is nothing
    to explain (the merged weights, or their difference from the base, are zero); ``non_finite``: a sketch holds
    NaN, infinity or values at the end of float32's range.
    """

    OK = "ok"
    COLLINEAR = "collinear"
    EMPTY = "empty"
    NON_FINITE = "non_finite"


class LeftOut(StrEnum):
    """Why a layer has no part in a model's recipe.

    ``missing``: a parent (or the base) has no layer of this name; ``shape``: one of another shape; ``folded``: a
    BatchNorm is folded into the sketch, and a merge of folded matrices is no fold of merged ones; only where the
    measurement is from before sketches of the raw matrix were kept as well; ``non_finite``: a sketch that cannot be
    used.
    """

    MISSING = "missing"
    SHAPE = "shape"
    FOLDED = "folded"
    NON_FINITE = "non_finite"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Coefficients of a merge.

    Attributes:
        status: whether they can be told.
        coefficients: one per parent, with its standard error; None unless the status is ok.
        residual: ||W - sum c_i W_i|| / ||W||, or with a base ||T - sum c_i T_i|| / ||T|| of the task vectors
            T = W - base: the share that no mixture of the parents explains. Given for collinear parents too.
        condition: largest over smallest singular value of the parents, each scaled to norm one; above 1, and
            large where coefficients trade off against each other. None unless the status is ok.
    """

    status: RecipeStatus
    coefficients: tuple[Estimate, ...] | None
    residual: Estimate | None
    condition: float | None


@dataclass(frozen=True, slots=True)
class LayerRecipe:
    """One layer under the model's recipe.

    Attributes:
        name: the layer.
        own: the coefficients that fit this layer best.
        residual: what the model's recipe leaves unexplained, relative as in :class:`Recipe`; None where there is
            nothing to explain.
        follows: False when that is more than rounding to the layer's stored type and the tolerance allow, by more
            than two standard errors.
    """

    name: str
    own: Recipe
    residual: Estimate | None
    follows: bool


@dataclass(frozen=True, slots=True)
class ModelRecipe:
    """Coefficients of a whole model's merge, and whether every layer was made by them.

    Attributes:
        common: fitted to all layers that follow it together, each with the weight of its squared norm.
        declared: the coefficients that the layers were held against; None when they were held against ``common``.
        layers: one entry per layer that could be compared, in the merged model's order.
        left_out: names of the others, with the reason.
    """

    common: Recipe
    declared: tuple[float, ...] | None
    layers: tuple[LayerRecipe, ...]
    left_out: tuple[tuple[str, LeftOut], ...]

    @property
    def deviating(self) -> tuple[str, ...]:
        """Layers that the recipe does not explain."""
        return tuple(layer.name for layer in self.layers if not layer.follows)

    @property
    def followed(self) -> bool | None:
        """Whether the recipe is what was done, in every layer that could be compared; None without any."""
        return not self.deviating if self.layers else None


def merge_coefficients(
    merged: NDArray[np.float32],
    parents: Sequence[NDArray[np.float32]],
    base: NDArray[np.float32] | None = None,
) -> Recipe:
    """Coefficients of one layer's merge, by least squares over sketches.

    Args:
        merged: sketch of the merged layer, shape (64, 64).
        parents: sketches of the parents' layers, at least one, far fewer than 64.
        base: sketch of their common base, for coefficients of task vectors: W = base + sum c_i (W_i - base).

    Raises:
        ValueError: no parents.
    """
    if not parents:
        raise ValueError("a recipe needs at least one parent")
    if not all(is_usable(one) for one in (merged, *parents, *(() if base is None else (base,)))):
        return _NON_FINITE
    return _fit([_system(merged, parents, base)]).recipe


def model_recipe(
    merged: Mapping[str, LayerSketch],
    parents: Sequence[Mapping[str, LayerSketch]],
    base: Mapping[str, LayerSketch] | None = None,
    *,
    declared: Sequence[float] | None = None,
    tolerance: float = 0.0,
) -> ModelRecipe:
    """Coefficients of a model's merge, and the layers that they do not explain.

    Layers are joined by name and shape, as their weights are stored: no batch norm folded in. Without declared coefficients, the search for common ones starts from the
    median over the layers' own, weighted by norm, and repeats: layers that deviate are set aside, the others are
    fitted together. A minority of layers that were made otherwise therefore does not bend the result.

    Args:
        merged: the merged model's sketches by layer name.
        parents: those of each parent, at least one.
        base: those of the parents' common base, for coefficients of task vectors.
        declared: hold the layers against these coefficients, one per parent, instead of the fitted ones.
        tolerance: relative residual that is accepted in a layer besides rounding, >= 0 (training after the merge).

    Raises:
        ValueError: no parents, or not one declared coefficient for each.
        TypeError: something else than sketches was given.
    """
    if not parents:
        raise ValueError("a recipe needs at least one parent")
    if declared is not None and len(declared) != len(parents):
        raise ValueError(f"{len(declared)} coefficients are declared for {len(parents)} parents")
    check_sketches(merged, *parents, *(() if base is None else (base,)))
    merged, parents = unfolded(merged), [unfolded(one) for one in parents]
    base = None if base is None else unfolded(base)
    others = [*parents, *(() if base is None else (base,))]
    left_out: list[tuple[str, LeftOut]] = []
    joined: dict[str, _Layer] = {}
    for name, layer in merged.items():
        reason = reason_to_leave_out(name, layer, others)
        if reason is not None:
            left_out.append((name, reason))
            continue
        system = _system(
            layer.sketch, [one[name].sketch for one in parents], None if base is None else base[name].sketch
        )
        joined[name] = _Layer(system, _fit([system]), layer.norm, unit_roundoff(layer.dtype))
    common = _common(list(joined.values()), tolerance) if joined else _Fit(_EMPTY, np.zeros(len(parents)))
    held = common.coefficients if declared is None else np.asarray(declared, dtype=np.float64)
    layers = tuple(
        LayerRecipe(name, one.own.recipe, *_held_against(one, held, tolerance))
        for name, one in joined.items()
    )
    return ModelRecipe(common.recipe, None if declared is None else tuple(declared), layers, tuple(left_out))


_NON_FINITE = Recipe(RecipeStatus.NON_FINITE, None, None, None)
_EMPTY = Recipe(RecipeStatus.EMPTY, None, None, None)


@dataclass(frozen=True, slots=True)
class _System:
    """One layer's least-squares problem.

    Attributes:
        target: shape (64, 64).
        columns: one per parent, shape (parents, 64, 64).
        target_rounding, rounding: norm of the rounding errors of the target and of each column.
    """

    target: NDArray[np.float64]
    columns: NDArray[np.float64]
    target_rounding: float
    rounding: NDArray[np.float64]

    def residual(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self.target - np.tensordot(coefficients, self.columns, axes=1))


@dataclass(frozen=True, slots=True)
class _Fit:
    """A fit and the coefficients that its residual belongs to, also where they are one choice of many."""

    recipe: Recipe
    coefficients: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Layer:
    system: _System
    own: _Fit
    norm: float
    roundoff: float


def reason_to_leave_out(
    name: str, layer: LayerSketch, others: Sequence[Mapping[str, LayerSketch]]
) -> LeftOut | None:
    """Why a layer cannot be held against the layers of this name in other models; None where it can."""
    found = [layer]
    for model in others:
        other = model.get(name)
        if other is None:
            return LeftOut.MISSING
        if other.shape != layer.shape:
            return LeftOut.SHAPE
        found.append(other)
    if any(one.folded for one in found):
        return LeftOut.FOLDED
    return None if all(one.usable for one in found) else LeftOut.NON_FINITE


def _system(
    merged: NDArray[np.float32], parents: Sequence[NDArray[np.float32]], base: NDArray[np.float32] | None
) -> _System:
    stacked = np.stack([merged, *parents]).astype(np.float64)
    norms = np.linalg.norm(stacked, axis=(1, 2))
    if base is not None:
        origin = base.astype(np.float64)
        stacked -= origin
        norms = np.hypot(norms, np.linalg.norm(origin))
    rounding = ROUNDING * norms
    return _System(stacked[0], stacked[1:], float(rounding[0]), rounding[1:])


def _fit(systems: Sequence[_System]) -> _Fit:
    """Least squares over the cells of all systems together."""
    count = len(systems[0].columns)
    unit = sum(float(np.vdot(one.target, one.target)) for one in systems) ** 0.5
    if unit == 0.0:
        return _Fit(_EMPTY, np.zeros(count))
    norms = sum(np.square(one.columns).sum(axis=(1, 2)) for one in systems) ** 0.5
    scales = np.where(norms > 0.0, norms, 1.0)
    # Every column and the target scaled to norm one; QR layer by layer, so that no condition is squared.
    triangle = np.zeros((0, count + 1))
    for one in systems:
        cells = np.concatenate(
            (one.columns.reshape(count, -1).T / scales, one.target.reshape(-1, 1) / unit), axis=1
        )
        triangle = np.asarray(np.linalg.qr(np.concatenate((triangle, cells)), mode="r"))
    left, singular, right = np.linalg.svd(triangle[:, :count], full_matrices=False)
    noise = np.linalg.norm(sum(np.square(one.rounding) for one in systems) ** 0.5 / scales)
    resolved = singular > _RESOLVED * noise
    inverse = np.where(resolved, 1.0 / np.where(resolved, singular, 1.0), 0.0)
    scaled = right.T @ (inverse * (left.T @ triangle[:, count]))
    coefficients = scaled * unit / scales
    residual = _relative_residual(systems, coefficients)
    if not resolved.all():
        return _Fit(Recipe(RecipeStatus.COLLINEAR, None, residual, None), coefficients)
    weights = right.T @ (inverse[:, None] ** 2 * right)
    scatter = np.zeros_like(systems[0].columns)
    for one in systems:
        left_over = one.residual(coefficients) / unit
        scatter += np.tensordot(weights, one.columns / scales[:, None, None], axes=1) * left_over
    estimates = tuple(
        Estimate(float(value), standard_error(cells) * unit / float(scale))
        for value, cells, scale in zip(coefficients, scatter, scales, strict=True)
    )
    return _Fit(Recipe(RecipeStatus.OK, estimates, residual, float(singular[0] / singular[-1])), coefficients)


def _relative_residual(systems: Sequence[_System], coefficients: NDArray[np.float64]) -> Estimate | None:
    """Norm of what the coefficients leave over the target's, both from the sketches; None for an empty target."""
    unit = sum(float(np.vdot(one.target, one.target)) for one in systems) ** 0.5
    if unit == 0.0:
        return None
    left_over = sum(np.square(one.residual(coefficients) / unit) for one in systems)
    target = sum(np.square(one.target / unit) for one in systems)
    square = float(np.sum(left_over))
    value = square**0.5
    error = standard_error(np.asarray(left_over - square * target)) / (2 * value) if value > 0.0 else 0.0
    rounding = sum(_rounding(one, coefficients) ** 2 for one in systems) ** 0.5 / unit
    return Estimate(value, float(np.hypot(error, rounding)))


def _rounding(system: _System, coefficients: NDArray[np.float64]) -> float:
    """Norm of what the residual holds of the sketches' rounding errors."""
    return float(np.hypot(system.target_rounding, np.linalg.norm(coefficients * system.rounding)))


def _common(layers: Sequence[_Layer], tolerance: float) -> _Fit:
    fit = _fit([layer.system for layer in layers])
    voters = [layer for layer in layers if layer.own.recipe.status is RecipeStatus.OK]
    coefficients = fit.coefficients
    if voters:
        votes = np.stack([layer.own.coefficients for layer in voters])
        weights = np.array([np.linalg.norm(layer.system.target) for layer in voters])
        coefficients = np.array([_weighted_median(column, weights) for column in votes.T])
    following: list[int] = []
    for _ in range(_ROUNDS):
        before = following
        following = [
            position
            for position, layer in enumerate(layers)
            if _held_against(layer, coefficients, tolerance)[1]
        ]
        if not following:
            return _fit([layer.system for layer in layers])
        if following == before:
            break
        fit = _fit([layers[position].system for position in following])
        coefficients = fit.coefficients
    return fit


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    cumulated = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulated, cumulated[-1] / 2)])


def _held_against(
    layer: _Layer, coefficients: NDArray[np.float64], tolerance: float
) -> tuple[Estimate | None, bool]:
    """The layer's relative residual under given coefficients, and whether it may be called none."""
    system = layer.system
    residual = _relative_residual([system], coefficients)
    norm = float(np.linalg.norm(system.residual(coefficients)))
    target = float(np.linalg.norm(system.target))
    least = norm if residual is None else norm - 2 * residual.error * target
    # Merged weights are rounded once when they are stored, and products before if they are of that type too.
    terms = np.linalg.norm(coefficients * np.linalg.norm(system.columns, axis=(1, 2)))
    allowed = layer.roundoff * float(np.hypot(layer.norm, terms))
    return residual, least <= allowed + tolerance * target
