"""Stages of a convolutional residual network: layers that read and write the same channels.

Between two changes of width all blocks add to one map. As along the residual stream of a transformer (``stream.py``),
each layer's table of inner products between channels is held against the sum of all the others'.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from layerwatch.metrics.association import FEWEST, Floats, agreement, gram
from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.couplings.partners import with_partners
from layerwatch.metrics.couplings.weights import NotUsableError, Weights
from layerwatch.metrics.layers import Layer
from layerwatch.metrics.unitplaces import evened
from layerwatch.metrics.wiring import Wiring


def stage_couplings(weights: Weights, layers: Mapping[str, Layer], wiring: Wiring) -> Iterator[Coupling]:
    """Every layer of a stage against the others of the stage."""
    for members in _stages(layers, wiring):
        tables: list[tuple[str, Side, Floats]] = []
        for name, side in members:
            try:
                table = gram(_channels(weights, name, side))
            except NotUsableError:
                continue
            finally:
                weights.release()
            size = float(np.linalg.norm(table))
            if size > 0.0:
                tables.append((name, side, table / size))
        if len(tables) < 3 or len(tables[0][2]) < FEWEST:
            continue
        total = np.sum([table for *_, table in tables], axis=0)
        for name, side, table in tables:
            score = agreement(table, total - table)
            yield Coupling(CouplingKind.STAGE_CHANNELS, (name,), score, None, len(table), (side,), side.value)
        evened_tables = [evened(table).astype(np.float32) for *_, table in tables]
        for (name, side, table), (score, places) in zip(tables, with_partners(evened_tables), strict=True):
            kind, count = CouplingKind.STAGE_PARTNERS, len(table)
            yield Coupling(kind, (name,), score, None, count, (side,), side.value, places=places)


def _channels(weights: Weights, name: str, side: Side) -> Floats:
    """Shape (channels, features); what is written is folded with its batch norm."""
    values = weights.whole(name)
    if side is Side.INPUTS:
        return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    rows = values.reshape(len(values), -1)
    factors = weights.factors(name)
    return rows if factors is None else rows * factors[:, None]


def _stages(layers: Mapping[str, Layer], wiring: Wiring) -> Iterator[list[tuple[str, Side]]]:
    """Writers and readers of each width, in order; a layer may write one stage and read the one before."""
    stage: list[tuple[str, Side]] = []
    width = 0
    root = wiring.residual_blocks[0].rpartition("layer")[0] if wiring.residual_blocks else ""
    stem = layers.get(f"{root}conv1")
    if stem is not None:
        stage, width = [(stem.name, Side.OUTPUTS)], stem.shape[0]
    for block in wiring.residual_blocks:
        first = layers[f"{block}.conv1"]
        last = next(layers[name] for name in (f"{block}.conv3", f"{block}.conv2") if name in layers)
        shortcut = next(
            (layers[name] for name in (f"{block}.downsample.0", f"{block}.shortcut.0") if name in layers),
            None,
        )
        for reader in filter(None, (first, shortcut)):
            if reader.shape[1] == width:
                stage.append((reader.name, Side.INPUTS))
        if last.shape[0] != width:
            yield stage
            stage, width = [], last.shape[0]
        stage.extend(
            (one.name, Side.OUTPUTS) for one in (shortcut, last) if one is not None and one.shape[0] == width
        )
    head = layers.get(wiring.head) if wiring.head else None
    if head is not None and head.shape[1] == width:
        stage.append((head.name, Side.INPUTS))
    yield stage
