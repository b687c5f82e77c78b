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
from layerwatch.metrics.threads import numpy_on_one_thread, stay_on_one_thread
from layerwatch.metrics.traps import find_traps, shuffled_eigenvalues

__all__ = ["Known", "MeasuredLayer", "measure_layers", "measure_values"]

_SIDE_BY_SIDE = 1 << 22
"""Layers up to this many elements are measured side by side: two of them weigh less than a big one."""

_AT_HAND_TOGETHER = 4 * _SIDE_BY_SIDE
"""As many elements at most are under way side by side: memory must not grow with the number of cores."""

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
    unreleased = 0
    try:
        one_each = ThreadPoolExecutor(threads, initializer=stay_on_one_thread)
        with numpy_on_one_thread(), one_each as pool:
            side_by_side = _SideBySide(pool, threads)

            def known_or_under_way(digest: str) -> bool:
                return side_by_side.is_under_way(digest) or known(digest)

            for layer in (*model.plan.vectors, *model.plan.layers):
                work = _read(model, layer, known_or_under_way, baseline, options)
                unreleased += _size_bytes(layer)
                if isinstance(work, _Work) and layer.has_spectrum and _elements(layer) > _SIDE_BY_SIDE:
                    yield from side_by_side.rest()
                    yield work.done()
                else:
                    side_by_side.add(work)
                    yield from side_by_side.ready()
                if unreleased >= _RELEASE_EVERY:
                    unreleased = 0
                    _release(model, baseline)
            yield from side_by_side.rest()
    finally:
        # Threads that the caller starts later take over the number that was set last, which is the pool's.
        torch.set_num_threads(threads)
    _release(model, baseline)


class _SideBySide:
    """Layers that a pool measures at the same time, handed on in the order in which they were added."""

    def __init__(self, pool: ThreadPoolExecutor, threads: int) -> None:
        self._pool = pool
        self._threads = threads
        self._waiting: deque[tuple[_Work | MeasuredLayer, Future[MeasuredLayer]]] = deque()
        self._elements = 0
        self._failed: dict[str, UnreadableError] = {}

    def add(self, work: _Work | MeasuredLayer) -> None:
        """Begin with a layer; one that needs no work waits for its turn."""
        if isinstance(work, _Work):
            future = self._pool.submit(work.done)
        else:
            future = Future()
            future.set_result(work)
        self._waiting.append((work, future))
        self._elements += _elements_at_hand(work)

    def is_under_way(self, digest: str) -> bool:
        """Whether a layer of this digest is being measured."""
        return any(
            isinstance(work, _Work) and work.to_measure and work.digest == digest for work, _ in self._waiting
        )

    def ready(self) -> Iterator[MeasuredLayer]:
        """Everything that is done, and what has to be waited for before more may be begun."""
        while self._waiting and (
            self._waiting[0][1].done()
            or len(self._waiting) > self._threads
            or self._elements > _AT_HAND_TOGETHER
        ):
            yield self._next()

    def rest(self) -> Iterator[MeasuredLayer]:
        """Everything that was added and not yet handed on."""
        while self._waiting:
            yield self._next()

    def _next(self) -> MeasuredLayer:
        work, future = self._waiting.popleft()
        self._elements -= _elements_at_hand(work)
        measured = future.result()
        if isinstance(work, _Work) and measured.problem is not None:
            self._failed[work.digest] = measured.problem
        elif measured.measurement is None and measured.digest in self._failed:
            # It was not begun because the same bytes were under way, and these came to nothing.
            first = self._failed[measured.digest]
            problem = UnreadableError(first.reason, first.path, first.detail, measured.layer.tensor)
            return replace(measured, digest=None, problem=problem)
        return measured


def _elements_at_hand(work: _Work | MeasuredLayer) -> int:
    return _elements(work.layer) if isinstance(work, _Work) else 0


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
        except (torch.linalg.LinAlgError, np.linalg.LinAlgError):  # type: ignore[attr-defined]
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
        torch.linalg.LinAlgError, numpy.linalg.LinAlgError: a solver did not converge.
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
