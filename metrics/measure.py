"""Measure a model, layer by layer, in the order of the file.

Small layers are measured side by side with one thread each, middle ones two at a time, big ones alone with all
threads: eigenvalue solvers gain little from a second thread, and lose everything where another process wants that
core. Memory depends on the largest layer, never on their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from layerwatch.metrics.change import exact_change, exact_vector_change
from layerwatch.metrics.duplicates import duplicate_rows
from layerwatch.metrics.eigenvalues import gram_matrices
from layerwatch.metrics.elements import as_float32, element_numbers, levels_per_row, rows_and_columns
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.hill import farms_alpha
from layerwatch.metrics.layers import Layer, view_sides
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.measurement import LayerKind, Measurement
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.options import DEFAULT, Device, MeasureOptions
from layerwatch.metrics.outline import concentrations
from layerwatch.metrics.sidebyside import Cost, SideBySide
from layerwatch.metrics.sketch import projected_rows, sketch_of_projections
from layerwatch.metrics.spectra import spectral_numbers, unfolded, view_stack
from layerwatch.metrics.tensors import Array
from layerwatch.metrics.threads import numpy_on_one_thread
from layerwatch.metrics.traps import find_traps, shuffled_eigenvalues

__all__ = ["Known", "MeasuredLayer", "begin_measuring", "measure_layers"]

_SMALL = 1 << 22
_MIDDLE = 1 << 25
"""Layers up to these many elements are measured with one thread, and with half of the threads."""

_AT_HAND_TOGETHER = 4 * _SMALL
"""As many elements of small layers at most are under way: memory must not grow with the number of cores."""

_RELEASE_EVERY = 1 << 24
"""Bytes read between two releases of the file mapping."""

Known = Callable[[str], bool]
"""Answers whether a measurement with this digest is already kept."""


def measure_layers(
    model: OpenModel,
    known: Known,
    baseline: OpenModel | None = None,
    options: MeasureOptions = DEFAULT,
    baseline_digests: Mapping[str, str] | None = None,
) -> Iterator[MeasuredLayer]:
    """Measure every vector and layer of an open model, vectors first, each in file order.

    A tensor that cannot be read, undone or solved becomes a :class:`MeasuredLayer` with a problem; the others go on.

    Args:
        model: the open model.
        known: asked once per layer, after hashing and before measuring; True skips the measuring.
        baseline: a second open model to compare with element by element, or None.
        options: precision, device, and what is taken besides.
        baseline_digests: digests of the baseline's layers by name, as far as they are known: those of equal layers are
            not read.

    Raises:
        UnreadableError: ``no_device``: a GPU was asked for and there is none.
    """
    if options.device is Device.CUDA and not torch.cuda.is_available():
        detail = "device is cuda, and torch finds no GPU: install its CUDA build, or use device auto or cpu"
        raise UnreadableError(UnreadableReason.NO_DEVICE, model.path, detail)
    threads = torch.get_num_threads()
    unreleased = 0
    try:
        with numpy_on_one_thread(), ThreadPoolExecutor(threads) as pool:
            side_by_side = SideBySide[MeasuredLayer](pool, Cost(threads, _AT_HAND_TOGETHER))
            once = _Once(known)
            for layer in (*model.plan.vectors, *model.plan.layers):
                cost = _cost(layer, threads)
                yield from map(once.told, side_by_side.make_room(cost))
                work = _read(model, layer, once.is_known, baseline, options, baseline_digests or {})
                if isinstance(work, _Work):
                    once.begin(work)
                    side_by_side.begin(work.done, cost)
                else:
                    side_by_side.add(work)
                yield from map(once.told, side_by_side.ready())
                unreleased += 4 * cost.elements
                if unreleased >= _RELEASE_EVERY:
                    unreleased = 0
                    _release(model, baseline)
            yield from map(once.told, side_by_side.rest())
    finally:
        # Threads that the caller starts later take over the number that was set last, which is a pool thread's.
        torch.set_num_threads(threads)
    _release(model, baseline)


def _cost(layer: Layer, threads: int) -> Cost:
    elements = prod(layer.shape)
    if elements <= _SMALL:
        return Cost(1, elements)
    return Cost(max(1, threads // 2) if elements <= _MIDDLE else threads, elements)


class _Once:
    """Sees to it that the same bytes are measured once, although several layers are under way."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._under_way: set[str] = set()
        self._failed: dict[str, UnreadableError] = {}

    def is_known(self, digest: str) -> bool:
        """Whether a measurement is kept, or being taken."""
        return digest in self._under_way or digest in self._failed or self._known(digest)

    def begin(self, work: _Work) -> None:
        """A layer is being measured."""
        if work.to_measure:
            self._under_way.add(work.digest)

    def told(self, measured: MeasuredLayer) -> MeasuredLayer:
        """The same layer; with the problem of its twin where that one, which it relied on, came to nothing."""
        if measured.measurement is not None:
            self._under_way.discard(measured.measurement.digest)
        elif measured.problem is not None and measured.digest in self._under_way:
            self._under_way.discard(measured.digest)
            self._failed[measured.digest] = measured.problem
            return replace(measured, digest=None)
        elif measured.digest in self._failed:
            first = self._failed[measured.digest]
            problem = UnreadableError(first.reason, first.path, first.detail, measured.layer.tensor)
            return replace(measured, digest=None, problem=problem)
        return measured


def _release(*models: OpenModel | None) -> None:
    for opened in models:
        if opened is not None:
            opened.release()


@dataclass(slots=True)
class _Work:
    """A layer that was read and waits to be measured, compared, or both; done once.

    Values are let go as soon as they are not needed any more: the solver takes the longest and the most memory.
    """

    model: OpenModel
    baseline: OpenModel | None
    layer: Layer
    digest: str
    values: Array | None
    to_measure: bool
    other: tuple[Array, NDArray[np.float64] | None] | None
    options: MeasureOptions

    def done(self) -> MeasuredLayer:
        """Measure and compare. A problem is told with the digest, for the twins of this layer."""
        factors = self.model.factors(self.layer)
        exact = measurement = None
        values, other = self.values, self.other
        assert values is not None
        self.values = self.other = None
        try:
            if other is not None:
                exact = (
                    exact_change(values, other[0], factors, other[1])
                    if self.layer.has_spectrum
                    else exact_vector_change(values, other[0])
                )
                del other
            if self.to_measure:
                begun = begin_measuring(self.layer, values, self.digest, factors, self.model, self.options)
                del values
                _release(self.model, self.baseline)
                measurement = begun()
        except (torch.linalg.LinAlgError, np.linalg.LinAlgError):  # type: ignore[attr-defined]
            detail = "the eigenvalue solver did not converge; try scan.precision: float64"
            problem = UnreadableError(
                UnreadableReason.NO_CONVERGENCE, self.model.path, detail, self.layer.tensor
            )
            return MeasuredLayer(self.layer, self.digest, None, problem)
        return MeasuredLayer(self.layer, self.digest, measurement, None, exact)


def _read(
    model: OpenModel,
    layer: Layer,
    known: Known,
    baseline: OpenModel | None,
    options: MeasureOptions,
    baseline_digests: Mapping[str, str],
) -> _Work | MeasuredLayer:
    try:
        stored = model.read(layer)
        to_measure = not known(stored.digest)
        unchanged = baseline_digests.get(layer.name) == stored.digest
        other = None if baseline is None or unchanged else _counterpart(baseline, layer, stored.digest)
        if other is None and not to_measure:
            return MeasuredLayer(layer, stored.digest, None, None)
        values = stored.values()
    except UnreadableError as error:
        return MeasuredLayer(layer, None, None, error)
    return _Work(model, baseline, layer, stored.digest, values, to_measure, other, options)


def _counterpart(
    baseline: OpenModel, layer: Layer, digest: str
) -> tuple[Array, NDArray[np.float64] | None] | None:
    """The baseline's values and factors of the same layer; None where there is nothing to compare, or no change."""
    other = baseline.layer_named(layer.name)
    if other is None or other.shape != layer.shape or layer.kind is LayerKind.STATISTIC:
        return None
    try:
        stored = baseline.read(other)
        return None if stored.digest == digest else (stored.values(), baseline.factors(other))
    except UnreadableError:
        # The baseline's own trouble is told when the baseline is measured.
        return None


def begin_measuring(
    layer: Layer,
    values: Array,
    digest: str,
    factors: NDArray[np.float64] | None,
    model: OpenModel,
    options: MeasureOptions,
) -> Callable[[], Measurement]:
    """Do all that needs the layer's values; the function returned does the rest, without them.

    Args:
        layer: the layer.
        values: float32 or float64, shape ``layer.shape``.
        digest: key to store the measurement under.
        factors: BatchNorm factors per output row, shape (rows,), or None where nothing is folded.
        model: the model it belongs to; asked for the statistics of the folded batch norm.
        options: precision, device, and what is taken besides.

    Raises:
        torch.linalg.LinAlgError, numpy.linalg.LinAlgError: a solver did not converge; so may the function returned.
    """
    elements = element_numbers(values)
    base = Measurement(
        digest=digest,
        kind=layer.kind,
        shape=layer.shape,
        dtype=layer.dtype,
        non_finite=elements.non_finite,
        max_abs=elements.max_abs,
        min_value=elements.min_value,
        norm=elements.norm,
        zero_share=elements.zero_share,
        zero_tail=elements.zero_tail,
        constant=elements.constant,
    )
    if elements.non_finite or not layer.has_spectrum:
        return lambda: base
    matrix = unfolded(values)
    sides = rows_and_columns(matrix, factors)
    stack = view_stack(values, layer.kind)
    views = list(stack)
    seed = int(digest[:16], 16)
    projections = projected_rows(matrix)
    traps = find_traps(views, seed)
    of_rows, of_channels = (None, None) if factors is None else concentrations(values)
    known = replace(
        base,
        duplicate_rows=duplicate_rows(matrix, projections),
        levels_per_row=levels_per_row(matrix),
        kurtosis=sides.kurtosis,
        farms_alpha=farms_alpha(views),
        traps=traps.count,
        largest_trap=traps.largest,
        folded_by=layer.batchnorm.name if layer.batchnorm and factors is not None else None,
        row_concentration=of_rows,
        channel_concentration=of_channels,
        fold_statistics_empty=factors is not None and model.statistics_are_empty(layer),
        shuffled_spectrum=as_float32(shuffled_eigenvalues(views, seed, options))
        if options.shuffled
        else None,
        row_norms=sides.row_norms,
        column_norms=sides.column_norms,
        sketch=sketch_of_projections(projections, factors),
        raw_sketch=None if factors is None else sketch_of_projections(projections),
    )
    raw_grams = gram_matrices(stack, None, options)
    folded_grams = None if factors is None else gram_matrices(stack, factors, options)
    longer, shorter = view_sides(layer.kind, layer.shape)

    def finished() -> Measurement:
        raw = raw_grams.eigenvalues()
        numbers = spectral_numbers(raw, layer.dtype, longer, shorter, options.precision)
        spectrum = as_float32(raw)
        if folded_grams is None:
            return replace(
                known, numbers=numbers, folded=numbers, spectrum=spectrum, folded_spectrum=spectrum
            )
        folded = folded_grams.eigenvalues()
        return replace(
            known,
            numbers=numbers,
            folded=spectral_numbers(folded, layer.dtype, longer, shorter, options.precision),
            spectrum=spectrum,
            folded_spectrum=as_float32(folded),
        )

    return finished
