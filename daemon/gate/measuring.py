"""What is in a model's files, and how it differs from a baseline's: measured now, or out of the cache."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from layerwatch.daemon.comparing import digests_of, has_changed_layers
from layerwatch.daemon.gate.cache import MeasurementCache, is_whole
from layerwatch.daemon.scan.content import MeasuredContent, Progress, measure_content, unreadable_content
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.daemon.store.records import ContentRecord
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.manifest import build_manifest, identity_of, weight_files
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.quantised.configfile import reading_digest

Identity = tuple[tuple[str, tuple[int, ...]], ...]
"""Name of each weight file, and what changes with every change of it."""


@dataclass(frozen=True, slots=True)
class Files:
    """The weight files of one model as they were when they were hashed.

    Attributes:
        fingerprint: of their bytes; empty where they could not be hashed, which ``problem`` tells.
        read_by: digest of what the configuration beside them says, which decides how they are read and is no part of
            the fingerprint.
    """

    path: Path
    fingerprint: str
    size_bytes: int
    identity: Identity
    problem: UnreadableError | None = None
    read_by: str = ""

    @property
    def key(self) -> str:
        """Of everything that an examination depends on."""
        return f"{self.fingerprint} {self.read_by}" if self.read_by else self.fingerprint


@dataclass(frozen=True, slots=True)
class MeasuredPair:
    """A model beside its baseline.

    Attributes:
        model: what is in the model, and its element-wise comparison with the baseline.
        baseline: what is in the baseline; None without one.
    """

    model: MeasuredContent
    baseline: ContentRecord | None


def measure_pair(
    executor: LocalExecutor,
    kept: dict[str, Measurement],
    shuffled: bool,
    model: Path,
    baseline: Path | None,
    cache: MeasurementCache | None,
    progress: Callable[[str, Progress], None],
) -> MeasuredPair:
    """Measure both, the model in one pass with its comparison; what cannot be examined is a result too.

    Args:
        kept: measurements by digest; new ones are added, and those that are there are not taken again.
        shuffled: also take the spectra of the shuffled elements.
        cache: what was measured before, and where it is kept; None for neither.
        progress: told ("baseline" or "model", progress) after each layer.
    """
    if cache is None or cache.is_empty:
        # The scan process loads its libraries while the files are hashed.
        executor.prepare()
    with ThreadPoolExecutor(2) as pool:
        files, *rest = pool.map(hash_files, [model, baseline] if baseline is not None else [model])
    scan = partial(_scan, executor, kept, shuffled)
    before = found = None
    if rest:
        before = _measured(rest[0], scan, kept, cache, partial(progress, "baseline"))
    if before is not None and before.file_problem is None:
        found = _compared(files, rest[0], before, scan, kept, cache, partial(progress, "model"))
        if not _is_unchanged(rest[0]):
            before, found = _changed(rest[0]).content, MeasuredContent(found.content, {})
    else:
        # A baseline that could not be read is not opened again: its trouble is not the model's.
        found = MeasuredContent(_measured(files, scan, kept, cache, partial(progress, "model")), {})
    return MeasuredPair(found, before)


def measure_file(
    executor: LocalExecutor,
    kept: dict[str, Measurement],
    shuffled: bool,
    path: Path,
    baseline: Path | None,
    progress: Callable[[Progress], None],
) -> MeasuredContent:
    """What is in a model, and how it differs from a baseline; one that cannot be examined is a result too.

    Args:
        kept: measurements by digest; new ones are added, and those that are there are not taken again.
        shuffled: also take the spectra of the shuffled elements.
    """
    return _scan(executor, kept, shuffled, hash_files(path), baseline, {}, progress)


def hash_files(path: Path) -> Files:
    """Hash the weight files of a model."""
    try:
        identity = _identity(path)
        manifest = build_manifest(path)
    except UnreadableError as error:
        return Files(path, "", 0, (), error)
    except OSError as error:
        detail = error.strerror or type(error).__name__
        return Files(path, "", 0, (), UnreadableError(UnreadableReason.IO_ERROR, path, detail))
    return Files(path, manifest.fingerprint, manifest.size_bytes, identity, read_by=reading_digest(path))


_Scan = Callable[[Files, Path | None, dict[str, str], Callable[[Progress], None]], MeasuredContent]


def _measured(
    files: Files,
    scan: _Scan,
    kept: dict[str, Measurement],
    cache: MeasurementCache | None,
    progress: Callable[[Progress], None],
) -> ContentRecord:
    others = frozenset(kept)
    known = _cached(files, kept, cache)
    if known is not None:
        return known
    found = scan(files, None, {}, progress).content
    _keep(files, found, kept, others, cache)
    return found


def _compared(
    files: Files,
    baseline: Files,
    before: ContentRecord,
    scan: _Scan,
    kept: dict[str, Measurement],
    cache: MeasurementCache | None,
    progress: Callable[[Progress], None],
) -> MeasuredContent:
    others = frozenset(kept)
    known = _cached(files, kept, cache)
    if known is not None and cache is not None:
        if not has_changed_layers(known, digests_of(before)):
            return MeasuredContent(known, {})
        exact = cache.comparison(files.key, baseline.key)
        if exact is not None:
            return MeasuredContent(known, dict(exact))
    found = scan(files, baseline.path, digests_of(before), progress)
    if known is None:
        _keep(files, found.content, kept, others, cache)
    both_whole = is_whole(found.content) and is_whole(before)
    if cache is not None and both_whole and _is_unchanged(baseline):
        cache.keep_comparison(files.key, baseline.key, found.exact)
    return found


def _scan(
    executor: LocalExecutor,
    kept: dict[str, Measurement],
    shuffled: bool,
    files: Files,
    baseline: Path | None,
    baseline_digests: dict[str, str],
    progress: Callable[[Progress], None],
) -> MeasuredContent:
    if files.problem is not None:
        return MeasuredContent(unreadable_content(files.fingerprint, files.size_bytes, files.problem), {})
    against = str(baseline) if baseline is not None else None
    try:
        found = measure_content(
            executor,
            ScanRequest(str(files.path), against, shuffled, baseline_digests),
            files.fingerprint,
            files.size_bytes,
            known=kept.__contains__,
            save=lambda measurement: kept.__setitem__(measurement.digest, measurement),
            progress=progress,
        )
    except UnreadableError as error:
        return MeasuredContent(unreadable_content(files.fingerprint, files.size_bytes, error), {})
    return found if _is_unchanged(files) else _changed(files)


def _cached(
    files: Files, kept: dict[str, Measurement], cache: MeasurementCache | None
) -> ContentRecord | None:
    if cache is None or files.problem is not None:
        return None
    found = cache.model(files.key, files.fingerprint)
    if found is None:
        return None
    kept.update(found.measurements)
    return found.content


def _keep(
    files: Files,
    content: ContentRecord,
    kept: dict[str, Measurement],
    others: Collection[str],
    cache: MeasurementCache | None,
) -> None:
    """Keep what was found; where something could not be examined, what was measured of this model.

    Args:
        others: digests of what was measured before this model.
    """
    if cache is None or files.problem is not None or not _is_unchanged(files):
        return
    if is_whole(content):
        digests = [entry.digest for entry in content.layers if entry.digest]
    else:
        digests = [digest for digest in kept if digest not in others]
    if digests:
        cache.keep_model(files.key, content, {digest: kept[digest] for digest in digests})


def _identity(path: Path) -> Identity:
    return tuple((str(file), identity_of(file.stat())) for file in weight_files(path))


def _is_unchanged(*models: Files) -> bool:
    """Whether what was measured is what was hashed, as names, sizes, times and inodes tell."""
    try:
        return all(_identity(files.path) == files.identity for files in models)
    except (OSError, UnreadableError):
        return False


def _changed(files: Files) -> MeasuredContent:
    error = UnreadableError(
        UnreadableReason.CHANGED_WHILE_READING,
        files.path,
        "its files changed while they were examined; publish finished files only, and run this again",
    )
    return MeasuredContent(unreadable_content(files.fingerprint, files.size_bytes, error), {})
