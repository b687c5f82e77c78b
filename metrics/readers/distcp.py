"""Directories of ``torch.distributed.checkpoint``: ``.metadata`` and ``__<rank>_<number>.distcp`` files.

``.metadata`` is a pickle, interpreted by the machine for checkpoints and never unpickled. It names each tensor with
its shape, type and chunks, and says at which bytes of which file the chunks are; every chunk is there as a file of
``torch.save``. Source: ``torch/distributed/checkpoint/metadata.py`` and ``filesystem.py`` of torch 2.13.

Where in the checkpoint the weights are is told by the same rules as for one file (``checkpoint.py``): the writer
flattens nested dicts and notes the path of each tensor, which is followed back here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.checkpoint import find_tensors
from layerwatch.metrics.readers.dangerousglobals import ForeignCode
from layerwatch.metrics.readers.dtypes import StoredType, element_count, loadable_type, torch_dtype
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.names import is_text
from layerwatch.metrics.readers.picklestream import PickleStream
from layerwatch.metrics.readers.picklevalues import CompositeKey, ExoticTensor, Global, Opaque, describe
from layerwatch.metrics.readers.pytorch import TorchFile
from layerwatch.metrics.readers.shards import DISTRIBUTED_METADATA, DISTRIBUTED_SUFFIX
from layerwatch.metrics.readers.tensorunpickler import unpickle_plain
from layerwatch.metrics.readers.window import Window
from layerwatch.metrics.tensors import Array, CodeInPickle, TensorInfo, UnexaminedFile

MAX_METADATA_BYTES = 2**30

MAX_CHUNKS = 4096
"""Most chunks of one tensor: its overlaps are looked for pair by pair."""

MAX_DEPTH = 64
"""Deepest path in the checkpoint that is followed back."""

_OPEN_FILES = 16
"""Files kept open at a time: a checkpoint of a thousand ranks would use up the descriptors of the process."""

_BYTES = "pickled object, no tensor: not read"
_UNUSED = "the metadata names nothing in it"

Offsets = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A block of a tensor and where its bytes are."""

    offsets: Offsets
    sizes: tuple[int, ...]
    file: str
    begin: int
    length: int


@dataclass(frozen=True, eq=False, slots=True)
class _Placed(ExoticTensor):
    """A tensor of the checkpoint in the form in which checkpoints are searched."""

    key: str
    chunks: tuple[_Chunk, ...]


class DistributedCheckpoint:
    """One directory, names as the checkpoint has them.

    Args:
        path: the directory, or its ``.metadata``.

    Raises:
        UnreadableError: NOT_FOUND, TRUNCATED, TOO_LARGE, BAD_PICKLE (the metadata), BAD_HEADER (chunks that do not
            make up their tensor, file names with folders), MISSING_SHARD, NO_TENSORS.
    """

    def __init__(self, path: Path) -> None:
        self.path = path if path.is_dir() else path.parent
        self._files: OrderedDict[str, MappedFile] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._code = ForeignCode()
        if not (self.path / DISTRIBUTED_METADATA).is_file():
            raise self._error(
                UnreadableReason.MISSING_SHARD,
                f"{DISTRIBUTED_METADATA} is not there: it is written last, so that the save was not finished, or the hidden file "
                "was not copied",
            )
        file = MappedFile(self.path / DISTRIBUTED_METADATA)
        try:
            if file.size > MAX_METADATA_BYTES:
                raise self._error(
                    UnreadableReason.TOO_LARGE,
                    f"{DISTRIBUTED_METADATA} takes {file.size} bytes, {MAX_METADATA_BYTES} are accepted",
                )
            root = unpickle_plain(PickleStream(file.map, file.path), self._code)
        finally:
            file.close()
        tree, left_out = self._tree(self._fields(root, "Metadata", "the pickle"))
        found = find_tensors(tree, self.path)
        self._left_out = (*found.left_out, *left_out)
        self._tensors = {name: one for name, one in found.tensors.items() if isinstance(one, _Placed)}

    @property
    def format(self) -> str:
        """``pytorch-distributed``."""
        return "pytorch-distributed"

    def tensors(self) -> Sequence[TensorInfo]:
        """All weights in the order of the metadata."""
        return tuple(
            TensorInfo(name, one.shape, one.type.name, prod(one.shape) * one.type.bits // 8)
            for name, one in self._tensors.items()
        )

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """Training state, and what was pickled beside the tensors."""
        return self._left_out

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """Nothing: a checkpoint is opened whole or not at all."""
        return ()

    @property
    def metadata(self) -> Mapping[str, object]:
        """Nothing: the format declares none of the model."""
        return {}

    @property
    def foreign_code(self) -> Sequence[CodeInPickle]:
        """What the metadata would run where it is unpickled as it is."""
        metadata = self.path / DISTRIBUTED_METADATA
        return (CodeInPickle(metadata, self._code.names),) if self._code.names else ()

    def load(self, name: str) -> Array:
        """The values of one tensor, read-only; a view of the file where it is one chunk.

        Raises:
            KeyError: the name is not listed.
            UnreadableError: a chunk is damaged, is not what the metadata says, or chunks overlap.
        """
        tensor = self._tensors[name]
        dtype = loadable_type(tensor.type, self.path, name)
        if 0 not in tensor.shape and len(tensor.chunks) == 1:
            return self._load_chunk(name, tensor, tensor.chunks[0])
        self._refuse_overlaps(name, tensor.chunks)
        whole: Array = np.empty(tensor.shape, dtype)
        for chunk in tensor.chunks:
            if 0 not in chunk.sizes:
                place = tuple(slice(o, o + s) for o, s in zip(chunk.offsets, chunk.sizes, strict=True))
                whole[place] = self._load_chunk(name, tensor, chunk)
        whole.flags.writeable = False
        return whole

    def release(self) -> None:
        """Give back the memory of what was read so far; views already handed out stay valid."""
        for file in self._files.values():
            file.release()

    def close(self) -> None:
        """Close the files; views already handed out stay valid."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _tree(self, metadata: dict[object, object]) -> tuple[object, list[tuple[str, str]]]:
        """The nested containers that were flattened, with a :class:`_Placed` for each tensor."""
        listed = metadata.get("state_dict_metadata")
        storage = metadata.get("storage_data")
        planner = metadata.get("planner_data")
        if not isinstance(listed, dict) or not isinstance(storage, dict):
            raise self._error(
                UnreadableReason.BAD_PICKLE, "the metadata lists no tensors or no places of them"
            )
        places = self._places(storage)
        named = {place.file for place in places.values()}
        unused = sorted(one.name for one in self.path.glob(f"*{DISTRIBUTED_SUFFIX}") if one.name not in named)
        paths = planner if isinstance(planner, dict) else {}
        root: dict[object, object] = {}
        left_out = [(name.encode("utf-8", "backslashreplace").decode(), _UNUSED) for name in unused]
        for key, entry in listed.items():
            if not isinstance(key, str) or not is_text(key):
                raise self._error(UnreadableReason.BAD_PICKLE, f"a tensor is called {describe(key)}")
            if not isinstance(entry, Opaque):
                raise self._error(UnreadableReason.BAD_PICKLE, f"{describe(key)} is {describe(entry)}")
            if isinstance(entry.made_by, Global) and entry.made_by.name == "BytesStorageMetadata":
                left_out.append((key, _BYTES))
                continue
            _put(root, paths.get(key), key, self._placed(key, entry, places))
        return root, left_out

    def _places(self, storage: dict[object, object]) -> dict[tuple[str, Offsets | None], _Chunk]:
        """Where each chunk is, by the name of its tensor and its offsets."""
        places: dict[tuple[str, Offsets | None], _Chunk] = {}
        for key, value in storage.items():
            index = self._fields(
                key.value if isinstance(key, CompositeKey) else key, "MetadataIndex", "an index"
            )
            info = self._fields(value, "_StorageInfo", "a place")
            name, offset = index.get("fqn"), index.get("offset")
            file, begin, length = info.get("relative_path"), info.get("offset"), info.get("length")
            if not isinstance(name, str) or not isinstance(file, str):
                raise self._error(UnreadableReason.BAD_PICKLE, "a chunk has no name or no file")
            where = None if offset is None else self._counts(offset, name)
            (begin, length) = self._counts((begin, length), name)
            if info.get("transform_descriptors"):
                # Told when it is loaded: the tensor is there, but packed by an extension of the writer.
                length = -1
            if (name, where) in places:
                raise self._error(UnreadableReason.BAD_HEADER, "two places are given for one chunk", name)
            places[name, where] = _Chunk(where or (), (), file, begin, length)
        return places

    def _placed(self, key: str, entry: Opaque, places: dict[tuple[str, Offsets | None], _Chunk]) -> _Placed:
        fields = self._fields(entry, "TensorStorageMetadata", f"the entry of {key[:60]!r}")
        shape = self._counts(fields.get("size"), key)
        chunks = fields.get("chunks")
        if element_count(shape) is None or not isinstance(chunks, (list, tuple)):
            raise self._error(UnreadableReason.BAD_HEADER, "its shape or its chunks are no such thing", key)
        if len(chunks) > MAX_CHUNKS:
            raise self._error(
                UnreadableReason.TOO_LARGE, f"it has {len(chunks)} chunks, {MAX_CHUNKS} are accepted", key
            )
        placed = tuple(self._chunk(key, shape, chunk, places) for chunk in chunks)
        covered = sum(prod(chunk.sizes) for chunk in placed)
        if covered != prod(shape):
            raise self._error(
                UnreadableReason.BAD_HEADER,
                f"its chunks hold {covered} elements, its shape {list(shape)} has {prod(shape)}",
                key,
            )
        return _Placed(self._type(fields.get("properties")), shape, "", key, placed)

    def _chunk(
        self,
        key: str,
        shape: tuple[int, ...],
        chunk: object,
        places: dict[tuple[str, Offsets | None], _Chunk],
    ) -> _Chunk:
        fields = self._fields(chunk, "ChunkStorageMetadata", "a chunk")
        offsets, sizes = self._counts(fields.get("offsets"), key), self._counts(fields.get("sizes"), key)
        if not len(offsets) == len(sizes) == len(shape) or any(
            o + s > d for o, s, d in zip(offsets, sizes, shape, strict=True)
        ):
            raise self._error(
                UnreadableReason.BAD_HEADER,
                f"a chunk of {list(sizes)} at {list(offsets)} does not fit into {list(shape)}",
                key,
            )
        place = places.get((key, offsets)) or places.get((key, None))
        if place is None:
            raise self._error(
                UnreadableReason.MISSING_SHARD, f"no file is named for its chunk at {list(offsets)}", key
            )
        self._require(place, key)
        return _Chunk(offsets, sizes, place.file, place.begin, place.length)

    def _require(self, place: _Chunk, key: str) -> None:
        """The file of a chunk is in the directory, and long enough."""
        name = place.file
        if name not in self._sizes:
            if name in ("", ".", "..") or not is_text(name) or any(c in name for c in "/\\\0"):
                raise self._error(
                    UnreadableReason.BAD_HEADER, "its file must be named without any folder", key
                )
            path = self.path / name
            if not path.is_file() or not path.resolve().is_relative_to(self._root()):
                raise self._error(
                    UnreadableReason.MISSING_SHARD,
                    f"its file {name[:100]} is not in the directory; copy the rest of the checkpoint",
                    key,
                )
            self._sizes[name] = path.stat().st_size
        missing = place.begin + place.length - self._sizes[name]
        if missing > 0:
            raise self._error(
                UnreadableReason.TRUNCATED,
                f"{missing} bytes of it are missing at the end of {name[:100]}: copy the file again",
                key,
            )

    def _root(self) -> Path:
        resolved = self.path.resolve()
        # The cache of the Hugging Face Hub links snapshots/<revision>/... to blobs/.
        for folder in (resolved, *resolved.parents):
            if folder.parent.name == "snapshots":
                return folder.parent.parent
        return resolved

    def _type(self, properties: object) -> StoredType:
        state = properties.state if isinstance(properties, Opaque) else None
        if isinstance(state, dict):
            dtype = state.get("dtype")
        else:
            dtype = state[0] if isinstance(state, (list, tuple)) and state else None
        if not isinstance(dtype, Global):
            raise self._error(UnreadableReason.BAD_PICKLE, "a tensor has no type")
        return torch_dtype(dtype.name)

    def _load_chunk(self, name: str, tensor: _Placed, chunk: _Chunk) -> Array:
        if chunk.length < 0:
            raise self._error(
                UnreadableReason.UNSUPPORTED_TENSOR,
                "it was written through an extension (compression or encryption), which is not read; save it without",
                name,
            )
        file = self._opened(chunk.file)
        if file.size != self._sizes[chunk.file]:
            raise UnreadableError(
                UnreadableReason.CHANGED_WHILE_READING,
                file.path,
                f"the file was written to while it was read ({self._sizes[chunk.file]} bytes, now {file.size})",
                name,
            )
        reader = TorchFile(file.path, Window(file, chunk.begin, chunk.length))
        infos = reader.tensors()
        if len(infos) != 1 or infos[0].shape != chunk.sizes or infos[0].dtype != tensor.type.name:
            held = ", ".join(f"{info.dtype} {list(info.shape)}" for info in infos[:3])
            raise self._error(
                UnreadableReason.CORRUPT,
                f"at byte {chunk.begin} of {chunk.file} is {held}, the metadata says {tensor.type.name} "
                f"{list(chunk.sizes)}: metadata and files do not belong together",
                name,
            )
        return reader.load(infos[0].name)

    def _opened(self, name: str) -> MappedFile:
        file = self._files.pop(name, None) or MappedFile(self.path / name)
        self._files[name] = file
        while len(self._files) > _OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        return file

    def _refuse_overlaps(self, name: str, chunks: tuple[_Chunk, ...]) -> None:
        """Chunks that add up to the whole leave no hole unless two of them overlap."""
        begins = np.array([chunk.offsets for chunk in chunks], dtype=np.int64)
        ends = begins + np.array([chunk.sizes for chunk in chunks], dtype=np.int64)
        for number in range(1, len(chunks)):
            within = (begins[:number] < ends[number]) & (begins[number] < ends[:number])
            if bool(within.all(axis=1).any()):
                raise self._error(UnreadableReason.BAD_HEADER, "two of its chunks overlap", name)

    def _fields(self, value: object, cls: str, what: str) -> dict[object, object]:
        made_by = value.made_by if isinstance(value, Opaque) else None
        state = value.state if isinstance(value, Opaque) else None
        if not isinstance(made_by, Global) or made_by.name != cls or not isinstance(state, dict):
            raise self._error(
                UnreadableReason.BAD_PICKLE,
                f"{what} in {DISTRIBUTED_METADATA} is {describe(value if made_by is None else made_by)}, not a {cls}",
            )
        return state

    def _counts(self, value: object, key: str) -> tuple[int, ...]:
        if not isinstance(value, (list, tuple)) or not all(
            type(one) is int and 0 <= one < 2**62 for one in value
        ):
            raise self._error(
                UnreadableReason.BAD_PICKLE, "a shape or a place in it is no list of counts", key
            )
        return tuple(one for one in value if isinstance(one, int))

    def _error(self, reason: UnreadableReason, detail: str, tensor: str | None = None) -> UnreadableError:
        return UnreadableError(reason, self.path, detail, tensor)


def is_metadata(head: bytes) -> bool:
    """Whether a file begins as the metadata of such a checkpoint does."""
    return head[:1] == b"\x80" and b"torch.distributed" in head and b"checkpoint.metadata" in head


def _put(root: dict[object, object], path: object, key: str, value: object) -> None:
    """Put a value where it was before the checkpoint was flattened; under its flat key where that cannot be told."""
    steps = path if isinstance(path, tuple) and 0 < len(path) <= MAX_DEPTH else (key,)
    if not all(isinstance(step, (str, int)) for step in steps):
        steps = (key,)
    container: dict[object, object] = root
    for step in steps[:-1]:
        inner = container.setdefault(step, {})
        if not isinstance(inner, dict):
            container, steps = root, (key,)
            break
        container = inner
    last = steps[-1]
    if last in container:
        container, last = root, key
    container[last] = value
