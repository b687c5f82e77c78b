"""Layers on a residual stream: which channels they read and write together.

All layers of a transformer read from and write to the same channels. Channels that one layer treats alike the others
treat alike, too: each layer's table of inner products between channels is held against the sum of all the others'
(own measurements on transformers of several seeds; the idea is that of section 13 of the detection study, whose norm
couplings see the diagonal of the same tables). A layer whose channels were permuted, or that is random, agrees with
nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.association import (
    FEWEST,
    Floats,
    agreement,
    gram,
    rank_score,
)
from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.couplings.partners import with_partners
from layerwatch.metrics.couplings.weights import NotUsableError, Weights
from layerwatch.metrics.unitplaces import evened
from layerwatch.metrics.wiring import Part, Stream

_CHANNELS = 192
"""Channels that are looked at: every layer's table of them is kept until all are there."""

_FEATURES = 2048


@dataclass(frozen=True, slots=True)
class _Member:
    part: Part
    side: Side
    name: str
    gain: str | None


def _members(weights: Weights, stream: Stream) -> Iterator[_Member]:
    for embedding in stream.embeddings:
        yield _Member(weights.part(embedding), Side.INPUTS, "", None)
    for block in stream.blocks:
        if block.attention is not None:
            whole = block.attention
            for name, part in (("query", whole.query), ("key", whole.key), ("value", whole.value)):
                yield _Member(part, Side.INPUTS, name, block.attention_gain)
            yield _Member(whole.output, Side.OUTPUTS, "attention output", None)
        if block.feed_forward is not None:
            parts = block.feed_forward
            yield _Member(parts.up, Side.INPUTS, "up" if parts.gate else "", block.feed_forward_gain)
            if parts.gate is not None:
                yield _Member(parts.gate, Side.INPUTS, "gate", block.feed_forward_gain)
            yield _Member(parts.down, Side.OUTPUTS, "", None)
    if stream.head is not None:
        yield _Member(weights.part(stream.head), Side.INPUTS, "", stream.final_gain)


def stream_couplings(weights: Weights, stream: Stream) -> Iterator[Coupling]:
    """Every layer of a stream against all the others, and the norms' gains against the layers that read them."""
    if stream.width < FEWEST:
        return
    channels = np.unique(np.linspace(0, stream.width - 1, min(stream.width, _CHANNELS)).astype(np.int64))
    tables: list[tuple[_Member, NDArray[np.float32]]] = []
    for member in _members(weights, stream):
        try:
            features = _channel_features(weights, member, channels)
            gain = weights.vector(member.gain)
        except NotUsableError:
            continue
        if gain is not None and member.gain is not None:
            score = rank_score(np.abs(gain[channels]), np.linalg.norm(features, axis=1))
            names = (member.part.layer, member.gain)
            sides = (member.side, Side.VECTOR)
            yield Coupling(CouplingKind.GAIN_TO_READER, names, score, None, len(channels), sides, member.name)
            features = features * gain[channels, None]
        table = gram(features)
        size = float(np.linalg.norm(table))
        if size > 0.0:
            tables.append((member, (table / size).astype(np.float32)))
        weights.release()
    if len(tables) < 3:
        return
    total = np.sum([table for _, table in tables], axis=0, dtype=np.float64)
    for member, kept in tables:
        own = kept.astype(np.float64)
        yield Coupling(
            CouplingKind.STREAM_CHANNELS,
            (member.part.layer,),
            agreement(own, total - own),
            None,
            len(channels),
            (member.side,),
            member.name,
        )
    # Written over: one table per layer is all that is kept.
    for number, (member, kept) in enumerate(tables):
        tables[number] = (member, evened(kept.astype(np.float64)).astype(np.float32))
    for (member, _), (score, places) in zip(
        tables, with_partners([table for _, table in tables]), strict=True
    ):
        yield Coupling(
            CouplingKind.STREAM_PARTNERS,
            (member.part.layer,),
            score,
            None,
            len(channels),
            (member.side,),
            member.name,
            places=places,
        )


def _channel_features(weights: Weights, member: _Member, channels: NDArray[np.int64]) -> Floats:
    """Shape (channels, features)."""
    if member.side is Side.OUTPUTS:
        rows = weights.rows(member.part, channels)
        return rows[:, _some(rows.shape[1])]
    width = weights.shape(member.part.layer)[0 if member.part.transposed else 1]
    rows_taken = member.part.begin + _some(member.part.end - member.part.begin)
    return weights.columns(member.part, channels, width, rows_taken)


def _some(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, _FEATURES)).astype(np.int64))
