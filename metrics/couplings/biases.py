"""A layer's bias and its weights: trained by the same gradients, hence in step.

The gradient of row i is ``sum of d_i x`` and that of bias i ``sum of d_i``: with inputs of non-zero mean ``x0`` the
move of ``W_i . x0`` and that of ``b_i`` go together. ``x0`` is the bias of the norm in front, or, behind a ReLU or GELU,
positive throughout and larger where the layer before has larger rows. The sign of a whole layer shows here
(own measurements; ReLU networks and transformers of several seeds).
"""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.metrics.association import FEWEST, Floats, correlation_score, lengths
from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.couplings.weights import Weights, chosen_units
from layerwatch.metrics.wiring import Attention, FeedForward, Interface, Part


def interface_bias(weights: Weights, interface: Interface) -> Iterator[Coupling]:
    """Of the layer that reads the units of an interface."""
    if weights.factors(interface.consumer) is not None:
        return
    bias = weights.bias(interface.consumer)
    if bias is None or len(bias) != weights.shape(interface.consumer)[0]:
        return
    units = chosen_units(interface.units)
    made = weights.rows(weights.part(interface.producer), units)
    factors = weights.factors(interface.producer)
    size = lengths(made) if factors is None else lengths(made) * factors[units]
    per = weights.shape(interface.consumer)[1] // interface.units
    read = weights.columns(weights.part(interface.consumer), units, interface.units)
    if read.shape[1] % (per * len(bias)):
        # Of a very large layer only some outputs were read.
        return
    sums = read.reshape(len(units), per, len(bias), -1).sum(axis=(1, 3))
    yield from _score(interface.consumer, bias, size @ sums)


def feed_forward_bias(weights: Weights, part: FeedForward, shift: Floats | None) -> Iterator[Coupling]:
    """Of the layer that widens, by the bias of the norm in front of it, and of the one that narrows."""
    if shift is not None and part.gate is None:
        yield from _reader(weights, part.up, shift)
    bias = weights.bias(part.down.layer)
    if bias is not None and part.gate is None:
        count = part.up.end - part.up.begin
        read = weights.columns(part.down, chosen_units(count), count)
        yield from _score(part.down.layer, bias, read.sum(axis=0))


def attention_bias(
    weights: Weights, attention: Attention, shift: Floats | None, first: bool
) -> Iterator[Coupling]:
    """Of values, by the bias of the norm in front of them, and of the output, by the bias of the values.

    In the first block of the queries, too; further on theirs go with the inputs or against them, as it happens.
    """
    if shift is not None:
        yield from _reader(weights, attention.value, shift, "value")
        if first:
            yield from _reader(weights, attention.query, shift, "query")
    bias, values = weights.bias(attention.output.layer), weights.bias(attention.value.layer)
    if bias is not None and values is not None:
        part = attention.value
        units = chosen_units(part.end - part.begin)
        read = weights.columns(attention.output, units, part.end - part.begin)
        yield from _score(attention.output.layer, bias, values[part.begin + units] @ read)


def _reader(weights: Weights, part: Part, shift: Floats, name: str = "") -> Iterator[Coupling]:
    bias = weights.bias(part.layer)
    if bias is None or len(bias) < part.end:
        return
    units = chosen_units(part.end - part.begin)
    yield from _score(part.layer, bias[part.begin + units], weights.rows(part, units) @ shift, name)


def _score(layer: str, bias: Floats, expected: Floats, part: str = "") -> Iterator[Coupling]:
    if len(bias) >= FEWEST and bias.shape == expected.shape:
        score = correlation_score(bias, expected)
        yield Coupling(CouplingKind.BIAS, (layer,), score, None, len(bias), (Side.OUTPUTS,), part)
