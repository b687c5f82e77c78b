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
from layerwatch.alerts.people import EntryError
from layerwatch.alerts.silences import Silence, ending, new_silence, shown
from layerwatch.alerts.text import plain
from layerwatch.config.matchers import Matcher
from layerwatch.config.settings import Settings
from layerwatch.daemon.silencing import check_labels, firing_that_match, silenced
from layerwatch.daemon.store import alertnames, silences
from layerwatch.daemon.store.acknowledging import acknowledge, unacknowledge
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason

_LOGGER = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Decisions:
    """Silences and acknowledgements of one daemon. Who may decide is for its callers to check.

    Every method that changes something raises EntryError for what cannot be taken, and StoreError.

    Attributes:
        settings: gives the configuration in force.
        muted: gives why alerts were not told when that was last decided.
        changed: called when what is told may be another now.
        clock: tells the time.
    """

    database: Database
    settings: Callable[[], Settings]
    muted: Callable[[], Mapping[AlertIdentity, str]]
    changed: Callable[[], None]
    clock: Callable[[], datetime] = _now

    def why_muted(self, connection: Connection, states: Sequence[AlertState]) -> dict[AlertIdentity, str]:
        """Why each of these alerts is not told now, in words; those that are told, or do not fire, are left out."""
        firing = [state for state in states if state.phase is AlertPhase.FIRING]
        others = self.muted()
        found = {state.identity: others[state.identity] for state in firing if state.identity in others}
        # A silence counts at once, whenever it is next decided what is told.
        return found | silenced(connection, firing, self.settings().alerts.owners, self.clock())

    def silence(
        self,
        matchers: Sequence[Matcher],
        author: str,
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
        new = new_silence(matchers, author, reason, now, ends_at, starts_at)
        with self.database.write() as connection:
            silence = silences.add(connection, new, now)
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

    def expire(self, silence_id: int, by: str) -> Silence:
        """End a silence."""
        with self.database.write() as connection:
            silence = silences.expire(connection, silence_id, by, self.clock())
        self.changed()
        _LOGGER.info("silence %d ended by %s", silence.id, plain(by, 100))
        return silence

    def acknowledge(self, name: str, by: str, reason: str) -> AlertState:
        """Keep who looks after an alert, called by its id or the beginning of it."""
        with self.database.write() as connection:
            identity = alertnames.by_id(connection, name).identity
            state = acknowledge(connection, identity, by, reason, self.clock())
        self.changed()
        _LOGGER.info("%s acknowledged by %s: %s", _named(state), plain(by, 100), plain(reason, 200))
        return state

    def unacknowledge(self, name: str) -> AlertState:
        """Take an acknowledgement back."""
        with self.database.write() as connection:
            state = unacknowledge(connection, alertnames.by_id(connection, name).identity)
        self.changed()
        _LOGGER.info("%s is no longer acknowledged", _named(state))
        return state


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
