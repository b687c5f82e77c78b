"""From measurements to an examination: every layer beside its baseline, one pair in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from layerwatch.metrics.carried import undo_permutations
from layerwatch.metrics.census.remark import StorageRemark
from layerwatch.metrics.change import AlignedChange, compare_layer
from layerwatch.metrics.coupling import Coupling
from layerwatch.metrics.examination import (
    Examination,
    ExaminedLayer,
    InPlaceChange,
    MissingLayer,
    Problem,
    without_arrays,
)
from layerwatch.metrics.experts import expert_groups
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.rescaled import undo_rescalings, with_sizes_undone, without_sizes
from layerwatch.metrics.resemblance import with_resemblances

LoadMeasurement = Callable[[str], Measurement | None]


class Content(Protocol):
    """What was found in one model."""

    @property
    def layers(self) -> Sequence[LayerEntry]:
        """Layers, vectors and unexamined files."""

    @property
    def couplings(self) -> Sequence[Coupling]:
        """What its layers share."""

    @property
    def remarks(self) -> Sequence[StorageRemark]:
        """What its storage contradicts."""

    @property
    def file_problem(self) -> tuple[str, str] | None:
        """Reason and sentence when the whole model could not be examined."""


@dataclass(frozen=True, slots=True)
class FoundContent:
    """A :class:`Content` that is kept nowhere."""

    layers: tuple[LayerEntry, ...]
    file_problem: tuple[str, str] | None = None
    couplings: tuple[Coupling, ...] = ()
    remarks: tuple[StorageRemark, ...] = ()


def examine(
    content: Content,
    baseline: Content | None,
    load: LoadMeasurement,
    exact: Mapping[str, AlignedChange],
    in_place: InPlaceChange | None = None,
) -> Examination:
    """Join a version's measurements with its baseline's.

    Args:
        content: what was found in the version.
        baseline: what was found in the baseline, or None.
        load: a measurement with its arrays by digest, for either of the two.
        exact: element-wise comparisons at hand, by layer name.
        in_place: set when the version's bytes changed under its name.
    """
    if content.file_problem is not None:
        reason, detail = content.file_problem
        return Examination((), (), (), baseline is not None, Problem(reason, detail), in_place)
    if not content.layers:
        problem = Problem("no_tensors", "holds no floating tensor that could be examined")
        return Examination((), (), (), baseline is not None, problem, in_place)
    others = {entry.name: entry for entry in baseline.layers} if baseline else {}
    examined = [
        _examined(entry, others.get(entry.name), load, exact.get(entry.name)) for entry in content.layers
    ]
    entries = {entry.name: entry for entry in content.layers}

    def pair(layer: ExaminedLayer) -> tuple[Measurement, Measurement] | None:
        entry, other = entries[layer.name], others.get(layer.name)
        new = load(entry.digest) if entry.digest else None
        old = load(other.digest) if other is not None and other.digest else None
        return None if new is None or old is None else (new, old)

    carried = undo_permutations(examined, pair)
    rescaled = undo_rescalings(carried.layers, exact)
    examined = with_resemblances(rescaled.layers, content.layers, others, load)
    present = {entry.name for entry in content.layers}
    tied = {entry.digest: name for name, entry in others.items() if name in present and len(entry.shape) >= 2}
    return Examination(
        layers=tuple(layer for layer in examined if len(layer.shape) >= 2),
        vectors=tuple(layer for layer in examined if len(layer.shape) < 2),
        missing=tuple(
            MissingLayer(entry.name, entry.shape, tied.get(entry.digest) if entry.digest else None)
            for name, entry in others.items()
            if name not in present and entry.shape
        ),
        has_baseline=baseline is not None,
        in_place=in_place,
        couplings=without_sizes(content.couplings, rescaled.carried),
        baseline_couplings=tuple(baseline.couplings) if baseline is not None else (),
        permuted=carried.names,
        left_behind=carried.left_behind,
        not_shared=carried.not_shared,
        rescaled=rescaled.carried,
        not_rescaled=rescaled.unshared,
        experts=with_sizes_undone(expert_groups(content.layers, others, load), rescaled.carried),
        remarks=tuple(content.remarks),
        baseline_remarks=tuple(baseline.remarks) if baseline is not None else (),
    )


def _examined(
    entry: LayerEntry, other: LayerEntry | None, load: LoadMeasurement, exact: AlignedChange | None
) -> ExaminedLayer:
    measurement = load(entry.digest) if entry.digest else None
    problem = None
    if measurement is None:
        problem = Problem(
            entry.problem_reason or "lost",
            entry.problem_detail or "its measurement is no longer in the store: scan the version again",
        )
    baseline = load(other.digest) if other is not None and other.digest else None
    if problem is None and other is not None and baseline is None:
        why = other.problem_detail or "its measurement is no longer in the store"
        problem = Problem(
            other.problem_reason or "lost", f"the baseline's layer could not be examined: {why}"
        )
    if problem is None and baseline is not None and baseline.non_finite:
        problem = Problem(
            "baseline_not_finite",
            "the baseline's layer holds NaN or infinite weights: there is nothing to compare with",
        )
    change = None
    if (
        measurement is not None
        and baseline is not None
        and not measurement.non_finite
        and not baseline.non_finite
    ):
        # Of vectors only the factors between them are compared element by element.
        change = compare_layer(measurement, baseline, exact if len(entry.shape) >= 2 else None)
    return ExaminedLayer(
        name=entry.name,
        kind=entry.kind,
        shape=entry.shape,
        dtype=entry.dtype,
        measurement=without_arrays(measurement) if measurement else None,
        problem=problem,
        baseline=without_arrays(baseline) if baseline else None,
        change=change,
    )
