"""Gauges about models, rendered from one immutable snapshot.

There is no ``Gauge.set`` for anything about a layer: a snapshot is the whole truth, so a removed layer or model
is gone at the next scrape without bookkeeping. Each ref is rendered by itself, so that a change of one model does not
render the others again; `join` puts the parts together. A series cannot occur twice: refs are unique by their key, and
of layers of one name in one ref the first is taken.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from layerwatch.metrics import names
from layerwatch.metrics.expertsummary import ExpertsSample, summarise_experts
from layerwatch.metrics.exported import LayerSample, RefSample
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
EXPERT_QUANTILES = (0.0, 0.5, 0.95, 1.0)

MAX_LABEL_LENGTH = 200
"""Longer label values are cut there, and end in a hash of the whole so that they stay apart."""

_LAYER_GAUGES = (
    (names.LAYER_ALPHA, "alpha"),
    (names.LAYER_ALPHA_SIGMA, "alpha_sigma"),
    (names.LAYER_ALPHA_BASELINE, "alpha_baseline"),
    (names.LAYER_LOG_NORM, "log_norm"),
    (names.LAYER_LOG_SPECTRAL_NORM, "log_spectral_norm"),
    (names.LAYER_STABLE_RANK, "stable_rank"),
)

SERIES_PER_LAYER = len(_LAYER_GAUGES) + 1
_SERIES_PER_GROUP = len(EXPERT_QUANTILES) + len(LayerStatus)

_FAMILY = re.compile(rb"^(?=# HELP )", re.MULTILINE)
"""Where a family begins; none of its other lines begins so, because line breaks in labels are escaped."""


@dataclass(frozen=True, slots=True)
class RenderedRef:
    """The gauges of one ref.

    Attributes:
        families: lines by family, all families, in the order in which they are exported.
        series: how many lines there are.
    """

    families: Mapping[bytes, bytes]
    series: int


def render_ref(sample: RefSample, max_series: int) -> RenderedRef:
    """The gauges of one ref.

    Args:
        max_series: layers beyond this many series are left out, the least conspicuous first, and counted in
            ``layerwatch_series_dropped``.
    """
    families = dict(_families(_RefCollector(sample, max_series)))
    return RenderedRef(families, sum(lines.count(b"\n") for lines in families.values()))


def join(rendered: Sequence[RenderedRef]) -> bytes:
    """The snapshot in Prometheus' text format 0.0.4; OpenMetrics 1.0 but for its last line.

    Args:
        rendered: refs that are unique in (registry, model, ref).
    """
    return b"".join(
        head + b"".join(one.families[head] for one in rendered) for head, _ in _families(_NoCollector())
    )


def render(samples: Sequence[RefSample], max_series_per_model: int) -> bytes:
    """The snapshot of some refs at once: `render_ref` of each, joined."""
    return join([render_ref(sample, max_series_per_model) for sample in samples])


class _Collects(Protocol):
    def collect(self) -> Iterator[Metric]:
        """Metric families."""


def _families(collector: _Collects) -> Iterator[tuple[bytes, bytes]]:
    """Head (the lines HELP and TYPE) and lines of each family."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    for part in _FAMILY.split(generate_latest(registry))[1:]:
        help_line, type_line, lines = part.split(b"\n", 2)
        yield help_line + b"\n" + type_line + b"\n", lines


class _Families:
    """The families, empty."""

    def __init__(self) -> None:
        self.layers = [GaugeMetricFamily(*name, labels=names.LAYER_LABELS) for name, _ in _LAYER_GAUGES]
        self.status = GaugeMetricFamily(*names.LAYER_STATUS, labels=names.LAYER_LABELS)
        # The label "quantile" is reserved for summaries; this one is over the experts at one moment.
        self.experts_alpha = Metric(*names.EXPERTS_ALPHA, "summary")
        self.experts = GaugeMetricFamily(*names.EXPERTS, labels=(*names.LAYER_LABELS, "status"))
        self.by_status = GaugeMetricFamily(*names.MODEL_LAYERS, labels=(*names.REF_LABELS, "status"))
        self.alpha = Metric(*names.MODEL_ALPHA, "summary")
        self.verdict = GaugeMetricFamily(*names.MODEL_VERDICT, labels=names.REF_LABELS)
        self.accepted = GaugeMetricFamily(*names.MODEL_ACCEPTED, labels=names.REF_LABELS)
        self.judged = GaugeMetricFamily(*names.MODEL_JUDGED, labels=names.REF_LABELS)
        self.info = GaugeMetricFamily(
            *names.MODEL_INFO, labels=(*names.REF_LABELS, "version", "fingerprint", "baseline", "relation")
        )
        self.report = GaugeMetricFamily(*names.MODEL_REPORT, labels=(*names.REF_LABELS, "url"))
        self.dropped = GaugeMetricFamily(*names.SERIES_DROPPED, labels=names.REF_LABELS)

    def __iter__(self) -> Iterator[Metric]:
        yield from self.layers
        yield from (self.status, self.experts_alpha, self.experts, self.by_status, self.alpha, self.verdict)
        yield from (self.accepted, self.judged, self.info, self.report, self.dropped)


class _NoCollector:
    def collect(self) -> Iterator[Metric]:
        """The families without a sample."""
        yield from _Families()


class _RefCollector:
    def __init__(self, sample: RefSample, max_series: int) -> None:
        self._sample = sample
        self._max_series = max(0, max_series)

    def collect(self) -> Iterator[Metric]:
        """The families of one ref, each complete."""
        sample = self._sample
        key = [_label(sample.registry), _label(sample.model), _label(sample.ref)]
        families = _Families()
        own, groups = summarise_experts(sample.layers)
        layers, told = _within(self._max_series, _unique(own), groups)
        for family, (_, attribute) in zip(families.layers, _LAYER_GAUGES, strict=True):
            for layer in layers:
                value = getattr(layer, attribute)
                if value is not None:
                    family.add_metric([*key, _label(layer.name)], value)
        for layer in layers:
            families.status.add_metric([*key, _label(layer.name)], STATUS_VALUES[layer.status])
        for group in told:
            _add_group(families, key, group)
        counts = Counter(layer.status for layer in sample.layers)
        for one in LayerStatus:
            families.by_status.add_metric([*key, str(one)], counts[one])
        alphas = [layer.alpha for layer in sample.layers if layer.alpha is not None]
        _add_quantiles(families.alpha, dict(zip(names.REF_LABELS, key, strict=True)), alphas, ALPHA_QUANTILES)
        families.verdict.add_metric(key, VERDICT_VALUES[sample.verdict])
        families.accepted.add_metric(key, int(sample.accepted))
        families.judged.add_metric(key, sample.judged_at)
        details = (sample.version, sample.fingerprint, sample.baseline, sample.relation)
        families.info.add_metric([*key, *map(_label, details)], 1)
        if sample.report_url is not None:
            # Not cut: half an address leads nowhere.
            families.report.add_metric([*key, sample.report_url], 1)
        dropped = (len(own) - len(layers)) * SERIES_PER_LAYER + (len(groups) - len(told)) * _SERIES_PER_GROUP
        families.dropped.add_metric(key, dropped)
        yield from families


def _add_group(families: _Families, key: Sequence[str], group: ExpertsSample) -> None:
    name = _label(group.name)
    labels = dict(zip(names.LAYER_LABELS, [*key, name], strict=True))
    _add_quantiles(families.experts_alpha, labels, group.alphas, EXPERT_QUANTILES)
    counts = Counter(group.statuses)
    for status in LayerStatus:
        families.experts.add_metric([*key, name, str(status)], counts[status])


def _add_quantiles(
    family: Metric, labels: Mapping[str, str], values: Sequence[float], shares: Sequence[float]
) -> None:
    if values:
        for share, value in zip(shares, np.quantile(values, shares), strict=True):
            family.add_sample(family.name, {**labels, "quantile": f"{share:g}"}, float(value))


def _label(value: str) -> str:
    if len(value) <= MAX_LABEL_LENGTH:
        return value
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{value[:MAX_LABEL_LENGTH]}~{digest[:12]}"


def _unique(layers: Sequence[LayerSample]) -> tuple[LayerSample, ...]:
    return tuple({_label(layer.name): layer for layer in reversed(layers)}.values())[::-1]


def _within(
    limit: int, layers: Sequence[LayerSample], groups: Sequence[ExpertsSample]
) -> tuple[tuple[LayerSample, ...], tuple[ExpertsSample, ...]]:
    """What is exported of so many series at most, in the given order: the most conspicuous.

    At equal status a layer goes before a group of experts: of the group there are layers of their own where it matters.
    """
    ranked: list[tuple[int, int, int, LayerSample | ExpertsSample]] = [
        *((-STATUS_VALUES[one.status], 0, place, one) for place, one in enumerate(layers)),
        *(
            (-max(map(STATUS_VALUES.__getitem__, one.statuses)), 1, place, one)
            for place, one in enumerate(groups)
        ),
    ]
    kept: set[str] = set()
    told: set[str] = set()
    for *_, one in sorted(ranked, key=lambda entry: entry[:3]):
        limit -= SERIES_PER_LAYER if isinstance(one, LayerSample) else _SERIES_PER_GROUP
        if limit < 0:
            break
        (kept if isinstance(one, LayerSample) else told).add(one.name)
    return tuple(one for one in layers if one.name in kept), tuple(one for one in groups if one.name in told)
