"""What is in a version's files, and how it differs from its baseline's: from the store, or measured now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from layerwatch.daemon.comparing import (
    MAY_BE_THE_BASELINES,
    digests_of,
    files_at_hand,
    has_changed_layers,
    is_at_hand,
    tell_fallback,
)
from layerwatch.daemon.registries.base import Registry, RegistryUnavailable
from layerwatch.daemon.scan.content import MeasuredContent, measure_content
from layerwatch.daemon.scan.executor import Executor
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.daemon.store import comparisons, contents, measurements
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import ContentRecord, VersionRecord
from layerwatch.daemon.telemetry import DaemonTelemetry
from layerwatch.metrics.change import AlignedChange
from layerwatch.metrics.errors import TRANSIENT_REASONS, UnreadableError, UnreadableReason
from layerwatch.metrics.manifest import weight_files
from layerwatch.metrics.measurement import METRIC_SET, Measurement


class Interrupted(Exception):  # noqa: N818 - a request to stop, not an error
    """The daemon is stopping; the version goes back to the queue."""


class Measuring:
    """Measures versions once and keeps what was found. One instance per worker thread.

    Args:
        database: the store.
        registries: looks a registry up by name; None when it is no longer configured.
        executor: runs scans.
        telemetry: counters.
        clock: tz-aware time now.
        stopping: True once the daemon shuts down.
        alive: called at each layer, so that a long scan is not taken for a hang.
    """

    def __init__(
        self,
        database: Database,
        registries: Callable[[str], Registry | None],
        executor: Executor,
        telemetry: DaemonTelemetry,
        clock: Callable[[], datetime],
        stopping: Callable[[], bool],
        alive: Callable[[], None],
    ) -> None:
        self._database = database
        self._registries = registries
        self._executor = executor
        self._telemetry = telemetry
        self._clock = clock
        self._stopping = stopping
        self._alive = alive

    def content(self, version: VersionRecord) -> ContentRecord:
        """What is in the version's files; from the store when the same bytes were measured before.

        Raises:
            UnreadableError: for a reason that another attempt may cure.
            Interrupted: the daemon is stopping.
        """
        return self._stored(version) or self._scan(version).content

    def compared(
        self, version: VersionRecord, baseline: VersionRecord | None, baseline_content: ContentRecord | None
    ) -> tuple[ContentRecord, Mapping[str, AlignedChange]]:
        """The same, and the element-wise comparison with the baseline where its files are at hand.

        Measuring and comparing take one pass over both files. Layers of equal bytes are told by their digests, and a
        comparison that was made once is kept, so that judging again reads nothing.

        Args:
            baseline: what the version is judged against, or None.
            baseline_content: what was found in it; None where it could not be examined, and nothing is compared.

        Returns:
            What was found, and the comparisons by layer name: empty where nothing changed, or the baseline's files are
            out of reach.

        Raises:
            UnreadableError, Interrupted: as for :meth:`content`; never because of the baseline.
        """
        stored = self._stored(version)
        if baseline is None or baseline_content is None:
            return stored or self._scan(version).content, {}
        if stored is None:
            return self._scanned_against(version, baseline, digests_of(baseline_content))
        if stored.file_problem or not has_changed_layers(stored, digests_of(baseline_content)):
            return stored, {}
        with self._database.read() as connection:
            kept = comparisons.load(connection, version.fingerprint, baseline.fingerprint)
        return stored, self._compared_only(version, baseline, baseline_content) if kept is None else kept

    def _stored(self, version: VersionRecord) -> ContentRecord | None:
        with self._database.read() as connection:
            content = contents.load(connection, version.fingerprint, METRIC_SET)
            return content if content is not None and is_complete(connection, content) else None

    def _scanned_against(
        self, version: VersionRecord, baseline: VersionRecord, digests: Mapping[str, str]
    ) -> tuple[ContentRecord, Mapping[str, AlignedChange]]:
        registry = self._registries(baseline.key.registry)
        with files_at_hand(registry, baseline, self._go_on) as path:
            try:
                found = self._scan(version, path, digests)
            except UnreadableError as error:
                if path is None or self._stopping() or error.reason not in MAY_BE_THE_BASELINES:
                    raise
                # Perhaps the second file was one too many. What was measured so far is kept, so this costs the rest.
                tell_fallback(baseline, str(error))
                return self._scan(version).content, {}
            return found.content, self._believed(version, baseline, found)

    def _compared_only(
        self, version: VersionRecord, baseline: VersionRecord, baseline_content: ContentRecord
    ) -> Mapping[str, AlignedChange]:
        """Both files are read again for numbers that are not in the store; without them the sketches do."""
        own, others = self._registries(version.key.registry), self._registries(baseline.key.registry)
        with (
            files_at_hand(own, version, self._go_on) as path,
            files_at_hand(others, baseline, self._go_on) as baseline_path,
        ):
            if path is None or baseline_path is None:
                return {}
            request = ScanRequest(
                str(path), str(baseline_path), baseline_digests=digests_of(baseline_content)
            )
            try:
                found = measure_content(
                    self._executor,
                    request,
                    version.fingerprint,
                    0,
                    self._known_already,
                    lambda measured: None,
                )
            except UnreadableError as error:
                if self._stopping():
                    raise Interrupted from error
                tell_fallback(baseline, str(error))
                return {}
            return self._believed(version, baseline, found) if is_at_hand(own, version) else {}

    def _believed(
        self, version: VersionRecord, baseline: VersionRecord, found: MeasuredContent
    ) -> Mapping[str, AlignedChange]:
        """The comparison, kept for the next time; nothing when the baseline changed while it was read."""
        if not found.exact:
            return {}
        if not is_at_hand(self._registries(baseline.key.registry), baseline):
            tell_fallback(baseline, "its files changed, or vanished, while they were read")
            return {}
        with self._database.write() as connection:
            comparisons.save(
                connection, version.fingerprint, baseline.fingerprint, found.exact, self._clock()
            )
        return found.exact

    def _scan(
        self, version: VersionRecord, baseline: Path | None = None, digests: Mapping[str, str] | None = None
    ) -> MeasuredContent:
        if self._stopping():
            raise Interrupted
        registry = self._registries(version.key.registry)
        if registry is None:
            detail = f"registry {version.key.registry} is no longer configured"
            raise UnreadableError(UnreadableReason.NOT_FOUND, version.source_path, detail)
        try:
            with registry.open(version.source_path, self._go_on) as path:
                _require_unchanged(registry, version)
                measured = measure_content(
                    self._executor,
                    ScanRequest(
                        str(path), str(baseline) if baseline else None, baseline_digests=dict(digests or {})
                    ),
                    version.fingerprint,
                    sum(file.stat().st_size for file in weight_files(path)),
                    self._known,
                    self._save,
                )
                _require_unchanged(registry, version)
        except RegistryUnavailable as error:
            raise UnreadableError(UnreadableReason.NOT_FOUND, version.source_path, error.detail) from error
        except OSError as error:
            detail = error.strerror or type(error).__name__
            raise UnreadableError(UnreadableReason.IO_ERROR, version.source_path, detail) from error
        if measured.content.file_problem is not None:
            self._telemetry.scan_failures.labels(measured.content.file_problem[0]).inc()
        with self._database.write() as connection:
            contents.save(connection, measured.content, self._clock())
        return measured

    def _known(self, digest: str) -> bool:
        self._go_on()
        with self._database.read() as connection:
            return measurements.known(connection, digest)

    def _known_already(self, digest: str) -> bool:
        self._go_on()
        return True

    def _go_on(self) -> None:
        if self._stopping():
            raise Interrupted
        self._alive()

    def _save(self, measurement: Measurement) -> None:
        with self._database.write() as connection:
            measurements.save(connection, measurement, self._clock())


def is_complete(connection: Connection, content: ContentRecord) -> bool:
    """Whether another scan of the same bytes would tell nothing new.

    It would where retention took some of the measurements, or a layer failed for a reason that may have passed.
    """
    if any(entry.problem_reason in TRANSIENT_REASONS for entry in content.layers):
        return False
    digests = [entry.digest for entry in content.layers if entry.digest]
    return len(measurements.load_scalars(connection, digests)) == len(set(digests))


def _require_unchanged(registry: Registry, version: VersionRecord) -> None:
    """What is measured must be what was fingerprinted; the next look registers the new bytes."""
    if registry.token(version.source_path) != version.token:
        detail = "its files changed after they were fingerprinted; they are looked at again"
        raise UnreadableError(UnreadableReason.CHANGED_WHILE_READING, version.source_path, detail)
