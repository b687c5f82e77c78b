"""Takes the events that registries send: checked, counted, and turned into a look."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from layerwatch.config.settings import Settings
from layerwatch.daemon.registries.hooks import (
    BEARER_KINDS,
    Deliveries,
    HookEvent,
    HookRefused,
    verifier_of,
)
from layerwatch.daemon.seldom import Seldom
from layerwatch.daemon.telemetry import DaemonTelemetry

_LOGGER = logging.getLogger(__name__)


class HookTaking:
    """The registries' hooks of one daemon. Used by several threads.

    Args:
        settings: the configuration in force.
        look_now: asks for a look at a registry, by name.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        telemetry: DaemonTelemetry,
        clock: Callable[[], datetime],
        look_now: Callable[[str], object],
    ) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._clock = clock
        self._look_now = look_now
        self._deliveries: dict[str, Deliveries] = {}
        self._refusals = Seldom(timedelta(minutes=10))

    def take(self, registry: str, headers: Mapping[str, str], body: bytes) -> HookEvent | None:
        """Check an event that was sent to a registry's hook, and look where it is one.

        Args:
            headers: with lower-case names.

        Returns:
            The event; None when the registry has no secret of its own, and nothing was checked or done.

        Raises:
            HookRefused: it is not acted upon; counted.
            SecretError: the registry's secret cannot be read now.
            KeyError: there is no registry of this name.
        """
        in_force = self._settings()
        settings = next((one for one in in_force.registries if one.name == registry), None)
        if settings is None:
            raise KeyError(registry)
        secret = settings.hook_secret
        if secret is None and settings.kind in BEARER_KINDS and body:
            # Such senders tell of reading, too: who looks at each of these events never comes to an end.
            secret = in_force.server.token
        if secret is None:
            return None
        now = self._clock()
        results = self._telemetry.hook_events
        event = None
        try:
            event = verifier_of(settings.kind)(secret.reveal(), headers, body, now)
            if event.delivery_id is not None:
                self._deliveries.setdefault(registry, Deliveries()).require_new(event.delivery_id, now)
        except HookRefused as refused:
            results.labels(registry, refused.reason.value).inc()
            if event is not None and event.insistent:
                return replace(event, relevant=False)
            if self._refusals.is_news(f"{registry} {refused.reason}", now):
                _LOGGER.warning("hook of registry %s: %s; more of these are counted only", registry, refused)
            raise
        results.labels(registry, "accepted" if event.relevant else "ignored").inc()
        if event.relevant:
            self._look_now(registry)
        return event
