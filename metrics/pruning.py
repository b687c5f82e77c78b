"""Zeros that somebody meant: units removed on both sides, branches removed from a residual network, pruned models.

The weights of a damaged layer and of a pruned one look alike; what tells them apart is the rest of the network
(detection study, section 9).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from layerwatch.metrics.examination import Examination, ExaminedLayer
from layerwatch.metrics.others import medians_of_others
from layerwatch.metrics.wiring import Wiring, find_wiring, in_module_order

ALIKE = 0.5
"""Other layers became sparse alike when their median rise is this share of a layer's own, or more."""

SPARSE = 0.2
"""A smaller rise of the share of zeros is no pruning."""


@dataclass(frozen=True, slots=True)
class RemovedUnits:
    """Units of one layer that are zero on the layer's side, and what the layer on the other side says to that.

    Attributes:
        rows: rows are newly zero, and all of them meet columns of ``consumer`` that are zero too.
        columns: columns are newly zero, and all of them meet rows of ``producer`` that are zero too.
    """

    rows: bool
    columns: bool
    consumer: str | None
    producer: str | None


@dataclass(frozen=True, slots=True)
class Pruning:
    """What is known of deliberate zeros in one version.

    Attributes:
        branches: members of removed branches: the name of a layer or vector -> the empty layer it belongs to. The
            empty layer is a member of its own branch.
        rises: by how much the share of exact zeros rose, -1..1, by layer name; layers with a baseline only.
    """

    branches: Mapping[str, str]
    rises: Mapping[str, float]
    _around: Mapping[str, float] = field(repr=False)
    _layers: Mapping[str, ExaminedLayer] = field(repr=False)
    _wiring: Wiring = field(repr=False)

    def rise_around(self, layer: str) -> float:
        """Median rise of the share of zeros over the other layers; 0 where there is no other."""
        return self._around.get(layer, 0.0)

    def is_model_wide(self, layer: str) -> bool:
        """True where the layer became sparse along with most of the others: the model was pruned."""
        rise = self.rises.get(layer, 0.0)
        return rise >= SPARSE and self.rise_around(layer) >= ALIKE * rise

    def removed_units(self, layer: ExaminedLayer) -> RemovedUnits:
        """Whether the zero rows and columns of a layer are units that were removed on both sides."""
        change = layer.change
        behind, before = self._wiring.consumer_of(layer.name), self._wiring.producer_of(layer.name)
        if change is None:
            return RemovedUnits(False, False, None, None)
        rows = columns = False
        consumer = self._layers.get(behind.consumer) if behind is not None else None
        if behind is not None and consumer is not None and consumer.change is not None:
            unread = _zero_units(consumer.change.zero_columns, consumer.change.columns, behind.units)
            rows = bool(change.newly_zero_rows) and unread.issuperset(change.newly_zero_rows)
        producer = self._layers.get(before.producer) if before is not None else None
        if before is not None and producer is not None and producer.change is not None and before.units:
            width = max(1, change.columns // before.units)
            silent = set(producer.change.zero_rows)
            columns = bool(change.newly_zero_columns) and all(
                column // width in silent for column in change.newly_zero_columns
            )
        return RemovedUnits(
            rows, columns, behind.consumer if behind else None, before.producer if before else None
        )


def pruning_of(examination: Examination) -> Pruning:
    """Look for deliberate zeros."""
    wiring = find_wiring(examination.everything)
    layers = {layer.name: layer for layer in in_module_order(examination.layers)}
    rises = _rises(examination)
    return Pruning(_branches(examination, layers, wiring), rises, medians_of_others(rises), layers, wiring)


def _rises(examination: Examination) -> dict[str, float]:
    return {
        layer.name: layer.measurement.zero_share - layer.baseline.zero_share
        for layer in examination.layers
        if layer.measurement is not None and layer.baseline is not None and not layer.measurement.non_finite
    }


def _branches(
    examination: Examination, layers: Mapping[str, ExaminedLayer], wiring: Wiring
) -> dict[str, str]:
    """Where a layer and the statistics behind it are zero, nothing arrives of whatever feeds that layer alone."""
    members: dict[str, str] = {}
    norms: dict[str, str] = {}
    # From the end: a branch is named after the last of its empty layers.
    for layer in reversed(list(layers.values())):
        measured = layer.measurement
        if measured is None or measured.max_abs > 0.0 or not measured.fold_statistics_empty:
            continue
        name: str | None = layer.name
        while name is not None and name not in members:
            members[name] = layer.name
            member = layers.get(name)
            if member is not None and member.measurement is not None and member.measurement.folded_by:
                norms[member.measurement.folded_by] = layer.name
            before = wiring.producer_of(name)
            name = before.producer if before is not None else None
    for vector in examination.vectors:
        module = vector.name.rpartition(".")[0]
        if module in norms:
            members[vector.name] = norms[module]
        elif module in members:
            members[vector.name] = members[module]
    return members


def _zero_units(zero_columns: tuple[int, ...], columns: int, units: int) -> set[int]:
    """Units all of whose columns are zero; each has ``columns / units`` of them, one behind the other."""
    width = columns // units if units else 0
    if width == 0:
        return set()
    counts: dict[int, int] = {}
    for column in zero_columns:
        counts[column // width] = counts.get(column // width, 0) + 1
    return {unit for unit, count in counts.items() if count == width}
