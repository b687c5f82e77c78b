"""Many experts as a few numbers: a mixture of experts has more matrices than a monitoring system wants series of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerwatch.metrics.experts import FEWEST, sibling
from layerwatch.metrics.exported import LayerSample
from layerwatch.metrics.findings import LayerStatus

_UNREMARKABLE = frozenset({LayerStatus.OK, LayerStatus.INFO})


@dataclass(frozen=True, slots=True)
class ExpertsSample:
    """What is exported of the experts of one layer.

    Attributes:
        name: that of each, with ``*`` in place of its number.
        alphas: those that are known.
        statuses: one per expert.
    """

    name: str
    alphas: tuple[float, ...]
    statuses: tuple[LayerStatus, ...]


def summarise_experts(
    layers: Sequence[LayerSample],
) -> tuple[tuple[LayerSample, ...], tuple[ExpertsSample, ...]]:
    """Layers that keep gauges of their own, and the groups of experts that are told by quantiles.

    An expert that is suspect, broken or undecided counts in its group and keeps its own gauges besides.
    """
    groups: dict[str, list[LayerSample]] = {}
    for layer in layers:
        member = sibling(layer.name)
        if member is not None:
            groups.setdefault(member[0], []).append(layer)
    groups = {name: members for name, members in groups.items() if len(members) >= FEWEST}
    summarised = {
        layer.name for members in groups.values() for layer in members if layer.status in _UNREMARKABLE
    }
    return tuple(layer for layer in layers if layer.name not in summarised), tuple(
        ExpertsSample(
            name,
            tuple(layer.alpha for layer in members if layer.alpha is not None),
            tuple(layer.status for layer in members),
        )
        for name, members in groups.items()
    )
