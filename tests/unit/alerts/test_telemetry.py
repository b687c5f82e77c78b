"""Counters of deliveries, and gauges of what waits and fires."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.telemetry import ALERT_STATES, AlertTelemetry


def test_every_counter_exists_at_zero_before_anything_happened() -> None:
    registry = CollectorRegistry()
    AlertTelemetry(registry).init_for(["oncall", "log"])

    for receiver in ("oncall", "log"):
        assert registry.get_sample_value("layerwatch_notifications_total", {"receiver": receiver}) == 0
        assert (
            registry.get_sample_value("layerwatch_notifications_given_up_total", {"receiver": receiver}) == 0
        )
        assert registry.get_sample_value("layerwatch_receiver_disabled", {"receiver": receiver}) == 0
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


def test_a_disabled_receiver_is_one_until_it_is_asked_again_and_a_reload_alone_does_not_change_that() -> None:
    registry = CollectorRegistry()
    telemetry = AlertTelemetry(registry)
    shown = []
    telemetry.disabled("oncall", True)
    telemetry.init_for(["oncall"])
    shown.append(registry.get_sample_value("layerwatch_receiver_disabled", {"receiver": "oncall"}))
    telemetry.disabled("oncall", False)
    shown.append(registry.get_sample_value("layerwatch_receiver_disabled", {"receiver": "oncall"}))

    assert shown == [1, 0]


def test_what_waits_is_told_by_receiver() -> None:
    registry = CollectorRegistry()
    AlertTelemetry(registry).waits({"oncall": 7, "log": 0})

    assert registry.get_sample_value("layerwatch_outbox_waiting", {"receiver": "oncall"}) == 7
    assert registry.get_sample_value("layerwatch_outbox_waiting", {"receiver": "log"}) == 0


def test_alerts_are_told_by_state_and_a_state_without_any_is_zero() -> None:
    registry = CollectorRegistry()
    telemetry = AlertTelemetry(registry)

    def shown() -> dict[str, float | None]:
        return {
            state: registry.get_sample_value("layerwatch_alerts", {"state": state}) for state in ALERT_STATES
        }

    assert shown() == {"pending": 0, "firing": 0, "muted": 0, "acknowledged": 0}
    telemetry.shows({"firing": 3, "muted": 1})
    assert shown() == {"pending": 0, "firing": 3, "muted": 1, "acknowledged": 0}
    telemetry.shows({"pending": 2})
    assert shown() == {"pending": 2, "firing": 0, "muted": 0, "acknowledged": 0}


def test_the_sum_of_a_state_is_not_split_by_names_that_strangers_chose() -> None:
    """Models and layers are no labels here: their number has no limit."""
    registry = CollectorRegistry()
    telemetry = AlertTelemetry(registry)
    telemetry.init_for(["oncall"])
    telemetry.waits({"oncall": 1})

    labels = {label for family in registry.collect() for sample in family.samples for label in sample.labels}
    assert labels == {"receiver", "reason", "state"}


def test_only_one_may_count_on_a_registry() -> None:
    registry = CollectorRegistry()
    AlertTelemetry(registry)

    with pytest.raises(ValueError, match="Duplicated timeseries"):
        AlertTelemetry(registry)
