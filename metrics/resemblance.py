"""Whose weights a layer holds, where they are not its own baseline's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.examination import ExaminedLayer, Resemblance
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import Measurement

_UNLIKE = 0.5
_LEAST = 0.3
"""A cosine of sketches scatters by about 1/64 around that of the matrices."""


def with_resemblances(
    layers: Sequence[ExaminedLayer],
    entries: Sequence[LayerEntry],
    baseline: Mapping[str, LayerEntry],
    load: Callable[[str], Measurement | None],
) -> list[ExaminedLayer]:
    """The same layers; those unlike their own baseline with the baseline's layer of equal shape they are most like.

    Looks only where at most half of the compared layers are unlike their own: beyond that nothing is aligned.

    Args:
        layers, entries: of the version, in the same order.
        baseline: what was found in the baseline, by name.
        load: a measurement with its arrays by digest.
    """
    cosines = [(layer, _cosine(layer)) for layer in layers]
    known = [cosine for _, cosine in cosines if cosine is not None]
    unlike = {layer.name for layer, cosine in cosines if cosine is not None and cosine < _UNLIKE}
    if not unlike or 2 * len(unlike) > len(known):
        return list(layers)
    searched = {
        entry.name: directions
        for entry in entries
        if entry.name in unlike and (directions := _direction(entry, load)) is not None
    }
    shapes = {entry.shape for entry in entries if entry.name in searched}
    found: dict[str, Resemblance] = {}
    for other in baseline.values():
        if other.shape not in shapes:
            continue
        there = _direction(other, load)
        if there is None:
            continue
        for entry in entries:
            here = searched.get(entry.name)
            if here is None or entry.shape != other.shape or entry.name == other.name:
                continue
            cosine = max(-1.0, min(1.0, float(np.vdot(here, there))))
            best = found.get(entry.name)
            if cosine > _LEAST and (best is None or cosine > best.cosine):
                found[entry.name] = Resemblance(other.name, cosine)
    return [replace(layer, resembles=found[layer.name]) if layer.name in found else layer for layer in layers]


def _cosine(layer: ExaminedLayer) -> float | None:
    return layer.change.aligned.cosine if layer.change and layer.change.aligned else None


def _direction(entry: LayerEntry, load: Callable[[str], Measurement | None]) -> NDArray[np.float64] | None:
    """The layer's sketch at length 1."""
    measurement = load(entry.digest) if entry.digest else None
    if measurement is None or measurement.sketch is None:
        return None
    sketch = measurement.sketch.astype(np.float64)
    norm = float(np.linalg.norm(sketch))
    return sketch / norm if 0.0 < norm < np.inf else None
