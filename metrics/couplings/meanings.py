"""Sides of a network that mean the same in every training: pixels, classes, tokens, positions.

Inside one file: tokens that are embedded alike are predicted alike; neighbouring positions are embedded alike, and
attended to from near. Between two trainings: relations between inputs, relations between outputs, what the whole chain
of layers does from input to output, and what each part adds to the scores of the tokens. These last four are kept as
profiles and compared with the baseline's (own measurements on networks of several seeds).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.association import FEWEST, Floats, agreement, gram
from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.couplings.weights import NotUsableError, Weights
from layerwatch.metrics.unitplaces import unit_places
from layerwatch.metrics.wiring import Block, Interface, Stream

_TOKENS = 512
_RELATED = 48
"""Inputs or outputs whose relations make a profile: 48 give 1,128 numbers."""
_SCORED = 128
_LONGEST_CHAIN = 32
"""A product of more layers says nothing about what the network does."""
_ENDS = (16, 64)
"""Outputs and inputs of the profile of a whole chain."""


def _spread(count: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _profile(
    kind: CouplingKind,
    layers: Sequence[str],
    sides: Sequence[Side],
    numbers: Floats,
    units: int,
    part: str = "",
    halves: float | None = None,
) -> Iterator[Coupling]:
    size = float(np.linalg.norm(numbers))
    if size > 0.0 and numbers.size >= FEWEST:
        kept = tuple(float(f"{value:.4g}") for value in numbers.reshape(-1) / size)
        value = size / float(np.sqrt(numbers.size))
        yield Coupling(kind, tuple(layers), value, halves, units, tuple(sides), part, kept)


def _relations(features: Floats) -> Floats:
    table = gram(features - features.mean(axis=0))
    return np.asarray(table[np.triu_indices(len(table), 1)])


def _halves(features: Floats) -> float:
    """Agreement of the relations by one half of the features with those by the other, in standard deviations.

    About 0 for features as they were drawn at random, whose relations no other training shares; what training gave
    them is in both halves.
    """
    centred = features - features.mean(axis=0)
    if len(centred) < FEWEST or centred.shape[1] < 2:
        return 0.0
    return agreement(gram(centred[:, ::2]), gram(centred[:, 1::2]))


# --- plain networks -------------------------------------------------------------------------------------------------


def chain_meanings(weights: Weights, chain: Sequence[Interface]) -> Iterator[Coupling]:
    """Of a maximal chain of interfaces, from its first layer's inputs to its last layer's outputs."""
    if len(chain) > _LONGEST_CHAIN:
        return
    first, last = chain[0].producer, chain[-1].consumer
    matrix = weights.whole(first)
    inputs = matrix.reshape(len(matrix), -1).T
    chosen = _spread(len(inputs), _RELATED)
    numbers, halves = _relations(inputs[chosen]), _halves(inputs[chosen])
    yield from _profile(
        CouplingKind.INPUT_MEANING, (first,), (Side.INPUTS,), numbers, len(chosen), halves=halves
    )
    chosen = _spread(weights.shape(last)[0], _RELATED)
    outputs = weights.whole(last)[chosen].reshape(len(chosen), chain[-1].units, -1)
    made = weights.whole(chain[-1].producer)
    made = _folded(weights, chain[-1].producer, made.reshape(len(made), -1))
    # Units that are made alike count as one: relations of what reaches the outputs, not of their weights.
    numbers = _relations(np.einsum("oup,ui->opi", outputs, made).reshape(len(chosen), -1))
    layers, sides = (last, chain[-1].producer), (Side.OUTPUTS, Side.OUTPUTS)
    yield from _profile(CouplingKind.OUTPUT_MEANING, layers, sides, numbers, len(chosen))
    product = _product(weights, chain)
    rows, columns = _spread(product.shape[0], _ENDS[0]), _spread(product.shape[1], _ENDS[1])
    ends = product[np.ix_(rows, columns)]
    ends = ends - ends.mean(axis=0)
    everyone = (*(one.producer for one in chain), last)
    outputs_of_all = (Side.OUTPUTS,) * len(everyone)
    yield from _profile(CouplingKind.END_TO_END, everyone, outputs_of_all, ends, len(rows))


def _product(weights: Weights, chain: Sequence[Interface]) -> Floats:
    """Of all layers of a chain, kernels summed up but for the first; what passes if half of the units are on."""
    matrix = weights.whole(chain[0].producer)
    product = _folded(weights, chain[0].producer, matrix.reshape(len(matrix), -1))
    for interface in chain:
        weights.release()
        matrix = weights.whole(interface.consumer)
        sums = matrix.reshape(len(matrix), interface.units, -1).sum(axis=2)
        product = _folded(weights, interface.consumer, sums) @ product
    return product


def _folded(weights: Weights, layer: str, rows: Floats) -> Floats:
    factors = weights.factors(layer)
    return rows if factors is None else rows * factors[:, None]


def head_entries(weights: Weights, head: str) -> Iterator[Coupling]:
    """Mean and skewness of the weights of a last layer that reads what a ReLU gave, in standard deviations.

    A class has few units for it and many against it: training makes the mean negative, and the tail point one way.
    """
    values = weights.whole(head).reshape(-1)
    deviation = float(values.std())
    if values.size < FEWEST or deviation <= 0.0:
        return
    centred = (values - values.mean()) / deviation
    mean = float(values.mean()) / deviation * sqrt(values.size)
    skewness = float((centred**3).mean()) * sqrt(values.size / 6.0)
    for part, score in (("mean", mean), ("skewness", skewness)):
        yield Coupling(CouplingKind.HEAD_ENTRIES, (head,), score, None, values.size, (Side.OUTPUTS,), part)


# --- transformers ---------------------------------------------------------------------------------------------------


def stream_meanings(weights: Weights, stream: Stream) -> Iterator[Coupling]:
    """Of a transformer's tokens and positions."""
    tokens = next((one for one in stream.embeddings if one != stream.positions), None)
    for couplings in (
        _vocabulary(weights, stream, tokens),
        _positions(weights, stream),
        _effects(weights, stream, tokens),
    ):
        try:
            yield from couplings
        except NotUsableError:
            continue
        finally:
            weights.release()


def _token_rows(weights: Weights, layer: str, gain: Floats | None, most: int) -> Floats:
    rows = weights.rows(weights.part(layer), _spread(weights.shape(layer)[0], most))
    centred: Floats = rows - rows.mean(axis=0)
    return centred if gain is None else centred * gain


def _vocabulary(weights: Weights, stream: Stream, tokens: str | None) -> Iterator[Coupling]:
    gain = weights.vector(stream.final_gain)
    head = None if stream.head is None else _token_rows(weights, stream.head, gain, _TOKENS)
    embedded = None if tokens is None else _token_rows(weights, tokens, None, _TOKENS)
    if tokens is not None and embedded is not None:
        related = _token_rows(weights, tokens, None, _RELATED)
        numbers, sides = _relations(related), (Side.OUTPUTS,)
        halves = _halves(related)
        yield from _profile(
            CouplingKind.INPUT_MEANING, (tokens,), sides, numbers, len(related), halves=halves
        )
    if stream.head is not None and head is not None:
        related = _token_rows(weights, stream.head, gain, _RELATED)
        numbers, sides = _relations(related), (Side.OUTPUTS,)
        halves = _halves(related)
        yield from _profile(
            CouplingKind.OUTPUT_MEANING, (stream.head,), sides, numbers, len(related), halves=halves
        )
    if tokens is None or stream.head is None or embedded is None or head is None:
        return
    if len(embedded) >= FEWEST and weights.shape(tokens)[0] == weights.shape(stream.head)[0]:
        tables = gram(embedded), gram(head)
        yield Coupling(
            CouplingKind.VOCABULARY,
            (tokens, stream.head),
            agreement(*tables),
            None,
            len(embedded),
            (Side.OUTPUTS, Side.OUTPUTS),
            places=unit_places(*tables),
        )


def _positions(weights: Weights, stream: Stream) -> Iterator[Coupling]:
    if stream.positions is None or weights.shape(stream.positions)[0] < 2 * FEWEST:
        return
    count = min(weights.shape(stream.positions)[0], 256)
    rows = weights.rows(weights.part(stream.positions), np.arange(count))
    place = np.arange(count)
    near = 1.0 / (1.0 + np.abs(place[:, None] - place[None, :]))
    np.fill_diagonal(near, 0.0)
    score = agreement(gram(rows - rows.mean(axis=0)), near)
    yield Coupling(CouplingKind.POSITIONS, (stream.positions,), score, None, count, (Side.OUTPUTS,))
    attention = stream.blocks[0].attention
    if (
        attention is None
        or attention.key.end - attention.key.begin != attention.query.end - attention.query.begin
    ):
        return
    gain = weights.vector(stream.blocks[0].attention_gain)
    rows = rows - rows.mean(axis=0)
    rows = rows if gain is None else rows * gain
    asked, offered = (
        rows @ weights.rows(part, np.arange(part.end - part.begin)).T
        for part in (attention.query, attention.key)
    )
    attended = asked @ offered.T
    attended = attended + attended.T
    np.fill_diagonal(attended, 0.0)
    layers = tuple(
        one for one in (attention.query.layer, attention.key.layer, stream.positions) for _ in (0, 1)
    )
    sides = (Side.OUTPUTS, Side.INPUTS) * 3
    yield Coupling(CouplingKind.NEARNESS, layers, agreement(attended, near), None, count, sides)


def _effects(weights: Weights, stream: Stream, tokens: str | None) -> Iterator[Coupling]:
    reader = stream.head or tokens
    if reader is None:
        return
    gain, shift = weights.vector(stream.final_gain), _shift(weights, stream.final_gain)
    read = _token_rows(weights, reader, gain, _SCORED)
    if shift is not None:
        scores = _token_rows(weights, reader, None, _SCORED) @ shift
        yield from _effect((reader,), scores, "final")
    if tokens is not None and stream.blocks[0].attention is not None:
        yield from _token_effect(weights, stream.blocks[0], tokens, reader, gain)
    for block in stream.blocks:
        try:
            yield from _block_effects(weights, block, read, reader)
        except NotUsableError:
            continue


def _token_effect(
    weights: Weights, block: Block, tokens: str, reader: str, gain: Floats | None
) -> Iterator[Coupling]:
    """What seeing a token adds to the score of each other through the first block's values."""
    attention = block.attention
    assert attention is not None
    count = attention.value.end - attention.value.begin
    if count != attention.query.end - attention.query.begin:
        return
    read_gain = weights.vector(block.attention_gain)
    seen = _token_rows(weights, tokens, read_gain, _RELATED)
    values = seen @ weights.rows(attention.value, np.arange(count)).T
    read = _token_rows(weights, reader, gain, _RELATED)
    written = read @ weights.rows(attention.output, np.arange(read.shape[1]))
    effect = written @ values.T
    effect = effect - effect.mean(axis=0) - effect.mean(axis=1, keepdims=True) + effect.mean()
    layers = tuple(dict.fromkeys((attention.output.layer, attention.value.layer, tokens, reader)))
    sides = (Side.OUTPUTS,) * len(layers)
    yield from _profile(CouplingKind.TOKEN_EFFECT, layers, sides, effect, len(seen))


def _block_effects(weights: Weights, block: Block, read: Floats, reader: str) -> Iterator[Coupling]:
    if block.feed_forward is not None and block.feed_forward.gate is None:
        down = block.feed_forward.down
        hidden = block.feed_forward.up.end - block.feed_forward.up.begin
        added = weights.columns(down, _spread(hidden, _TOKENS), hidden).sum(axis=0)
        # Of a very wide stream only some channels were read.
        if len(added) == read.shape[1]:
            yield from _effect((down.layer, reader), read @ added)
    shift = _shift(weights, block.attention_gain)
    if block.attention is not None and shift is not None:
        value, output = block.attention.value, block.attention.output
        count = value.end - value.begin
        if count == block.attention.query.end - block.attention.query.begin:
            mixed = weights.rows(value, np.arange(count)) @ shift
            bias = weights.bias(value.layer)
            if bias is not None and len(bias) >= value.end:
                mixed = mixed + bias[value.begin : value.end]
            added = weights.rows(output, np.arange(read.shape[1])) @ mixed
            yield from _effect((output.layer, value.layer, reader), read @ added)


def _effect(layers: Sequence[str], scores: Floats, part: str = "") -> Iterator[Coupling]:
    scores = scores - scores.mean()
    sides = (Side.OUTPUTS,) * len(layers)
    yield from _profile(CouplingKind.LOGIT_EFFECT, layers, sides, scores, len(scores), part)


def _shift(weights: Weights, gain: str | None) -> Floats | None:
    """Bias of the norm that a gain belongs to."""
    if gain is None or not gain.endswith(".weight"):
        return None
    return weights.vector(gain.removesuffix("weight") + "bias")
