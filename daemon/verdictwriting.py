"""Verdicts back to the registry, beside the versions they are about."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from layerwatch.daemon.alerting import AlertPolicy
from layerwatch.daemon.manners import MISCONFIGURED_WAIT, Manners
from layerwatch.daemon.registries.base import Registry, RegistryReason, RegistryUnavailable, VerdictNote
from layerwatch.daemon.retirement import Retirement
from layerwatch.daemon.store import verdictnotes
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.daemon.telemetry import DaemonTelemetry

_LOGGER = logging.getLogger(__name__)

_NOTES_AT_A_TIME = 50
_MOST_PUT_OFF = 1000
_ALL_REFUSED = 3
"""So many refused notes, and none taken, concern the registry and not the versions."""

_OF_THE_REGISTRY = frozenset(
    {
        RegistryReason.UNREACHABLE,
        RegistryReason.SERVER_ERROR,
        RegistryReason.RATE_LIMITED,
        RegistryReason.CERTIFICATE,
        RegistryReason.NOT_INSTALLED,
    }
)
"""Reasons for which the next version would fail, too."""


class VerdictWriting:
    """Writes each verdict once. ``write`` is called from one thread at a time.

    Args:
        registry, database, policy, telemetry, clock, alive, manners: as for the watcher.
        retirement: after its begin nothing is written.
    """

    def __init__(
        self,
        registry: Registry,
        database: Database,
        policy: Callable[[], AlertPolicy],
        telemetry: DaemonTelemetry,
        clock: Callable[[], datetime],
        alive: Callable[[], None],
        manners: Manners,
        retirement: Retirement,
    ) -> None:
        self._registry = registry
        self._database = database
        self._policy = policy
        self._telemetry = telemetry
        self._clock = clock
        self._alive = alive
        # Also where looks cost nothing: what may not be written now may not be in a second either.
        self._manners = Manners(manners.poll or timedelta(seconds=10))
        self._retirement = retirement
        self._failures = 0
        self._not_before: datetime | None = None
        # Versions whose note was refused, by row, and when it is tried again.
        self._put_off: dict[int, datetime] = {}

    def ask_again(self) -> None:
        """Whatever made it fail may have been mended."""
        self._not_before = None
        self._put_off.clear()

    def write(self) -> str:
        """Write what the registry does not show yet, where that was asked for; a sentence for the log.

        What fails is tried again: all of it later where the registry is in trouble, else that version alone.
        """
        name = self._registry.name
        write = self._registry.verdict_writer
        now = self._clock()
        if write is None or (self._not_before is not None and now < self._not_before):
            return f"registry {name}: no verdicts written"
        self._put_off = {row: until for row, until in self._put_off.items() if until > now}
        with self._database.read() as connection:
            due = verdictnotes.due(connection, name, _NOTES_AT_A_TIME, sorted(self._put_off))
        written = refused = 0
        for version in due:
            if self._retirement.has_begun():
                break
            self._alive()
            try:
                write(version.source_path, self._note_of(version))
            except RegistryUnavailable as error:
                if error.reason is not RegistryReason.VERSION_GONE:
                    refused += 1
                    self._count(version, error)
                    if error.reason in _OF_THE_REGISTRY or (refused == _ALL_REFUSED and not written):
                        return self._wait(error, written)
                    continue
            with self._database.write() as connection:
                if self._retirement.has_begun():
                    break
                verdictnotes.save(connection, version, self._clock())
            written += 1
        self._failures, self._not_before = 0, None
        return f"registry {name}: {written} verdicts written" + (f", {refused} refused" if refused else "")

    def _note_of(self, version: VersionRecord) -> VerdictNote:
        base = self._policy().external_url
        report = f"{base.rstrip('/')}/api/v1/versions/{version.id}/report" if base else ""
        return VerdictNote(str(version.verdict), version.fingerprint, report)

    def _count(self, version: VersionRecord, error: RegistryUnavailable) -> None:
        counter = self._telemetry.verdict_write_failures.labels(self._registry.name, str(error.reason))
        self._retirement.unless_begun(counter.inc)
        if error.reason not in _OF_THE_REGISTRY and len(self._put_off) < _MOST_PUT_OFF:
            self._put_off[version.id] = self._clock() + MISCONFIGURED_WAIT
        if not self._failures:
            key = version.key
            _LOGGER.warning(
                "the verdict of %s/%s/%s cannot be written: %s", key.registry, key.model, key.version, error
            )

    def _wait(self, error: RegistryUnavailable, written: int) -> str:
        name = self._registry.name
        self._failures += 1
        self._not_before = self._clock() + self._manners.wait_after(error, self._failures, name)
        return f"registry {name}: {written} verdicts written; the next cannot be written: {error}"
