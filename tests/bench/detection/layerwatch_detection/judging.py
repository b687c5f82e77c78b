"""From the tensors of a version to what the product says about it, by the product's own way: measured, joined, judged."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, replace

from layerwatch.metrics.couplings import find_couplings
from layerwatch.metrics.estimate import layer_sketches
from layerwatch.metrics.examination import Examination, LayerHistory
from layerwatch.metrics.history import layer_histories
from layerwatch.metrics.joining import FoundContent, examine
from layerwatch.metrics.layerentry import entry_of
from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.merge import MergeEvidence, MergeParent, merge_evidence
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.readers.memory import MemoryReader
from layerwatch.metrics.relation import Relation
from layerwatch_detection.states import State
from layerwatch_detection.versions import Merge


def _opened(state: State) -> OpenModel:
    return OpenModel(MemoryReader(dict(state)), "state")


@dataclass(frozen=True, slots=True)
class Examined:
    """One version beside its baseline, once with both files at hand and once from what is stored alone."""

    exact: Examination
    sketch: Examination


class Baseline:
    """The version that others are held against, with its history. What was measured once is not measured again.

    Args:
        state: the baseline's tensors.
        history: healthy versions before it, oldest first, the baseline among them.
    """

    def __init__(self, state: State, history: tuple[State, ...]) -> None:
        self._model = _opened(state)
        self._kept: dict[str, Measurement] = {}
        self._content, self._named = self._measured(self._model, self._kept)
        self._couplings = find_couplings(self._model)
        self._history = self._histories(history)

    def keep(self, state: State) -> None:
        """Remember the measurements of a state whose layers most versions will share."""
        self._measured(_opened(state), self._kept)

    def examined(self, state: State, relation: Relation | None, merge: Merge | None = None) -> Examined:
        """Measure a version and join it with the baseline, both ways."""
        model = _opened(state)
        own: dict[str, Measurement] = {}
        measurements = ChainMap(own, self._kept)
        layers = []
        for layer in measure_layers(model, measurements.__contains__, self._model):
            if layer.measurement is not None:
                own[layer.measurement.digest] = layer.measurement
            layers.append(layer)
        content = FoundContent(tuple(map(entry_of, layers)))
        exact = {one.layer.name: one.exact for one in layers if one.exact is not None}
        named = {one.layer.name: measurements[one.digest] for one in layers if one.digest is not None}
        evidence = None if merge is None else self._merge_evidence(named, merge)
        couplings = find_couplings(model)
        examinations = (examine(content, self._content, measurements.get, one) for one in (exact, {}))
        return Examined(
            *(
                replace(
                    one,
                    relation=relation,
                    history=self._history,
                    merge=evidence,
                    couplings=couplings,
                    baseline_couplings=self._couplings,
                )
                for one in examinations
            )
        )

    def _merge_evidence(self, named: Mapping[str, Measurement], merge: Merge) -> MergeEvidence:
        def parent(name: str, measured: Mapping[str, Measurement]) -> MergeParent:
            return MergeParent(name, layer_sketches(measured))

        parents = [
            parent(f"parent {number}", self._measured(_opened(state), dict(self._kept))[1])
            for number, state in enumerate(merge.parents)
        ]
        base = parent("baseline", self._named) if merge.recipe.base else None
        return merge_evidence(layer_sketches(named), parents, base, merge.recipe)

    @staticmethod
    def _measured(
        model: OpenModel, kept: dict[str, Measurement]
    ) -> tuple[FoundContent, Mapping[str, Measurement]]:
        layers = []
        for layer in measure_layers(model, kept.__contains__):
            if layer.measurement is not None:
                kept[layer.measurement.digest] = layer.measurement
            layers.append(layer)
        named = {one.layer.name: kept[one.digest] for one in layers if one.digest is not None}
        return FoundContent(tuple(map(entry_of, layers))), named

    def _histories(self, history: tuple[State, ...]) -> Mapping[str, LayerHistory]:
        versions = [self._measured(_opened(state), dict(self._kept))[1] for state in history]
        return layer_histories(versions)
