"""Measure a model, layer by layer, holding one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.change import AlignedChange, exact_change
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.hill import farms_alpha
from layerwatch.metrics.layers import Layer
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.measurement import LayerKind, Measurement
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.sketch import sketch
from layerwatch.metrics.spectra import layer_eigenvalues, matrix_views, spectral_numbers, unfolded
from layerwatch.metrics.tensors import Array
from layerwatch.metrics.traps import find_traps

__all__ = ["Known", "MeasuredLayer", "measure_layers", "measure_values"]

_BLOCK_ELEMENTS = 1 << 20

_ROUNDING = 1e-28
"""A variance below this share of the mean square is rounding error: all elements are equal."""

Known = Callable[[str], bool]
"""Answers whether a measurement with this digest is already kept."""


def measure_layers(
    model: OpenModel, known: Known, baseline: OpenModel | None = None
) -> Iterator[MeasuredLayer]:
    """Measure every vector and layer of an open model, vectors first, each in file order.

    A tensor that cannot be read or undone becomes a :class:`MeasuredLayer` with a problem; the others go on.

    Args:
        model: the open model.
        known: asked once per layer, after hashing and before measuring; True skips the measuring.
        baseline: a second open model to compare with element by element, or None.
    """
    for layer in (*model.plan.vectors, *model.plan.layers):
        measured = _measured(model, layer, known, baseline)
        for opened in (model, baseline):
            if opened is not None:
                opened.release()
        yield measured


def _measured(model: OpenModel, layer: Layer, known: Known, baseline: OpenModel | None) -> MeasuredLayer:
    try:
        stored = model.read(layer)
        digest = stored.digest
        is_known = known(digest)
        if baseline is None and is_known:
            return MeasuredLayer(layer, digest, None, None)
        values = stored.values()
    except UnreadableError as error:
        return MeasuredLayer(layer, None, None, error)
    del stored
    factors = model.factors(layer)
    exact = _exact(baseline, layer, values, factors) if baseline is not None else None
    measurement = None if is_known else measure_values(layer, values, digest, factors, model)
    return MeasuredLayer(layer, digest, measurement, None, exact)


def _exact(
    baseline: OpenModel, layer: Layer, values: Array, factors: NDArray[np.float64] | None
) -> AlignedChange | None:
    other = baseline.layer_named(layer.name)
    if other is None or other.shape != layer.shape or not layer.has_spectrum:
        return None
    try:
        old = baseline.read(other).values()
    except UnreadableError:
        # The baseline's own trouble is told when the baseline is measured.
        return None
    return exact_change(values, old, factors, baseline.factors(other))


def measure_values(
    layer: Layer, values: Array, digest: str, factors: NDArray[np.float64] | None, model: OpenModel
) -> Measurement:
    """Measure one layer whose values are at hand.

    Args:
        layer: the layer.
        values: float32 or float64, shape ``layer.shape``.
        digest: key to store the measurement under.
        factors: BatchNorm factors per output row, shape (rows,), or None where nothing is folded.
        model: the model it belongs to; asked for the statistics of the folded batch norm.
    """
    elements = _element_numbers(values)
    base = Measurement(
        digest=digest,
        kind=layer.kind,
        shape=layer.shape,
        dtype=layer.dtype,
        non_finite=elements.non_finite,
        max_abs=elements.max_abs,
        norm=elements.norm,
        zero_share=elements.zero_share,
    )
    if elements.non_finite or not layer.has_spectrum:
        return base
    longer, shorter = _view_sides(layer)
    matrix = unfolded(values)
    raw = layer_eigenvalues(values, layer.kind)
    numbers = spectral_numbers(raw, layer.dtype, longer, shorter)
    folded_spectrum, folded = raw, numbers
    if factors is not None:
        folded_spectrum = layer_eigenvalues(values, layer.kind, factors)
        folded = spectral_numbers(folded_spectrum, layer.dtype, longer, shorter)
    rows, columns, kurtosis = _row_column_numbers(matrix, factors)
    views = list(matrix_views(values, layer.kind, None))
    traps = find_traps(views, seed=int(digest[:16], 16))
    raw32 = _float32(raw)
    return replace(
        base,
        kurtosis=kurtosis,
        farms_alpha=farms_alpha(views),
        traps=traps.count,
        largest_trap=traps.largest,
        numbers=numbers,
        folded=folded,
        folded_by=layer.batchnorm.name if layer.batchnorm and factors is not None else None,
        fold_statistics_empty=factors is not None and model.statistics_are_empty(layer),
        spectrum=raw32,
        folded_spectrum=raw32 if factors is None else _float32(folded_spectrum),
        row_norms=rows,
        column_norms=columns,
        sketch=sketch(matrix, factors),
    )


def _view_sides(layer: Layer) -> tuple[int, int]:
    rows = layer.shape[0]
    columns = int(np.prod(layer.shape[1:]))
    if layer.kind is LayerKind.CONV and len(layer.shape) > 2 and layer.shape[1] > 1:
        columns = layer.shape[1]
    return max(rows, columns), min(rows, columns)


@dataclass(frozen=True, slots=True)
class _ElementNumbers:
    non_finite: int
    max_abs: float
    norm: float
    zero_share: float


def _element_numbers(values: Array) -> _ElementNumbers:
    non_finite = zeros = 0
    largest = square = 0.0  # The sum of squares is kept in units of the largest: float64 squares overflow.
    for begin, end in _row_blocks(values):
        block = np.asarray(values[begin:end], dtype=np.float64)
        finite = np.isfinite(block)
        bad = block.size - int(np.count_nonzero(finite))
        if bad:
            non_finite += bad
            block = np.where(finite, block, 0.0)
        zeros += block.size - int(np.count_nonzero(block))
        peak = float(np.abs(block).max(initial=0.0))
        if peak > largest:
            square *= (largest / peak) ** 2
            largest = peak
        if largest > 0.0:
            block = block / largest
            square += float(np.vdot(block, block))
    share = (zeros - non_finite) / values.size if values.size else 0.0
    return _ElementNumbers(non_finite, largest, largest * float(np.sqrt(square)), max(0.0, share))


def _row_column_numbers(
    matrix: Array, factors: NDArray[np.float64] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], float | None]:
    """Row norms, column norms and kurtosis of the folded matrix."""
    rows = np.empty(matrix.shape[0])
    columns = np.zeros(matrix.shape[1])
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for begin, block in _folded_blocks(matrix, factors):
            square = block * block
            rows[begin : begin + len(block)] = np.sqrt(square.sum(axis=1))
            columns += square.sum(axis=0)
            total += float(block.sum())
        # Around the mean, in a second pass: raw moments cancel where the mean outweighs the spread.
        mean = total / matrix.size
        second = fourth = 0.0
        for _, block in _folded_blocks(matrix, factors):
            square = np.square(block - mean)
            second += float(square.sum())
            fourth += float(np.vdot(square, square))
        spread = second > _ROUNDING * float(columns.sum()) and np.isfinite(fourth)
        kurtosis = matrix.size * fourth / second**2 if spread else None
        return _float32(rows), _float32(np.sqrt(columns)), kurtosis


def _folded_blocks(
    matrix: Array, factors: NDArray[np.float64] | None
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    for begin, end in _row_blocks(matrix):
        block = np.asarray(matrix[begin:end], dtype=np.float64)
        yield begin, block if factors is None else block * factors[begin:end, None]


def _float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rounded to float32; what it cannot hold becomes its largest number, never infinity."""
    return np.minimum(values, np.finfo(np.float32).max).astype(np.float32)


def _row_blocks(values: Array) -> Iterator[tuple[int, int]]:
    rows = values.shape[0] if values.ndim else 1
    step = max(1, _BLOCK_ELEMENTS * rows // max(1, values.size))
    for begin in range(0, rows, step):
        yield begin, min(rows, begin + step)
