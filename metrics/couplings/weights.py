"""Units of a layer as the couplings look at them: some of its rows or columns, folded, as float64.

Only what is looked at is read: of a wide layer a fixed sample of units, the same for every layer of that many.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.association import Floats
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.layers import Layer
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.tensors import Array
from layerwatch.metrics.wiring import Part

MOST_UNITS = 512
"""Units of a layer that are looked at; relations between units cost the square of their number."""

_MOST_ELEMENTS = 1 << 23
"""Elements that are looked at together: 64 MiB in float64."""

_MOST_WHOLE = 1 << 22
"""The same of a whole layer: 32 MiB in float64, of which several are needed at a time."""

_RUN = 128
"""Units are taken in runs, so that whole attention heads are among them."""


class NotUsableError(Exception):
    """A layer cannot be read, or holds NaN or infinity: told elsewhere; here it takes part in nothing."""


def chosen_units(count: int) -> NDArray[np.int64]:
    """Indices of the units that are looked at: all, or evenly spread runs. The same for the same count."""
    if count <= MOST_UNITS:
        return np.arange(count)
    runs = MOST_UNITS // _RUN
    begins = [number * (count - _RUN) // (runs - 1) // _RUN * _RUN for number in range(runs)]
    return np.concatenate([np.arange(begin, begin + _RUN) for begin in begins])


class Weights:
    """Reads rows, columns and vectors of an open model. Keeps the layer that was read last."""

    def __init__(self, model: OpenModel) -> None:
        self._model = model
        self._kept: dict[str, Array] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a layer or vector; raises NotUsableError where there is none of this name."""
        return self._layer(name).shape

    def vector(self, name: str | None) -> Floats | None:
        """A vector, or None where there is none of this name; raises NotUsableError."""
        if name is None or self._model.layer_named(name) is None:
            return None
        return _finite(np.asarray(self._values(name), dtype=np.float64))

    def bias(self, name: str) -> Floats | None:
        """The bias beside a layer, or None."""
        for candidate in (f"{name}.bias", name.removesuffix("in_proj_weight") + "in_proj_bias"):
            found = self._model.layer_named(candidate)
            if found is not None and found.shape == (self._outputs(name),) and candidate != name:
                return self.vector(candidate)
        return None

    def _outputs(self, name: str) -> int:
        shape = self.shape(name)
        # Layers that are stored (inputs, outputs) are told by their bias alone.
        transposed = self._model.layer_named(f"{name}.bias")
        wanted = transposed.shape if transposed is not None else ()
        return shape[1] if wanted == (shape[1],) and len(shape) == 2 and wanted != (shape[0],) else shape[0]

    def factors(self, name: str) -> Floats | None:
        """What the batch norm behind a layer multiplies its rows with, or None."""
        return self._model.factors(self._layer(name))

    def rows(self, part: Part, units: NDArray[np.int64]) -> Floats:
        """Weights of output units, shape (units, inputs); a convolution's with all positions of its kernel."""
        if part.transposed:
            return _finite(self._taken(part.layer, None, part.begin + units).T)
        return _finite(self._taken(part.layer, part.begin + units, None).reshape(len(units), -1))

    def columns(
        self, part: Part, units: NDArray[np.int64], of: int, outputs: NDArray[np.int64] | None = None
    ) -> Floats:
        """Weights that read input units, shape (units, outputs and so on).

        Args:
            of: number of input units of the layer; each is a block of columns where a flattened map is read.
            outputs: rows to look at; all of the part's without it.
        """
        rows = np.arange(part.begin, part.end) if outputs is None else outputs
        if part.transposed:
            return _finite(self._taken(part.layer, units, rows))
        shape = self.shape(part.layer)
        per = shape[1] // of
        most = max(1, _MOST_ELEMENTS // (len(units) * per * prod(shape[2:])))
        if len(rows) > most:
            rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
        wanted = units if per == 1 else (units[:, None] * per + np.arange(per)).reshape(-1)
        taken = self._taken(part.layer, rows, wanted)
        return _finite(np.moveaxis(taken, 1, 0).reshape(len(units), -1))

    def whole(self, name: str) -> Floats:
        """All of a layer, as stored; raises NotUsableError where that would be too much."""
        if prod(self.shape(name)) > _MOST_WHOLE:
            raise NotUsableError
        return _finite(np.asarray(self._values(name), dtype=np.float64))

    def part(self, name: str) -> Part:
        """A layer as one part."""
        return Part(name, 0, self.shape(name)[0])

    def release(self) -> None:
        """Give back what was read."""
        self._kept.clear()
        self._model.release()

    def _taken(self, name: str, rows: NDArray[np.int64] | None, columns: NDArray[np.int64] | None) -> Floats:
        """Some rows and columns, float64. Rows first: the rest of the file is then not read."""
        values = self._values(name)
        for axis, indices in ((0, rows), (1, columns)):
            side = values.shape[axis]
            if indices is not None and not (
                len(indices) == side and np.array_equal(indices, np.arange(side))
            ):
                values = np.take(values, indices, axis=axis)
        return np.array(values, dtype=np.float64, order="C")

    def _values(self, name: str) -> Array:
        if name not in self._kept:
            layer = self._layer(name)
            try:
                values = self._model.values(layer)
            except UnreadableError as error:
                raise NotUsableError from error
            # Vectors stay; of the layers only the last one read.
            for other in [kept for kept, array in self._kept.items() if array.ndim > 1]:
                del self._kept[other]
            self._kept[name] = values
        return self._kept[name]

    def _layer(self, name: str) -> Layer:
        layer = self._model.layer_named(name)
        if layer is None or prod(layer.shape) == 0:
            raise NotUsableError
        return layer


def _finite(values: Floats) -> Floats:
    if not np.isfinite(values).all() or np.abs(values).max(initial=0.0) > 1e30:
        raise NotUsableError
    return values
