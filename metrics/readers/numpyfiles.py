"""NumPy's ``.npy`` (one array) and ``.npz`` (a zip archive of such files), read without numpy's own loader.

``.npy``: the magic string, two bytes of version, the length of the header (2 bytes little-endian in version 1, 4 in 2
and 3), the header, the elements. The header is the text of a Python dict with the keys ``descr``, ``fortran_order``
and ``shape``. Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html . The header is matched
against that grammar and never evaluated; arrays of Python objects are pickles and are never unpickled.

An array is called like its file or member, without ``.npy``. Text and dates are left out; what is pickled, and members
of an ``.npz`` that are no arrays, are named as not examined.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.dtypes import StoredType, element_count, loadable_type
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.names import is_text
from layerwatch.metrics.readers.numpytypes import stored_type
from layerwatch.metrics.readers.ziparchive import ZipArchive, first_member
from layerwatch.metrics.tensors import Array, TensorInfo, UnexaminedFile

MAGIC = b"\x93NUMPY"

MAX_HEADER_BYTES = 10_000
"""Longest header, as numpy's own ``max_header_size``."""

MAX_MEMBERS = 100_000

MAX_NAME_LENGTH = 4096

_SUFFIX = ".npy"
_PREFIX_BYTES = len(MAGIC) + 2
_ENCODINGS = {1: "latin-1", 2: "latin-1", 3: "utf-8"}

_ENTRY = re.compile(
    r"""\s*+(?P<quote>['"])(?P<key>descr|fortran_order|shape)(?P=quote)\s*+:\s*+
    (?P<value>'[^'\\]{0,100}'|"[^"\\]{0,100}"|True|False|\([\s\dL,]*+\)|[\[(].*)""",
    re.VERBOSE | re.DOTALL,
)
_COMMA = re.compile(r"\s*+(,|\Z)")
_DESCR = re.compile(r"(?P<order>[<>|=]?)(?P<code>[?a-zA-Z])(?P<size>\d{0,9})(\[\w{1,9}\])?", re.ASCII)

_PICKLED = "an array of Python objects, which only unpickling could read: never done here; save plain arrays"


class _NotNumbersError(Exception):
    """An array of text or dates: no weights."""


@dataclass(frozen=True, slots=True)
class _Header:
    """What the header of one array says.

    Attributes:
        type: of the elements, in little-endian.
        swapped: whether the elements are stored big-endian.
        columns_first: whether the first axis runs fastest.
        shape: dimensions.
        offset: bytes before the first element.
        size: bytes of the elements.
    """

    type: StoredType
    swapped: bool
    columns_first: bool
    shape: tuple[int, ...]
    offset: int
    size: int


class NumpyFile:
    """One ``.npy`` or ``.npz`` file, whichever its content is.

    Raises:
        UnreadableError: the file is missing, empty or truncated, its header or directory breaks the format, it holds
            no array of numbers (NO_TENSORS), or it is an ``.npy`` of pickled objects (UNSUPPORTED_TENSOR).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        self._archive: ZipArchive | None = None
        self._left_out: list[tuple[str, str]] = []
        self._unexamined: list[UnexaminedFile] = []
        self._headers: dict[str, _Header] = {}
        self._members: dict[str, str] = {}
        try:
            if self._file.map[: len(MAGIC)] == MAGIC:
                self._list_array()
            else:
                self._archive = ZipArchive(self._file)
                self._list_members(self._archive)
        except BaseException:
            self._file.close()
            raise

    @property
    def format(self) -> str:
        """``numpy``."""
        return "numpy"

    def tensors(self) -> Sequence[TensorInfo]:
        """All arrays of numbers, in the order of the archive's directory."""
        return tuple(
            TensorInfo(name, one.shape, one.type.name, one.size) for name, one in self._headers.items()
        )

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """Arrays of text and dates."""
        return self._left_out

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """Members with pickled objects, and members that are no arrays."""
        return self._unexamined

    @property
    def metadata(self) -> Mapping[str, object]:
        """Nothing: the format declares none of the model."""
        return {}

    def load(self, name: str) -> Array:
        """The values of one array, little-endian, read-only: a view of the file where it is stored as such.

        Raises:
            KeyError: the name is not listed.
            UnreadableError: the bytes are damaged, unpack to too many, or their type has no numpy counterpart.
        """
        header = self._headers[name]
        if header.type.name.startswith("V"):
            raise self._error(
                UnreadableReason.UNSUPPORTED_DTYPE,
                "stored as bytes without a meaning, which is what numpy makes of BF16 and FP8; save it as float32, or "
                "as safetensors",
                name,
            )
        dtype = loadable_type(header.type, self.path, name)
        self._file.ensure_unchanged()
        order: Literal["F", "C"] = "F" if header.columns_first else "C"
        if header.size == 0:
            values: Array = np.empty(header.shape, dtype)
        else:
            data = self._file.map if self._archive is None else self._archive.read(self._members[name])
            stored = dtype.newbyteorder(">") if header.swapped else dtype
            values = np.ndarray(header.shape, stored, data, header.offset, order=order)
            if header.swapped:
                values = values.astype(dtype)
        values.flags.writeable = False
        return values

    def release(self) -> None:
        """Give back the memory of what was read so far; views already handed out stay valid."""
        self._file.release()

    def close(self) -> None:
        """Close the file; views already handed out stay valid."""
        self._file.close()

    def _note(self, member: str, reason: UnreadableReason, detail: str) -> None:
        self._unexamined.append(UnexaminedFile(f"{self._file_name()}/{member}", reason, detail))

    def _file_name(self) -> str:
        # File names may hold bytes that are no UTF-8.
        return self.path.name.encode("utf-8", "backslashreplace").decode()

    def _list_array(self) -> None:
        name = self._file_name().removesuffix(_SUFFIX) or "array"
        try:
            beginning = self._file.map[: _PREFIX_BYTES + 4 + MAX_HEADER_BYTES]
            self._headers[name] = self._header(beginning, self._file.size, None)
        except _NotNumbersError as error:
            raise self._error(UnreadableReason.NO_TENSORS, f"the array holds {error}") from error

    def _list_members(self, archive: ZipArchive) -> None:
        if len(archive.sizes) > MAX_MEMBERS:
            raise self._error(
                UnreadableReason.TOO_LARGE,
                f"the archive has {len(archive.sizes)} members, {MAX_MEMBERS} are accepted",
            )
        for member, size in archive.sizes.items():
            name = member.removesuffix(_SUFFIX)
            if not is_text(member) or len(member) > MAX_NAME_LENGTH:
                raise self._error(
                    UnreadableReason.BAD_HEADER, "a member's name is too long or no Unicode text"
                )
            if name == member or not name:
                detail = "a member of the archive that is no array"
                self._note(member, UnreadableReason.UNKNOWN_FORMAT, detail)
                continue
            beginning = archive.beginning(member, _PREFIX_BYTES + 4 + MAX_HEADER_BYTES)
            try:
                header = self._header(beginning, size, name)
                archive.require_unpackable(member)
            except _NotNumbersError as error:
                self._left_out.append((name, str(error)))
            except UnreadableError as error:
                if error.reason is not UnreadableReason.UNSUPPORTED_TENSOR:
                    raise
                self._note(member, error.reason, error.detail)
            else:
                self._headers[name] = header
                self._members[name] = member
        if not self._headers and not self._unexamined:
            raise self._error(UnreadableReason.NO_TENSORS, "the archive holds no array of numbers")

    def _header(self, beginning: bytes, size: int, name: str | None) -> _Header:
        """Parse the header of an array that takes ``size`` bytes in all; ``beginning`` are the first of them."""
        if not beginning.startswith(MAGIC) or len(beginning) < _PREFIX_BYTES + 4:
            self._refuse(
                UnreadableReason.TRUNCATED, "no header of a numpy array is there: copy it again", name
            )
        version = beginning[len(MAGIC)]
        if version not in _ENCODINGS:
            self._refuse(UnreadableReason.UNKNOWN_FORMAT, f"format version {version}, known are 1 to 3", name)
        width = 2 if version == 1 else 4
        length = int.from_bytes(beginning[_PREFIX_BYTES : _PREFIX_BYTES + width], "little")
        offset = _PREFIX_BYTES + width + length
        if length > MAX_HEADER_BYTES:
            self._refuse(
                UnreadableReason.TOO_LARGE,
                f"the header claims {length} bytes, {MAX_HEADER_BYTES} are accepted",
                name,
            )
        if offset > len(beginning):
            self._refuse(
                UnreadableReason.TRUNCATED, f"{offset - len(beginning)} bytes of the header are missing", name
            )
        try:
            text = beginning[offset - length : offset].decode(_ENCODINGS[version])
        except UnicodeDecodeError as error:
            raise self._error(UnreadableReason.BAD_HEADER, "the header is no text", name) from error
        descr, columns_first, shape = self._entries(text, name)
        type_, swapped = self._type(descr, name)
        count = element_count(shape)
        if count is None or (bytes_ := type_.size_of(count)) is None:
            self._refuse(UnreadableReason.BAD_HEADER, "its shape holds more elements than a file can", name)
        if bytes_ != size - offset:
            more = size - offset - bytes_
            reason = UnreadableReason.TRUNCATED if more < 0 else UnreadableReason.BAD_HEADER
            what = "are missing: copy the file again" if more < 0 else "at the end belong to no array"
            self._refuse(
                reason,
                f"shape {list(shape)} of {type_.name} takes {bytes_} bytes; {abs(more)} bytes {what}",
                name,
            )
        return _Header(type_, swapped, columns_first, shape, offset, bytes_)

    def _entries(self, text: str, name: str | None) -> tuple[str, bool, tuple[int, ...]]:
        text = text.strip()
        if not text.startswith("{") or not text.endswith("}"):
            self._refuse(UnreadableReason.BAD_HEADER, "the header is no dict", name)
        text = text[1:-1]
        entries: dict[str, str] = {}
        position = 0
        while text[position:].strip():
            found = _ENTRY.match(text, position)
            if found is None or found["key"] in entries:
                self._refuse(
                    UnreadableReason.BAD_HEADER,
                    "the header must hold exactly descr, fortran_order and shape, once each",
                    name,
                )
            if found["key"] == "descr" and found["value"][0] in "[(":
                self._refuse(
                    UnreadableReason.UNSUPPORTED_TENSOR,
                    "a structured array (records), whose fields are not examined; save each field as an array",
                    name,
                )
            entries[found["key"]] = found["value"]
            comma = _COMMA.match(text, found.end())
            if comma is None:
                self._refuse(UnreadableReason.BAD_HEADER, f"the header's {found['key']} is not closed", name)
            position = comma.end()
        if entries.keys() != {"descr", "fortran_order", "shape"}:
            self._refuse(
                UnreadableReason.BAD_HEADER,
                "the header must hold exactly descr, fortran_order and shape, once each",
                name,
            )
        descr, order, shape = entries["descr"], entries["fortran_order"], entries["shape"]
        if descr[0] not in "'\"" or order not in ("True", "False") or shape[0] != "(":
            self._refuse(UnreadableReason.BAD_HEADER, "an entry of the header is of another type", name)
        return descr[1:-1], order == "True", self._shape(shape[1:-1], name)

    def _shape(self, text: str, name: str | None) -> tuple[int, ...]:
        # Python 2 wrote long integers with an L.
        items = [item.strip() for item in text.split(",")]
        if items[-1] == "":
            items.pop()
        elif len(items) == 1:
            self._refuse(UnreadableReason.BAD_HEADER, "the shape in the header is no tuple", name)
        items = [item.removesuffix("L") for item in items]
        if not all(re.fullmatch(r"\d{1,19}", item, re.ASCII) for item in items):
            self._refuse(UnreadableReason.BAD_HEADER, "the shape in the header is no tuple of counts", name)
        return tuple(map(int, items))

    def _type(self, descr: str, name: str | None) -> tuple[StoredType, bool]:
        """The type of the elements, and whether they are big-endian."""
        found = _DESCR.fullmatch(descr)
        if found is None:
            self._refuse(UnreadableReason.BAD_HEADER, f"the type {descr[:40]!r} is no numpy type", name)
        code, order = found["code"], found["order"]
        if code == "O":
            self._refuse(UnreadableReason.UNSUPPORTED_TENSOR, _PICKLED, name)
        if code in "USaMm":
            raise _NotNumbersError("dates" if code in "Mm" else "text: no weights")
        try:
            dtype = np.dtype(descr)
        except (TypeError, ValueError) as error:
            raise self._error(
                UnreadableReason.BAD_HEADER, f"the type {descr[:40]!r} is no numpy type", name
            ) from error
        if dtype.itemsize == 0:
            self._refuse(UnreadableReason.BAD_HEADER, f"the type {descr[:40]!r} has no size", name)
        return stored_type(dtype), order == ">" and dtype.itemsize > 1

    def _refuse(self, reason: UnreadableReason, detail: str, name: str | None) -> NoReturn:
        raise self._error(reason, detail, name)

    def _error(self, reason: UnreadableReason, detail: str, name: str | None = None) -> UnreadableError:
        return UnreadableError(reason, self.path, detail, name)


def is_numpy(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an ``.npy``, or an archive whose first member is called so."""
    member = first_member(head)
    return head.startswith(MAGIC) or (member is not None and member.endswith(_SUFFIX))
