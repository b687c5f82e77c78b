"""An open model: its layers, and each layer's bytes, digest, values and BatchNorm factors on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.architecture.arranged import ArrangedReader
from layerwatch.metrics.batchnorm import BatchNorm, fold_factors, statistics_are_empty
from layerwatch.metrics.census.collecting import census_of
from layerwatch.metrics.census.remark import StorageRemark
from layerwatch.metrics.dequantise import as_float
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.layers import FLOATING, Layer, Skipped, plan_layers
from layerwatch.metrics.measurement import METRIC_SET, LayerKind
from layerwatch.metrics.quantised.configfile import ADAPTER, config_beside
from layerwatch.metrics.quantised.unpacked import UnpackedReader
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.tensors import Array, Reader

_BLOCK_ELEMENTS = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """One layer as stored: a view of the file, its key, and the way to its values.

    Attributes:
        digest: sha256 in hex over everything a measurement depends on: metric set, kind, shape, stored type,
            tensor bytes, scale bytes and the folded BatchNorm vectors.
    """

    layer: Layer
    digest: str
    stored: Array
    scale: Array | None
    path: str

    def values(self) -> Array:
        """Float values; raises UnreadableError where the storage cannot be undone."""
        return as_float(self.layer, self.stored, self.scale, self.path)


def open_layers(path: Path) -> OpenModel:
    """Open a model by its path, each layer under its own name, whatever it is stored as.

    Raises:
        UnreadableError: as :func:`layerwatch.metrics.readers.detect.open_model`.
    """
    reader = open_model(path)
    try:
        config = config_beside(path)
        unpacked = UnpackedReader(reader, str(path), config)
        arranged = ArrangedReader(unpacked, str(path), config, config_beside(path, ADAPTER))
        return OpenModel(arranged, str(path), lambda: census_of(unpacked, config, arranged.shown))
    except BaseException:
        reader.close()
        raise


class OpenModel:
    """A reader with the plan of its layers. Batch norms are kept in memory, layers are read one at a time."""

    def __init__(
        self, reader: Reader, path: str, census: Callable[[], tuple[StorageRemark, ...]] = tuple
    ) -> None:
        self.path = path
        self._census = census
        self.format = reader.format
        plan = plan_layers(reader.tensors())
        left_out = tuple(Skipped(name, reason) for name, reason in reader.left_out)
        self.plan = replace(plan, skipped=plan.skipped + left_out, unexamined=tuple(reader.unexamined))
        self._reader = reader
        self._by_name = {layer.name: layer for layer in (*self.plan.vectors, *self.plan.layers)}
        self._vectors: dict[str, Array] = {}
        folded = {name for layer in self.plan.layers for name in _tensors_of(layer.batchnorm)}
        for vector in self.plan.vectors:
            if vector.tensor not in folded:
                continue
            try:
                self._vectors[vector.tensor] = np.array(reader.load(vector.tensor), dtype=np.float64)
            except UnreadableError:
                # Told when the vector's own turn comes; here it only cannot be folded.
                continue

    def remarks(self) -> tuple[StorageRemark, ...]:
        """What the storage of the model contradicts, read now; none for a model that is stored nowhere."""
        return self._census()

    def layer_named(self, name: str) -> Layer | None:
        """The layer or vector of this name, or None."""
        return self._by_name.get(name)

    def read(self, layer: Layer) -> StoredLayer:
        """Read one layer's bytes and compute its digest; raises UnreadableError."""
        stored = self._reader.load(layer.tensor)
        scale = self._reader.load(layer.scale) if layer.scale else None
        # Tied weights that are stored twice are one measurement: an embedding's matrix is measured as any other.
        kind = LayerKind.LINEAR if layer.kind is LayerKind.EMBEDDING else layer.kind
        state = hashlib.sha256(f"{METRIC_SET}\0{kind}\0{layer.shape}\0{layer.dtype}\0".encode())
        _update(state, stored)
        if scale is not None:
            state.update(b"\0scale\0")
            _update(state, scale)
        batchnorm = self._foldable(layer)
        if batchnorm is not None:
            state.update(b"\0batchnorm" if batchnorm.gain is not None else b"\0batchnorm without gain")
            for name in _tensors_of(batchnorm):
                state.update(b"\0")
                _update(state, self._vectors[name])
        return StoredLayer(layer, state.hexdigest(), stored, scale, self.path)

    def values(self, layer: Layer) -> Array:
        """A layer's values without its digest: a view of the file where the stored type is a floating one.

        Raises:
            UnreadableError: the values are not all there, or the storage cannot be undone.
        """
        stored = self._reader.load(layer.tensor)
        if layer.scale is None and layer.dtype in FLOATING:
            return stored
        scale = self._reader.load(layer.scale) if layer.scale else None
        return as_float(layer, stored, scale, self.path)

    def factors(self, layer: Layer) -> NDArray[np.float64] | None:
        """BatchNorm factors per output row, shape (rows,), or None where nothing is folded."""
        batchnorm = self._foldable(layer)
        return None if batchnorm is None else fold_factors(self._vectors, batchnorm)

    def statistics_are_empty(self, layer: Layer) -> bool:
        """True when the batch norm behind the layer saw only zeros during training."""
        batchnorm = self._foldable(layer)
        return batchnorm is not None and statistics_are_empty(self._vectors, batchnorm)

    def release(self) -> None:
        """Give back the memory of what was read so far; a file mapping otherwise grows to the size of the file."""
        self._reader.release()

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def _foldable(self, layer: Layer) -> BatchNorm | None:
        batchnorm = layer.batchnorm
        return batchnorm if all(name in self._vectors for name in _tensors_of(batchnorm)) else None


def _tensors_of(batchnorm: BatchNorm | None) -> tuple[str, ...]:
    if batchnorm is None:
        return ()
    gain = () if batchnorm.gain is None else (batchnorm.gain,)
    return (*gain, batchnorm.mean, batchnorm.variance)


def _update(state: hashlib._Hash, values: Array) -> None:
    if values.ndim == 0 or values.flags.c_contiguous:
        state.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        return
    step = max(1, _BLOCK_ELEMENTS * values.shape[0] // max(1, values.size))
    for begin in range(0, values.shape[0], step):
        block = np.ascontiguousarray(values[begin : begin + step])
        state.update(block.reshape(-1).view(np.uint8).data)
