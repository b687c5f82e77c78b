"""Which files are the weights of a model, and the fingerprint of their bytes.

A version is its weight files: a commit that changes only the README leaves the fingerprint as it is.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers import orbaxfiles
from layerwatch.metrics.readers.shards import (
    DISTRIBUTED_METADATA,
    DISTRIBUTED_SUFFIX,
    INDEX_SUFFIX,
    read_index,
)

WEIGHT_SUFFIXES = (
    *(".safetensors", ".safetensors.index.json"),
    *(".pt", ".pth", ".pth.tar", ".th", ".bin", ".bin.index.json", ".ckpt"),
    *(".jit", ".torchscript", ".ptl", DISTRIBUTED_SUFFIX),
    *(".gguf", ".onnx", ".onnx.data", ".onnx_data", ".h5", ".hdf5", ".keras", ".npz", ".npy"),
)
"""Names that weights and the indexes of their shards end with, read or not, in any case."""

TENSORFLOW_NAME = re.compile(r"saved_model\.pb|.+\.data-\d{5}-of-\d{5}", re.ASCII | re.DOTALL)
"""Files of a TensorFlow SavedModel and of its variables: weights that are not read."""

BLOCK_BYTES = 2**20

_MOST_LOOKED_AT = 1000
_SHOWN_LINKS = 5


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One weight file.

    Attributes:
        path: relative to the model's root, with ``/``; the name alone when the root is a file.
        size_bytes: its size.
        sha256: digest of its bytes, in hex.
    """

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The weight files of one version, sorted by path."""

    entries: tuple[ManifestEntry, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all weight files together."""
        return sum(entry.size_bytes for entry in self.entries)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 in hex over one line ``path NUL size NUL sha256 LF`` per file, sorted by path."""
        state = hashlib.sha256()
        for entry in sorted(self.entries, key=lambda entry: entry.path):
            line = f"{entry.path}\0{entry.size_bytes}\0{entry.sha256}\n"
            state.update(line.encode("utf-8", "surrogateescape"))
        return state.hexdigest()


def weight_files(root: Path) -> tuple[Path, ...]:
    """The weight files of a model, sorted by path.

    A file is its own weights, whatever it is called; an index of shards brings its shards with it, an ONNX file the
    files of its external data. In a
    directory every file below it counts whose name ends in one of :data:`WEIGHT_SUFFIXES`. Hidden files and
    directories are left out, but for the ``.metadata`` of a distributed checkpoint beside its files. Links are not followed out of the directory, so that a model cannot pull in foreign
    files; and since whoever loads the model follows them, one that leads out makes the model unreadable. The one
    exception is the cache of the Hugging Face Hub, where ``snapshots/<revision>`` links to ``blobs`` beside it.
    Below the ``_METADATA`` of an Orbax checkpoint every file counts that arrays are made of.
    Directories that are links are not entered; they are refused where they lead out and weights may lie below.

    Raises:
        UnreadableError: NOT_FOUND when there is no such path, and for links that lead out of the directory;
            IO_ERROR when a directory cannot be listed.
    """
    if not root.is_dir():
        if not root.exists():
            raise UnreadableError(UnreadableReason.NOT_FOUND, root, "there is no such file or directory")
        shards = set(read_index(root).values()) if root.name.endswith(INDEX_SUFFIX) else set()
        outside = _external_files(root) if root.name.lower().endswith(".onnx") else ()
        return tuple(sorted({root, *shards, *outside}))
    allowed = _allowed_roots(root)
    found: list[Path] = []
    leading_out: list[Path] = []
    checkpoint: Path | None = None
    for folder, subfolders, names in os.walk(root, onerror=_refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for path in (Path(folder, name) for name in subfolders):
            if path.is_symlink() and _leads_out(path, allowed) and _may_hold_weights(path):
                leading_out.append(path)
        if checkpoint is None or not Path(folder).is_relative_to(checkpoint):
            checkpoint = Path(folder) if orbaxfiles.METADATA in names else None
        counted = weight_names(names) if checkpoint is None else orbaxfiles.array_files(Path(folder), names)
        for name in names:
            path = Path(folder, name)
            if name not in counted:
                continue
            if path.is_symlink() and _leads_out(path, allowed):
                leading_out.append(path)
            elif path.is_file():
                found.append(path)
    if leading_out:
        raise _links_refused(root, leading_out, "lead out of the directory, which are not followed")
    return tuple(sorted(found))


def require_no_linked_folders(root: Path) -> None:
    """Do nothing where no folder of a model is a link.

    What lies below one is known by another name, or not at all: the fingerprint does not tell where it leads.

    Raises:
        UnreadableError: NOT_FOUND for such a link; IO_ERROR when a directory cannot be listed.
    """
    if not root.is_dir():
        return
    linked = []
    for folder, subfolders, _ in os.walk(root, onerror=_refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        linked += [path for name in subfolders if (path := Path(folder, name)).is_symlink()]
    if linked:
        raise _links_refused(root, linked, "lead to folders, whose place no fingerprint holds")


def build_manifest(root: Path) -> Manifest:
    """Hash every weight file of a model.

    Raises:
        UnreadableError: NOT_FOUND when there are none; CHANGED_WHILE_READING when one was written to, replaced,
            added or removed meanwhile; IO_ERROR when one cannot be read.
    """
    files = weight_files(root)
    if not files:
        raise UnreadableError(
            UnreadableReason.NOT_FOUND,
            root,
            f"no weight file here; their names end in {', '.join(WEIGHT_SUFFIXES)}",
        )
    base = root if root.is_dir() else root.parent
    entries = tuple(_entry(file, file.relative_to(base).as_posix()) for file in files)
    if weight_files(root) != files:
        raise UnreadableError(
            UnreadableReason.CHANGED_WHILE_READING,
            root,
            "weight files were added or removed while they were hashed",
        )
    return Manifest(tuple(sorted(entries, key=lambda entry: entry.path)))


def _entry(file: Path, name: str) -> ManifestEntry:
    state = hashlib.sha256()
    try:
        with file.open("rb", buffering=0) as stream:
            before = identity_of(os.fstat(stream.fileno()))
            while block := stream.read(BLOCK_BYTES):
                state.update(block)
            size = stream.tell()
            after, named = identity_of(os.fstat(stream.fileno())), identity_of(file.stat())
    except FileNotFoundError as error:
        raise UnreadableError(UnreadableReason.NOT_FOUND, file, "the file is not there (any more)") from error
    except OSError as error:
        raise _io_error(file, error) from error
    if not before == after == named or size != before[0]:
        raise UnreadableError(
            UnreadableReason.CHANGED_WHILE_READING,
            file,
            "the file was written to or replaced while it was hashed; publish finished files only, for example by "
            "renaming them into place",
        )
    return ManifestEntry(name, size, state.hexdigest())


def identity_of(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """What changes with every change of a file: the time of the last change (ctime) cannot be set back."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


def weight_names(names: Iterable[str]) -> frozenset[str]:
    """Which of the files in one folder are weights, by their names."""
    names = frozenset(names)
    weights = {name for name in names if not name.startswith(".") and _is_weight(name)}
    if DISTRIBUTED_METADATA in names and any(name.lower().endswith(DISTRIBUTED_SUFFIX) for name in weights):
        weights.add(DISTRIBUTED_METADATA)
    return frozenset(weights)


def _is_weight(name: str) -> bool:
    return TENSORFLOW_NAME.fullmatch(name) is not None or name.lower().endswith(WEIGHT_SUFFIXES)


def _leads_out(link: Path, allowed: tuple[Path, ...]) -> bool:
    # Unlike Path.resolve, realpath takes links in a circle without an error.
    target = Path(os.path.realpath(link))
    return not any(target.is_relative_to(base) for base in allowed)


def _may_hold_weights(folder: Path) -> bool:
    """Whether something in a foreign folder is called like weights; so is what cannot be told by a short look."""
    unlisted: list[OSError] = []
    seen = 0
    for inside, subfolders, names in os.walk(folder, onerror=unlisted.append):
        seen += 1 + len(subfolders) + len(names)
        if seen > _MOST_LOOKED_AT or any(map(_is_weight, names)):
            return True
        if any(Path(inside, name).is_symlink() for name in subfolders):
            return True
    return bool(unlisted)


def _links_refused(root: Path, links: list[Path], what: str) -> UnreadableError:
    names = sorted(link.relative_to(root).as_posix() for link in links)
    more = f" and {len(names) - _SHOWN_LINKS} more" if len(names) > _SHOWN_LINKS else ""
    return UnreadableError(
        UnreadableReason.NOT_FOUND,
        root,
        f"holds links that {what} ({', '.join(names[:_SHOWN_LINKS])}{more}); put the files themselves there",
    )


def _external_files(path: Path) -> tuple[Path, ...]:
    # Imported here: a daemon that watches must not carry the readers' number types in its memory.
    from layerwatch.metrics.readers.onnxvalues import external_files

    return external_files(path)


def _allowed_roots(root: Path) -> tuple[Path, ...]:
    resolved = root.resolve()
    if resolved.parent.name == "snapshots":
        return resolved, resolved.parent.parent / "blobs"
    return (resolved,)


def _refuse(error: OSError) -> None:
    raise _io_error(Path(error.filename or ""), error) from error


def _io_error(path: Path, error: OSError) -> UnreadableError:
    return UnreadableError(
        UnreadableReason.IO_ERROR, path, f"it cannot be read: {error.strerror or type(error).__name__}"
    )
