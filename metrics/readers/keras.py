"""Keras models: ``.keras`` archives and HDF5 files (``.h5``, ``.weights.h5``), read through h5py, without Keras.

Two layouts of HDF5 are known. The legacy one (``model.save("x.h5")``) has one group per layer and names every variable
in the attribute ``weight_names``; below each group it is found under that name, ``dense/kernel:0``. That of Keras 3
(``x.weights.h5``, and ``model.weights.h5`` in a ``.keras`` archive) numbers the variables of each layer below
``layers/<class>_<number>/vars/`` and notes the layer's name as an attribute there; the variables are called here as
Keras calls them, ``head/kernel``, where the class of the layer tells what they are, else by their path in the file.
Any other HDF5 file is listed by its paths. Source: ``keras/src/saving/saving_lib.py`` and
``keras/src/legacy/saving/legacy_h5_format.py`` of Keras 3.15.

Kernels are handed out with outputs first (:mod:`~layerwatch.metrics.readers.kerasnames`). ``config.json`` and lambda
layers in it are never executed; only names of classes are looked for.

HDF5 can refer to other files in four ways; none is followed: external links, soft links through them, datasets with
external storage, virtual datasets. libhdf5 is asked for the structure of a file only, and not where it would do without
limits what a damaged file tells it to (:mod:`~layerwatch.metrics.readers.hdf5stream`,
:mod:`~layerwatch.metrics.readers.hdf5texts`); values are taken from the file itself
(:mod:`~layerwatch.metrics.readers.hdf5chunks`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from layerwatch.config.extras import how_to_install
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.dtypes import SAFETENSORS_TYPES, StoredType, element_count, loadable_type
from layerwatch.metrics.readers.hdf5chunks import DEFLATE, FILTERS, DamagedChunkError, unpack
from layerwatch.metrics.readers.hdf5stream import Hdf5Stream
from layerwatch.metrics.readers.hdf5texts import NoSuchTextsError, claimed_lengths, false_claim
from layerwatch.metrics.readers.kerasnames import (
    Variable,
    orient,
    oriented_shape,
    snake_case,
    variable_names,
    without_number,
)
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.names import is_text
from layerwatch.metrics.readers.numpytypes import stored_type
from layerwatch.metrics.readers.strictjson import parse_object
from layerwatch.metrics.readers.window import Mapped, Window
from layerwatch.metrics.readers.ziparchive import ZipArchive, first_member
from layerwatch.metrics.tensors import Array, TensorInfo, UnexaminedFile

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

MAX_DEPTH = 64
"""Deepest nesting of groups that is followed; Keras nests two groups per level of a model."""

MAX_OBJECTS = 100_000

MAX_CONFIG_BYTES = 100_000_000

MAX_UNPACKED_BYTES = 4 * 2**30
"""Largest dataset in chunks that is unpacked into memory."""

MAX_EXPANSION = 100
EXPANSION_FLOOR_BYTES = 64 * 2**20
"""A dataset above this size may not be more than :data:`MAX_EXPANSION` times as large as what is stored of it."""

_ARCHIVE_MEMBERS = re.compile(r"(config|metadata|quantization_config|model\.weights)\.json|assets/.*")
_WEIGHTS_MEMBER = re.compile(r"model(_\d+)?\.weights\.h5")

_OPTIMIZERS = frozenset({"optimizer", "optimizer_weights", "_optimizer"})

# What h5py raises on damaged files, found by reading it and by fuzzing.
_HDF5_ERRORS = (
    *(OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError),
    *(AttributeError, OverflowError, NotImplementedError, AssertionError, EOFError, SystemError),
)


@dataclass(frozen=True, slots=True)
class _Stored:
    """One dataset.

    Attributes:
        variable: its name and axes.
        type: of its elements.
        dataset: the ``h5py.Dataset``.
        begin: first byte in the file where its elements lie in one piece, else None.
        swapped: whether they are big-endian.
        size: bytes of the elements.
        refusal: why it cannot be loaded, or None.
    """

    variable: Variable
    type: StoredType
    dataset: Any
    begin: int | None
    swapped: bool
    size: int
    file: Mapped
    refusal: UnreadableError | None


class KerasFile:
    """One ``.keras`` archive or HDF5 file.

    Raises:
        UnreadableError: the file is missing, empty, damaged, refers to other files, or holds no numbers;
            UNKNOWN_FORMAT where h5py is not installed: the sentence names the extra.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hdf5: list[Any] = []
        self._left_out: list[tuple[str, str]] = []
        self._unexamined: list[UnexaminedFile] = []
        self._file = MappedFile(path)
        try:
            found: list[_Stored] = []
            for file, classes in self._open():
                found += _Listing(file, self._hdf5_file(file), classes, self._left_out).variables()
            if not found:
                raise self._error(UnreadableReason.NO_TENSORS, "the file holds no dataset of numbers")
            self._stored = _named(found)
        except BaseException:
            self.close()
            raise

    @property
    def format(self) -> str:
        """``keras``."""
        return "keras"

    def tensors(self) -> Sequence[TensorInfo]:
        """All variables, outputs first; in the order of the file's layers where it tells one."""
        return tuple(
            TensorInfo(name, oriented_shape(one.variable), one.type.name, one.size)
            for name, one in self._stored.items()
        )

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """Optimizer states, text, and links to variables that are listed."""
        return self._left_out

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """Members of a ``.keras`` archive that may hold weights and are no HDF5."""
        return self._unexamined

    @property
    def metadata(self) -> Mapping[str, object]:
        """Nothing: the format declares none of the model."""
        return {}

    def load(self, name: str) -> Array:
        """The values of one variable, outputs first, read-only; a view of the file where they lie in one piece.

        Raises:
            KeyError: the name is not listed.
            UnreadableError: damaged, unpacks to too many bytes, or of a type without numpy counterpart.
        """
        one = self._stored[name]
        if one.refusal is not None:
            raise one.refusal
        dtype = loadable_type(one.type, self.path, name)
        self._file.ensure_unchanged()
        shape = one.variable.shape
        values: Array
        if one.size == 0:
            values = np.empty(shape, dtype)
        elif one.begin is not None:
            stored = dtype.newbyteorder(">") if one.swapped else dtype
            values = np.ndarray(shape, stored, one.file.view(one.begin, one.size))
        else:
            values = self._unpacked(name, one, dtype)
        if one.swapped:
            values = values.astype(dtype)
        view = orient(one.variable, values).view()
        view.flags.writeable = False
        return view

    def release(self) -> None:
        """Give back the memory of what was read so far; views already handed out stay valid."""
        self._file.release()

    def close(self) -> None:
        """Close the file; views already handed out stay valid."""
        for hdf5 in self._hdf5:
            with suppress(*_HDF5_ERRORS):
                hdf5.close()
        self._hdf5.clear()
        self._file.close()

    def _open(self) -> Iterator[tuple[Mapped, Mapping[str, str]]]:
        """Each HDF5 file in this one, with the classes of layers by their names."""
        if self._file.map[: len(HDF5_MAGIC)] == HDF5_MAGIC:
            yield self._file, {}
            return
        archive = ZipArchive(self._file)
        weights = sorted(name for name in archive.sizes if _WEIGHTS_MEMBER.fullmatch(name))
        if not weights or "config.json" not in archive.sizes:
            raise self._error(
                UnreadableReason.UNKNOWN_FORMAT,
                "this zip file is no Keras model: it must hold config.json and model.weights.h5",
            )
        for name in archive.sizes:
            if name not in weights and not _ARCHIVE_MEMBERS.fullmatch(name):
                detail = "a member of the archive that Keras does not write"
                shown = f"{self.path.name}/{name}".encode("utf-8", "backslashreplace").decode()
                self._unexamined.append(UnexaminedFile(shown, UnreadableReason.UNKNOWN_FORMAT, detail))
        if archive.sizes["config.json"] > MAX_CONFIG_BYTES:
            raise self._error(
                UnreadableReason.TOO_LARGE, f"config.json takes more than {MAX_CONFIG_BYTES} bytes"
            )
        classes = self._classes(bytes(archive.read("config.json")))
        for name in weights:
            if not archive.is_stored(name):
                yield _InMemory(self._file, archive.read(name)), classes
                continue
            # Without its checksum: that would read all of it. A damaged one is damaged HDF5, or told by its values.
            yield Window(self._file, *archive.extent(name)), classes

    def _classes(self, config: bytes) -> Mapping[str, str]:
        try:
            return _classes_in(parse_object(config, self.path, "config"))
        except UnreadableError as error:
            if error.reason is UnreadableReason.TOO_DEEP:
                # Names of classes are a help; deeply nested models are real ones.
                return {}
            raise

    def _hdf5_file(self, file: Mapped) -> Any:
        h5py = _h5py(self.path)
        stream = Hdf5Stream(memoryview(file.map), file.path)
        try:
            hdf5 = h5py.File(stream, "r")
        except _HDF5_ERRORS as error:
            raise self._error(
                UnreadableReason.CORRUPT, f"the HDF5 file cannot be opened ({error}); copy it again"
            ) from error
        self._hdf5.append(hdf5)
        return hdf5

    def _unpacked(self, name: str, one: _Stored, dtype: np.dtype[Any]) -> Array:
        stored = dtype.newbyteorder(">") if one.swapped else dtype
        try:
            if one.dataset.chunks is None:
                # In the header of the dataset, or nowhere yet.
                return np.asarray(one.dataset[()], one.dataset.dtype).view(stored)
            return unpack(one.dataset, one.file, stored, _filters(one.dataset))
        except (DamagedChunkError, *_HDF5_ERRORS) as error:
            raise self._error(
                UnreadableReason.CORRUPT, f"its values cannot be read ({error}); copy the file again", name
            ) from error

    def _error(self, reason: UnreadableReason, detail: str, name: str | None = None) -> UnreadableError:
        return UnreadableError(reason, self.path, detail, name)


class _InMemory(Window):
    """A member that was unpacked: as a window, without a place in the file."""

    def __init__(self, file: Mapped, data: memoryview) -> None:
        super().__init__(file, 0, 0)
        self.map = data
        self.size = len(data)


class _Listing:
    """The datasets of one HDF5 file."""

    def __init__(
        self, file: Mapped, hdf5: Any, classes: Mapping[str, str], left_out: list[tuple[str, str]]
    ) -> None:
        self._file = file
        self._data = memoryview(file.map)
        self._hdf5 = hdf5
        self._h5py = _h5py(file.path)
        self._classes = classes
        self._left_out = left_out
        self._links: list[tuple[str, str]] = []
        self._weight_names: dict[str, frozenset[str]] = {}
        self._seen = 0

    def variables(self) -> list[_Stored]:
        """Every dataset of numbers; raises UnreadableError for what leads out of the file or is damaged."""
        try:
            self._classes = self._classes or self._legacy_classes()
            found = dict(self._walk())
            for path, target in self._links:
                if target not in found:
                    raise self._error(
                        UnreadableReason.BAD_HEADER, f"{path[:100]!r} is a link to what is not in the file"
                    )
                self._left_out.append((path, f"a link to {target}"))
            return [one for one in found.values() if one is not None]
        except _HDF5_ERRORS as error:
            raise self._error(
                UnreadableReason.CORRUPT, f"the HDF5 file is damaged ({error}); copy it again"
            ) from error

    def _walk(self) -> Iterator[tuple[str, _Stored | None]]:
        """Depth first, without recursion; a group is entered once, however many names it has."""
        frames: list[tuple[str, Any, Iterator[str]]] = [("", self._hdf5, iter(self._order(self._hdf5)))]
        entered = {self._address(self._hdf5)}
        while frames:
            prefix, group, names = frames[-1]
            name = next(names, None)
            if name is None:
                frames.pop()
                continue
            self._seen += 1
            if self._seen > MAX_OBJECTS:
                raise self._error(
                    UnreadableReason.TOO_LARGE, f"the file holds more than {MAX_OBJECTS} objects"
                )
            path = f"{prefix}/{name}" if prefix else name
            if not is_text(path) or len(path) > 4096:
                raise self._error(
                    UnreadableReason.BAD_HEADER, "a name in the file is too long or no Unicode text"
                )
            link = group.get(name, getlink=True)
            if isinstance(link, self._h5py.ExternalLink):
                raise self._error(
                    UnreadableReason.BAD_HEADER,
                    f"{path[:100]!r} is a link to the file {str(link.filename)[:100]!r}: links to other files are not "
                    "followed; put the weights into this one",
                )
            if isinstance(link, self._h5py.SoftLink):
                self._links.append((path, _target(prefix, str(link.path))))
                continue
            if path in _OPTIMIZERS:
                self._left_out.append((path, "training state: not examined"))
                continue
            self._require_sound_header(path, group, name)
            member = group[name]
            if isinstance(member, self._h5py.Dataset):
                yield path, self._dataset(path, member)
            elif isinstance(member, self._h5py.Group) and self._address(member) not in entered:
                if len(frames) > MAX_DEPTH:
                    raise self._error(
                        UnreadableReason.TOO_DEEP, f"groups nest deeper than {MAX_DEPTH} levels"
                    )
                entered.add(self._address(member))
                frames.append((path, member, iter(self._order(member))))

    def _require_sound_header(self, path: str, group: Any, name: str) -> None:
        place = group.id.links.get_info(name.encode("utf-8", "surrogateescape")).u
        # Addresses count from the superblock, which is in front but in files with a block of their user's.
        claim = false_claim(self._data, int(place)) if bytes(self._data[:4]) == b"\x89HDF" else None
        if claim is not None:
            raise self._error(
                UnreadableReason.CORRUPT,
                f"the HDF5 file is damaged: the header of {path[:100]!r} {claim}; copy it again",
            )

    def _order(self, group: Any) -> list[str]:
        """The names in a group: in the order of its attribute of names, then of the file; numbers by size."""
        held = list(group)
        if len(held) > MAX_OBJECTS:
            raise self._error(UnreadableReason.TOO_LARGE, f"a group holds more than {MAX_OBJECTS} objects")
        listed = [
            *self._texts(group, "layer_names"),
            *(name.partition("/")[0] for name in self._texts(group, "weight_names")),
        ]
        places = {name: place for place, name in reversed(list(enumerate(listed)))}
        if listed:
            return sorted(held, key=lambda name: places.get(name, len(places)))
        return sorted(held, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))

    def _dataset(self, path: str, dataset: Any) -> _Stored | None:
        if dataset.is_virtual or dataset.external:
            raise self._error(
                UnreadableReason.BAD_HEADER,
                "its values are in another file, which is not followed; put the weights into this one",
                path,
            )
        if dataset.shape is None or dataset.dtype.kind in "OSU" or dataset.dtype.names:
            self._left_out.append((path, "text or records: no weights"))
            return None
        dtype = dataset.dtype
        is_bfloat16 = (
            dtype.kind == "V" and dtype.itemsize == 2 and self._texts(dataset, "dtype") == ["bfloat16"]
        )
        type_ = SAFETENSORS_TYPES["BF16"] if is_bfloat16 else stored_type(dtype)
        shape = tuple(int(side) for side in dataset.shape)
        count = element_count(shape)
        if count is None or (size := type_.size_of(count)) is None:
            raise self._error(
                UnreadableReason.BAD_HEADER, "its shape holds more elements than a file can", path
            )
        begin = dataset.id.get_offset()
        if begin is not None and size and begin + size > self._file.size:
            raise self._error(
                UnreadableReason.TRUNCATED,
                f"{begin + size - self._file.size} bytes of it are missing: copy the file again",
                path,
            )
        variable = self._variable(path, dataset, shape)
        swapped = dtype.str.startswith(">") and dtype.itemsize > 1
        refusal = self._refusal(path, dataset, size, begin is None)
        return _Stored(variable, type_, dataset, begin, swapped, size, self._file, refusal)

    def _refusal(self, path: str, dataset: Any, size: int, packed: bool) -> UnreadableError | None:
        """Why a dataset is not loaded, or None."""
        dtype = dataset.dtype
        # Numbers of other widths or layouts are shown by h5py as the next numpy type, into which libhdf5 turns them.
        if dtype.kind != "V" and self._h5py.h5t.py_create(dtype, logical=True) != dataset.id.get_type():
            return self._error(
                UnreadableReason.UNSUPPORTED_DTYPE,
                f"its numbers have a layout of their own, which {dtype.name} only resembles; save it as float32",
                path,
            )
        if not packed or not size:
            return None
        filters = _filters(dataset)
        if not FILTERS.issuperset(filters) or filters.count(DEFLATE) > 1:
            return self._error(
                UnreadableReason.UNSUPPORTED_TENSOR,
                f"it is packed by the HDF5 filters {filters}, of which only gzip (1), shuffle (2) and fletcher32 (3) are "
                "undone; save it with gzip or none",
                path,
            )
        stored = dataset.id.get_storage_size()
        if dataset.chunks is not None:
            # One chunk may be larger than its dataset.
            size = max(size, prod(dataset.chunks) * dtype.itemsize)
        if size > MAX_UNPACKED_BYTES or (size > EXPANSION_FLOOR_BYTES and size > MAX_EXPANSION * stored):
            return self._error(
                UnreadableReason.TOO_LARGE,
                f"it unpacks from {stored} to {size} bytes, as bombs do; save it without compression if that is meant",
                path,
            )
        return None

    def _variable(self, path: str, dataset: Any, shape: tuple[int, ...]) -> Variable:
        steps = path.split("/")
        legacy = self._legacy_name(steps)
        if legacy is not None:
            layers = legacy.split("/")[:-1]
            return Variable(legacy, self._classes_of(layers), shape)
        if len(steps) >= 2 and steps[-2] == "vars" and steps[-1].isdecimal():
            shown, groups = self._layer_names(steps[:-2])
            classes = self._classes_of((groups[-1], shown[-1])) if groups else ()
            names = variable_names(classes, len(dataset.parent))
            number = int(steps[-1])
            if names is not None and number < len(names) and shown:
                return Variable("/".join((*shown, names[number])), self._classes_of((*shown, *groups)), shape)
            role = ("embeddings",) if groups and without_number(groups[-1]) == "embedding" else ()
            return Variable(path, (*self._classes_of((*shown, *groups)), *role), shape)
        return Variable(path, self._classes_of(steps[:-1]), shape)

    def _legacy_name(self, steps: list[str]) -> str | None:
        """``dense/kernel:0`` for ``model_weights/dense/dense/kernel:0``, where the groups list it so."""
        for begin in (0, 1):
            container = self._hdf5[steps[0]] if begin else self._hdf5
            inner = "/".join(steps[begin + 1 :])
            if (
                len(steps) > begin + 1
                and isinstance(container, self._h5py.Group)
                and ("layer_names" in container.attrs or "layer_names0" in container.attrs)
                and inner in self._weights_of(container[steps[begin]])
            ):
                return inner
        return None

    def _weights_of(self, group: Any) -> frozenset[str]:
        path = str(group.name)
        if path not in self._weight_names:
            self._weight_names[path] = frozenset(self._texts(group, "weight_names"))
        return self._weight_names[path]

    def _layer_names(self, steps: list[str]) -> tuple[list[str], list[str]]:
        """Names of the layers around a ``vars`` group, outermost first, and the groups that hold them."""
        shown, groups = [], []
        group = self._hdf5
        for step in steps:
            group = group[step]
            if "vars" not in group or group.get("vars", getlink=True).__class__ is not self._h5py.HardLink:
                continue
            told = self._texts(group["vars"], "name")
            shown.append(told[0] if told and told[0] else step)
            groups.append(step)
        return shown, groups

    def _classes_of(self, layers: Sequence[str]) -> tuple[str, ...]:
        told = [self._classes[name] for name in layers if name in self._classes]
        return (*(without_number(name) for name in layers), *told)

    def _legacy_classes(self) -> Mapping[str, str]:
        configs = self._texts(self._hdf5, "model_config")
        if not configs or len(configs[0]) > MAX_CONFIG_BYTES:
            return {}
        try:
            return _classes_in(parse_object(configs[0].encode(), self._file.path, "config"))
        except (UnreadableError, UnicodeEncodeError):
            # Only a help: without it depthwise convolutions are taken for full ones.
            return {}

    def _texts(self, group: Any, name: str) -> list[str]:
        """An attribute of one or more texts; Keras splits long ones into ``name0``, ``name1`` ..."""
        texts: list[str] = []
        for part in (name, *(f"{name}{number}" for number in range(1000))):
            if part not in group.attrs:
                if part != name:
                    break
                continue
            self._require_sound_text(group, part)
            for value in np.asarray(group.attrs[part], dtype=object).reshape(-1):
                texts.append(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
        return texts

    def _require_sound_text(self, group: Any, name: str) -> None:
        """Texts of variable length claim no more bytes than there are."""
        attribute = group.attrs.get_id(name)
        told = self._h5py.check_string_dtype(attribute.dtype)
        if told is None and attribute.dtype.hasobject:
            raise self._error(
                UnreadableReason.BAD_HEADER, f"the attribute {name} of {str(group.name)[:100]!r} is no text"
            )
        if told is None or told.length is not None:
            return
        try:
            _, address = self._address(group)
            lengths = claimed_lengths(self._data, address, name, prod(attribute.shape))
        except NoSuchTextsError as error:
            raise self._error(
                UnreadableReason.CORRUPT,
                f"the text {name} of {str(group.name)[:100]!r} is not in the header of its group, where Keras puts it; "
                "copy the file again, or save it anew",
            ) from error
        if sum(lengths) > self._file.size:
            raise self._error(
                UnreadableReason.CORRUPT,
                f"the text {name} of {str(group.name)[:100]!r} claims {sum(lengths)} bytes in a file of "
                f"{self._file.size}: copy the file again",
            )

    def _address(self, group: Any) -> tuple[int, int]:
        info = self._h5py.h5o.get_info(group.id)
        return int(info.fileno), int(info.addr)

    def _error(self, reason: UnreadableReason, detail: str, name: str | None = None) -> UnreadableError:
        return UnreadableError(reason, self._file.path, detail, name)


def is_keras(head: bytes) -> bool:
    """Whether a file that begins with these bytes is HDF5, or an archive that begins as Keras writes it."""
    member = first_member(head)
    return head.startswith(HDF5_MAGIC) or (
        member is not None and bool(_ARCHIVE_MEMBERS.fullmatch(member) or _WEIGHTS_MEMBER.fullmatch(member))
    )


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UnreadableError(
            UnreadableReason.UNKNOWN_FORMAT,
            path,
            f"Keras and HDF5 files are read by the package h5py, which is not there: {how_to_install('keras')}",
        ) from error
    return h5py


def _named(found: Sequence[_Stored]) -> dict[str, _Stored]:
    """By their names; by their paths in the file where two variables would have the same one."""
    named = {one.variable.name: one for one in found}
    if len(named) == len(found):
        return named
    return {str(one.dataset.name).lstrip("/"): one for one in found}


def _filters(dataset: Any) -> list[int]:
    """Numbers of the filters, in the order in which they were applied."""
    properties = dataset.id.get_create_plist()
    return [int(properties.get_filter(number)[0]) for number in range(properties.get_nfilters())]


def _target(prefix: str, link: str) -> str:
    """The path that a soft link leads to, from the root of the file."""
    steps: list[str] = [] if link.startswith("/") else prefix.split("/")
    for step in link.split("/"):
        if step not in ("", "."):
            steps.append(step)
    return "/".join(step for step in steps if step)


def _classes_in(config: Mapping[str, Any]) -> dict[str, str]:
    """Class of each layer in snake case by its name, wherever in the config; names used twice are left out."""
    classes: dict[str, str] = {}
    repeated: set[str] = set()
    waiting: list[Any] = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            inner = value.get("config")
            name = inner.get("name") if isinstance(inner, dict) else None
            cls = value.get("class_name")
            if isinstance(name, str) and isinstance(cls, str):
                if classes.get(name, snake_case(cls)) != snake_case(cls):
                    repeated.add(name)
                classes[name] = snake_case(cls)
    return {name: cls for name, cls in classes.items() if name not in repeated}
