"""The report of one examined version, schema version 1: what ``--format json`` prints and the daemon keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from layerwatch import __version__
from layerwatch.metrics.architecture.roles import Role, role_of
from layerwatch.metrics.blindspots import files_not_examined
from layerwatch.metrics.change import Change
from layerwatch.metrics.examination import Examination, ExaminedLayer
from layerwatch.metrics.findings import EvidenceValue, Finding, LayerStatus, Verdict
from layerwatch.metrics.judge import STATUS_OF_SEVERITY, Judgement
from layerwatch.metrics.layers import Skipped
from layerwatch.metrics.measurement import METRIC_SET, FitStatus, Measurement, SpectralNumbers
from layerwatch.metrics.recognition import recognised_relation
from layerwatch.metrics.rules import RULE_SET

_OF_SPECTRUM = frozenset(field.name for field in fields(SpectralNumbers))


def _without_surrogates(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


ForeignText = Annotated[str, BeforeValidator(_without_surrogates)]
"""File names may hold bytes that are no UTF-8 (surrogates in Python); JSON has no place for those."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class ModelPart(_Part):
    """Which bytes were examined."""

    source: ForeignText
    name: ForeignText
    version: ForeignText
    fingerprint: str | None
    format: str | None
    size_bytes: int | None


class BaselinePart(ModelPart):
    """Which bytes they were held against, how the two relate, and why this baseline was chosen.

    ``relation`` is the declared one; ``looks_like`` what the numbers look like where none is declared, ``because`` why.
    """

    relation: str | None
    chosen_by: str
    looks_like: str | None = None
    because: str | None = None


class SuppressionPart(_Part):
    """That an entry of an ignore file took a finding out of the gate's decision: why, and through which day (UTC)."""

    reason: ForeignText
    expires: str


class FindingPart(_Part):
    """One violation of one rule.

    ``strength``: signal over limit for rules that weigh how far a number moved, 1 or more, and for all rules what findings
    are ranked by; null in reports of versions that did not say it. ``new``: whether the baseline by itself lacks it; null
    where that was not asked. ``suppressed``: set where an ignore file took it out of the gate's decision.
    """

    rule: str
    severity: str
    layer: ForeignText | None
    message: ForeignText
    evidence: dict[str, EvidenceValue]
    strength: float | None = None
    new: bool | None = None
    suppressed: SuppressionPart | None = None


class DiagnosisPart(_Part):
    """What is wrong with one layer, or with the version (layer null): its type of defect is a rule's name.

    ``layers``: how many layers and vectors share a defect of the version; 1 for one layer, 0 where none is named.
    """

    layer: ForeignText | None
    severity: str
    defect: str
    title: str
    likely_cause: str
    what_to_do: str
    confirmed_by: tuple[str, ...]
    layers: int = 1


class LayerMetrics(_Part):
    """Numbers of the raw layer; definitions in ``metrics/spectra.py``. None means undefined."""

    alpha: float | None = None
    alpha_sigma: float | None = None
    ks_distance: float | None = None
    xmin: float | None = None
    tail_size: int | None = None
    fit_status: str | None = None
    num_eigenvalues: int | None = None
    alpha_hat: float | None = None
    log_norm: float | None = None
    log_spectral_norm: float | None = None
    log_alpha_norm: float | None = None
    stable_rank: float | None = None
    entropy: float | None = None
    effective_rank: float | None = None
    rank_loss: int | None = None
    mp_bulk_edge: float | None = None
    mp_softrank: float | None = None
    num_spikes: int | None = None
    small_end_share: float | None = None
    erg_tail: int | None = None
    erg_gap: int | None = None
    hill_alpha: float | None = None
    exponential_ratio: float | None = None
    exponential_p: float | None = None
    truncated_ratio: float | None = None
    truncated_p: float | None = None
    farms_alpha: float | None = None
    traps: int | None = None
    largest_trap: float | None = None
    kurtosis: float | None = None
    max_abs: float | None = None
    zero_share: float | None = None
    non_finite: int | None = None


class ChangePart(_Part):
    """Numbers against the baseline's layer of the same name; ratios are new over baseline, folded.

    ``relative_change_error`` is a share of ``relative_change``, ``cosine_error`` is in units of the cosine; both are
    0 where nothing was estimated.
    """

    method: str | None
    relative_change: float | None
    relative_change_error: float | None
    cosine: float | None
    cosine_error: float | None
    norm_ratio: float | None
    spectral_ratio: float | None
    stable_rank_ratio: float | None
    effective_rank_ratio: float | None
    max_abs_ratio: float | None
    esd_distance: float | None
    alpha_baseline: float | None
    alpha_shift: float | None
    alpha_shift_sigmas: float | None
    new_zero_rows: int
    new_zero_columns: int


class LayerPart(_Part):
    """One layer with a spectrum. ``role`` is what it does in its network, by its name (``architecture/roles.py``)."""

    name: ForeignText
    kind: str
    role: str = Role.OTHER
    shape: tuple[int, ...]
    dtype: ForeignText
    status: LayerStatus
    metrics: LayerMetrics
    change: ChangePart | None


class SkippedPart(_Part):
    """A tensor that has no spectrum by nature, or training state or a copy beside the weights."""

    name: ForeignText
    reason: ForeignText


class IgnoreEntryPart(_Part):
    """One entry of an ignore file; ``line`` is where it begins, layer and model are patterns, null for any."""

    rule: str
    layer: ForeignText | None
    model: ForeignText | None
    reason: ForeignText
    expires: str
    line: int | None


class GatePart(_Part):
    """What ``layerwatch gate`` was asked, and what it answered.

    ``exit_code``: 0 pass, 1 findings, 3 something was not examined. ``expired``, ``stale`` and ``expiring``: entries of
    the ignore file that are about this model and need a person: no longer in force, matching nothing, in force for a few
    more days.
    """

    fail_on: Literal["warning", "critical"]
    fail_new: bool
    allow_undecided: bool
    exit_code: Literal[0, 1, 3]
    ignore_file: ForeignText | None
    ignore_file_sha256: str | None
    expired: tuple[IgnoreEntryPart, ...]
    stale: tuple[IgnoreEntryPart, ...]
    expiring: tuple[IgnoreEntryPart, ...]


class ToolPart(_Part):
    """What produced the report."""

    version: str
    metric_set: str
    rule_set: str


class Report(_Part):
    """The whole report.

    ``complete``: whether everything that had to be examined was, whatever the verdict; null in reports of versions that
    did not say so. ``gate``: only in reports of ``layerwatch gate``.
    """

    schema_version: Literal[1] = 1
    model: ModelPart
    baseline: BaselinePart | None
    verdict: Verdict
    regime: str
    diagnoses: tuple[DiagnosisPart, ...] = ()
    findings: tuple[FindingPart, ...]
    layers: tuple[LayerPart, ...]
    skipped: tuple[SkippedPart, ...]
    blind_spots: tuple[ForeignText, ...]
    timings: dict[str, float]
    tool: ToolPart
    complete: bool | None = None
    gate: GatePart | None = None

    def to_json(self, indent: int | None = None) -> str:
        """JSON text without NaN or Infinity."""
        return self.model_dump_json(indent=indent)


def build_report(
    model: ModelPart,
    baseline: BaselinePart | None,
    examination: Examination,
    judgement: Judgement,
    skipped: tuple[Skipped, ...],
    timings: Mapping[str, float],
) -> Report:
    """Join what is known about a version into its report."""
    if baseline is not None and baseline.relation is None:
        found = recognised_relation(examination, judgement.context)
        looks_like = str(found.relation) if found.relation is not None else None
        baseline = baseline.model_copy(update={"looks_like": looks_like, "because": found.why})
    return Report(
        model=model,
        baseline=baseline,
        verdict=judgement.verdict,
        regime=str(judgement.context.regime),
        diagnoses=tuple(DiagnosisPart(**asdict(one)) for one in judgement.diagnoses),
        findings=tuple(_finding_part(finding) for finding in judgement.findings),
        layers=_layer_parts(examination, judgement),
        skipped=tuple(SkippedPart(name=one.name, reason=one.reason) for one in skipped),
        blind_spots=(*judgement.blind_spots, *files_not_examined(skipped)),
        timings={name: round(seconds, 6) for name, seconds in timings.items()},
        tool=ToolPart(version=__version__, metric_set=METRIC_SET, rule_set=RULE_SET),
        complete=examination.is_complete,
    )


def _layer_parts(examination: Examination, judgement: Judgement) -> tuple[LayerPart, ...]:
    """Every layer with a spectrum; vectors and missing layers as far as something is to be said of them."""
    parts = [_layer_part(layer, judgement.statuses[layer.name]) for layer in examination.layers]
    for vector in examination.vectors:
        if judgement.statuses[vector.name] is not LayerStatus.OK:
            parts.append(_layer_part(vector, judgement.statuses[vector.name]))
    missing = {layer.name: layer.shape for layer in examination.missing}
    for finding in judgement.findings:
        if finding.layer in missing:
            parts.append(
                LayerPart(
                    name=finding.layer,
                    kind="missing",
                    shape=missing.pop(finding.layer),
                    dtype="",
                    status=STATUS_OF_SEVERITY[finding.severity],
                    metrics=LayerMetrics(),
                    change=None,
                )
            )
    return tuple(parts)


def _finding_part(finding: Finding) -> FindingPart:
    return FindingPart(
        rule=finding.rule,
        severity=str(finding.severity),
        layer=finding.layer,
        message=finding.message,
        evidence={name: _finite(value) for name, value in finding.evidence.items()},
        strength=_number(finding.strength),
    )


def metrics_of(measurement: Measurement | None) -> LayerMetrics:
    """The numbers that the report shows of a layer; all None without a measurement."""
    if measurement is None:
        return LayerMetrics()
    values: dict[str, Any] = {}
    for name in LayerMetrics.model_fields:
        source = measurement.numbers if name in _OF_SPECTRUM else measurement
        values[name] = None if source is None else _finite(getattr(source, name))
    status = measurement.numbers.fit_status if measurement.numbers else FitStatus.DEGENERATE
    return LayerMetrics(**{**values, "fit_status": str(status)})


def _layer_part(layer: ExaminedLayer, status: LayerStatus) -> LayerPart:
    return LayerPart(
        name=layer.name,
        kind=str(layer.kind),
        role=role_of(layer.name, layer.shape, layer.kind),
        shape=layer.shape,
        dtype=layer.dtype,
        status=status,
        metrics=metrics_of(layer.measurement),
        change=_change_part(layer, layer.change) if layer.change else None,
    )


def _change_part(layer: ExaminedLayer, change: Change) -> ChangePart:
    aligned = change.aligned
    baseline = layer.baseline.numbers if layer.baseline else None
    return ChangePart(
        method=str(aligned.method) if aligned else None,
        relative_change=_number(aligned.relative_change) if aligned else None,
        relative_change_error=aligned.error if aligned else None,
        cosine_error=aligned.cosine_error if aligned else None,
        cosine=_number(aligned.cosine) if aligned else None,
        norm_ratio=_number(change.norm_ratio),
        spectral_ratio=_number(change.spectral_ratio),
        stable_rank_ratio=_number(change.stable_rank_ratio),
        effective_rank_ratio=_number(change.effective_rank_ratio),
        max_abs_ratio=_number(change.max_abs_ratio),
        esd_distance=_number(change.esd_distance),
        alpha_baseline=_number(baseline.alpha) if baseline else None,
        alpha_shift=_number(change.alpha_shift),
        alpha_shift_sigmas=_number(change.alpha_shift_sigmas),
        new_zero_rows=change.new_zero_rows,
        new_zero_columns=change.new_zero_columns,
    )


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _finite(value: EvidenceValue) -> EvidenceValue:
    return None if isinstance(value, float) and not math.isfinite(value) else value
