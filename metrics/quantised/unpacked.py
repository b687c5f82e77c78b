"""A model whose quantised layers stand as one tensor each, under the name and shape of what they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layerwatch.metrics.quantised.declared import Configuration
from layerwatch.metrics.quantised.layer import QuantisedLayer, Remark
from layerwatch.metrics.quantised.scaled import has_row_scale
from layerwatch.metrics.quantised.schemes import check, find_quantised, load, number_type, parts_of
from layerwatch.metrics.tensors import (
    Array,
    CodeInPickle,
    Reader,
    TensorInfo,
    UnexaminedFile,
    foreign_code_of,
)


class UnpackedReader:
    """The tensors of a model with quantised storage undone.

    ``X.qweight``, ``X.scales``, ``X.qzeros`` become ``X.weight``, whose type says how many bits a number had (``I4``)
    and whose size is that of all its parts. Values are float32. A scale per tensor or per row beside a weight stays as
    it is: it is applied where the layer is measured.

    Args:
        reader: the open model. Closed by :meth:`close`.
        path: its name in errors.
        config: the content of its ``config.json``, which says how quantised layers are to be read, or None.
    """

    def __init__(self, reader: Reader, path: str, config: Mapping[str, Any] | None = None) -> None:
        self._reader = reader
        self._path = path
        stored = reader.tensors()
        facts = {one.name: (one.shape, one.dtype) for one in stored}
        self.quantised: tuple[QuantisedLayer, ...] = tuple(find_quantised(facts, config, reader.load))
        whole = [one for one in self.quantised if not has_row_scale(one)]
        leading = {parts_of(one)[0]: one for one in whole}
        others = {part: one.name for one in whole for part in parts_of(one)[1:]}
        sizes = {one.name: one.size_bytes for one in stored}
        names = set(facts)
        self._layers: dict[str, QuantisedLayer] = {}
        self._parts = [
            (part, f"part of the quantised layer {name}: read with it") for part, name in others.items()
        ]
        tensors: list[TensorInfo] = []
        for one in stored:
            layer = leading.get(one.name)
            if layer is not None:
                size = sum(sizes[part] for part in parts_of(layer))
                shown = _shown(layer, one, names)
                names.add(shown)
                self._layers[shown] = layer
                shape = layer.shape or one.shape
                tensors.append(TensorInfo(shown, shape, number_type(layer, one.dtype), size))
            elif one.name not in others:
                tensors.append(one)
        self._tensors = tuple(tensors)

    @property
    def format(self) -> str:
        """That of the files."""
        return self._reader.format

    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, a quantised layer in the place of its numbers."""
        return self._tensors

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """The parts of quantised layers, then what the files leave out."""
        return (*self._parts, *self._reader.left_out)

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """As the files have it."""
        return self._reader.unexamined

    @property
    def metadata(self) -> Mapping[str, object]:
        """As the files have it."""
        return self._reader.metadata

    @property
    def foreign_code(self) -> Sequence[CodeInPickle]:
        """As the files have it."""
        return foreign_code_of(self._reader)

    def load(self, name: str) -> Array:
        """One tensor; of a quantised layer its values in float32.

        Raises:
            UnreadableError: as :func:`layerwatch.metrics.quantised.schemes.load`, and what the files raise.
        """
        layer = self._layers.get(name)
        if layer is None:
            return self._reader.load(name)
        values = load(layer, self._reader.load, self._path)
        values.flags.writeable = False
        return np.asarray(values)

    def contradictions(self, layer: QuantisedLayer, configuration: Configuration) -> tuple[Remark, ...]:
        """What the values of a quantised layer's parts contradict, beside what its ``remarks`` say already.

        Raises:
            UnreadableError: what the files raise.
        """
        return check(layer, self._reader.load, configuration)

    def release(self) -> None:
        """Give back the memory of what was read so far."""
        self._reader.release()

    def close(self) -> None:
        """Close the files."""
        self._reader.close()


def _shown(layer: QuantisedLayer, leading: TensorInfo, names: set[str]) -> str:
    wanted = layer.name if layer.whole_name else f"{layer.name}.weight"
    taken = layer.name in names or wanted in names
    return leading.name if taken and wanted != leading.name else wanted
