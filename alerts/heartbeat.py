"""Signs of life in time: one thread for each heartbeat receiver, so that a slow service delays no other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge

from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.receivers.heartbeat import HeartbeatReceiver
from layerwatch.alerts.retry import next_delay

_LOGGER = logging.getLogger(__name__)


class HeartbeatTelemetry:
    """Counters of signs of life, registered on the registry given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._sent = Counter(
            "layerwatch_heartbeats_total",
            "Signs of life that the service took, by receiver.",
            ["receiver"],
            registry=registry,
        )
        self._failures = Counter(
            "layerwatch_heartbeat_failures_total",
            "Signs of life that failed, by receiver and reason.",
            ["receiver", "reason"],
            registry=registry,
        )
        self._last = Gauge(
            "layerwatch_heartbeat_last_success_timestamp_seconds",
            "When the service took the last sign of life of a healthy daemon, by receiver; 0 before the first.",
            ["receiver"],
            registry=registry,
        )

    def init_for(self, receiver: str) -> None:
        """Make every series exist; those that exist keep their value."""
        self._sent.labels(receiver)
        self._last.labels(receiver)
        for reason in DeliveryReason:
            self._failures.labels(receiver, reason.value)

    def forget(self, receiver: str) -> None:
        """The receiver is gone; a time of last success that stays would raise an alarm."""
        self._last.remove(receiver)

    def sent(self, receiver: str, now: datetime, *, healthy: bool) -> None:
        """The service took it."""
        self._sent.labels(receiver).inc()
        if healthy:
            self._last.labels(receiver).set(now.timestamp())

    def failed(self, receiver: str, reason: DeliveryReason) -> None:
        """The service did not take it, or may not have."""
        self._failures.labels(receiver, reason.value).inc()


@dataclass
class _Pulse:
    receiver: HeartbeatReceiver
    ended: threading.Event = field(default_factory=threading.Event)
    failures: int = 0
    was_healthy: bool = True
    trouble: str | None = None


class Pulses:
    """Gives signs of life to heartbeat receivers while the daemon is healthy.

    The first comes one interval after the start and not at once: a daemon that dies and is started again and again
    must not look alive.

    Args:
        healthy: whether the daemon does what it is there for; called from several threads.
        telemetry: counts.
        clock: tz-aware time now.
    """

    def __init__(
        self, healthy: Callable[[], bool], telemetry: HeartbeatTelemetry, clock: Callable[[], datetime]
    ) -> None:
        self._healthy = healthy
        self._telemetry = telemetry
        self._clock = clock
        self._pulses: Mapping[str, _Pulse] = {}

    def follow(self, receivers: Sequence[HeartbeatReceiver]) -> None:
        """From now on these receivers, and no others, are given signs of life. Call at start and after a reload.

        A receiver whose settings did not change goes on undisturbed. Called from one thread at a time.
        """
        before = dict(self._pulses)
        after = {}
        for receiver in receivers:
            known = before.get(receiver.name)
            if known is not None and known.receiver == receiver:
                after[receiver.name] = before.pop(receiver.name)
            else:
                after[receiver.name] = _Pulse(receiver)
        for name, pulse in before.items():
            pulse.ended.set()
            if name not in after:
                self._telemetry.forget(name)
        started = [pulse for name, pulse in after.items() if self._pulses.get(name) is not pulse]
        self._pulses = after
        for pulse in started:
            self._telemetry.init_for(pulse.receiver.name)
            threading.Thread(
                target=self._run,
                args=(pulse,),
                name=f"layerwatch-heartbeat-{pulse.receiver.name}",
                daemon=True,
            ).start()

    def troubles(self) -> dict[str, str]:
        """Receiver -> why its last sign of life was not taken; those that took it are left out."""
        return {name: pulse.trouble for name, pulse in self._pulses.items() if pulse.trouble is not None}

    def stop(self) -> None:
        """No more signs of life. One that is under way may still arrive."""
        self.follow(())

    def _run(self, pulse: _Pulse) -> None:
        wait = pulse.receiver.every
        while not pulse.ended.wait(wait.total_seconds()):
            try:
                wait = self._beat(pulse)
            except Exception:
                _LOGGER.exception("unexpected error in heartbeat %s; please report it", pulse.receiver.name)
                wait = pulse.receiver.every

    def _beat(self, pulse: _Pulse) -> timedelta:
        """One sign of life; returns the wait until the next."""
        receiver, healthy = pulse.receiver, self._healthy()
        if healthy is not pulse.was_healthy:
            pulse.was_healthy = healthy
            _LOGGER.warning(
                "heartbeat %s: %s",
                receiver.name,
                "the daemon is healthy again"
                if healthy
                else "the daemon is late; "
                + ("saying so" if receiver.report_failure else "silent until it is not"),
            )
        if not healthy and not receiver.report_failure:
            return receiver.every
        now = self._clock()
        try:
            receiver.beat(healthy, now)
        except DeliveryError as error:
            return self._after_failure(pulse, error)
        pulse.failures, pulse.trouble = 0, None
        if not pulse.ended.is_set():
            self._telemetry.sent(receiver.name, now, healthy=healthy)
        return receiver.every

    def _after_failure(self, pulse: _Pulse, error: DeliveryError) -> timedelta:
        receiver = pulse.receiver
        pulse.failures += 1
        self._telemetry.failed(receiver.name, error.reason)
        if str(error) != pulse.trouble:
            _LOGGER.warning("heartbeat %s was not taken: %s", receiver.name, error)
            pulse.trouble = str(error)
        return wait_after_failure(receiver, pulse.failures, error)


def wait_after_failure(receiver: HeartbeatReceiver, failures: int, error: DeliveryError) -> timedelta:
    """How long to wait before the next sign of life after ``failures`` failed ones in a row, the last with ``error``.

    Sooner than it would be due anyway, where that can help: one lost packet must not cost a whole interval, or a seldom
    heartbeat raises the alarm for nothing.
    """
    if not error.retryable:
        return receiver.every
    delay = next_delay(receiver.name, failures, error.retry_after)
    return delay if error.retry_after is not None else min(delay, receiver.every)
