"""A model whose tensors stand under Hugging Face names, one for each matrix, with converters' conventions undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from layerwatch.metrics.architecture.arrangement import Group, Step, Take
from layerwatch.metrics.architecture.conv1d import undo_conv1d
from layerwatch.metrics.architecture.expertstacks import one_spelling_of_mixtral, take_experts_apart
from layerwatch.metrics.architecture.facts import Facts, facts_of
from layerwatch.metrics.architecture.fused import take_fused_apart
from layerwatch.metrics.architecture.gemma import undo_shifted_gains
from layerwatch.metrics.architecture.ggufnames import undo_gguf_names
from layerwatch.metrics.architecture.jaxnames import undo_jax_names
from layerwatch.metrics.architecture.lora import LoraReader
from layerwatch.metrics.architecture.rotary import undo_permuted_rows
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.tensors import Array, Reader, TensorInfo, UnexaminedFile

STEPS: tuple[Step, ...] = (
    undo_gguf_names,
    undo_jax_names,
    undo_permuted_rows,
    undo_shifted_gains,
    undo_conv1d,
    take_fused_apart,
    one_spelling_of_mixtral,
    take_experts_apart,
)
"""In this order: later ones see what earlier ones made."""


@dataclass(frozen=True, slots=True)
class _Arranged:
    """One tensor that is handed out: where its values come from, and what is done to them, in order."""

    info: TensorInfo
    source: TensorInfo
    takes: tuple[Take, ...]


class ArrangedReader:
    """The tensors of a model under the names, and in the orientation, that transformers gives them.

    Where nothing is known to be otherwise, everything is handed on as it is. Values of a part are a view of the tensor
    that it is a part of, where that is possible; the tensor that was taken apart last is kept until its last part was
    read, so that it is not dequantised once for each part.

    Args:
        reader: the open model, quantised storage undone. Closed by :meth:`close`.
        path: its name in errors.
        config: the content of its ``config.json``, or None.
        adapter: the content of its ``adapter_config.json``, or None.
    """

    def __init__(
        self,
        reader: Reader,
        path: str,
        config: Mapping[str, Any] | None = None,
        adapter: Mapping[str, Any] | None = None,
    ) -> None:
        self._reader = LoraReader(reader, path, adapter)
        self._path = path
        tensors = self._reader.tensors()
        arranged = _arranged(tensors, facts_of(config, reader.metadata, reader.format))
        self._arranged = {one.info.name: one for one in arranged}
        self._tensors = tuple(one.info for one in arranged)
        self._last_part = {one.source.name: one.info.name for one in arranged if one.takes}
        self._kept: tuple[str, Array] | None = None

    @property
    def shown(self) -> Mapping[str, Sequence[str]]:
        """Under which names the tensors of the files are handed out, by their names there."""
        names: dict[str, list[str]] = {}
        for one in self._arranged.values():
            names.setdefault(one.source.name, []).append(one.info.name)
        return names

    @property
    def format(self) -> str:
        """That of the files."""
        return self._reader.format

    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, the parts of one that is taken apart in its place; the type is that of the whole."""
        return self._tensors

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """Factors that were added to their layers, then what the files leave out."""
        return self._reader.left_out

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """As the files have it."""
        return self._reader.unexamined

    @property
    def metadata(self) -> Mapping[str, object]:
        """As the files have it."""
        return self._reader.metadata

    def load(self, name: str) -> Array:
        """One tensor, read-only; only the tensor that it is a part of is read.

        Raises:
            UnreadableError: what the files raise; ``unsupported_tensor`` where a tensor is of another shape than was
                declared.
            KeyError: no such name.
        """
        one = self._arranged[name]
        if not one.takes:
            return self._reader.load(one.source.name)
        values = self._whole(one.source, name)
        for take in one.takes:
            values = take(values)
        values = values.view()
        values.flags.writeable = False
        return values

    def release(self) -> None:
        """Give back the memory of what was read so far, but for a tensor that is being taken apart."""
        self._reader.release()

    def close(self) -> None:
        """Close the files."""
        self._kept = None
        self._reader.close()

    def _whole(self, source: TensorInfo, part: str) -> Array:
        kept = self._kept
        if kept is not None and kept[0] == source.name:
            values = kept[1]
        else:
            # Before the next one is read: there is one in memory, never two.
            kept = self._kept = None
            values = self._reader.load(source.name)
            if values.shape != source.shape:
                raise UnreadableError(
                    UnreadableReason.UNSUPPORTED_TENSOR,
                    self._path,
                    f"{source.name} holds {values.shape} where {source.shape} was declared; write the file again",
                    part,
                )
        self._kept = None if part == self._last_part[source.name] else (source.name, values)
        return values


def _arranged(tensors: Sequence[TensorInfo], facts: Facts) -> Sequence[_Arranged]:
    current = [_Arranged(info, info, ()) for info in tensors]
    for step in STEPS:
        groups = step({one.info.name: one.info for one in current}, facts)
        if groups:
            current = _replaced(current, groups)
    return current


def _replaced(current: Sequence[_Arranged], groups: Sequence[Group]) -> list[_Arranged]:
    """Do what was asked for, group by group, where no name is taken already."""
    taken = {one.info.name for one in current}
    accepted: dict[str, Group] = {}
    for group in groups:
        new = [part.name for name, parts in group.items() for part in parts if part.name != name]
        if len(set(new)) == len(new) and taken.isdisjoint(new) and accepted.keys().isdisjoint(group):
            taken.update(new)
            accepted.update(dict.fromkeys(group, group))
    arranged = []
    for one in current:
        replaced = accepted.get(one.info.name)
        if replaced is None:
            arranged.append(one)
            continue
        for part in replaced[one.info.name]:
            takes = one.takes if part.take is None else (*one.takes, part.take)
            arranged.append(_Arranged(_share(one.info, part.name, part.shape), one.source, takes))
    return arranged


def _share(whole: TensorInfo, name: str, shape: tuple[int, ...]) -> TensorInfo:
    elements = prod(whole.shape)
    size = whole.size_bytes * prod(shape) // elements if elements else 0
    return TensorInfo(name, shape, whole.dtype, size)
