"""Hidden units in another order, consistently: the same network, although its weights do not align.

Where the units of a layer change places, its rows do, and so must the columns of every layer that reads them. Norms
of rows and columns tell: the units' pairs (norm of the row that makes a unit, norm of the column that reads it) are
the same multiset before and after. A layer that was permuted alone breaks the pairs, and stays unaligned.

Detection study, section 7, which matches the rows themselves; norms do without the weights, so that it works from
stored measurements too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.change import AlignedChange, Change, Method
from layerwatch.metrics.examination import ExaminedLayer
from layerwatch.metrics.measurement import LayerKind, Measurement
from layerwatch.metrics.wiring import Part, Stream, Wiring, find_wiring

Pair = Callable[[ExaminedLayer], tuple[Measurement, Measurement] | None]
"""Both measurements of a layer, the new one first, with their arrays."""

_SAME = 1e-4
"""Numbers that a permutation leaves alone agree this well, whatever the order of summation."""

_SAME_NORM = 2e-5
_NUMBER = re.compile(r"\d+")
_DIRECTIONS = (
    (1.0, 0.7548776662, 0.5698402910, 0.3819660113),
    (1.0, -1.3247179572, 0.6823278038, -0.4142135624),
)
"""Two projections of the tuples of norms; irrational, so that no two tuples fall together by design."""


class Axis(StrEnum):
    """Which side of a matrix."""

    ROWS = "rows"
    COLUMNS = "columns"


@dataclass(frozen=True, slots=True)
class Side:
    """Units along one side of a layer.

    Attributes:
        layer: its name.
        axis: rows or columns, as stored.
        begin, end: the rows (columns) that are meant.
    """

    layer: str
    axis: Axis
    begin: int = 0
    end: int | None = None

    @property
    def key(self) -> tuple[str, Axis]:
        """The side of the whole layer that it is a part of."""
        return self.layer, self.axis


@dataclass(frozen=True, slots=True)
class _Norms:
    rows: tuple[NDArray[np.float64], NDArray[np.float64]]
    columns: tuple[NDArray[np.float64], NDArray[np.float64]]

    def of(self, side: Side) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        new, old = self.rows if side.axis is Axis.ROWS else self.columns
        return new[side.begin : side.end], old[side.begin : side.end]


@dataclass(frozen=True, slots=True)
class Carried:
    """What is known of units that changed places.

    Attributes:
        layers: all layers and vectors; those in ``names`` with an aligned change of zero.
        names: layers that were permuted consistently.
        left_behind: layers that kept the old order where the others of their bundle took a new one.
        not_shared: layers whose units stand in another order than those of the layers that are known to share them.
    """

    layers: list[ExaminedLayer]
    names: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    not_shared: tuple[str, ...] = ()


def undo_permutations(layers: Sequence[ExaminedLayer], pair: Pair) -> Carried:
    """Compare consistently permuted layers as what they are: unchanged.

    Args:
        layers: layers and vectors beside their baseline, in file order.
        pair: loads both measurements of one.
    """
    candidates = {layer.name for layer in layers if _is_same_up_to_order(layer)}
    if not candidates:
        return Carried(list(layers))
    norms = _AllNorms(layers, pair)
    moved = [side for name in sorted(candidates) for side in norms.moved(name)]
    if not moved:
        return Carried(list(layers))
    consistent: set[tuple[str, Axis]] = set()
    broken: set[tuple[str, Axis]] = set()
    behind: set[str] = set()
    alone: set[str] = set()
    bound: set[tuple[str, Axis]] = set()
    wired = list(_bundles(find_wiring(layers), norms))
    for bundle in (*wired, *_by_role(moved, layers, norms, {side.key for one in wired for side in one})):
        together, others = _split(bundle, norms)
        bound |= {side.key for side in bundle}
        consistent |= {side.key for side in together}
        broken |= {side.key for side in others}
        if together:
            behind |= {side.layer for side in others if not norms.has_moved(side)}
        elif others:
            stray = {side.layer for side in others if norms.has_moved(side)}
            # Of two that disagree, the one whose own numbers changed as well is the one to look at.
            alone |= (stray - candidates) or stray
    consistent |= {side.key for side in moved if side.key not in bound and _has_partner(side, moved, norms)}
    carried = tuple(
        layer.name
        for layer in layers
        if layer.name in candidates
        and (sides := [side.key for side in moved if side.layer == layer.name])
        and all(key in consistent and key not in broken for key in sides)
    )
    return Carried(
        [_unchanged(layer) if layer.name in carried else layer for layer in layers],
        carried,
        tuple(layer.name for layer in layers if layer.name in behind) if carried else (),
        tuple(layer.name for layer in layers if layer.name in alone),
    )


def _split(bundle: Sequence[Side], norms: _AllNorms) -> tuple[list[Side], list[Side]]:
    """The sides of a bundle that one order explains, and the rest; the first is empty where none does."""
    moved = [side for side in bundle if norms.has_moved(side)]
    if not moved:
        return [], []
    if norms.agree(bundle):
        return list(bundle), []
    largest: list[Side] = []
    for seed in moved:
        together = [side for side in bundle if side == seed or norms.agree([seed, side])]
        if len(together) > len(largest):
            largest = together
    if len(largest) <= max(2.0, len(bundle) / 2):
        return [], list(bundle)
    return largest, [side for side in bundle if side not in largest]


def _by_role(
    moved: Sequence[Side], layers: Sequence[ExaminedLayer], norms: _AllNorms, wired: set[tuple[str, Axis]]
) -> Iterator[list[Side]]:
    """Bundles of a model whose wiring is not known: sides in one order, and those of the same name in other blocks.

    A residual stream is read and written in every block by layers of the same names. Where two of one name took the
    same order, all of that name must have.
    """
    free = [side for side in moved if side.key not in wired]
    while free:
        seed = free.pop(0)
        together = [seed, *(side for side in free if norms.agree([seed, side]))]
        free = [side for side in free if side not in together]
        roles = Counter((_role(side.layer), side.axis) for side in together)
        siblings = [
            side
            for layer in layers
            if len(layer.shape) >= 2
            for axis in Axis
            if roles[_role(layer.name), axis] >= 2
            and (side := Side(layer.name, axis)) not in together
            and norms.units(side) == norms.units(next(one for one in together if one.axis is axis))
        ]
        if siblings and all(_has_partner(side, together, norms) for side in together):
            yield [*together, *siblings]


def _role(name: str) -> str:
    return _NUMBER.sub("*", name)


class _AllNorms:
    """Norms of rows and columns of any layer, loaded once."""

    def __init__(self, layers: Sequence[ExaminedLayer], pair: Pair) -> None:
        self._layers: Mapping[str, ExaminedLayer] = {layer.name: layer for layer in layers}
        self._pair = pair
        self._known: dict[str, _Norms | None] = {}

    def kind(self, name: str) -> LayerKind:
        return self._layers[name].kind

    def moved(self, name: str) -> Iterator[Side]:
        for axis in Axis:
            side = Side(name, axis)
            if self.has_moved(side):
                yield side

    def has_moved(self, side: Side) -> bool:
        norms = self._of(side.layer)
        if norms is None:
            return False
        new, old = norms.of(side)
        return not _agree(new, old)

    def units(self, side: Side) -> int:
        norms = self._of(side.layer)
        return 0 if norms is None else len(norms.of(side)[0])

    def agree(self, sides: Sequence[Side]) -> bool:
        """Whether one order of the units explains all sides together."""
        found = [self._of(side.layer) for side in sides]
        if any(one is None for one in found):
            return False
        pairs = [one.of(side) for one, side in zip(found, sides, strict=True) if one is not None]
        units = min(len(new) for new, _ in pairs)
        if units == 0 or any(len(new) % units for new, _ in pairs):
            return False
        blocks = [(_by_unit(new, units), _by_unit(old, units)) for new, old in pairs]
        for direction in _DIRECTIONS:
            weights = [direction[number % len(direction)] * 1.07**number for number in range(len(blocks))]
            total = sum(weight * new for weight, (new, _) in zip(weights, blocks, strict=True))
            total0 = sum(weight * old for weight, (_, old) in zip(weights, blocks, strict=True))
            if not _agree(np.sort(total), np.sort(total0), float(np.sum(np.abs(weights)))):
                return False
        return True

    def _of(self, name: str) -> _Norms | None:
        if name not in self._known:
            self._known[name] = self._load(name)
        return self._known[name]

    def _load(self, name: str) -> _Norms | None:
        layer = self._layers.get(name)
        both = None if layer is None else self._pair(layer)
        if both is None:
            return None
        new, old = both
        if (
            new.row_norms is None
            or old.row_norms is None
            or new.column_norms is None
            or old.column_norms is None
        ):
            return None
        if new.shape != old.shape:
            return None
        return _Norms(
            (_scaled(new.row_norms, old.row_norms), _scaled(old.row_norms, old.row_norms)),
            (_scaled(new.column_norms, old.column_norms), _scaled(old.column_norms, old.column_norms)),
        )


def _bundles(wiring: Wiring, norms: _AllNorms) -> Iterator[list[Side]]:
    """Sides that must be in one order, as far as the wiring is known."""
    for interface in wiring.interfaces:
        yield [Side(interface.producer, Axis.ROWS), Side(interface.consumer, Axis.COLUMNS)]
    for stream in wiring.streams:
        yield from _of_stream(stream, norms)


def _of_stream(stream: Stream, norms: _AllNorms) -> Iterator[list[Side]]:
    channels = [Side(name, Axis.COLUMNS) for name in stream.embeddings]
    if stream.head is not None:
        channels.append(Side(stream.head, Axis.COLUMNS))
    for block in stream.blocks:
        if block.attention is not None:
            query, key = _rows(block.attention.query), _rows(block.attention.key)
            value, output = _rows(block.attention.value), _columns(block.attention.output)
            readers = (block.attention.query, block.attention.key, block.attention.value)
            channels += [*map(_columns, readers), _rows(block.attention.output)]
            if norms.units(query) == norms.units(key):
                yield [query, key]
            if norms.units(value) == norms.units(output):
                yield [value, output]
        if block.feed_forward is not None:
            parts = [block.feed_forward.up]
            if block.feed_forward.gate is not None:
                parts.append(block.feed_forward.gate)
            channels += [*map(_columns, parts), _rows(block.feed_forward.down)]
            yield [*map(_rows, parts), _columns(block.feed_forward.down)]
    # A fused matrix has the channels once.
    yield list(dict.fromkeys(channels))


def _rows(part: Part) -> Side:
    return Side(part.layer, Axis.COLUMNS if part.transposed else Axis.ROWS, part.begin, part.end)


def _columns(part: Part) -> Side:
    return Side(part.layer, Axis.ROWS if part.transposed else Axis.COLUMNS)


def _has_partner(side: Side, moved: Sequence[Side], norms: _AllNorms) -> bool:
    """Whether another layer reads, or makes, the units in the same order."""
    for other in moved:
        if other.layer == side.layer:
            continue
        opposite = other.axis is not side.axis
        embedded = LayerKind.EMBEDDING in (norms.kind(side.layer), norms.kind(other.layer))
        if (opposite or (embedded and side.axis is Axis.COLUMNS)) and norms.agree([side, other]):
            return True
    return False


def _is_same_up_to_order(layer: ExaminedLayer) -> bool:
    """Whether everything that a permutation leaves alone is as it was, and the weights are not."""
    change = layer.change
    if (
        change is None
        or change.aligned is None
        or change.aligned.method is Method.IDENTICAL
        or change.emptied
    ):
        return False
    invariants = (
        change.norm_ratio,
        change.spectral_ratio,
        change.stable_rank_ratio,
        change.effective_rank_ratio,
        change.max_abs_ratio,
        change.kurtosis_ratio,
    )
    return change.norm_ratio is not None and all(one is None or abs(one - 1.0) <= _SAME for one in invariants)


def _unchanged(layer: ExaminedLayer) -> ExaminedLayer:
    change: Change | None = layer.change
    if change is None:
        return layer
    undone = replace(
        change,
        aligned=AlignedChange(0.0, 1.0, 0.0, Method.PERMUTED),
        # What was held against the row, column or element at the same place.
        new_zero_rows=0,
        new_zero_columns=0,
        newly_zero_rows=(),
        newly_zero_columns=(),
        zero_tail_energy=None,
        row_norm_scatter=None if change.row_norm_scatter is None else 0.0,
        outline=None,
    )
    return replace(layer, change=undone, resembles=None)


def _scaled(norms: NDArray[np.float32], unit: NDArray[np.float32]) -> NDArray[np.float64]:
    mean = float(np.mean(unit.astype(np.float64))) if len(unit) else 0.0
    return norms.astype(np.float64) / (mean or 1.0)


def _by_unit(norms: NDArray[np.float64], units: int) -> NDArray[np.float64]:
    """Root mean square over the columns (rows) of each unit, shape (units,)."""
    return np.asarray(np.sqrt(np.mean(np.square(norms.reshape(units, -1)), axis=1)))


def _agree(new: NDArray[np.float64], old: NDArray[np.float64], scale: float = 1.0) -> bool:
    if len(new) != len(old):
        return False
    largest = float(np.max(np.abs(old), initial=0.0))
    return bool(np.max(np.abs(new - old), initial=0.0) <= _SAME_NORM * max(scale, largest))
