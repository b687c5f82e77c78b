"""Looks at one registry: registers new and changed versions, notices vanished ones, follows refs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection

from layerwatch.alerts.model import AlertPhase
from layerwatch.daemon.alerting import AlertPolicy, follow_refs
from layerwatch.daemon.manners import Manners
from layerwatch.daemon.registering import Registering
from layerwatch.daemon.registries.base import (
    Listing,
    Registry,
    RegistryReason,
    RegistryUnavailable,
)
from layerwatch.daemon.retirement import Retirement
from layerwatch.daemon.store import alerts, refs, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.daemon.telemetry import DaemonTelemetry
from layerwatch.daemon.verdictwriting import VerdictWriting

_LOGGER = logging.getLogger(__name__)

EMPTY_DOUBT = timedelta(minutes=10)
"""So long a registry that held versions and is empty all at once is taken for one that is not mounted."""

_MOST_REMARKS = 20


class Watcher:
    """Follows one registry. ``look`` is called from one thread at a time.

    Args:
        registry: what is watched.
        database: the store.
        policy: what fires and who is told; asked anew at each look.
        telemetry: counters.
        clock: tz-aware time now.
        alive: called between steps, so that a long look is not taken for a hang.
        found_work: called when a version was queued.
        changed: called when something that is exported changed.
        manners: how the registry is treated.
    """

    def __init__(
        self,
        registry: Registry,
        database: Database,
        policy: Callable[[], AlertPolicy],
        telemetry: DaemonTelemetry,
        clock: Callable[[], datetime],
        alive: Callable[[], None],
        found_work: Callable[[], None],
        changed: Callable[[], None],
        manners: Manners | None = None,
    ) -> None:
        self._registry = registry
        self._database = database
        self._policy = policy
        self._telemetry = telemetry
        self._clock = clock
        self._alive = alive
        self._found_work = found_work
        self._changed = changed
        manners = manners or Manners()
        self._manners = manners
        self._failures = 0
        self._not_before: datetime | None = None
        self._retirement = Retirement()
        self._registering = Registering(
            registry, database, telemetry, clock, alive, found_work, manners, self._retirement
        )
        self._writing = VerdictWriting(
            registry, database, policy, telemetry, clock, alive, manners, self._retirement
        )
        # A listing was not dealt with to its end: what it told may not be told again.
        self._behind = False
        # What the refs point at after the last look; and as of which look every model was brought up to date.
        self._targets: dict[str, dict[str, str]] | None = None
        self._followed: dict[str, dict[str, str]] | None = None
        self._told: set[str] = set()
        self._recalled = False
        self._empty_since: datetime | None = None
        self.last_error: str | None = None
        self.last_reason: RegistryReason | None = None
        self.looked_at: datetime | None = None
        self.listed_at: datetime | None = None
        self.listed_once = False

    @property
    def waits_until(self) -> datetime | None:
        """Until then looks are passed over because of earlier failures; None when they are not."""
        return self._not_before

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the last look left out, a sentence each, some of them where there are many."""
        return tuple(sorted(self._told))[:_MOST_REMARKS]

    def look(self, rehash: bool = False, hinted: bool = False) -> str:
        """One look at the registry; a sentence for the log.

        Args:
            rehash: the full reconcile: list everything, hash versions again whatever their tokens say, as far as
                their turn has come, try again what could not be examined for a passing reason, and bring every
                ref and alert up to date.
            hinted: somebody asks for it: do not wait because of earlier failures.
        """
        name = self._registry.name
        if self._not_before is not None and self._clock() < self._not_before and not (rehash or hinted):
            return f"registry {name}: waits until {self._not_before:%H:%M:%S} after {self._failures} failures"
        self.looked_at = self._clock()
        try:
            listing = self._listing(everything=rehash or not self.listed_once or self._behind)
        except RegistryUnavailable as error:
            return self._unavailable(error)
        self._behind = True
        # It answered, however long what it listed takes to fetch.
        self._retirement.unless_begun(self._count_listed)
        self._tell((*listing.remarks, *self._nothing_there(listing)))
        if self._manners.poll is not None:
            # A rollback does not wait until new versions are fetched.
            self._follow(listing, everything=False)
        queued = self._registering.register(listing, rehash)
        gone = self._notice_gone(listing) if listing.complete else 0
        self._follow(listing, everything=rehash)
        queued += self._registering.rehash_some()
        if not self._retirement.unless_begun(lambda: self._count_success(listing)):
            return f"registry {name}: no longer watched"
        self._behind = self._registering.left_some_out
        if self.last_error is not None:
            _LOGGER.info("registry %s is listed again", name)
        self.last_error, self.last_reason, self.listed_at = None, None, self._clock()
        self._failures, self._not_before = 0, None
        self.listed_once = True
        unfinished = f", {len(listing.unfinished)} still being written" if listing.unfinished else ""
        return f"registry {name}: {len(listing.versions)} versions listed, {queued} queued, {gone} gone{unfinished}"

    def _nothing_there(self, listing: Listing) -> tuple[str, ...]:
        """A misspelt name or pattern looks like a registry without versions."""
        if self._manners.poll is None or not listing.complete:
            return ()
        if listing.versions or listing.unfinished or listing.unlisted or listing.still_there:
            return ()
        name = self._registry.name
        told = f"registry {name} was listed and holds no version of what is watched; if it should, check the names and "
        return (told + "patterns in its configuration",)

    def _count_listed(self) -> None:
        name = self._registry.name
        self._telemetry.registry_up.labels(name).set(1)
        self._telemetry.registry_misconfigured.labels(name).set(0)

    def _count_success(self, listing: Listing) -> None:
        name = self._registry.name
        for _, reason in listing.unlisted:
            self._telemetry.registry_failures.labels(name, str(reason)).inc()
        self._telemetry.last_success.labels(name).set(self._clock().timestamp())

    def write_verdicts(self) -> str:
        """Write verdicts back that the registry does not show yet, where that was asked for; a sentence for the log."""
        return self._writing.write()

    def ask_again(self) -> None:
        """Whatever made the registry fail may have been mended: the next look does not wait."""
        self._not_before = None
        self._writing.ask_again()

    def _unavailable(self, error: RegistryUnavailable) -> str:
        name = self._registry.name
        misconfigured = error.reason.misconfigured
        if self.last_error is None or (misconfigured and self.last_error != str(error)):
            _LOGGER.warning(
                "registry %s %s: %s", name, "is misconfigured" if misconfigured else "cannot be listed", error
            )
        self.last_error, self.last_reason = str(error), error.reason
        self._failures += 1
        wait = self._manners.wait_after(error, self._failures, name)
        self._not_before = self._clock() + wait if wait else None
        self._retirement.unless_begun(lambda: self._count_failure(error))
        return f"registry {name}: not listed: {error}"

    def _count_failure(self, error: RegistryUnavailable) -> None:
        name = self._registry.name
        self._telemetry.registry_up.labels(name).set(0)
        self._telemetry.registry_misconfigured.labels(name).set(int(error.reason.misconfigured))
        self._telemetry.registry_failures.labels(name, str(error.reason)).inc()

    def retire(self) -> None:
        """The registry was taken out of the configuration, or replaced: a look under way changes nothing more."""
        self._retirement.begin()

    def follow_again(self) -> None:
        """What fires may have changed: the next look brings the alerts of every model up to date."""
        self._followed = None

    def after_verdict(self, connection: Connection, version: VersionRecord, now: datetime) -> None:
        """Move the refs of a model whose version was just judged and queue its alerts, in that transaction."""
        key = version.key
        if self._targets is None:
            # Nothing was listed since the start: stay with what the refs pointed at.
            targets = refs.targets(connection, key.registry, key.model)
        else:
            targets = self._targets.get(key.model, {})
        follow_refs(connection, key.registry, key.model, targets, self._policy(), now)

    def _listing(self, everything: bool) -> Listing:
        """What is in the registry; raises RegistryUnavailable, for a while also when all of it vanished at once.

        The folder that an unmounted volume leaves behind is readable and empty.
        """
        self._recall_once()
        since, self._empty_since = self._empty_since, None
        now = self._clock()
        listing = self._registry.listing(now, everything)
        if not listing.empty:
            return listing
        with self._database.read() as connection:
            held = versions.count_present(connection, self._registry.name)
        if not held:
            return listing
        self._empty_since = now if since is None else since
        if now - self._empty_since >= EMPTY_DOUBT:
            return listing
        detail = f"the directory is empty although it held {held} versions: is it mounted?"
        raise RegistryUnavailable(RegistryReason.EMPTY, detail)

    def _recall_once(self) -> None:
        """Tell the registry what was published before the restart, so that no ref falls back to older versions."""
        if self._recalled:
            return
        with self._database.read() as connection:
            published = {
                known.location: known.token
                for known in versions.present_in_registry(connection, self._registry.name)
                if known.token is not None
            }
        self._registry.recall(published)
        self._recalled = True

    def _notice_gone(self, listing: Listing) -> int:
        present = {(found.model, found.version) for found in listing.versions} | set(listing.unfinished)
        unlisted = {model for model, _ in listing.unlisted}
        with self._database.read() as connection:
            gone = [
                (known.model, known.version)
                for known in versions.present_in_registry(connection, self._registry.name)
                if (known.model, known.version) not in present
                and known.model not in unlisted
                and known.location not in listing.still_there
            ]
        if not gone:
            return 0
        now = self._clock()
        with self._database.write() as connection:
            if self._retirement.has_begun():
                return 0
            for model, version in gone:
                versions.mark_gone(connection, self._registry.name, model, version, now)
        return len(gone)

    def _follow(self, listing: Listing, everything: bool) -> None:
        name = self._registry.name
        targets: dict[str, dict[str, str]] = {}
        for ref in listing.refs:
            targets.setdefault(ref.model, {})[ref.ref] = ref.version
        with self._database.read() as connection:
            for model, _ in listing.unlisted:
                targets[model] = refs.targets(connection, name, model)
            recorded = {record.model for record in refs.list_refs(connection, name)}
            firing = {
                state.identity.model
                for state in alerts.list_states(connection, phase=AlertPhase.FIRING, registry=name)
            }
        followed = None if everything else self._followed
        due = [
            model
            for model in sorted(recorded | firing | targets.keys())
            if followed is None or followed.get(model) != targets.get(model) or model in firing
        ]
        changed = False
        if due or self._targets is None:
            now = self._clock()
            with self._database.write() as connection:
                if self._retirement.has_begun():
                    return
                # Inside the transaction: a verdict that is recorded meanwhile waits for it, and then follows the
                # new targets, never the old ones after the new.
                self._targets = targets
                for model in due:
                    moved = follow_refs(connection, name, model, targets.get(model, {}), self._policy(), now)
                    changed = moved or changed
        # Only now: a transaction that failed is made good by the next look.
        self._followed = targets
        if changed:
            self._changed()

    def _tell(self, remarks: tuple[str, ...]) -> None:
        for remark in remarks:
            if remark not in self._told:
                _LOGGER.warning("%s", remark)
        self._told = set(remarks)


def forget_registry(connection: Connection, registry: str, policy: AlertPolicy, now: datetime) -> bool:
    """A registry is no longer configured: its versions are gone, its refs vanish, its alerts resolve.

    Returns:
        True when there was anything to forget.
    """
    changed = False
    for one in list(versions.present_in_registry(connection, registry)):
        changed |= versions.mark_gone(connection, registry, one.model, one.version, now)
    for model in sorted({record.model for record in refs.list_refs(connection, registry)}):
        changed |= follow_refs(connection, registry, model, {}, policy, now)
    return changed


def known_registries(connection: Connection) -> set[str]:
    """Every registry of which the store holds a version that is not gone, or a ref."""
    return versions.registries(connection) | refs.registries(connection)
