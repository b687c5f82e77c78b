"""Where a factor per unit can move from one layer into the next without a change of what the network computes.

That is so where nothing but a sum stands between the layer that makes a unit and those that read it: a norm's gain and
the layers that read the normed stream, values and the attention's output (also where several heads share values), the
branch of a gated feed-forward part that is not activated and the layer that narrows. In a plain chain it is so with
ReLU between the layers, which files do not tell and which is the usual case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.wiring import (
    Attention,
    FeedForward,
    NamedShape,
    Part,
    Stream,
    Wiring,
    find_wiring,
    norms_of_block,
    writes_to_stream,
)

_HEAD_SIZES = (64, 128, 80, 96, 256, 192, 112, 160, 32, 40, 48, 16, 8, 4)
_NORMS_INSIDE = (("q_a_layernorm", "q_b_proj"), ("kv_a_layernorm", "kv_b_proj"))
"""Norms inside an attention with low-rank queries, keys and values (DeepSeek), and what reads them."""

_CROSS = re.compile(r"cross|encoder_attn|encdec|multihead_attn", re.IGNORECASE)


class Place(StrEnum):
    """Where a tensor has the units: along its rows, its columns, or as its elements."""

    ROWS = "rows"
    COLUMNS = "columns"
    ELEMENTS = "elements"


@dataclass(frozen=True, slots=True, eq=False)
class Carrier:
    """A tensor that has the units.

    Attributes:
        layer: its name.
        place: where it has them.
        positions: rows, columns or elements of each unit, shape (units, per unit).
        makes: whether it makes the units; else it reads them, and has the inverse factors.
        activated: whether an activation stands behind the units that files do not tell.
    """

    layer: str
    place: Place
    positions: NDArray[np.intp]
    makes: bool
    activated: bool = False


Bundle = tuple[Carrier, ...]
"""All that make or read the same units."""


def rescalable(tensors: Iterable[NamedShape]) -> Iterator[tuple[Bundle, ...]]:
    """Bundles of tensors between which factors may move.

    Args:
        tensors: layers and vectors, in any order.

    Yields:
        the readings of one bundle, which differ in the size of the heads; mostly one.
    """
    listed = list(tensors)
    found = _Tensors({one.name: one for one in listed})
    wiring = find_wiring(listed)
    for interface in wiring.interfaces:
        chain = _alternatives(
            [*found.made(interface.producer, 0, interface.units)],
            [found.read(interface.consumer, interface.units)],
        )
        for readings in chain:
            yield tuple(tuple(replace(one, activated=True) for one in bundle) for bundle in readings)
    for stream in wiring.streams:
        for block in stream.blocks:
            if block.attention is not None:
                yield from _of_values(block.attention, found)
            if block.feed_forward is not None:
                yield from _of_gated(block.feed_forward, found)
        # Only where a norm stands before each part, and not on the stream itself, do its readers alone see it.
        if stream.final_gain is not None:
            yield from _of_norms(stream, wiring, found)


class _Tensors:
    def __init__(self, named: Mapping[str, NamedShape]) -> None:
        self.named = named

    def shape(self, name: str) -> tuple[int, ...]:
        return self.named[name].shape

    def made(self, layer: str, begin: int, end: int) -> Iterator[Carrier]:
        """Rows of a layer, and the elements of its bias."""
        yield Carrier(layer, Place.ROWS, _run(begin, end), makes=True)
        bias = f"{layer.removesuffix('.weight')}.bias"
        if bias in self.named and self.shape(bias) == self.shape(layer)[:1]:
            yield Carrier(bias, Place.ELEMENTS, _run(begin, end), makes=True)

    def gain(self, name: str) -> Iterator[Carrier]:
        """Elements of a norm's gain, and of its bias."""
        shape = self.shape(name)
        yield Carrier(name, Place.ELEMENTS, _run(0, shape[0]), makes=True)
        bias = f"{name.removesuffix('.weight')}.bias"
        if bias != name and bias in self.named and self.shape(bias) == shape:
            yield Carrier(bias, Place.ELEMENTS, _run(0, shape[0]), makes=True)

    def read(self, layer: str, units: int) -> Carrier | None:
        """Columns of a layer, a run of them per unit; None where they do not divide."""
        columns = int(np.prod(self.shape(layer)[1:]))
        if units < 1 or columns % units:
            return None
        return Carrier(layer, Place.COLUMNS, np.arange(columns).reshape(units, -1), makes=False)

    def by_block(self, prefix: str) -> Mapping[str, list[str]]:
        """Names of the tensors of each numbered block behind a prefix."""
        found: dict[str, list[str]] = {}
        for name in self.named:
            if (
                name.startswith(prefix)
                and (number := name.removeprefix(prefix).partition(".")[0]).isdecimal()
            ):
                found.setdefault(f"{prefix}{number}", []).append(name)
        return found


def _run(begin: int, end: int) -> NDArray[np.intp]:
    return np.arange(begin, end)[:, None]


def _alternatives(*sides: Sequence[Carrier | None]) -> Iterator[tuple[Bundle, ...]]:
    carriers = [one for side in sides for one in side]
    whole = tuple(one for one in carriers if one is not None)
    if len(whole) == len(carriers):
        yield (whole,)


def _of_gated(part: FeedForward, found: _Tensors) -> Iterator[tuple[Bundle, ...]]:
    if part.gate is None or part.up.transposed:
        return
    units = part.up.end - part.up.begin
    yield from _alternatives(
        [*found.made(part.up.layer, part.up.begin, part.up.end)], [found.read(part.down.layer, units)]
    )


def _of_values(part: Attention, found: _Tensors) -> Iterator[tuple[Bundle, ...]]:
    if part.value.transposed or part.output.transposed:
        return
    made = tuple(found.made(part.value.layer, part.value.begin, part.value.end))
    units, columns = part.value.end - part.value.begin, found.shape(part.output.layer)[1]
    if units < 1 or columns % units:
        return
    readings = [(*made, one) for one in _read_by_heads(part.output, units, columns)]
    if readings:
        yield tuple(readings)


def _read_by_heads(output: Part, units: int, columns: int) -> Iterator[Carrier]:
    """Columns that read each unit: with grouped queries, those of all heads that share its values."""
    shared = columns // units
    sizes = [units] if shared == 1 else [size for size in _HEAD_SIZES if units % size == 0]
    for size in sizes:
        # (heads of values, queries that share one, size) -> (units, shared)
        places = np.arange(columns).reshape(units // size, shared, size).transpose(0, 2, 1)
        yield Carrier(output.layer, Place.COLUMNS, places.reshape(units, shared), makes=False)


def _of_norms(stream: Stream, wiring: Wiring, found: _Tensors) -> Iterator[tuple[Bundle, ...]]:
    width = stream.width
    writers = _writers(wiring)
    for block, inside in found.by_block(f"{stream.name}." if stream.name else "").items():
        layers = [name for name in inside if len(found.shape(name)) >= 2]
        if any(len(found.shape(name)) > 2 or _CROSS.search(name.removeprefix(block)) for name in layers):
            # What is read from elsewhere, or stored in one piece, cannot be held against the norm.
            continue
        readers = [
            name
            for name in layers
            if found.shape(name)[1] == width and name not in writers and not writes_to_stream(name)
        ]
        attention = [name for name in readers if "att" in name.removeprefix(block).lower()]
        others = [name for name in readers if name not in attention]
        first, second = norms_of_block(block, width, [found.named[name] for name in inside])
        if second is None:
            # One norm in front of both parts, which stand side by side.
            attention, others = readers, []
        for gain, behind in ((first, attention), (second, others)):
            if gain is not None and behind:
                yield from _of_gain(gain, behind, found)
        yield from _norms_inside(inside, found)
    if stream.final_gain is not None and stream.head is not None:
        yield from _of_gain(stream.final_gain, [stream.head], found)


def _of_gain(gain: str, readers: Sequence[str], found: _Tensors) -> Iterator[tuple[Bundle, ...]]:
    units = found.shape(gain)[0]
    yield from _alternatives([*found.gain(gain)], [found.read(reader, units) for reader in readers])


def _norms_inside(inside: Sequence[str], found: _Tensors) -> Iterator[tuple[Bundle, ...]]:
    for name in inside:
        bare = name.removesuffix(".weight")
        for norm, reader in _NORMS_INSIDE:
            other = bare.removesuffix(norm) + reader
            if bare.endswith(f".{norm}") and other in found.named:
                yield from _of_gain(name, [other], found)


def _writers(wiring: Wiring) -> set[str]:
    return {
        part.layer
        for stream in wiring.streams
        for block in stream.blocks
        for part in (
            block.attention.output if block.attention else None,
            block.feed_forward.down if block.feed_forward else None,
        )
        if part is not None
    }
