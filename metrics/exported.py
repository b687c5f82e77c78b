"""What is exported of a model and of a layer."""

from __future__ import annotations

from dataclasses import dataclass

from layerwatch.metrics.findings import LayerStatus, Verdict


@dataclass(frozen=True, slots=True)
class LayerSample:
    """What is exported of one layer; None leaves the gauge out."""

    name: str
    status: LayerStatus
    alpha: float | None
    alpha_sigma: float | None
    alpha_baseline: float | None
    log_norm: float | None
    log_spectral_norm: float | None
    stable_rank: float | None


@dataclass(frozen=True, slots=True)
class RefSample:
    """What is exported of the version that a ref points at.

    Attributes:
        judged_at: seconds since 1970.
        accepted: the version did not pass, and a person called it normal.
        report_url: where people find its report; None when no address of the daemon is configured.
    """

    registry: str
    model: str
    ref: str
    version: str
    fingerprint: str
    verdict: Verdict
    baseline: str
    relation: str
    layers: tuple[LayerSample, ...]
    judged_at: float
    accepted: bool = False
    report_url: str | None = None
