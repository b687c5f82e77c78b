"""Hidden units between two layers: what makes them, and what reads them.

Training moves the weights into a unit and the weights out of it together. Three traces of it, for the units between
two layers of a chain, of a feed-forward part, between queries and keys, and between values and their output:

- *units*: units that are made alike are read alike. Agreement of the two tables of inner products (||A^T B|| of the
  detection study, section 8, without each unit's product with itself);
- *norms*: units that are made large are read large (section 13);
- *signs*: mean cosine of what a unit listens to and what it says, where both live in one residual stream (section 13).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerwatch.metrics.association import (
    FEWEST,
    Floats,
    agreement,
    cosine_score,
    gram,
    lengths,
    rank_score,
)
from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.couplings.weights import NotUsableError, Weights, chosen_units
from layerwatch.metrics.unitplaces import unit_places
from layerwatch.metrics.wiring import Attention, FeedForward, Interface, Part

_HEAD_SIZES = (4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128)


@dataclass(frozen=True, slots=True)
class _Kinds:
    units: CouplingKind
    norms: CouplingKind
    signs: CouplingKind | None


_INTERFACE = _Kinds(CouplingKind.INTERFACE_UNITS, CouplingKind.INTERFACE_NORMS, None)
_FEED_FORWARD = _Kinds(
    CouplingKind.FEED_FORWARD_UNITS, CouplingKind.FEED_FORWARD_NORMS, CouplingKind.FEED_FORWARD_SIGNS
)
_GATED = _Kinds(CouplingKind.FEED_FORWARD_UNITS, CouplingKind.FEED_FORWARD_NORMS, None)
_QUERY_KEY = _Kinds(CouplingKind.QUERY_KEY_UNITS, CouplingKind.QUERY_KEY_NORMS, CouplingKind.QUERY_KEY_SIGNS)
_VALUE_OUTPUT = _Kinds(
    CouplingKind.VALUE_OUTPUT_UNITS, CouplingKind.VALUE_OUTPUT_NORMS, CouplingKind.VALUE_OUTPUT_SIGNS
)


@dataclass(frozen=True, slots=True)
class _End:
    """One side of the units: their features, shape (units, features)."""

    layer: str
    side: Side
    part: str
    features: Floats


def interface_couplings(weights: Weights, interface: Interface) -> Iterator[Coupling]:
    """Of two consecutive layers of a plain network; rows are folded with their batch norm.

    Raises:
        NotUsableError: one of them cannot be read.
    """
    units = chosen_units(interface.units)
    made = weights.rows(weights.part(interface.producer), units)
    factors = weights.factors(interface.producer)
    if factors is not None:
        made = made * factors[units, None]
    read = weights.columns(weights.part(interface.consumer), units, interface.units)
    ends = (
        _End(interface.producer, Side.OUTPUTS, "", made),
        _End(interface.consumer, Side.INPUTS, "", read),
    )
    yield from _between(_INTERFACE, *ends)


def feed_forward_couplings(weights: Weights, part: FeedForward, gain: Floats | None) -> Iterator[Coupling]:
    """Of the layers of a feed-forward part, the norm's gain folded into what reads the stream."""
    count = part.up.end - part.up.begin
    units = chosen_units(count)
    up = _reader(weights, part.up, "up" if part.gate else "", gain, count)
    down = _End(part.down.layer, Side.INPUTS, "", weights.columns(part.down, units, count))
    yield from _between(_FEED_FORWARD, up, down)
    if part.gate is not None:
        gate = _reader(weights, part.gate, "gate", gain, count)
        yield from _between(_GATED, gate, down)
        yield from _between(_GATED, gate, up)


def attention_couplings(weights: Weights, attention: Attention, gain: Floats | None) -> Iterator[Coupling]:
    """Of queries with keys.

    Where several queries share a key the pairing of units is not known, and they are left out.
    """
    if not _is_paired(attention):
        return
    heads = attention.query.end - attention.query.begin
    query = _reader(weights, attention.query, "query", gain, heads)
    key = _reader(weights, attention.key, "key", gain, heads)
    yield from _between(_QUERY_KEY, query, key)


def value_output_couplings(
    weights: Weights, blocks: Sequence[tuple[Attention, str | None]]
) -> Iterator[Coupling]:
    """Of values with the output projection, of all blocks of a stream.

    Within a head values and output are in step, between heads hardly. The file does not say how large a head is: the
    size is taken with which the blocks together agree best, so that one broken block cannot choose it.

    Args:
        blocks: attentions, each with the name of the gain that it reads.
    """
    found: list[tuple[int, _End, _End, dict[int, float]]] = []
    for attention, gain_name in blocks:
        if not _is_paired(attention):
            continue
        heads = attention.value.end - attention.value.begin
        units = chosen_units(heads)
        try:
            value = _reader(weights, attention.value, "value", weights.vector(gain_name), heads)
            read = weights.columns(attention.output, units, heads)
        except NotUsableError:
            continue
        finally:
            weights.release()
        if len(units) < FEWEST:
            continue
        tables = gram(value.features), gram(read)
        scores = {size: agreement(tables[0] * mask, tables[1]) for size, mask in _head_masks(heads)}
        found.append((heads, value, _End(attention.output.layer, Side.INPUTS, "", read), scores))
    sizes = set().union(*(scores for *_, scores in found)) if found else set()
    best = max(sorted(sizes), key=lambda size: sum(scores.get(size, 0.0) for *_, scores in found), default=0)
    for heads, value, output, scores in found:
        together = dict(_head_masks(heads)).get(best)
        for coupling in _between(_VALUE_OUTPUT, value, output, together):
            masked = coupling.kind is CouplingKind.VALUE_OUTPUT_UNITS and best in scores
            yield replace(coupling, value=scores[best], slope=None) if masked else coupling


def _is_paired(attention: Attention) -> bool:
    return attention.key.end - attention.key.begin == attention.query.end - attention.query.begin


def _reader(weights: Weights, part: Part, name: str, gain: Floats | None, count: int) -> _End:
    rows = weights.rows(part, chosen_units(count))
    return _End(part.layer, Side.OUTPUTS, name, rows if gain is None else rows * gain)


def _between(kinds: _Kinds, one: _End, other: _End, together: Floats | None = None) -> Iterator[Coupling]:
    """All traces; ``together`` is 1 where two units are related at all, 0 elsewhere."""
    count = len(one.features)
    if count < FEWEST:
        return
    layers, sides = (one.layer, other.layer), (one.side, other.side)
    part = "-".join(filter(None, (one.part, other.part)))
    tables = gram(one.features), gram(other.features)
    # Hidden units of a feed-forward part are too many, and too much alike, to be told apart.
    told_apart = kinds not in (_FEED_FORWARD, _GATED)
    places = unit_places(*tables, together) if told_apart else None
    yield Coupling(kinds.units, layers, agreement(*tables), None, count, sides, part, places=places)
    norms = rank_score(lengths(one.features), lengths(other.features))
    yield Coupling(kinds.norms, layers, norms, None, count, sides, part)
    if kinds.signs is not None and one.features.shape == other.features.shape:
        signs = cosine_score(one.features, other.features)
        yield Coupling(kinds.signs, layers, signs, None, count, sides, part)


def _head_masks(heads: int) -> Iterator[tuple[int, Floats]]:
    """Pairs of units of one head, for every size that a head may have; all pairs as the last."""
    units = chosen_units(heads)
    for size in (*(one for one in _HEAD_SIZES if heads % one == 0 and one < heads), heads):
        head = units // size
        yield size, (head[:, None] == head[None, :]).astype(np.float64)
