"""Measure a model, layer by layer, in the order of the file.

Big layers are measured one at a time with all threads; runs of small ones side by side with one thread each. Memory
depends on the largest layer, never on their number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from layerwatch.metrics.change import exact_change
from layerwatch.metrics.elements import as_float32, element_numbers, rows_and_columns
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.hill import farms_alpha
from layerwatch.metrics.layers import Layer, view_sides
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.options import DEFAULT, Device, MeasureOptions
from layerwatch.metrics.sketch import sketch
from layerwatch.metrics.spectra import layer_eigenvalues, spectral_numbers, unfolded, view_stack
from layerwatch.metrics.tensors import Array
from layerwatch.metrics.threads import numpy_on_one_thread
from layerwatch.metrics.traps import find_traps, shuffled_eigenvalues

__all__ = ["Known", "MeasuredLayer", "measure_layers", "measure_values"]

_SIDE_BY_SIDE = 1 << 22
"""Layers up to this many elements are measured side by side: two of them weigh less than a big one."""

_RELEASE_EVERY = 1 << 24
"""Bytes read between two releases of the file mapping."""

Known = Callable[[str], bool]
"""Answers whether a measurement with this digest is already kept."""


def measure_layers(
    model: OpenModel, known: Known, baseline: OpenModel | None = None, options: MeasureOptions = DEFAULT
) -> Iterator[MeasuredLayer]:
    """Measure every vector and layer of an open model, vectors first, each in file order.

    A tensor that cannot be read, undone or solved becomes a :class:`MeasuredLayer` with a problem; the others go on.

    Args:
        model: the open model.
        known: asked once per layer, after hashing and before measuring; True skips the measuring.
        baseline: a second open model to compare with element by element, or None.
        options: precision, device, and what is taken besides.

    Raises:
        UnreadableError: ``no_device``: a GPU was asked for and there is none.
    """
    if options.device is Device.CUDA and not torch.cuda.is_available():
        detail = "device is cuda, and torch finds no GPU: install its CUDA build, or use device auto or cpu"
        raise UnreadableError(UnreadableReason.NO_DEVICE, model.path, detail)
    threads = torch.get_num_threads()
    waiting: deque[Future[MeasuredLayer]] = deque()
    under_way: set[str] = set()
    unreleased = 0

    def known_or_under_way(digest: str) -> bool:
        return digest in under_way or known(digest)

    # The pool's threads compute with one thread each; torch keeps the number per thread.
    one_each = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    with numpy_on_one_thread(), one_each as pool:
        for layer in (*model.plan.vectors, *model.plan.layers):
            work = _read(model, layer, known_or_under_way, baseline, options)
            unreleased += _size_bytes(layer)
            if isinstance(work, _Work) and layer.has_spectrum and _elements(layer) > _SIDE_BY_SIDE:
                while waiting:
                    yield _next(waiting, under_way)
                yield work.done()
            else:
                waiting.append(_submitted(pool, work))
                if isinstance(work, _Work):
                    under_way.add(work.digest)
                # Everything that is done is handed on; as much as there are threads may be under way.
                while waiting and (waiting[0].done() or len(waiting) > threads):
                    yield _next(waiting, under_way)
            if unreleased >= _RELEASE_EVERY:
                unreleased = 0
                _release(model, baseline)
        while waiting:
            yield _next(waiting, under_way)
    _release(model, baseline)


def _submitted(pool: ThreadPoolExecutor, work: _Work | MeasuredLayer) -> Future[MeasuredLayer]:
    if isinstance(work, _Work):
        return pool.submit(work.done)
    finished: Future[MeasuredLayer] = Future()
    finished.set_result(work)
    return finished


def _next(waiting: deque[Future[MeasuredLayer]], under_way: set[str]) -> MeasuredLayer:
    measured = waiting.popleft().result()
    under_way.discard(measured.digest or "")
    return measured


def _release(*models: OpenModel | None) -> None:
    for opened in models:
        if opened is not None:
            opened.release()


def _elements(layer: Layer) -> int:
    return int(np.prod(layer.shape))


def _size_bytes(layer: Layer) -> int:
    return _elements(layer) * 4


@dataclass(frozen=True, slots=True)
class _Work:
    """A layer that was read and waits to be measured, compared, or both."""

    model: OpenModel
    layer: Layer
    digest: str
    values: Array
    to_measure: bool
    other: tuple[Array, NDArray[np.float64] | None] | None
    options: MeasureOptions

    def done(self) -> MeasuredLayer:
        factors = self.model.factors(self.layer)
        exact = measurement = None
        try:
            if self.other is not None:
                exact = exact_change(self.values, self.other[0], factors, self.other[1])
            if self.to_measure:
                measurement = measure_values(
                    self.layer, self.values, self.digest, factors, self.model, self.options
                )
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            detail = "the eigenvalue solver did not converge; try scan.precision: float64"
            problem = UnreadableError(
                UnreadableReason.NO_CONVERGENCE, self.model.path, detail, self.layer.tensor
            )
            return MeasuredLayer(self.layer, None, None, problem)
        return MeasuredLayer(self.layer, self.digest, measurement, None, exact)


def _read(
    model: OpenModel, layer: Layer, known: Known, baseline: OpenModel | None, options: MeasureOptions
) -> _Work | MeasuredLayer:
    try:
        stored = model.read(layer)
        is_known = known(stored.digest)
        other = None
        if baseline is None and is_known:
            return MeasuredLayer(layer, stored.digest, None, None)
        values = stored.values()
    except UnreadableError as error:
        return MeasuredLayer(layer, None, None, error)
    if baseline is not None:
        other = _counterpart(baseline, layer)
    return _Work(model, layer, stored.digest, values, not is_known, other, options)


def _counterpart(baseline: OpenModel, layer: Layer) -> tuple[Array, NDArray[np.float64] | None] | None:
    """The baseline's values and factors of the same layer, or None where there is nothing to compare."""
    other = baseline.layer_named(layer.name)
    if other is None or other.shape != layer.shape or not layer.has_spectrum:
        return None
    try:
        return baseline.read(other).values(), baseline.factors(other)
    except UnreadableError:
        # The baseline's own trouble is told when the baseline is measured.
        return None


def measure_values(
    layer: Layer,
    values: Array,
    digest: str,
    factors: NDArray[np.float64] | None,
    model: OpenModel,
    options: MeasureOptions = DEFAULT,
) -> Measurement:
    """Measure one layer whose values are at hand.

    Args:
        layer: the layer.
        values: float32 or float64, shape ``layer.shape``.
        digest: key to store the measurement under.
        factors: BatchNorm factors per output row, shape (rows,), or None where nothing is folded.
        model: the model it belongs to; asked for the statistics of the folded batch norm.
        options: precision, device, and what is taken besides.

    Raises:
        torch.linalg.LinAlgError: the solver did not converge.
    """
    elements = element_numbers(values)
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
    longer, shorter = view_sides(layer.kind, layer.shape)
    matrix = unfolded(values)
    raw = layer_eigenvalues(values, layer.kind, None, options)
    numbers = spectral_numbers(raw, layer.dtype, longer, shorter, options.precision)
    folded_spectrum, folded = raw, numbers
    if factors is not None:
        folded_spectrum = layer_eigenvalues(values, layer.kind, factors, options)
        folded = spectral_numbers(folded_spectrum, layer.dtype, longer, shorter, options.precision)
    sides = rows_and_columns(matrix, factors)
    views = list(view_stack(values, layer.kind))
    seed = int(digest[:16], 16)
    traps = find_traps(views, seed)
    spectrum = as_float32(raw)
    return replace(
        base,
        kurtosis=sides.kurtosis,
        farms_alpha=farms_alpha(views),
        traps=traps.count,
        largest_trap=traps.largest,
        numbers=numbers,
        folded=folded,
        folded_by=layer.batchnorm.name if layer.batchnorm and factors is not None else None,
        fold_statistics_empty=factors is not None and model.statistics_are_empty(layer),
        spectrum=spectrum,
        folded_spectrum=spectrum if factors is None else as_float32(folded_spectrum),
        shuffled_spectrum=as_float32(shuffled_eigenvalues(views, seed, options))
        if options.shuffled
        else None,
        row_norms=sides.row_norms,
        column_norms=sides.column_norms,
        sketch=sketch(matrix, factors),
    )
