"""A registry that is a directory tree: ``<root>/<model>/<version>/...weight files``.

A version may also be a single weight file in the model's folder. Names that begin with a dot or end in ``.tmp``,
``.partial`` or ``~`` are invisible, so that a writer can prepare a version under such a name and rename it. A
symbolic link inside a model's folder that leads to one of its versions is a ref; ``latest`` is the newest version
unless a link of that name says otherwise. ``lineage.json`` in a version's folder declares its parent:
``{"parent": "v1", "relation": "quantized"}`` (``lineagefile.py``).
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from pathlib import Path

import yaml

from layerwatch.config.registries import DirectoryRegistrySettings
from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundRef,
    FoundVersion,
    Listing,
    Progress,
    RegistryReason,
    RegistryUnavailable,
    VerdictWriter,
    no_progress,
)
from layerwatch.daemon.registries.declarations import DECLARATION_FILES, GGUF_SUFFIX, declared_in
from layerwatch.daemon.registries.downloads import Downloads
from layerwatch.daemon.registries.ggufheader import HEAD_BYTES
from layerwatch.daemon.registries.lineagefile import (
    LINEAGE_FILE,
    MERGEKIT_FILE,
    parse_lineage,
    parse_mergekit,
)
from layerwatch.daemon.registries.patterns import is_visible, matches
from layerwatch.daemon.registries.settling import Settling, is_quiet
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.manifest import WEIGHT_SUFFIXES, Manifest, build_manifest, weight_files

LATEST = "latest"
_LINEAGE_LIMIT = 64 * 1024
_DECLARATION_LIMIT = 2**20
_SHARD = re.compile(r".*(-\d{5,6}-of-\d{5,6}\.\w+|\.index\.json)", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class _State:
    """The stat results of a version's files at one moment.

    Attributes:
        token: changes when the files may have changed.
        touched: latest change of any kind (contents, rights, names), in seconds since 1970; infinite while files
            come and go.
        modified: latest change of contents, in seconds since 1970.
    """

    token: str
    touched: float
    modified: float


@dataclass(slots=True)
class _Look:
    """What one walk over the tree has found so far."""

    versions: list[FoundVersion] = field(default_factory=list)
    refs: list[FoundRef] = field(default_factory=list)
    unfinished: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    unlisted: list[tuple[str, RegistryReason]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


class DirectoryRegistry:
    """Watches a directory tree, safe against half-written versions.

    A version is complete when its marker file exists (``complete_marker``), or, without a marker, when nothing
    in it has changed for the settle time: judged by the files' own change times, and by what earlier looks saw,
    so that a file server whose clock runs ahead delays a version but never hides it, and one whose clock is behind
    does not make a version complete at the first sight of it.
    """

    def __init__(self, settings: DirectoryRegistrySettings) -> None:
        self._settings = settings
        self._root = Path(settings.path)
        self._settling = Settling()
        self._device: int | None = None

    @property
    def name(self) -> str:
        """Name from the configuration."""
        return self._settings.name

    @property
    def verdict_writer(self) -> VerdictWriter | None:
        """None: directories are only read."""
        return None

    def recall(self, published: Mapping[str, str]) -> None:
        """Before the first listing: location -> token of what an earlier process found complete.

        What did not change since is complete at once, and what did keeps its refs until it has settled again.
        """
        self._settling.recall(published)

    def listing(self, now: datetime, everything: bool = True) -> Listing:
        """Walk the tree by stat alone; nothing is opened but ``lineage.json``. All versions are always listed."""
        look = _Look()
        empty = True
        for folder in self._model_folders(look):
            empty = False
            try:
                self._look_into(folder, now, look)
            except OSError as error:
                if _may_exist(folder):
                    reason = _reason(error)
                    look.unlisted.append((folder.name, reason))
                    look.remarks.append(f"{folder}: this model could not be listed: {error.strerror}")
        self._require_mounted(empty)
        blind = {str(self._root / model) for model, _ in look.unlisted}
        kept = look.seen | {path for path in self._settling.known() if str(Path(path).parent) in blind}
        self._settling.keep(kept)
        return Listing(
            tuple(look.versions),
            tuple(look.refs),
            tuple(look.unfinished),
            tuple(look.remarks),
            tuple(look.unlisted),
            empty,
        )

    def manifest(self, found: FoundVersion, anew: bool = False, progress: Progress = no_progress) -> Manifest:
        """Hash the version's weight files."""
        with self.open(found.location) as path:
            return build_manifest(path)

    def lineage(self, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
        """What the listing read, then what other files beside the weights say."""
        told = (found.lineage,) if found.lineage else ()
        known = {LINEAGE_FILE, *(one.source for one in told)}
        beside = declared_in(_declarations(Path(found.location), known))
        return (*told, *(one for one in beside if one.source not in known))

    def token(self, location: str) -> str | None:
        """The version's stat token now, or None when it is gone."""
        try:
            state = _state_of(Path(location))
        except OSError as error:
            raise RegistryUnavailable(_reason(error), f"{location}: {error.strerror}") from error
        return state.token if state else None

    @contextmanager
    def open(self, location: str, progress: Progress = no_progress) -> Iterator[Path]:
        """The version's own path: nothing is copied."""
        path = Path(location)
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RegistryUnavailable(RegistryReason.VERSION_GONE, f"{path} is no longer there") from error
        except OSError as error:
            raise RegistryUnavailable(_reason(error), f"{path}: {error.strerror}") from error
        yield path

    def _model_folders(self, look: _Look) -> Iterator[Path]:
        try:
            entries = _visible(self._root, look.remarks)
        except FileNotFoundError as error:
            raise RegistryUnavailable(
                RegistryReason.NOT_FOUND, f"the directory {self._root} does not exist: create or mount it"
            ) from error
        except PermissionError as error:
            raise RegistryUnavailable(
                RegistryReason.NOT_PERMITTED, f"the directory {self._root} may not be read by this user"
            ) from error
        except OSError as error:
            raise RegistryUnavailable(RegistryReason.IO_ERROR, f"{self._root}: {error.strerror}") from error
        for entry in entries:
            if not matches(entry.name, self._settings.models):
                continue
            try:
                mode = entry.lstat().st_mode
            except FileNotFoundError:
                continue
            except PermissionError as error:
                detail = f"{self._root}: its entries cannot be looked at: {error.strerror}"
                raise RegistryUnavailable(_reason(error), detail) from error
            except OSError:
                # A stale handle of a file server, say: what cannot be listed is told, model by model.
                yield entry
                continue
            if stat.S_ISDIR(mode):
                yield entry
            elif stat.S_ISLNK(mode):
                look.remarks.append(f"{entry}: a model's folder must not be a symbolic link; left out")

    def _require_mounted(self, empty: bool) -> None:
        """Raise RegistryUnavailable when the tree is empty and on another device than the models were."""
        try:
            device = self._root.stat().st_dev
        except OSError as error:
            raise RegistryUnavailable(_reason(error), f"{self._root}: {error.strerror}") from error
        if not empty:
            self._device = device
        elif self._device not in (None, device):
            raise RegistryUnavailable(
                RegistryReason.EMPTY,
                f"the directory {self._root} is empty and on another device than before: mount it again",
            )

    def _look_into(self, folder: Path, now: datetime, look: _Look) -> None:
        model = folder.name
        links: list[tuple[str, str]] = []
        complete: list[FoundVersion] = []
        written_again: list[FoundVersion] = []
        unfinished: set[str] = set()
        for entry in _visible(folder, look.remarks):
            if entry.is_symlink():
                target = _link_target(entry, folder, look.remarks)
                if target is not None:
                    links.append((entry.name, target))
                continue
            if not _may_be_version(entry, look.remarks):
                continue
            state = _state_of(entry)
            if state is None:
                self._remark_on_missing_weights(entry, now, look.remarks)
                continue
            if self._settings.complete_marker is not None and not entry.is_dir():
                look.remarks.append(
                    f"{entry}: a single file cannot hold the marker {self._settings.complete_marker}, so it never "
                    "counts as complete; put it into a folder of its own"
                )
            path = str(entry)
            look.seen.add(path)
            if self._is_complete(entry, state, now):
                complete.append(self._found(model, entry, state, look.remarks))
                self._settling.publish(path)
                continue
            unfinished.add(entry.name)
            if self._settling.was_published(path):
                written_again.append(self._found(model, entry, state, []))
        complete.sort(key=attrgetter("age"))
        look.versions.extend(complete)
        look.unfinished.extend((model, name) for name in sorted(unfinished))
        # A version that is touched or written again is still the newest: its refs wait where they are.
        newest = max([*complete, *written_again], key=attrgetter("age"), default=None)
        known = unfinished | {found.version for found in complete}
        targets = {name: version for name, version in links if version in known}
        if newest is not None:
            targets.setdefault(LATEST, newest.version)
        look.refs.extend(
            FoundRef(model, ref, version)
            for ref, version in sorted(targets.items())
            if matches(ref, self._settings.refs)
        )

    def _is_complete(self, entry: Path, state: _State, now: datetime) -> bool:
        marker = self._settings.complete_marker
        if marker is not None:
            # A folder that may not be looked into is taken as it is once it settled, and ends as undecided.
            with suppress(PermissionError):
                return entry.is_dir() and (entry / marker).exists()
        return self._settling.is_settled(str(entry), state.token, state.touched, self._settings.settle, now)

    def _remark_on_missing_weights(self, entry: Path, now: datetime, remarks: list[str]) -> None:
        """Tell of a folder that looks finished and is no version for lack of a weight file."""
        marker = self._settings.complete_marker
        try:
            changed = entry.stat().st_ctime
            finished = (
                is_quiet(changed, self._settings.settle, now) if marker is None else (entry / marker).exists()
            )
        except OSError:
            return  # gone again, or told when it is listed
        if finished:
            known = ", ".join(WEIGHT_SUFFIXES)
            remarks.append(
                f"{entry}: holds no weight file, so it is no version; names of weights end in {known}"
            )

    def _found(self, model: str, entry: Path, state: _State, remarks: list[str]) -> FoundVersion:
        by_time = self._settings.order == "time"
        return FoundVersion(
            model=model,
            version=entry.name,
            location=str(entry),
            order_key=f"{max(0, int(state.modified * 1e6)):020d}" if by_time else entry.name,
            token=state.token,
            lineage=_read_lineage(entry, remarks) if entry.is_dir() else None,
        )


def _may_exist(path: Path) -> bool:
    """False when a path is certainly gone; a file server that fails, or lost track of it, says nothing of the kind."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _visible(folder: Path, remarks: list[str]) -> list[Path]:
    """The entries of a folder that count, sorted by name."""
    found = []
    for entry in sorted(folder.iterdir()):
        if not is_visible(entry.name):
            continue
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            remarks.append(f"{folder}: the name {os.fsencode(entry.name)!r} is not UTF-8 text; left out")
            continue
        found.append(entry)
    return found


def _may_be_version(entry: Path, remarks: list[str]) -> bool:
    """Whether an entry of a model's folder can be a version at all: a folder, or a single weight file."""
    if entry.is_dir():
        return True
    if not entry.is_file() or not entry.name.lower().endswith(WEIGHT_SUFFIXES):
        return False
    if _SHARD.fullmatch(entry.name):
        remarks.append(
            f"{entry}: shards belong into a folder of their own, named after the version; left out"
        )
        return False
    return True


def _link_target(link: Path, folder: Path, remarks: list[str]) -> str | None:
    """Name of the version that a ref leads to, also through other refs."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        target = None
    if target is None or target.parent != folder.resolve():
        remarks.append(f"{link}: a ref must point at a version in the same folder; left out")
        return None
    return target.name


def _state_of(entry: Path) -> _State | None:
    """The state of a version's weight files; None when it has none (yet), or is gone.

    An entry whose files cannot be looked at has a state too: it must end as undecided, not vanish.
    """
    state = hashlib.sha256()
    try:
        own = entry.stat()
        touched, modified = own.st_ctime, 0.0
        files = weight_files(entry)
    except FileNotFoundError:
        return None
    except UnreadableError as error:
        if not _may_exist(entry):
            return None
        state.update(f"{error.reason}\0{error.detail}\0{own.st_ctime_ns}".encode(errors="surrogateescape"))
        return _State(state.hexdigest(), touched, own.st_mtime)
    if not files:
        return None
    for file in files:
        relative = file.relative_to(entry) if file != entry else Path(entry.name)
        state.update(f"{relative}\0".encode(errors="surrogateescape"))
        try:
            found = file.stat()
        except OSError as error:
            state.update(f"{error.errno}\n".encode())
            touched = math.inf
            continue
        touched = max(touched, found.st_ctime, found.st_mtime)
        modified = max(modified, found.st_mtime)
        state.update(f"{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}\0{found.st_ino}\n".encode())
    return _State(state.hexdigest(), touched, modified)


def _read_lineage(folder: Path, remarks: list[str]) -> DeclaredLineage | None:
    path = folder / LINEAGE_FILE
    try:
        lineage, unknown = parse_lineage(_small_file(path))
        if unknown is not None:
            remarks.append(
                f"{path}: unknown key {unknown!r} is ignored; known are parent, relation, parents and recipe"
            )
        return lineage
    except FileNotFoundError:
        return _read_mergekit(folder / MERGEKIT_FILE, remarks)
    except OSError as error:
        remarks.append(f"{path}: cannot be read: {error.strerror}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        remarks.append(
            f'{path}: not a lineage declaration ({error}); expected {{"parent": "v1", "relation": ...}}'
        )
    return None


def _read_mergekit(path: Path, remarks: list[str]) -> DeclaredLineage | None:
    try:
        return parse_mergekit(_small_file(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        remarks.append(f"{path}: cannot be read: {error.strerror}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remarks.append(f"{path}: its recipe is not used ({reason}); declare the merge in {LINEAGE_FILE}")
    return None


def _declarations(entry: Path, known: Container[str]) -> dict[str, bytes]:
    """The files of a version that tell where it comes from, but for the known ones; what cannot be read is left out."""
    texts = {}
    if entry.is_dir():
        for name in DECLARATION_FILES:
            if name not in known:
                with suppress(OSError, ValueError):
                    texts[name] = _small_file(entry / name, _DECLARATION_LIMIT)
    with suppress(OSError, UnreadableError, ValueError):
        heads = [path for path in weight_files(entry) if path.name.lower().endswith(GGUF_SUFFIX)]
        if heads:
            texts[heads[0].name] = _head(heads[0], HEAD_BYTES)
    return texts


def _small_file(path: Path, limit: int = _LINEAGE_LIMIT) -> bytes:
    """The bytes of a regular file; raises OSError, or ValueError when it is something else or too large."""
    text = _head(path, limit + 1)
    if len(text) > limit:
        raise ValueError(f"larger than {limit // 1024} KiB")
    return text


def _head(path: Path, size: int) -> bytes:
    """The first bytes of a regular file; raises OSError, or ValueError when it is something else."""
    # Without O_NONBLOCK, a named pipe would hold the look up for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a regular file")
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> RegistryReason:
    return RegistryReason.NOT_PERMITTED if isinstance(error, PermissionError) else RegistryReason.IO_ERROR


def build(settings: DirectoryRegistrySettings, downloads: Downloads) -> DirectoryRegistry:
    """A directory needs no downloads."""
    return DirectoryRegistry(settings)
