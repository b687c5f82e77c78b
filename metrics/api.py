"""Measure and compare models from Python: ``from layerwatch.metrics import measure_model, compare_models``.

What is measured, and how, is the same as in ``layerwatch scan``: a model in memory goes through a reader of its own
and then the same way as a file. Everything runs in the calling process; nothing that a file contains is executed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.architecture.arranged import ArrangedReader
from layerwatch.metrics.change import AlignedChange
from layerwatch.metrics.delta import DeltaNumbers, delta_numbers
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.examination import Examination, ExaminedLayer
from layerwatch.metrics.findings import Finding
from layerwatch.metrics.guardedcouplings import couplings_or_problem
from layerwatch.metrics.joining import FoundContent, examine
from layerwatch.metrics.judge import Judgement, judge
from layerwatch.metrics.layerentry import entry_of, unexamined_entry
from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.merge import MergeEvidence, MergeParent, MergeRecipe, merge_evidence
from layerwatch.metrics.openmodel import OpenModel, open_layers
from layerwatch.metrics.options import DEFAULT, MeasureOptions
from layerwatch.metrics.quantised.unpacked import UnpackedReader
from layerwatch.metrics.readers.memory import InputError, InputReason, MemoryReader
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.report import BaselinePart, ModelPart, Report, build_report
from layerwatch.metrics.results import (
    LayerComparison,
    LayerMeasurement,
    ModelComparison,
    ModelMeasurement,
)

_LOGGER = logging.getLogger(__name__)

Model: TypeAlias = str | os.PathLike[str] | torch.nn.Module | Mapping[str, Any]
"""A path of a file or directory, a torch module, a state dict, or a dict of name -> numpy array."""


def measure_model(model: Model, *, options: MeasureOptions = DEFAULT) -> ModelMeasurement:
    """Measure every layer of a model.

    A layer that cannot be examined is among the layers, with its problem; it does not stop the others.

    Args:
        model: a path, a ``torch.nn.Module``, a state dict or checkpoint (nested or not, ``module.`` prefixes are
            taken off), or a dict of name -> numpy array (``ml_dtypes`` among them). Nothing in it is changed.
        options: precision, device, and whether the spectrum of the shuffled elements is taken as well.

    Raises:
        UnreadableError: the file or directory as a whole cannot be read, or there is no tensor in it.
        InputError: the object is none of these, or holds weights that are neither torch tensors nor numpy arrays.
    """
    kept: dict[str, Measurement] = {}
    with _opened(model) as opened:
        return _measurement(opened, _found(opened, None, kept, options), kept)


def compare_models(
    new: Model,
    baseline: Model,
    *,
    delta: bool = False,
    relation: Relation | str | None = None,
    parents: Mapping[str, Model] | None = None,
    merge_base: Model | None = None,
    recipe: MergeRecipe | None = None,
    options: MeasureOptions = DEFAULT,
) -> ModelComparison:
    """Measure two models, compare them layer by layer, and judge the new one by the default rules.

    Layers are matched by name and compared element by element, as ``layerwatch gate`` does. Layers without a
    counterpart are listed for both sides.

    Args:
        new, baseline: as in :func:`measure_model`; they may differ in form.
        delta: also take the spectrum of the difference of each layer that kept its shape but not its bytes.
        relation: what was done to the baseline (``quantized``, ``merged``, ...), which decides how much change is
            expected; None to have it recognised.
        parents: the models that the new one was merged from, by a name for messages, in the order of the recipe's
            weights; the base is not among them.
        merge_base: the model that the parents were made from, for merges that add up differences.
        recipe: how they were merged, as far as it is known.
        options: as in :func:`measure_model`.

    Raises:
        UnreadableError, InputError: as :func:`measure_model`, for any of the models.
        ValueError: an unknown relation, or not one weight of the recipe for each parent.
    """
    kept: dict[str, Measurement] = {}
    with _opened(baseline) as before, _opened(new) as after:
        old = _found(before, None, kept, options)
        found = _found(after, before, kept, options)
        deltas = _deltas(after, before, found, old, options) if delta else None
        measured, measured_before = _measurement(after, found, kept), _measurement(before, old, kept)
    declared = None if relation is None else Relation(relation)
    examination = replace(
        examine(found.content, old.content, kept.get, found.exact),
        relation=declared,
        merge=_merge(measured, parents, merge_base, recipe, options) if parents else None,
    )
    judgement = judge(examination, RulesSettings())
    held_against = BaselinePart(
        **measured_before.report.model.model_dump(), relation=declared, chosen_by="compare_models"
    )
    return _comparison(
        measured,
        measured_before,
        examination,
        judgement,
        build_report(measured.report.model, held_against, examination, judgement, measured.skipped, {}),
        deltas,
    )


def _merge(
    merged: ModelMeasurement,
    parents: Mapping[str, Model],
    base: Model | None,
    recipe: MergeRecipe | None,
    options: MeasureOptions,
) -> MergeEvidence:
    return merge_evidence(
        merged.sketches(),
        [
            MergeParent(name, measure_model(model, options=options).sketches())
            for name, model in parents.items()
        ],
        None if base is None else MergeParent("base", measure_model(base, options=options).sketches()),
        recipe,
    )


@dataclass(frozen=True, slots=True)
class _Opened:
    name: str
    source: str
    model: OpenModel


@dataclass(frozen=True, slots=True)
class _Found:
    """What measuring one model gave, in the order in which it was measured."""

    layers: tuple[MeasuredLayer, ...]
    content: FoundContent
    exact: dict[str, AlignedChange]


@contextmanager
def _opened(model: Model) -> Iterator[_Opened]:
    if model == "":
        # Path("") would be the current folder; an empty text is most likely a variable that is not set.
        raise InputError(InputReason.NOT_A_MODEL, "the path is empty; give a file or a directory")
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        absolute = path.absolute()
        name, source = absolute.name if path.is_dir() else absolute.stem, str(path)
        opened = open_layers(path)
    else:
        reader = MemoryReader(model)
        name = source = reader.name
        arranged = ArrangedReader(UnpackedReader(reader, source), source, _config(model))
        opened = OpenModel(arranged, source)
    try:
        yield _Opened(name, source, opened)
    finally:
        opened.close()


def _config(model: object) -> Mapping[str, Any] | None:
    """What a module of transformers says about itself, as its ``config.json`` would."""
    to_dict = getattr(getattr(model, "config", None), "to_dict", None)
    config = to_dict() if isinstance(model, torch.nn.Module) and callable(to_dict) else None
    return config if isinstance(config, Mapping) else None


def _found(
    opened: _Opened, baseline: _Opened | None, kept: dict[str, Measurement], options: MeasureOptions
) -> _Found:
    """Measure what is not in ``kept`` yet, and add it there by digest."""
    layers = []
    other = baseline.model if baseline else None
    for measured in measure_layers(opened.model, kept.__contains__, other, options):
        if measured.measurement is not None:
            kept[measured.measurement.digest] = measured.measurement
        layers.append(measured)
    entries = (*map(entry_of, layers), *map(unexamined_entry, opened.model.plan.unexamined))
    exact = {one.layer.name: one.exact for one in layers if one.exact is not None}
    couplings, problem = couplings_or_problem(opened.model)
    if problem is not None:
        _LOGGER.warning("%s: %s; the layers are judged one by one", opened.source, problem)
    return _Found(
        tuple(layers), FoundContent(entries, couplings=couplings, remarks=opened.model.remarks()), exact
    )


def _measurement(opened: _Opened, found: _Found, kept: Mapping[str, Measurement]) -> ModelMeasurement:
    plan = opened.model.plan
    examination = examine(found.content, None, kept.get, {})
    part = ModelPart(
        source=opened.source,
        name=opened.name,
        version=opened.name,
        fingerprint=None,
        format=opened.model.format,
        size_bytes=None,
    )
    layers = [(one.layer.has_spectrum, _layer(one, kept)) for one in found.layers]
    return ModelMeasurement(
        name=opened.name,
        format=opened.model.format,
        layers=tuple(layer for has_spectrum, layer in layers if has_spectrum),
        vectors=tuple(layer for has_spectrum, layer in layers if not has_spectrum),
        skipped=plan.skipped,
        unexamined=plan.unexamined,
        report=build_report(part, None, examination, judge(examination, RulesSettings()), plan.skipped, {}),
    )


def _layer(measured: MeasuredLayer, kept: Mapping[str, Measurement]) -> LayerMeasurement:
    layer = measured.layer
    return LayerMeasurement(
        name=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        dtype=layer.dtype,
        digest=measured.digest,
        measurement=kept[measured.digest] if measured.digest else None,
        problem=measured.problem,
    )


def _deltas(
    after: _Opened, before: _Opened, found: _Found, old: _Found, options: MeasureOptions
) -> dict[str, DeltaNumbers]:
    """Numbers of the difference of every changed layer of unchanged shape, one pair in memory at a time."""
    digests = {measured.layer.name: measured.digest for measured in old.layers}
    deltas = {}
    for measured in found.layers:
        layer, digest, digest0 = measured.layer, measured.digest, digests.get(measured.layer.name)
        counterpart = before.model.layer_named(layer.name)
        if not digest or not digest0 or digest == digest0 or counterpart is None or not layer.has_spectrum:
            continue
        if layer.shape != counterpart.shape:
            continue
        # Both were read and solved once already; where that fails now, there is no difference to tell of.
        with suppress(UnreadableError, np.linalg.LinAlgError, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            values = after.model.read(layer).values(), before.model.read(counterpart).values()
            deltas[layer.name] = delta_numbers(*values, layer.kind, layer.dtype, options=options)
        after.model.release()
        before.model.release()
    return deltas


def _comparison(
    new: ModelMeasurement,
    baseline: ModelMeasurement,
    examination: Examination,
    judgement: Judgement,
    report: Report,
    deltas: Mapping[str, DeltaNumbers] | None,
) -> ModelComparison:
    newer = {one.name: one for one in (*new.layers, *new.vectors)}
    older = {one.name: one for one in (*baseline.layers, *baseline.vectors)}
    findings: dict[str, list[Finding]] = {}
    for finding in judgement.findings:
        findings.setdefault(finding.layer or "", []).append(finding)

    def compared(examined: Sequence[ExaminedLayer]) -> tuple[LayerComparison, ...]:
        return tuple(
            LayerComparison(
                name=one.name,
                kind=one.kind,
                shape=one.shape,
                dtype=one.dtype,
                status=judgement.statuses[one.name],
                findings=tuple(findings.get(one.name, ())),
                new=newer[one.name],
                baseline=older.get(one.name),
                change=one.change,
                problem=one.problem,
                delta=deltas.get(one.name) if deltas else None,
            )
            for one in examined
            if one.name in newer
        )

    return ModelComparison(
        new=new,
        baseline=baseline,
        layers=compared(examination.layers),
        vectors=compared(examination.vectors),
        only_in_new=tuple(one for name, one in newer.items() if name not in older),
        only_in_baseline=tuple(one for name, one in older.items() if name not in newer),
        judgement=judgement,
        report=report,
        with_delta=deltas is not None,
    )
