"""Gauges about models, rendered from one immutable snapshot.

There is no ``Gauge.set`` for anything about a layer: a snapshot is the whole truth, so a removed layer or model
is gone at the next scrape without bookkeeping.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from layerwatch.metrics import names
from layerwatch.metrics.findings import LayerStatus, Verdict

STATUS_VALUES = {
    LayerStatus.OK: 0,
    LayerStatus.INFO: 1,
    LayerStatus.SUSPECT: 2,
    LayerStatus.BROKEN: 3,
    LayerStatus.UNDECIDED: 4,
}
VERDICT_VALUES = {Verdict.PASS: 0, Verdict.WARN: 1, Verdict.FAIL: 2, Verdict.UNDECIDED: 3}
ALPHA_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)

MAX_LABEL_LENGTH = 200
"""Longer label values are cut there, and end in a hash of the whole so that they stay apart."""


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
    """What is exported of the version that a ref points at."""

    registry: str
    model: str
    ref: str
    version: str
    fingerprint: str
    verdict: Verdict
    baseline: str
    relation: str
    layers: tuple[LayerSample, ...]


_LAYER_GAUGES = (
    (names.LAYER_ALPHA, "alpha"),
    (names.LAYER_ALPHA_SIGMA, "alpha_sigma"),
    (names.LAYER_ALPHA_BASELINE, "alpha_baseline"),
    (names.LAYER_LOG_NORM, "log_norm"),
    (names.LAYER_LOG_SPECTRAL_NORM, "log_spectral_norm"),
    (names.LAYER_STABLE_RANK, "stable_rank"),
)

SERIES_PER_LAYER = len(_LAYER_GAUGES) + 1


def render(samples: Sequence[RefSample], max_series_per_model: int) -> bytes:
    """The snapshot in Prometheus' text format 0.0.4.

    Args:
        samples: one per (registry, model, ref); must be unique in that key.
        max_series_per_model: layers beyond this many series are left out, the least conspicuous first, and
            counted in ``layerwatch_series_dropped``.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(samples, max_series_per_model))
    return generate_latest(registry)


class _SnapshotCollector:
    def __init__(self, samples: Sequence[RefSample], max_series_per_model: int) -> None:
        self._samples = samples
        self._max_layers = max(0, max_series_per_model // SERIES_PER_LAYER)

    def collect(self) -> Iterator[Metric]:
        """The families of the snapshot, each complete."""
        kept = [(sample, _kept_layers(sample.layers, self._max_layers)) for sample in self._samples]
        for name, attribute in _LAYER_GAUGES:
            family = GaugeMetricFamily(*name, labels=names.LAYER_LABELS)
            for sample, layers in kept:
                for layer in layers:
                    value = getattr(layer, attribute)
                    if value is not None:
                        family.add_metric([*_ref_key(sample), _label(layer.name)], value)
            yield family
        status = GaugeMetricFamily(*names.LAYER_STATUS, labels=names.LAYER_LABELS)
        by_status = GaugeMetricFamily(*names.MODEL_LAYERS, labels=(*names.REF_LABELS, "status"))
        # The label "quantile" is reserved for summaries; this one is over the layers at one moment.
        quantiles = Metric(*names.MODEL_ALPHA, "summary")
        verdict = GaugeMetricFamily(*names.MODEL_VERDICT, labels=names.REF_LABELS)
        info = GaugeMetricFamily(
            *names.MODEL_INFO, labels=(*names.REF_LABELS, "version", "fingerprint", "baseline", "relation")
        )
        dropped = GaugeMetricFamily(*names.SERIES_DROPPED, labels=names.REF_LABELS)
        for sample, layers in kept:
            key = _ref_key(sample)
            for layer in layers:
                status.add_metric([*key, _label(layer.name)], STATUS_VALUES[layer.status])
            counts = Counter(layer.status for layer in sample.layers)
            for one in LayerStatus:
                by_status.add_metric([*key, str(one)], counts[one])
            alphas = [layer.alpha for layer in sample.layers if layer.alpha is not None]
            if alphas:
                for share, value in zip(ALPHA_QUANTILES, np.quantile(alphas, ALPHA_QUANTILES), strict=True):
                    labels = dict(zip(names.REF_LABELS, key, strict=True), quantile=f"{share:g}")
                    quantiles.add_sample(quantiles.name, labels, float(value))
            verdict.add_metric(key, VERDICT_VALUES[sample.verdict])
            details = (sample.version, sample.fingerprint, sample.baseline, sample.relation)
            info.add_metric([*key, *map(_label, details)], 1)
            dropped.add_metric(key, (len(sample.layers) - len(layers)) * SERIES_PER_LAYER)
        yield from (status, by_status, quantiles, verdict, info, dropped)


def _ref_key(sample: RefSample) -> list[str]:
    return [_label(sample.registry), _label(sample.model), _label(sample.ref)]


def _label(value: str) -> str:
    if len(value) <= MAX_LABEL_LENGTH:
        return value
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{value[:MAX_LABEL_LENGTH]}~{digest[:12]}"


def _kept_layers(layers: tuple[LayerSample, ...], limit: int) -> tuple[LayerSample, ...]:
    if len(layers) <= limit:
        return layers
    ranked = sorted(range(len(layers)), key=lambda index: (-STATUS_VALUES[layers[index].status], index))
    return tuple(layers[index] for index in sorted(ranked[:limit]))
