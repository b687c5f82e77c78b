"""What measuring and comparing models in a notebook gives: frozen values that show themselves."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from layerwatch.metrics.change import Change
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.estimate import LayerSketch, layer_sketches
from layerwatch.metrics.examination import Problem
from layerwatch.metrics.findings import Finding, LayerStatus, Severity, Verdict
from layerwatch.metrics.judge import Judgement
from layerwatch.metrics.layers import Skipped
from layerwatch.metrics.measurement import FitStatus, LayerKind, Measurement
from layerwatch.metrics.report import LayerMetrics, Report, metrics_of
from layerwatch.metrics.shown import Shown, shown_number, shown_shape, shown_text
from layerwatch.metrics.tensors import UnexaminedFile

if TYPE_CHECKING:
    import pandas as pd

    from layerwatch.metrics.delta import DeltaNumbers


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class LayerMeasurement:
    """One layer or vector of a model.

    Attributes:
        name: the tensor's name without a trailing ``.weight``.
        kind: what it is.
        shape, dtype: as stored; dtype in safetensors spelling (``F32``, ``BF16``, ``I8`` ...).
        digest: sha256 over everything that the measurement depends on; None when it could not be examined.
        measurement: everything that was measured, spectra included; None when it could not be examined.
        problem: why not, or None.
    """

    name: str
    kind: LayerKind
    shape: tuple[int, ...]
    dtype: str
    digest: str | None
    measurement: Measurement | None
    problem: UnreadableError | None

    @property
    def metrics(self) -> LayerMetrics:
        """The numbers as in the report of ``layerwatch scan``; None where undefined, all None without measurement."""
        return metrics_of(self.measurement)

    def __repr__(self) -> str:
        return f"LayerMeasurement({self.name!r}, {_what(self)}: {_essence(self)})"


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class LayerComparison:
    """One layer or vector of the new model beside its baseline.

    Attributes:
        name, kind, shape, dtype: of the new model's layer.
        status: judgement by the default rules.
        findings: what the rules have to say about the layer, most specific first.
        new: what was measured.
        baseline: the layer of the same name in the baseline, or None.
        change: comparison of the two, element by element where shapes agree; None without a baseline, or where
            either cannot be examined or holds non-finite numbers.
        problem: why new and baseline could not be compared, or None.
        delta: spectral numbers of the difference of the raw weights, where they were asked for and the layer kept
            its shape but not its bytes; else None.
    """

    name: str
    kind: LayerKind
    shape: tuple[int, ...]
    dtype: str
    status: LayerStatus
    findings: tuple[Finding, ...]
    new: LayerMeasurement
    baseline: LayerMeasurement | None
    change: Change | None
    problem: Problem | None
    delta: DeltaNumbers | None = None

    def __repr__(self) -> str:
        return f"LayerComparison({self.name!r}, {_what(self)}: {self.status}, {_essence_of_change(self)})"


_Layer = TypeVar("_Layer", LayerMeasurement, LayerComparison)


class _LayersByName(Mapping[str, _Layer]):
    """What both results are: a mapping from the names of their layers, shown as a table."""

    __slots__ = ()

    layers: tuple[_Layer, ...]
    vectors: tuple[_Layer, ...]

    @abstractmethod
    def _shown(self) -> Shown:
        """The table."""

    def __getitem__(self, name: str) -> _Layer:
        for layer in self.layers:
            if layer.name == name:
                return layer
        if any(vector.name == name for vector in self.vectors):
            raise KeyError(f"{name!r} is a vector and has no spectrum: it is in .vectors")
        known = list(self)
        near = get_close_matches(name.removesuffix(".weight"), known, n=3, cutoff=0.5) or known[:3]
        others = f" and {len(known) - len(near)} more" if len(known) > len(near) else ""
        raise KeyError(f"no layer {name!r}; there is {', '.join(map(repr, near)) or 'none at all'}{others}")

    def __iter__(self) -> Iterator[str]:
        return (layer.name for layer in self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        return self._shown().text()

    def _repr_html_(self) -> str:
        return self._shown().html()


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class ModelMeasurement(_LayersByName[LayerMeasurement]):
    """Every layer of one model; a mapping from the names of :attr:`layers`.

    Attributes:
        name: of the file, directory or class.
        format: ``safetensors``, ``pytorch``, both joined by ``+``, or ``memory``.
        layers: tensors with a spectrum, in the order of the model, those that could not be examined among them.
        vectors: biases, gains and statistics: checked for non-finite numbers, without a spectrum.
        skipped: every tensor without a spectrum, with the reason; also what is there and is no part of the model.
        unexamined: files (or lazy parameters) that may hold weights and could not be examined.
        report: what ``layerwatch scan`` says about the model: verdict, findings and every number.
    """

    name: str
    format: str
    layers: tuple[LayerMeasurement, ...]
    vectors: tuple[LayerMeasurement, ...]
    skipped: tuple[Skipped, ...]
    unexamined: tuple[UnexaminedFile, ...]
    report: Report

    @property
    def verdict(self) -> Verdict:
        """Judgement by the default rules that need no baseline."""
        return self.report.verdict

    @property
    def problems(self) -> tuple[LayerMeasurement, ...]:
        """Layers and vectors that could not be examined."""
        return tuple(one for one in (*self.layers, *self.vectors) if one.problem is not None)

    def sketches(self) -> dict[str, LayerSketch]:
        """The sketch of every layer that has one, by name: what ``nearest_parent`` and ``model_recipe`` take.

        16 KiB a layer, twice that where a batch norm is folded in, to be kept where the weights cannot be.
        """
        return layer_sketches(
            {one.name: one.measurement for one in self.layers if one.measurement is not None}
        )

    def frame(self) -> pd.DataFrame:
        """One row per layer, columns as in the report (``frames.py``). Needs pandas."""
        from layerwatch.metrics.frames import measurement_frame

        return measurement_frame(self)

    def weightwatcher_frame(self) -> pd.DataFrame:
        """One row per layer, columns and conventions of WeightWatcher (``weightwatcher.py``). Needs pandas."""
        from layerwatch.metrics.weightwatcher import weightwatcher_frame

        return weightwatcher_frame(self)

    def _shown(self) -> Shown:
        return Shown(
            title=f"ModelMeasurement {shown_text(self.name)}: {_counted(self)}, verdict {self.verdict}",
            notes=(
                *_findings(self.report.findings),
                *(f"NOT EXAMINED {shown_text(one.name)}: {one.detail}" for one in self.unexamined),
            ),
            columns=("layer", "kind", "shape", "dtype", "alpha", "log_norm", "stable_rank", ""),
            rows=tuple(
                (
                    *(layer.name, str(layer.kind), shown_shape(layer.shape), layer.dtype),
                    *(_alpha(layer.metrics), shown_number(layer.metrics.log_norm)),
                    *(shown_number(layer.metrics.stable_rank), _remark(layer)),
                )
                for layer in self.layers
            ),
            always=frozenset(i for i, layer in enumerate(self.layers) if _is_in_trouble(layer)),
        )


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class ModelComparison(_LayersByName[LayerComparison]):
    """Every layer of a new model beside a baseline, judged; a mapping from the names of :attr:`layers`.

    Attributes:
        new, baseline: the two models.
        layers: layers with a spectrum of the new model, in its order; those without a baseline among them.
        vectors: its biases, gains and statistics.
        only_in_new: layers and vectors that the baseline lacks.
        only_in_baseline: layers and vectors that the new model lacks.
        judgement: verdict, findings, statuses, blind spots and what was normal, by the default rules.
        report: the same as ``layerwatch gate`` prints it.
        with_delta: whether numbers of the differences were asked for.
    """

    new: ModelMeasurement
    baseline: ModelMeasurement
    layers: tuple[LayerComparison, ...]
    vectors: tuple[LayerComparison, ...]
    only_in_new: tuple[LayerMeasurement, ...]
    only_in_baseline: tuple[LayerMeasurement, ...]
    judgement: Judgement
    report: Report
    with_delta: bool

    @property
    def verdict(self) -> Verdict:
        """pass, warn, fail or undecided."""
        return self.judgement.verdict

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Violations of rules, worst first."""
        return self.judgement.findings

    def frame(self) -> pd.DataFrame:
        """One row per layer of either model, columns as in the report (``frames.py``). Needs pandas."""
        from layerwatch.metrics.frames import comparison_frame

        return comparison_frame(self)

    def _shown(self) -> Shown:
        names = f"{shown_text(self.new.name)} against {shown_text(self.baseline.name)}"
        return Shown(
            title=f"ModelComparison {names}: {_counted(self)}, verdict {self.verdict}",
            notes=(
                *_findings(self.report.findings),
                *_unmatched("the new model", self.only_in_new),
                *_unmatched("the baseline", self.only_in_baseline),
            ),
            columns=("layer", "kind", "shape", "status", "rel. change", "cosine", "norm ratio", "alpha", ""),
            rows=tuple(_change_row(layer) for layer in self.layers),
            always=frozenset(
                i
                for i, layer in enumerate(self.layers)
                if layer.status is not LayerStatus.OK or layer.problem is not None
            ),
        )


def _what(layer: LayerMeasurement | LayerComparison) -> str:
    return f"{layer.kind} {shown_shape(layer.shape)} {shown_text(layer.dtype)}"


def _essence(layer: LayerMeasurement) -> str:
    metrics = layer.metrics
    if layer.problem is not None or metrics.non_finite or layer.measurement is None:
        return _remark(layer)
    if layer.measurement.numbers is None:
        return f"max_abs {shown_number(metrics.max_abs)}"
    return (
        f"alpha {_alpha(metrics)} ({metrics.fit_status}), log_norm {shown_number(metrics.log_norm)}, "
        f"stable_rank {shown_number(metrics.stable_rank)}"
    )


def _essence_of_change(layer: LayerComparison) -> str:
    if layer.problem is not None:
        return f"NOT COMPARED: {shown_text(layer.problem.detail)}"
    if layer.baseline is None:
        return "only in the new model"
    if layer.change is None:
        return _remark(layer.new) or "not compared"
    aligned = layer.change.aligned
    if aligned is None:
        return f"was {shown_shape(layer.baseline.shape)}" if layer.shape != layer.baseline.shape else "vector"
    return f"relative change {shown_number(aligned.relative_change)} ({aligned.method})"


def _change_row(layer: LayerComparison) -> tuple[str, ...]:
    change, aligned = layer.change, layer.change.aligned if layer.change else None
    plain = aligned is not None and layer.problem is None
    return (
        *(layer.name, str(layer.kind), shown_shape(layer.shape), str(layer.status)),
        shown_number(aligned.relative_change if aligned else None),
        shown_number(aligned.cosine if aligned else None),
        shown_number(change.norm_ratio if change else None),
        _alpha(layer.new.metrics),
        "" if plain else _essence_of_change(layer),
    )


def _is_in_trouble(layer: LayerMeasurement) -> bool:
    return layer.problem is not None or bool(layer.metrics.non_finite)


def _remark(layer: LayerMeasurement) -> str:
    if layer.problem is not None:
        return f"NOT EXAMINED: {layer.problem.reason}: {shown_text(layer.problem.detail)}"
    metrics = layer.metrics
    if metrics.non_finite:
        return f"{metrics.non_finite} NaN or infinite: no spectrum"
    return "" if metrics.fit_status in (FitStatus.OK, None) else f"{metrics.fit_status}"


def _alpha(metrics: LayerMetrics) -> str:
    if metrics.alpha is None:
        return "-"
    sigma = "" if metrics.alpha_sigma is None else f" ± {metrics.alpha_sigma:.2f}"
    return f"{metrics.alpha:.2f}{sigma}"


def _counted(model: ModelMeasurement | ModelComparison) -> str:
    layers, vectors = len(model.layers), len(model.vectors)
    return f"{layers} layer{'s' * (layers != 1)}, {vectors} vector{'s' * (vectors != 1)}"


def _findings(findings: tuple[Any, ...]) -> Iterator[str]:
    for finding in findings:
        if finding.severity != Severity.INFO:
            where = f" {shown_text(finding.layer)}" if finding.layer else ""
            yield f"{finding.severity} {finding.rule}{where}: {shown_text(finding.message)}"


def _unmatched(where: str, layers: tuple[LayerMeasurement, ...]) -> Iterator[str]:
    if layers:
        named = ", ".join(shown_text(layer.name) for layer in layers[:5])
        more = f" and {len(layers) - 5} more" if len(layers) > 5 else ""
        yield f"only in {where}: {named}{more}"
