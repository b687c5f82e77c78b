"""The daemon's own metrics: names, help texts and the objects that count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from layerwatch import __version__
from layerwatch.daemon.health import Heartbeats
from layerwatch.daemon.registries.base import RegistryReason
from layerwatch.daemon.registries.hooks import HookReason
from layerwatch.metrics.errors import UnreadableReason
from layerwatch.metrics.measurement import METRIC_SET
from layerwatch.metrics.rules import RULE_SET

HOOK_RESULTS = ("accepted", "ignored", *(reason.value for reason in HookReason))
"""What may become of an event."""

_SCAN_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
_CYCLE_BUCKETS = (0.1, 1, 10, 60, 600)


class OptionalGauge(Collector):
    """A gauge that is absent at times.

    Attributes:
        value: None when it is.
    """

    def __init__(self, name: str, documentation: str) -> None:
        self._name = name
        self._documentation = documentation
        self.value: float | None = None

    def collect(self) -> Iterator[Metric]:
        """The family, with one sample or none."""
        yield GaugeMetricFamily(self._name, self._documentation, value=self.value)


class LoopCollector(Collector):
    """When each loop was last known to be alive, and for how long it may be silent."""

    def __init__(self, heartbeats: Heartbeats) -> None:
        self._heartbeats = heartbeats

    def collect(self) -> Iterator[Metric]:
        """Two families, one sample per loop."""
        beats = GaugeMetricFamily(
            "layerwatch_loop_last_beat_timestamp_seconds",
            "When the loop was last known to be alive.",
            labels=["loop"],
        )
        limits = GaugeMetricFamily(
            "layerwatch_loop_limit_seconds",
            "The loop is stuck when it is silent for longer.",
            labels=["loop"],
        )
        for beat in self._heartbeats.beats():
            beats.add_metric([beat.loop], beat.last.timestamp())
            limits.add_metric([beat.loop], beat.limit.total_seconds())
        yield from (beats, limits)


class DaemonTelemetry:
    """Counters and gauges about the daemon itself, on a registry of their own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        ProcessCollector(registry=registry)
        build = Info(
            "layerwatch_build", "Version of layerwatch and of its metric and rule sets.", registry=registry
        )
        build.info({"version": __version__, "metric_set": METRIC_SET, "rule_set": RULE_SET})
        self.scans = Counter("layerwatch_scans_total", "Scans begun.", registry=registry)
        self.scan_failures = Counter(
            "layerwatch_scan_failures_total",
            "Scans that could not examine the version as a whole, by reason.",
            ["reason"],
            registry=registry,
        )
        self.scan_duration = Histogram(
            "layerwatch_scan_duration_seconds",
            "Time from claiming a version to its verdict.",
            buckets=_SCAN_BUCKETS,
            registry=registry,
        )
        self.last_success = Gauge(
            "layerwatch_last_success_timestamp_seconds",
            "When the registry was last listed without error.",
            ["registry"],
            registry=registry,
        )
        self.registry_up = Gauge(
            "layerwatch_registry_up",
            "1 when the registry could be listed at the last attempt, else 0.",
            ["registry"],
            registry=registry,
        )
        self.registry_misconfigured = Gauge(
            "layerwatch_registry_misconfigured",
            "1 when only a person can mend what keeps the registry from being listed (rights, certificates), else 0.",
            ["registry"],
            registry=registry,
        )
        self.hook_events = Counter(
            "layerwatch_hook_events_total",
            "Events sent to the registry's hook, by result: accepted, ignored, or why they were refused.",
            ["registry", "result"],
            registry=registry,
        )
        self.verdict_write_failures = Counter(
            "layerwatch_verdict_write_failures_total",
            "Verdicts that could not be written back to the registry; they are tried again.",
            ["registry", "reason"],
            registry=registry,
        )
        self.poll_interval = Gauge(
            "layerwatch_registry_poll_interval_seconds",
            "Configured time between two looks at the registry.",
            ["registry"],
            registry=registry,
        )
        self.content_changes = Counter(
            "layerwatch_content_changes_total",
            "Versions that were examined again because their bytes changed under an unchanged name.",
            ["registry"],
            registry=registry,
        )
        self.registry_failures = Counter(
            "layerwatch_registry_failures_total",
            "Attempts to list the registry, or to hash a known version of it again, that failed, by reason.",
            ["registry", "reason"],
            registry=registry,
        )
        self.queue = Gauge(
            "layerwatch_scan_queue_length", "Versions waiting for their scan.", registry=registry
        )
        self.queue_oldest = OptionalGauge(
            "layerwatch_scan_queue_oldest_timestamp_seconds",
            "When the version that waits longest for its scan was found; absent when none waits.",
        )
        registry.register(self.queue_oldest)
        self.outbox_oldest_age = Gauge(
            "layerwatch_outbox_oldest_age_seconds",
            "Age of the oldest event that is neither delivered nor given up, 0 when there is none.",
            registry=registry,
        )
        self.config_reload_ok = Gauge(
            "layerwatch_config_last_reload_successful",
            "1 when the last attempt to load the configuration succeeded, else 0.",
            registry=registry,
        )
        self.config_reload_time = Gauge(
            "layerwatch_config_last_reload_success_timestamp_seconds",
            "When the configuration was last loaded.",
            registry=registry,
        )
        self.cycle_errors = Counter(
            "layerwatch_cycle_errors_total",
            "Unexpected errors in a loop; each is a bug and is logged with its traceback.",
            ["loop"],
            registry=registry,
        )
        self.cycle_duration = Histogram(
            "layerwatch_cycle_duration_seconds",
            "Time that one turn of a loop took.",
            ["loop"],
            buckets=_CYCLE_BUCKETS,
            registry=registry,
        )
        self.exposition_series = Gauge(
            "layerwatch_exposition_series", "Series about models that are exported.", registry=registry
        )
        self.exposition_bytes = Gauge(
            "layerwatch_exposition_bytes",
            "Size of the gauges about models, not compressed.",
            registry=registry,
        )
        self.exposition_render_seconds = Gauge(
            "layerwatch_exposition_render_seconds",
            "Time that the last rendering of the gauges about models took.",
            registry=registry,
        )
        for reason in UnreadableReason:
            self.scan_failures.labels(reason.value)

    def init_for(self, registries: Iterable[str], loops: Iterable[str]) -> None:
        """Make every labelled counter exist at zero, so that rates on them work from the first day."""
        for name in registries:
            self.registry_up.labels(name)
            self.registry_misconfigured.labels(name)
            self.last_success.labels(name)
            self.content_changes.labels(name)
            for reason in RegistryReason:
                self.registry_failures.labels(name, reason.value)
                self.verdict_write_failures.labels(name, reason.value)
            for result in HOOK_RESULTS:
                self.hook_events.labels(name, result)
        for loop in loops:
            self.cycle_errors.labels(loop)

    def forget_registry(self, name: str) -> None:
        """Drop the series of a registry that a reload removed."""
        self.registry_up.remove(name)
        self.registry_misconfigured.remove(name)
        self.last_success.remove(name)
        self.poll_interval.remove(name)
        self.content_changes.remove(name)
        for reason in RegistryReason:
            self.registry_failures.remove(name, reason.value)
            self.verdict_write_failures.remove(name, reason.value)
        for result in HOOK_RESULTS:
            self.hook_events.remove(name, result)
