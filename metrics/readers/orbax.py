"""Checkpoints of Orbax (JAX, Flax): a directory of zarr arrays, in one OCDBT database or each in a directory of its own.

``_METADATA`` lists the arrays of the tree (``tree_metadata``) and says which zarr it is (``use_zarr3``). An array is
stored under its keys joined by dots: in the database ``manifest.ocdbt`` with its ``d/`` and ``ocdbt.process_*/``, or in
the directory of that name. Both are read with tensorstore, which is given a specification made here: the kind of zarr,
the database, and this directory. No specification is ever taken from a checkpoint; files in it name other files of it
only. Arrays are read in whole chunks, one array at a time.

Names are the keys joined by dots. Flax stores ``kernel`` with outputs last: of two axes (in, out), of four and five the
convolution's (height, width, in, out); they are handed out as (out, in) and (out, in, height, width). Of three axes they
stay as stored, because those of attention (in, heads, features) look like those of a convolution.

Format: https://orbax.readthedocs.io/en/latest/guides/checkpoint/checkpoint_format.html and
https://google.github.io/tensorstore/kvstore/ocdbt/index.html .
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from layerwatch.config.extras import how_to_install
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.dtypes import SAFETENSORS_TYPES, element_count
from layerwatch.metrics.readers.names import is_text
from layerwatch.metrics.readers.orbaxfiles import METADATA
from layerwatch.metrics.readers.strictjson import parse_object
from layerwatch.metrics.tensors import Array, TensorInfo, UnexaminedFile

MANIFEST = "manifest.ocdbt"

MAX_METADATA_BYTES = 64 * 2**20
"""Most bytes of ``_METADATA``; a thousand arrays take a quarter of a megabyte."""

MAX_ARRAYS = 200_000
MAX_FILES = 1_000_000
MAX_NAME_LENGTH = 4096

MAX_EXPANSION = 1000
"""Most bytes of an array, and of a chunk of it, for each byte of all files: constant arrays compress well."""

_SMALL_BYTES = 16 * 2**20
"""Bytes of an array or chunk that are allowed in any case."""

_NAMES = {kept.numpy: name for name, kept in SAFETENSORS_TYPES.items() if kept.numpy is not None}
_TRAINING_STATE = re.compile(r"opt_?state|optimizer(_state)?|rng(_state)?", re.IGNORECASE)
_NO_ARRAYS = frozenset({"Dict", "List", "Tuple", "None", "NamedTuple", "str", "string"})


@dataclass(frozen=True, slots=True)
class _Entry:
    info: TensorInfo
    array: Any
    order: tuple[int, ...] | None


class OrbaxDirectory:
    """One checkpoint directory.

    Raises:
        UnreadableError: UNSUPPORTED_TENSOR without the extra ``orbax``; BAD_HEADER, TOO_LARGE or TOO_DEEP for a
            description that is none or breaks a limit; NOT_FOUND for links out of the directory; MISSING_SHARD for an
            array that is declared and not there; CORRUPT for a database that tensorstore does not accept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._store = _tensorstore(path)
        self._stored_bytes = self._check_files()
        self._seen = self._identity()
        description = self._description()
        self._database = (path / MANIFEST).is_file()
        self._driver = "zarr3" if description.get("use_zarr3") is True else "zarr"
        # Since this is declared, a chunk that is not there is lost, not a chunk of zeros.
        self._whole = description.get("store_array_data_equal_to_fill_value") is True
        self._context = self._store.Context(
            {
                "cache_pool": {"total_bytes_limit": 0},
                "data_copy_concurrency": {"limit": 1},
                "file_io_concurrency": {"limit": 4},
            }
        )
        self._left_out: list[tuple[str, str]] = []
        self._entries: dict[str, _Entry] = {}
        for name in self._declared(description):
            self._entries[name] = self._opened(name)
        if not self._entries:
            raise self._error(UnreadableReason.NO_TENSORS, "the checkpoint holds no arrays of weights")

    @property
    def format(self) -> str:
        """``orbax``."""
        return "orbax"

    def tensors(self) -> Sequence[TensorInfo]:
        """All arrays in the order of the description. ``size_bytes`` are those of the values, not of the files."""
        return tuple(entry.info for entry in self._entries.values())

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """Training state."""
        return self._left_out

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """Nothing: a checkpoint is opened whole or not at all."""
        return ()

    @property
    def metadata(self) -> Mapping[str, object]:
        """Nothing: the format declares none of the model."""
        return {}

    def load(self, name: str) -> Array:
        """The values of one array, read-only; KeyError for a name that is not listed.

        Raises:
            UnreadableError: UNSUPPORTED_DTYPE, CHANGED_WHILE_READING, or the values are not all there.
        """
        entry = self._entries[name]
        if entry.info.dtype not in SAFETENSORS_TYPES:
            raise self._error(
                UnreadableReason.UNSUPPORTED_DTYPE,
                f"its type {entry.info.dtype} is none that weights have; keep a copy of them as float32 or bfloat16",
                name,
            )
        if self._identity() != self._seen:
            raise self._error(
                UnreadableReason.CHANGED_WHILE_READING,
                "the checkpoint was written to or replaced while it was read; publish finished ones only, for example "
                "by renaming them into place",
            )
        try:
            values = np.asarray(entry.array.read().result())
        except (ValueError, OSError, MemoryError) as error:
            raise self._failed(error, name) from error
        if entry.order is not None:
            values = values.transpose(entry.order)
        values.flags.writeable = False
        return values

    def release(self) -> None:
        """Nothing is kept of what was read."""

    def close(self) -> None:
        """Let go of the arrays; values already handed out stay valid."""
        self._entries = {}

    def _check_files(self) -> int:
        """Bytes of all files; none may be a link that leads out, or something that is no file."""
        within = self.path.resolve()
        allowed = (within, within.parents[1] / "blobs") if within.parent.name == "snapshots" else (within,)
        count = total = 0
        for folder, subfolders, names in os.walk(self.path, onerror=self._refuse):
            for name in (*subfolders, *names):
                count += 1
                if count > MAX_FILES:
                    raise self._error(
                        UnreadableReason.TOO_LARGE, f"the checkpoint has more than {MAX_FILES} files"
                    )
                place = Path(folder, name)
                shown = place.relative_to(self.path).as_posix().encode("utf-8", "backslashreplace").decode()
                linked = place.is_symlink()
                target = Path(os.path.realpath(place)) if linked else place
                if linked and (name in subfolders or not any(target.is_relative_to(one) for one in allowed)):
                    raise self._error(
                        UnreadableReason.NOT_FOUND,
                        f"{shown[:200]} is a link that leads elsewhere; put the file itself there",
                    )
                if name in subfolders:
                    continue
                try:
                    status = place.stat()
                except OSError as error:
                    self._refuse(error)
                if not stat.S_ISREG(status.st_mode):
                    raise self._error(UnreadableReason.IO_ERROR, f"{shown[:200]} is no regular file")
                total += status.st_size
        return total

    def _refuse(self, error: OSError) -> None:
        raise self._error(
            UnreadableReason.IO_ERROR, f"it cannot be read: {error.strerror or type(error).__name__}"
        ) from error

    def _identity(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for name in (METADATA, MANIFEST):
            try:
                status = (self.path / name).stat()
            except OSError:
                continue
            found.append((status.st_size, status.st_mtime_ns, status.st_ino))
        return tuple(found)

    def _description(self) -> dict[str, Any]:
        file = self.path / METADATA
        try:
            with file.open("rb") as stream:
                raw = stream.read(MAX_METADATA_BYTES + 1)
        except OSError as error:
            raise self._error(
                UnreadableReason.MISSING_SHARD,
                f"{METADATA}, which lists the arrays, is not there; save the checkpoint with a current Orbax",
            ) from error
        if len(raw) > MAX_METADATA_BYTES:
            raise self._error(
                UnreadableReason.TOO_LARGE, f"{METADATA} has more than {MAX_METADATA_BYTES} bytes"
            )
        return parse_object(raw, file, METADATA)

    def _declared(self, description: dict[str, Any]) -> list[str]:
        tree = description.get("tree_metadata")
        if not isinstance(tree, dict):
            raise self._error(UnreadableReason.BAD_HEADER, f"{METADATA} has no tree_metadata")
        if len(tree) > MAX_ARRAYS:
            raise self._error(UnreadableReason.TOO_LARGE, f"{METADATA} lists more than {MAX_ARRAYS} arrays")
        names: dict[str, None] = {}
        state: dict[str, None] = {}
        for entry in tree.values():
            keys = _keys(entry)
            value = entry.get("value_metadata") if isinstance(entry, dict) else None
            if keys is None or not isinstance(value, dict):
                raise self._error(
                    UnreadableReason.BAD_HEADER, f"an entry of {METADATA} has no keys or no value_metadata"
                )
            if value.get("value_type") in _NO_ARRAYS:
                continue
            name = ".".join(keys)
            self._check_name(name)
            if value.get("skip_deserialize") is True:
                self._left_out.append((name, "declared to be skipped (skip_deserialize): not examined"))
                continue
            if name in names:
                raise self._error(
                    UnreadableReason.BAD_HEADER, "two entries of the tree have this name", name[:200]
                )
            if len(keys) > 1 and _TRAINING_STATE.fullmatch(keys[0]):
                state[keys[0]] = None
            else:
                names[name] = None
        self._left_out += [(name, "training state: not examined") for name in state]
        return list(names)

    def _check_name(self, name: str) -> None:
        if not name or len(name) > MAX_NAME_LENGTH or not is_text(name):
            raise self._error(
                UnreadableReason.BAD_HEADER,
                f"a name in {METADATA} is empty, no text, or longer than {MAX_NAME_LENGTH} characters",
            )
        parts = name.split("/")
        if any(part in {"", ".", ".."} for part in parts) or "\\" in name or "\0" in name:
            raise self._error(
                UnreadableReason.BAD_HEADER,
                "a name in the tree that is a way through directories",
                name[:200],
            )

    def _opened(self, name: str) -> _Entry:
        base = {"driver": "file", "path": f"{self.path.resolve()}/"}
        if self._database:
            place: dict[str, Any] = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
        else:
            place = {"driver": "file", "path": f"{base['path']}{name}/"}
        spec = {
            "driver": self._driver,
            "kvstore": place,
            "fill_missing_data_reads": not self._whole,
            "recheck_cached_data": False,
        }
        try:
            array = self._store.open(spec, context=self._context, open=True, read=True).result()
        except (ValueError, OSError, MemoryError) as error:
            raise self._failed(error, name) from error
        shape = tuple(int(length) for length in array.shape)
        if element_count(shape) is None:
            raise self._error(
                UnreadableReason.BAD_HEADER, "its shape holds more elements than a file can", name
            )
        dtype = np.dtype(array.dtype.numpy_dtype)
        layout = array.chunk_layout
        for what, lengths in (
            ("it", shape),
            ("a chunk of it", layout.read_chunk.shape),
            ("a run of its chunks", layout.write_chunk.shape),
        ):
            size = prod(int(one) for one in lengths or ()) * dtype.itemsize
            if size > max(_SMALL_BYTES, MAX_EXPANSION * self._stored_bytes):
                raise self._error(
                    UnreadableReason.TOO_LARGE,
                    f"{what} takes {size} bytes, and all files together have {self._stored_bytes}",
                    name,
                )
        order = _order(name, len(shape))
        shown = shape if order is None else tuple(shape[axis] for axis in order)
        size = prod(shape) * dtype.itemsize
        kind = _NAMES.get(dtype.newbyteorder("<"), str(dtype).upper()[:40])
        return _Entry(TensorInfo(name, shown, kind, size), array, order)

    def _failed(self, error: Exception, name: str) -> UnreadableError:
        text = str(error).partition(" [tensorstore_spec")[0]
        # Its messages carry their kind in capitals: NOT_FOUND, DATA_LOSS, FAILED_PRECONDITION.
        if text.startswith("NOT_FOUND"):
            return self._error(
                UnreadableReason.MISSING_SHARD,
                "it is declared, and its values or their description are not in the checkpoint: copy it again",
                name,
            )
        shown = text.encode("utf-8", "backslashreplace").decode("utf-8")[:300]
        return self._error(
            UnreadableReason.CORRUPT, f"it cannot be read: {shown}; copy the checkpoint again", name
        )

    def _error(self, reason: UnreadableReason, detail: str, tensor: str | None = None) -> UnreadableError:
        return UnreadableError(reason, self.path, detail, tensor)


def _keys(entry: object) -> tuple[str, ...] | None:
    """The way to a value through the tree, or None where the entry does not tell it."""
    listed = entry.get("key_metadata") if isinstance(entry, dict) else None
    if not isinstance(listed, list) or not listed:
        return None
    keys = [one.get("key") if isinstance(one, dict) else None for one in listed]
    return tuple(keys) if all(isinstance(key, str) and key for key in keys) else None  # type: ignore[arg-type]


def _order(name: str, dimensions: int) -> tuple[int, ...] | None:
    """How the axes of a kernel are turned, or None where they stay."""
    if name.rpartition(".")[2] != "kernel" or dimensions not in {2, 4, 5}:
        return None
    return (dimensions - 1, dimensions - 2, *range(dimensions - 2))


def _tensorstore(path: Path) -> Any:
    try:
        import tensorstore
    except ImportError as error:
        raise UnreadableError(
            UnreadableReason.UNSUPPORTED_TENSOR,
            path,
            f"checkpoints of Orbax are read by the package tensorstore, which is not there: {how_to_install('orbax')}",
        ) from error
    return tensorstore
