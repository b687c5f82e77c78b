"""What people decide over HTTP, by the API and by the page alike: each is one transaction, and logged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fastapi import HTTPException
from sqlalchemy import Connection

from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import AlertIdentity, AlertPhase, AlertState
from layerwatch.alerts.people import EntryError, checked_name, checked_reason
from layerwatch.alerts.silences import Silence, ending, new_silence, shown
from layerwatch.alerts.text import plain
from layerwatch.config.composites import COMPOSITES
from layerwatch.config.matchers import Matcher
from layerwatch.config.settings import Settings
from layerwatch.daemon.auditing import (
    note_acknowledgement,
    note_baseline,
    note_end_of_silence,
    note_replay,
    note_rescan,
    note_silence,
)
from layerwatch.daemon.silencing import check_labels, firing_that_match, silenced
from layerwatch.daemon.store import alertnames, alerts, baselines, outbox, silences, versions
from layerwatch.daemon.store.acknowledging import acknowledge, unacknowledge
from layerwatch.daemon.store.auditlog import Actor
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import BaselineRecord, VersionRecord

_LOGGER = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


def _nothing(*_: object) -> None:
    """Nobody needs to know."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What people may do with one daemon. Who may decide is for its callers to check.

    Every method that changes something keeps an entry of the audit log with it, and raises EntryError for what cannot be
    taken, and StoreError.

    Attributes:
        settings: gives the configuration in force.
        muted: gives why alerts were not told when that was last decided.
        changed: called when what is told may be another now.
        clock: tells the time.
        follow: brings the alerts of a version up to date, in the transaction that accepts it.
        accepted: called when a version was accepted: what is shown of it is another.
        queued: called when a version waits for a scan.
    """

    database: Database
    settings: Callable[[], Settings]
    muted: Callable[[], Mapping[AlertIdentity, str]]
    changed: Callable[[], None]
    clock: Callable[[], datetime] = _now
    follow: Callable[[Connection, VersionRecord, datetime], None] = _nothing
    accepted: Callable[[], None] = _nothing
    queued: Callable[[], None] = _nothing

    def why_muted(self, connection: Connection, states: Sequence[AlertState]) -> dict[AlertIdentity, str]:
        """Why each of these alerts is not told now, in words; those that are told, or do not fire, are left out."""
        firing = [state for state in states if state.phase is AlertPhase.FIRING]
        others = self.muted()
        found = {state.identity: others[state.identity] for state in firing if state.identity in others}
        # A silence counts at once, whenever it is next decided what is told.
        return found | silenced(connection, firing, self.settings().alerts.owners, self.clock())

    def silence(
        self,
        actor: Actor,
        matchers: Sequence[Matcher],
        reason: str,
        starts_at: datetime | None,
        ends_at: datetime | None,
        duration: timedelta | None,
    ) -> tuple[Silence, list[AlertState]]:
        """Keep a silence; with it the alerts that fire now and that it is about.

        Args:
            ends_at, duration: one of both; the duration counts from the start.
        """
        now = self.clock()
        if (ends_at is None) == (duration is None):
            raise EntryError("ends_at", "must be given, or duration, and not both")
        if ends_at is None:
            assert duration is not None
            ends_at = ending(starts_at or now, duration)
        check_labels(matchers, self.settings().alerts.owners)
        new = new_silence(matchers, actor.name, reason, now, ends_at, starts_at)
        with self.database.write() as connection:
            silence = silences.add(connection, new, now)
            note_silence(connection, actor, silence, now)
        with self.database.read() as connection:
            held = firing_that_match(connection, new.matchers, self.settings().alerts.owners)
        self.changed()
        _LOGGER.info(
            "silence %d of %s until %s, by %s: %s",
            silence.id,
            ", ".join(map(shown, silence.matchers)),
            silence.ends_at.isoformat(timespec="minutes"),
            plain(silence.author, 100),
            plain(silence.reason, 200),
        )
        return silence, held

    def expire(self, actor: Actor, silence_id: int) -> Silence:
        """End a silence."""
        now = self.clock()
        with self.database.write() as connection:
            silence = silences.expire(connection, silence_id, actor.name, now)
            note_end_of_silence(connection, actor, silence, now)
        self.changed()
        _LOGGER.info("silence %d ended by %s", silence.id, plain(actor.name, 100))
        return silence

    def acknowledge(self, actor: Actor, name: str, reason: str) -> AlertState:
        """Keep who looks after an alert, called by its id or the beginning of it."""
        now = self.clock()
        with self.database.write() as connection:
            identity = alertnames.by_id(connection, name).identity
            state = acknowledge(connection, identity, actor.name, reason, now)
            note_acknowledgement(connection, actor, state, now)
        self.changed()
        _LOGGER.info("%s acknowledged by %s: %s", _named(state), plain(actor.name, 100), plain(reason, 200))
        return state

    def unacknowledge(self, actor: Actor, name: str) -> AlertState:
        """Take an acknowledgement back."""
        checked_name(actor.name, "by")
        with self.database.write() as connection:
            state = unacknowledge(connection, alertnames.by_id(connection, name).identity)
            note_acknowledgement(connection, actor, state, self.clock())
        self.changed()
        _LOGGER.info("%s is no longer acknowledged, says %s", _named(state), plain(actor.name, 100))
        return state

    def accept(self, actor: Actor, version_id: int, reason: str) -> tuple[BaselineRecord, list[AlertState]]:
        """Call a version normal: it is the model's baseline, and its alerts about weights end, which are given too."""
        by, reason, now = checked_name(actor.name, "by"), checked_reason(reason), self.clock()
        with self.database.write() as connection:
            version = _current(connection, version_id)
            key = version.key
            firing = alerts.list_states(connection, AlertPhase.FIRING, key.registry, key.model)
            record = baselines.accept(connection, key.registry, key.model, key.version, by, reason, now)
            self.follow(connection, version, now)
            ended = [state for state in firing if _is_over(connection, state)]
            note_baseline(connection, actor, record, now, ended)
        _LOGGER.info("%s accepted by %s: %s", _of(version), plain(by, 100), plain(reason, 200))
        self._show_anew()
        return record, ended

    def rescan(self, actor: Actor, version_id: int, reason: str) -> VersionRecord:
        """Have a version examined and judged again; until then its verdict stays."""
        by, reason, now = checked_name(actor.name, "by"), checked_reason(reason), self.clock()
        with self.database.write() as connection:
            version = _current(connection, version_id)
            if self.is_composite(version):
                detail = "a composite is never scanned: its verdict is that of its members; rescan those"
                raise StoreError(StoreReason.WRONG_STATE, detail)
            versions.reopen(connection, version_id)
            note_rescan(connection, actor, version, reason, now)
        _LOGGER.info("%s is scanned again for %s: %s", _of(version), plain(by, 100), plain(reason, 200))
        self.queued()
        return version

    def replay(self, actor: Actor, delivery_id: int) -> None:
        """Send an event again that was given up."""
        checked_name(actor.name, "by")
        now = self.clock()
        with self.database.write() as connection:
            outbox.replay(connection, delivery_id, now)
            note_replay(connection, actor, f"event {delivery_id}", 1, now)

    def is_composite(self, version: VersionRecord) -> bool:
        """Whether a version is a set of versions of other models."""
        is_registry = any(one.name == COMPOSITES for one in self.settings().registries)
        return version.key.registry == COMPOSITES and not is_registry

    def _show_anew(self) -> None:
        try:
            self.accepted()
        except StoreError as error:
            # It is done all the same, and a loop of the daemon makes good for it.
            _LOGGER.warning("what follows from an acceptance is shown later: %s", error)


def status_of(error: StoreError) -> int:
    """The HTTP status of what the store refuses about one record; an error of the store as a whole is raised again."""
    if error.reason is StoreReason.NOT_FOUND:
        return 404
    if error.reason in (StoreReason.WRONG_STATE, StoreReason.DAMAGED_RECORD):
        return 409
    raise error


def refused(error: EntryError | StoreError) -> HTTPException:
    """The API's answer; an error of the store as a whole is raised again."""
    if isinstance(error, EntryError):
        return HTTPException(422, str(error))
    return HTTPException(status_of(error), error.detail)


def _named(state: AlertState) -> str:
    identity = state.identity
    name = plain(f"{identity.registry}/{identity.model} {identity.ref}", 300)
    return f"{alert_id(identity, state.episode)} ({name})"


def _of(version: VersionRecord) -> str:
    key = version.key
    return plain(f"{key.registry}/{key.model}/{key.version}", 300)


def _is_over(connection: Connection, before: AlertState) -> bool:
    state = alerts.load_state(connection, before.identity)
    return state is not None and state.phase is AlertPhase.RESOLVED


def _current(connection: Connection, version_id: int) -> VersionRecord:
    """The row with this number; raises StoreError where it does not stand for what the registry has now."""
    version = versions.get_without_report(connection, version_id)
    if version is None:
        raise StoreError(StoreReason.NOT_FOUND, f"no version has the number {version_id}")
    if not version.current:
        detail = "other bytes were published under this name since; look at those first"
        raise StoreError(StoreReason.WRONG_STATE, detail)
    return version
