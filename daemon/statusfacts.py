"""How the daemon itself is: what only its process knows. No secrets; errors of registries name addresses and paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from layerwatch.config.receivers import HeartbeatReceiverSettings
from layerwatch.daemon.diary import Diary
from layerwatch.daemon.health import Beat
from layerwatch.daemon.live import settings_that_need_a_restart
from layerwatch.daemon.registries.base import RegistryReason
from layerwatch.daemon.setbacks import Setback

if TYPE_CHECKING:
    from layerwatch.daemon.app import App


@dataclass(frozen=True, slots=True)
class RegistryFacts:
    """One registry that is watched.

    Attributes:
        looked_at: when the last look began; None before the first.
        listed_at: when it was last listed without error; None while it never was.
        next_look: when it is looked at again; None while that is not planned.
        error_reason, error: why the last look failed, in the registry's words; both None when it did not.
        remarks: sentences about what was left out at the last look.
    """

    name: str
    kind: str
    poll: timedelta
    looked_at: datetime | None = None
    listed_at: datetime | None = None
    next_look: datetime | None = None
    error_reason: RegistryReason | None = None
    error: str | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiverFacts:
    """One receiver that is configured.

    Attributes:
        is_heartbeat: it is told that the daemon lives, and of no alert.
        is_disabled: it answered 410 and is asked no more until the configuration is loaded again.
        trouble: why the last sign of life was not taken; None where it was, and for other receivers.
    """

    name: str
    kind: str
    is_heartbeat: bool = False
    is_disabled: bool = False
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class ExpositionFacts:
    """The gauges about models, as they are exported."""

    series: int
    size_bytes: int
    render_seconds: float


@dataclass(frozen=True, slots=True)
class StatusFacts:
    """What the process knows of itself at one moment.

    Attributes:
        diary: a copy.
        restart_for: keys whose change since the start takes effect with the next.
        late: names of those of the loops that are silent for too long.
        setbacks: version row -> why the last attempt at it failed.
    """

    diary: Diary
    registries: tuple[RegistryFacts, ...]
    receivers: tuple[ReceiverFacts, ...]
    loops: tuple[Beat, ...]
    late: frozenset[str]
    exposition: ExpositionFacts
    restart_for: tuple[str, ...]
    setbacks: Mapping[int, Setback]


def facts_of(app: App) -> StatusFacts:
    """The facts of a running daemon; reads memory only."""
    live, diary = app.live, app.diary
    exposition = app.snapshot.exposition
    return StatusFacts(
        diary=replace(diary),
        registries=tuple(_registry(app, one.name, one.kind, one.poll) for one in live.settings.registries),
        receivers=tuple(_receivers(app)),
        loops=tuple(app.heartbeats.beats()),
        late=frozenset(one.loop for one in app.heartbeats.late()),
        exposition=ExpositionFacts(exposition.series, len(exposition.text), app.snapshot.render_seconds),
        restart_for=tuple(settings_that_need_a_restart(diary.started_with, live.settings)),
        setbacks=app.setbacks.known(),
    )


def _registry(app: App, name: str, kind: str, poll: timedelta) -> RegistryFacts:
    watcher = app.watchers.get(name)
    if watcher is None:
        return RegistryFacts(name, kind, poll)
    planned, waits_until = app.schedule.next_turn(f"watch:{name}"), watcher.waits_until
    next_look = planned if waits_until is None or planned is None else max(planned, waits_until)
    return RegistryFacts(
        name,
        kind,
        poll,
        watcher.looked_at,
        watcher.listed_at,
        next_look,
        watcher.last_reason,
        watcher.last_error,
        watcher.remarks,
    )


def _receivers(app: App) -> list[ReceiverFacts]:
    disabled, troubles = app.alert_loops.disabled(), app.alert_loops.heartbeat_troubles()
    return [
        ReceiverFacts(
            one.name,
            one.kind,
            isinstance(one, HeartbeatReceiverSettings),
            one.name in disabled,
            troubles.get(one.name),
        )
        for one in app.live.settings.alerts.receivers
    ]
