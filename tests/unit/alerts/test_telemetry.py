"""Counters of deliveries."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.telemetry import AlertTelemetry


def test_every_counter_exists_at_zero_before_anything_happened() -> None:
    registry = CollectorRegistry()
    AlertTelemetry(registry).init_for(["oncall", "log"])

    for receiver in ("oncall", "log"):
        assert registry.get_sample_value("layerwatch_notifications_total", {"receiver": receiver}) == 0
        assert (
            registry.get_sample_value("layerwatch_notifications_given_up_total", {"receiver": receiver}) == 0
        )
        for reason in DeliveryReason:
            labels = {"receiver": receiver, "reason": reason.value}
            assert registry.get_sample_value("layerwatch_notification_failures_total", labels) == 0


def test_a_reload_keeps_what_was_counted() -> None:
    registry = CollectorRegistry()
    telemetry = AlertTelemetry(registry)
    telemetry.attempted("oncall")
    telemetry.failed("oncall", DeliveryReason.TIMEOUT)
    telemetry.gave_up("oncall")
    telemetry.init_for(["oncall", "new"])

    text = generate_latest(registry).decode()
    assert 'layerwatch_notifications_total{receiver="oncall"} 1.0' in text
    assert 'layerwatch_notification_failures_total{reason="timeout",receiver="oncall"} 1.0' in text
    assert 'layerwatch_notifications_given_up_total{receiver="oncall"} 1.0' in text
    assert 'layerwatch_notifications_total{receiver="new"} 0.0' in text
