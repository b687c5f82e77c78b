"""Couplings between the layers of one model: measured without any other version, kept, and compared when judging."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isfinite

import numpy as np

from layerwatch.metrics.association import Floats
from layerwatch.metrics.coupling import Coupling
from layerwatch.metrics.couplings.batchnorms import (
    batchnorm_couplings,
    norm_against_reader,
    stem_couplings,
)
from layerwatch.metrics.couplings.biases import attention_bias, feed_forward_bias, interface_bias
from layerwatch.metrics.couplings.meanings import chain_meanings, head_entries, stream_meanings
from layerwatch.metrics.couplings.stages import stage_couplings
from layerwatch.metrics.couplings.stream import stream_couplings
from layerwatch.metrics.couplings.units import (
    attention_couplings,
    feed_forward_couplings,
    interface_couplings,
    value_output_couplings,
)
from layerwatch.metrics.couplings.weights import NotUsableError, Weights
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.threads import numpy_on_one_thread
from layerwatch.metrics.wiring import Block, Interface, Wiring, find_wiring, in_module_order

__all__ = ["find_couplings"]

_Found = Iterator[Coupling]


def find_couplings(model: OpenModel) -> tuple[Coupling, ...]:
    """All couplings of an open model, in a fixed order; empty where its names are of no known habit.

    A layer that cannot be read or is not finite takes part in none: its trouble is told where it is measured. One layer
    at a time is in memory, and of wide layers only a sample of their units is read.
    """
    weights = Weights(model)
    layers = {layer.name: layer for layer in in_module_order(model.plan.layers)}
    wiring = find_wiring([*model.plan.layers, *model.plan.vectors])
    found: list[Coupling] = []
    with np.errstate(all="ignore"), numpy_on_one_thread():
        for measure in _measures(weights, wiring):
            try:
                found.extend(measure())
            except NotUsableError:
                continue
            finally:
                weights.release()
        found.extend(batchnorm_couplings(weights, layers, wiring))
        found.extend(stem_couplings(weights, layers))
        found.extend(stage_couplings(weights, layers, wiring))
        found.extend(norm_against_reader(weights, layers, wiring))
        for stream in wiring.streams:
            found.extend(stream_couplings(weights, stream))
            found.extend(stream_meanings(weights, stream))
    weights.release()
    distinct = {one.key: one for one in found if isfinite(one.value)}
    return tuple(distinct.values())


def _measures(weights: Weights, wiring: Wiring) -> Iterator[Callable[[], _Found]]:
    for interface in wiring.interfaces:
        yield lambda one=interface: interface_couplings(weights, one)  # type: ignore[misc]
        yield lambda one=interface: interface_bias(weights, one)  # type: ignore[misc]
    for chain in _chains(wiring):
        yield lambda one=chain: chain_meanings(weights, one)  # type: ignore[misc]
    head = wiring.head
    if head is not None and (wiring.residual_blocks or wiring.producer_of(head) is not None):
        yield lambda: head_entries(weights, head)
    for stream in wiring.streams:
        attentions = [
            (block.attention, block.attention_gain) for block in stream.blocks if block.attention is not None
        ]
        yield lambda some=attentions: value_output_couplings(weights, some)  # type: ignore[misc]
        for block in stream.blocks:
            yield from _block_measures(weights, block, block is stream.blocks[0])


def _block_measures(weights: Weights, block: Block, first: bool) -> Iterator[Callable[[], _Found]]:
    attention, feed_forward = block.attention, block.feed_forward
    if attention is not None:
        gain = block.attention_gain
        yield lambda: attention_couplings(weights, attention, weights.vector(gain))
        yield lambda: attention_bias(weights, attention, _shift(weights, gain), first)
    if feed_forward is not None:
        gain2 = block.feed_forward_gain
        yield lambda: feed_forward_couplings(weights, feed_forward, weights.vector(gain2))
        yield lambda: feed_forward_bias(weights, feed_forward, _shift(weights, gain2))


def _shift(weights: Weights, gain: str | None) -> Floats | None:
    return weights.vector(gain.removesuffix("weight") + "bias") if gain and gain.endswith("weight") else None


def _chains(wiring: Wiring) -> Iterator[list[Interface]]:
    """Interfaces one behind the other, longest runs."""
    chain: list[Interface] = []
    for interface in wiring.interfaces:
        if chain and chain[-1].consumer != interface.producer:
            if not wiring.residual_blocks:
                yield chain
            chain = []
        chain.append(interface)
    if chain and not wiring.residual_blocks:
        yield chain
