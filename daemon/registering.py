"""Listed versions into the store: fingerprinted, with their lineage. What cannot be is owed, and undecided in the end."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from layerwatch.daemon.fingerprints import is_stand_in, stand_in
from layerwatch.daemon.manners import Manners
from layerwatch.daemon.measuring import Interrupted
from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundVersion,
    Listing,
    Registry,
    RegistryReason,
    RegistryUnavailable,
)
from layerwatch.daemon.registries.declarations import confidence_of, for_baseline
from layerwatch.daemon.retirement import Retirement
from layerwatch.daemon.store import contents, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.store.lineage import save_declared
from layerwatch.daemon.store.records import Lineage, VersionKey, VersionState
from layerwatch.daemon.telemetry import DaemonTelemetry
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.measurement import METRIC_SET

_LOGGER = logging.getLogger(__name__)

_BATCH = 500
"""Models that are looked up in the store at a time."""

_REGISTER_AT_A_TIME = timedelta(seconds=60)
_REHASH_AT_A_TIME = timedelta(seconds=30)
"""What one look spends on new versions of a remote registry, and on old ones; the rest waits for the next look."""

_MOST_OWED = 10_000
_MOST_FAILURES = 5
"""After so many attempts to fetch a version it becomes undecided; it is tried on, once an hour."""

_LONGEST_WAIT = timedelta(hours=1)


@dataclass(slots=True)
class _Owed:
    """A version that was listed and is not registered yet: a listing of changes does not name it again."""

    found: FoundVersion
    failures: int = 0
    not_before: datetime | None = None


_Due = tuple[FoundVersion, "versions.Known | None", bool]


class Registering:
    """Registers what one registry lists. ``register`` is called from one thread at a time.

    Args:
        registry, database, telemetry, clock, alive, found_work, manners: as for the watcher.
        retirement: after its begin nothing is fetched or written.
    """

    def __init__(
        self,
        registry: Registry,
        database: Database,
        telemetry: DaemonTelemetry,
        clock: Callable[[], datetime],
        alive: Callable[[], None],
        found_work: Callable[[], None],
        manners: Manners,
        retirement: Retirement,
    ) -> None:
        self._registry = registry
        self._database = database
        self._telemetry = telemetry
        self._clock = clock
        self._alive = alive
        self._found_work = found_work
        self._manners = manners
        self._retirement = retirement
        self._owed: dict[tuple[str, str], _Owed] = {}
        # Versions whose turn to be hashed again has come.
        self._to_rehash: deque[FoundVersion] = deque()
        # Known versions, by model and name, that could not be hashed the last time.
        self._unread: set[tuple[str, str]] = set()
        self._until: datetime | None = None
        self.left_some_out = False

    def register(self, listing: Listing, rehash: bool) -> int:
        """Register new and changed versions; how many were queued.

        Args:
            rehash: also hash those again whose turn has come, and try again what is undecided.
        """
        now = self._clock()
        self.left_some_out = False
        self._until = now + _REGISTER_AT_A_TIME if self._manners.poll is not None else None
        listed = {(found.model, found.version) for found in listing.versions}
        if listing.complete:
            # What a complete listing does not name is not offered any more.
            self._owed = {key: owed for key, owed in self._owed.items() if key in listed}
        if rehash:
            self._to_rehash.clear()
        waiting = [owed.found for key, owed in self._owed.items() if key not in listed]
        queued = 0
        for batch in _by_models([*waiting, *listing.versions]):
            with self._database.read() as connection:
                known = versions.known(
                    connection, self._registry.name, sorted({found.model for found in batch})
                )
            due = [one for found in batch if (one := self._due(found, known, rehash, now)) is not None]
            for found, _, _ in due:
                self._owe(found)
            queued += sum(self._all_registered(due))
            if rehash:
                for found in batch:
                    record = known.get((found.model, found.version))
                    if record is not None and record.verdict is Verdict.UNDECIDED:
                        queued += self._try_again(record.id)
        return queued

    def rehash_some(self) -> int:
        """Hash versions whose turn has come, for a while: new ones must not wait until all are through."""
        began, queued = self._clock(), 0
        self._until = None
        while self._to_rehash and not self._retirement.has_begun():
            queued += self._rehash_one(self._to_rehash.popleft())
            if self._clock() - began >= _REHASH_AT_A_TIME:
                break
        return queued

    def _due(
        self,
        found: FoundVersion,
        known: dict[tuple[str, str], versions.Known],
        rehash: bool,
        now: datetime,
    ) -> _Due | None:
        key = (found.model, found.version)
        record, owed = known.get(key), self._owed.get(key)
        same = record is not None and record.token == found.token and record.gone_at is None
        if owed is not None and owed.found.token == found.token and not rehash:
            if owed.not_before is not None and now < owed.not_before:
                return None
        elif same and record is not None and not (rehash and is_stand_in(record.fingerprint)):
            if not (rehash and self._manners.is_due(found.location, now)):
                return None
            if self._manners.rehash:
                self._to_rehash.append(found)
                return None
            return found, record, True
        return found, record, False

    def _all_registered(self, due: Sequence[_Due]) -> Iterator[bool]:
        parallel = min(self._manners.parallel, len(due))
        if parallel <= 1:
            yield from (self._register_one(*one) for one in due)
            return
        with ThreadPoolExecutor(parallel, thread_name_prefix="fingerprint") as pool:
            yield from pool.map(lambda one: self._register_one(*one), due)

    def _register_one(self, found: FoundVersion, record: versions.Known | None, again: bool) -> bool:
        if self._retirement.has_begun() or (self._until is not None and self._clock() >= self._until):
            return False
        self._alive()
        try:
            fingerprint = self._registry.manifest(found, anew=again, progress=self._go_on).fingerprint
            declared = self._registry.lineage(found)
        except (Interrupted, StoreError):
            raise
        except RegistryUnavailable as error:
            return self._failed(found, record, again, error.reason, str(error))
        except UnreadableError as error:
            return self._unreadable(found, record, again, error)
        except Exception as error:
            # One version that no code is ready for must not keep all others from being looked at.
            _LOGGER.exception("%s/%s: unexpected error", found.model, found.version)
            self._retirement.unless_begun(self._telemetry.cycle_errors.labels("watch").inc)
            return self._failed(found, record, again, RegistryReason.BAD_RESPONSE, type(error).__name__)
        return self._store(found, record, fingerprint, declared)

    def _go_on(self) -> None:
        if self._retirement.has_begun():
            raise Interrupted
        self._alive()

    def _unreadable(
        self, found: FoundVersion, record: versions.Known | None, again: bool, error: UnreadableError
    ) -> bool:
        key = (found.model, found.version)
        try:
            token = self._registry.token(found.location)
        except RegistryUnavailable as unavailable:
            return self._failed(found, record, again, unavailable.reason, str(unavailable))
        if token != found.token:
            # Still moving: the next look sees it settled, or gone.
            self._owed.pop(key, None)
            if token is not None:
                self._owe(replace(found, token=token))
            return False
        if record is not None and record.token == found.token and error.transient:
            # A disk that fails for a moment says nothing against bytes that were read before.
            self._keep_unread(found, error)
            self._owed.pop(key, None)
            return False
        _LOGGER.warning("%s/%s cannot be fingerprinted: %s", found.model, found.version, error)
        declared = (found.lineage,) if found.lineage else ()
        return self._store(found, record, stand_in(found.token), declared)

    def _failed(
        self,
        found: FoundVersion,
        record: versions.Known | None,
        again: bool,
        reason: RegistryReason,
        detail: str,
    ) -> bool:
        """A version that cannot be fetched now: tried later and later, and undecided once that is no longer normal."""
        key = (found.model, found.version)
        if reason is RegistryReason.VERSION_GONE:
            self._owed.pop(key, None)
            return False
        failures = self._telemetry.registry_failures
        self._retirement.unless_begun(failures.labels(self._registry.name, str(reason)).inc)
        if again:
            # The bytes were read before; nothing is said against them now.
            _LOGGER.warning("%s/%s cannot be hashed again now: %s", found.model, found.version, detail)
            return False
        owed = self._owe(found)
        owed.failures += 1
        if self._manners.poll is not None:
            wait = self._manners.poll * 2.0 ** min(owed.failures - 1, 20)
            owed.not_before = self._clock() + min(wait, _LONGEST_WAIT)
        if owed.failures in (1, _MOST_FAILURES):
            _LOGGER.warning("%s/%s: %s", found.model, found.version, detail)
        lasting = reason.misconfigured or reason is RegistryReason.NO_SPACE
        if not lasting and owed.failures < _MOST_FAILURES:
            return False
        if record is not None and record.token == found.token and record.gone_at is None:
            return False
        _LOGGER.warning(
            "%s/%s could not be fetched and becomes undecided: %s", found.model, found.version, detail
        )
        queued = self._store(found, record, stand_in(found.token), ())
        self._owed[key] = owed
        return queued

    def _store(
        self,
        found: FoundVersion,
        record: versions.Known | None,
        fingerprint: str,
        declared: Sequence[DeclaredLineage],
    ) -> bool:
        self._unread.discard((found.model, found.version))
        key = VersionKey(self._registry.name, found.model, found.version)
        now = self._clock()
        with self._database.write() as connection:
            if self._retirement.has_begun():
                return False
            registered = versions.register(
                connection,
                key,
                fingerprint,
                found.location,
                found.order_key,
                _lineage_of(declared),
                now,
                token=found.token,
            )
            # Also where nothing is declared: others may have named this version before it came.
            save_declared(connection, registered.id, declared, now)
        self._owed.pop((found.model, found.version), None)
        new = record is None or record.id != registered.id
        if new:
            self._found_work()
        return new

    def _rehash_one(self, found: FoundVersion) -> int:
        with self._database.read() as connection:
            known = versions.known(connection, self._registry.name, [found.model])
        record = known.get((found.model, found.version))
        if record is None or record.token != found.token or record.gone_at is not None:
            return 0
        return int(self._register_one(found, record, again=True))

    def _owe(self, found: FoundVersion) -> _Owed:
        key = (found.model, found.version)
        owed = self._owed.get(key)
        if owed is None or owed.found.token != found.token:
            owed = _Owed(found)
            if len(self._owed) < _MOST_OWED or key in self._owed:
                self._owed[key] = owed
            else:
                self.left_some_out = True
        return owed

    def _keep_unread(self, found: FoundVersion, error: UnreadableError) -> None:
        failures = self._telemetry.registry_failures.labels(self._registry.name, str(RegistryReason.IO_ERROR))
        if not self._retirement.unless_begun(failures.inc):
            return
        name = (found.model, found.version)
        if name not in self._unread:
            _LOGGER.warning("%s/%s cannot be hashed again now; what is known of it stays: %s", *name, error)
        self._unread.add(name)

    def _try_again(self, version_id: int) -> bool:
        """Queue a version again that is undecided for a reason that may have passed (no content was kept of it)."""
        with self._database.write() as connection:
            record = versions.get(connection, version_id)
            if (
                self._retirement.has_begun()
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


def _by_models(found: Iterable[FoundVersion]) -> Iterator[list[FoundVersion]]:
    """The versions in lists of some hundred models each, or of a few thousand versions of fewer."""
    batch: list[FoundVersion] = []
    models: set[str] = set()
    for one in found:
        if one.model not in models and (len(models) >= _BATCH or len(batch) >= 4 * _BATCH):
            yield batch
            batch, models = [], set()
        models.add(one.model)
        batch.append(one)
    if batch:
        yield batch


def _lineage_of(declared: Sequence[DeclaredLineage]) -> Lineage:
    """What versions are judged by: the most reliable declaration that says enough."""
    first = for_baseline(declared)
    if first is None:
        return Lineage()
    return Lineage(
        parent=first.parent,
        relation=first.relation,
        source=first.source,
        confidence=confidence_of(first),
        parents=first.parents,
        recipe=first.recipe,
    )
