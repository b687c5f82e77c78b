"""Looks at one registry: registers new and changed versions, notices vanished ones, follows refs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection

from layerwatch.alerts.model import AlertPhase
from layerwatch.daemon.alerting import AlertPolicy, follow_refs
from layerwatch.daemon.fingerprints import stand_in
from layerwatch.daemon.registries.base import (
    FoundVersion,
    Listing,
    Registry,
    RegistryReason,
    RegistryUnavailable,
)
from layerwatch.daemon.store import alerts, contents, refs, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import Lineage, VersionKey, VersionRecord, VersionState
from layerwatch.daemon.telemetry import DaemonTelemetry
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.measurement import METRIC_SET

_LOGGER = logging.getLogger(__name__)

EMPTY_DOUBT = timedelta(minutes=10)
"""So long a registry that held versions and is empty all at once is taken for one that is not mounted."""


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
    ) -> None:
        self._registry = registry
        self._database = database
        self._policy = policy
        self._telemetry = telemetry
        self._clock = clock
        self._alive = alive
        self._found_work = found_work
        self._changed = changed
        self._retired = threading.Event()
        self._retiring = threading.Lock()
        # What the refs point at after the last look; and as of which look every model was brought up to date.
        self._targets: dict[str, dict[str, str]] | None = None
        self._followed: dict[str, dict[str, str]] | None = None
        self._told: set[str] = set()
        self._recalled = False
        self._empty_since: datetime | None = None
        # Known versions, by model and name, that could not be hashed the last time.
        self._unread: set[tuple[str, str]] = set()
        self.last_error: str | None = None
        self.listed_once = False

    def look(self, rehash: bool = False) -> str:
        """One look at the registry; a sentence for the log.

        Args:
            rehash: the full reconcile: hash every version again, whatever its token says, try again what could
                not be examined for a passing reason, and bring every ref and alert up to date.
        """
        name = self._registry.name
        try:
            listing = self._listing()
        except RegistryUnavailable as error:
            if self.last_error is None:
                _LOGGER.warning("registry %s cannot be listed: %s", name, error)
            self.last_error = str(error)
            with self._retiring:
                if not self._retired.is_set():
                    self._telemetry.registry_up.labels(name).set(0)
                    self._telemetry.registry_failures.labels(name, str(error.reason)).inc()
            return f"registry {name}: not listed: {error}"
        self._tell(listing.remarks)
        queued = self._register(listing, rehash)
        gone = self._notice_gone(listing)
        self._follow(listing, everything=rehash)
        with self._retiring:
            if self._retired.is_set():
                return f"registry {name}: no longer watched"
            for _, reason in listing.unlisted:
                self._telemetry.registry_failures.labels(name, str(reason)).inc()
            self._telemetry.registry_up.labels(name).set(1)
            self._telemetry.last_success.labels(name).set(self._clock().timestamp())
        if self.last_error is not None:
            _LOGGER.info("registry %s is listed again", name)
        self.last_error = None
        self.listed_once = True
        unfinished = f", {len(listing.unfinished)} still being written" if listing.unfinished else ""
        return f"registry {name}: {len(listing.versions)} versions listed, {queued} queued, {gone} gone{unfinished}"

    def retire(self) -> None:
        """The registry was taken out of the configuration, or replaced: a look under way changes nothing more."""
        with self._retiring:
            self._retired.set()

    def follow_again(self) -> None:
        """What fires may have changed: the next look brings the alerts of every model up to date."""
        self._followed = None

    def after_verdict(self, connection: Connection, version: VersionRecord, now: datetime) -> None:
        """Move the refs of a model whose version was just judged and queue its alerts, in that transaction."""
        key = version.key
        if self._targets is None:
            # Nothing was listed since the start: stay with what the refs pointed at.
            targets = _recorded_targets(connection, key.registry, key.model)
        else:
            targets = self._targets.get(key.model, {})
        follow_refs(connection, key.registry, key.model, targets, self._policy(), now)

    def _listing(self) -> Listing:
        """What is in the registry; raises RegistryUnavailable, for a while also when all of it vanished at once.

        The folder that an unmounted volume leaves behind is readable and empty.
        """
        self._recall_once()
        since, self._empty_since = self._empty_since, None
        now = self._clock()
        listing = self._registry.listing(now)
        if not listing.empty:
            return listing
        with self._database.read() as connection:
            known = versions.current_of_registry(connection, self._registry.name)
        held = sum(record.gone_at is None for record in known)
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
            known = versions.current_of_registry(connection, self._registry.name)
        self._registry.recall(
            {
                record.source_path: record.token
                for record in known
                if record.gone_at is None and record.token is not None
            }
        )
        self._recalled = True

    def _register(self, listing: Listing, rehash: bool) -> int:
        with self._database.read() as connection:
            known = {
                (record.key.model, record.key.version): record
                for record in versions.current_of_registry(connection, self._registry.name)
            }
        queued = 0
        for found in listing.versions:
            record = known.get((found.model, found.version))
            if record is not None and record.token == found.token and record.gone_at is None and not rehash:
                continue
            self._alive()
            queued += self._register_one(found, record)
            if rehash and record is not None and record.verdict is Verdict.UNDECIDED:
                queued += self._try_again(record.id)
        return queued

    def _register_one(self, found: FoundVersion, record: VersionRecord | None) -> bool:
        try:
            fingerprint = self._registry.manifest(found).fingerprint
        except RegistryUnavailable as error:
            _LOGGER.warning("%s/%s: %s", found.model, found.version, error)
            return False
        except UnreadableError as error:
            if self._registry.token(found.location) != found.token:
                # Still moving: the next look sees it settled, or gone.
                return False
            if record is not None and record.token == found.token and error.transient:
                # A disk that fails for a moment says nothing against bytes that were read before.
                self._keep_unread(found, error)
                return False
            _LOGGER.warning("%s/%s cannot be fingerprinted: %s", found.model, found.version, error)
            fingerprint = stand_in(found.token)
        self._unread.discard((found.model, found.version))
        declared = found.lineage
        lineage = Lineage(
            parent=declared.parent if declared else None,
            relation=declared.relation if declared else None,
            source=declared.source if declared else None,
            confidence=1.0 if declared else None,
            parents=declared.parents if declared else (),
            recipe=declared.recipe if declared else None,
        )
        key = VersionKey(self._registry.name, found.model, found.version)
        with self._database.write() as connection:
            if self._retired.is_set():
                return False
            registered = versions.register(
                connection,
                key,
                fingerprint,
                found.location,
                found.order_key,
                lineage,
                self._clock(),
                token=found.token,
            )
        new = record is None or record.id != registered.id
        if new:
            self._found_work()
        return new

    def _keep_unread(self, found: FoundVersion, error: UnreadableError) -> None:
        with self._retiring:
            if self._retired.is_set():
                return
            self._telemetry.registry_failures.labels(self._registry.name, str(RegistryReason.IO_ERROR)).inc()
        name = (found.model, found.version)
        if name not in self._unread:
            _LOGGER.warning("%s/%s cannot be hashed again now; what is known of it stays: %s", *name, error)
        self._unread.add(name)

    def _try_again(self, version_id: int) -> bool:
        """Queue a version again that is undecided for a reason that may have passed (no content was kept of it)."""
        with self._database.write() as connection:
            record = versions.get(connection, version_id)
            if (
                self._retired.is_set()
                or record is None
                or record.state is not VersionState.JUDGED
                or record.verdict is not Verdict.UNDECIDED
                or not record.current
                or record.gone_at is not None
                or record.report is None  # so old that retention dropped its content
                or contents.load(connection, record.fingerprint, METRIC_SET) is not None
            ):
                return False
            versions.reopen(connection, version_id)
        self._found_work()
        return True

    def _notice_gone(self, listing: Listing) -> int:
        present = {(found.model, found.version) for found in listing.versions} | set(listing.unfinished)
        unlisted = {model for model, _ in listing.unlisted}
        with self._database.read() as connection:
            gone = [
                record.key
                for record in versions.current_of_registry(connection, self._registry.name)
                if record.gone_at is None
                and (record.key.model, record.key.version) not in present
                and record.key.model not in unlisted
            ]
        if not gone:
            return 0
        now = self._clock()
        with self._database.write() as connection:
            if self._retired.is_set():
                return 0
            for key in gone:
                versions.mark_gone(connection, key.registry, key.model, key.version, now)
        return len(gone)

    def _follow(self, listing: Listing, everything: bool) -> None:
        name = self._registry.name
        targets: dict[str, dict[str, str]] = {}
        for ref in listing.refs:
            targets.setdefault(ref.model, {})[ref.ref] = ref.version
        with self._database.read() as connection:
            for model, _ in listing.unlisted:
                targets[model] = _recorded_targets(connection, name, model)
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
                if self._retired.is_set():
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


def _recorded_targets(connection: Connection, registry: str, model: str) -> dict[str, str]:
    targets: dict[str, str] = {}
    for record in refs.list_refs(connection, registry, model):
        pointed = versions.get(connection, record.version_id)
        if pointed is not None:
            targets[record.ref] = pointed.key.version
    return targets


def forget_registry(connection: Connection, registry: str, policy: AlertPolicy, now: datetime) -> bool:
    """A registry is no longer configured: its versions are gone, its refs vanish, its alerts resolve.

    Returns:
        True when there was anything to forget.
    """
    changed = False
    for record in versions.current_of_registry(connection, registry):
        key = record.key
        changed |= versions.mark_gone(connection, registry, key.model, key.version, now)
    for model in sorted({record.model for record in refs.list_refs(connection, registry)}):
        changed |= follow_refs(connection, registry, model, {}, policy, now)
    return changed


def known_registries(connection: Connection) -> set[str]:
    """Every registry of which the store holds a version that is not gone, or a ref."""
    return {registry for registry, _ in versions.models(connection)} | {
        record.registry for record in refs.list_refs(connection)
    }
