"""Checkpoints of ``torch.save``, read without torch and without running anything they contain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.checkpoint import Tensor, find_tensors
from layerwatch.metrics.readers.dtypes import MAX_BYTES, element_count, loadable_type
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.picklevalues import StoredTensor
from layerwatch.metrics.readers.torchlegacy import TorchLegacy
from layerwatch.metrics.readers.torchzip import TorchZip
from layerwatch.metrics.tensors import Array, TensorInfo, UnexaminedFile

MAX_EXPANSION_BYTES = 256 * 2**20
"""Most bytes of a view that repeats elements of its storage (``expand``: stride 0, overlapping windows)."""

ZIP_MAGIC = b"PK\3\4"


class TorchContainer(Protocol):
    """One of the two layouts of ``torch.save``, open."""

    def root(self) -> object:
        """The checkpoint object."""

    def storage_size(self, key: str) -> int | None:
        """Bytes of a storage, or None when there is none of this key."""

    def storage(self, key: str) -> memoryview:
        """The bytes of a storage; raises UnreadableError when they are damaged."""


class TorchFile:
    """One checkpoint file, names as the checkpoint has them.

    Raises:
        UnreadableError: the file is missing, empty, truncated, damaged, holds no weights, or describes a tensor
            that does not fit its storage.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = MappedFile(path)
        try:
            is_zip = self._file.map[:4] == ZIP_MAGIC
            self._container: TorchContainer = TorchZip(self._file) if is_zip else TorchLegacy(self._file)
            found = find_tensors(self._container.root(), path)
            self._tensors, self._left_out = found.tensors, found.left_out
            self._infos = tuple(self._check(name, tensor) for name, tensor in self._tensors.items())
        except BaseException:
            self._file.close()
            raise

    @property
    def format(self) -> str:
        """``pytorch``."""
        return "pytorch"

    def tensors(self) -> Sequence[TensorInfo]:
        """All weights in the order of the checkpoint."""
        return self._infos

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """Keys of the checkpoint that hold training state and the like."""
        return self._left_out

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """Nothing: a file is opened whole or not at all."""
        return ()

    def load(self, name: str) -> Array:
        """A read-only view of the tensor's bytes, strided as saved; KeyError for a name that is not listed."""
        tensor = self._tensors[name]
        if tensor.refusal is not None or not isinstance(tensor, StoredTensor):
            refusal = tensor.refusal or ""
            raise UnreadableError(UnreadableReason.UNSUPPORTED_TENSOR, self.path, refusal, name)
        dtype = loadable_type(tensor.type, self.path, name)
        self._file.ensure_unchanged()
        if 0 in tensor.shape:
            empty: Array = np.empty(tensor.shape, dtype)
            empty.flags.writeable = False
            return empty
        begin = tensor.storage.view_offset * tensor.storage.type.bits // 8 + tensor.offset * dtype.itemsize
        strides = tuple(stride * dtype.itemsize for stride in _effective_strides(tensor))
        return np.ndarray(tensor.shape, dtype, self._container.storage(tensor.storage.key), begin, strides)

    def release(self) -> None:
        """Give back the memory of what was read so far; views already handed out stay valid."""
        self._file.release()

    def close(self) -> None:
        """Close the file; views already handed out stay valid."""
        self._file.close()

    def _check(self, name: str, tensor: Tensor) -> TensorInfo:
        """Compare what the pickle says about a tensor with what the container holds."""
        count = element_count(tensor.shape)
        if count is None:
            raise self._error("its shape holds more elements than a file can", name)
        info = TensorInfo(name, tensor.shape, tensor.type.name, count * tensor.type.bits // 8)
        if not isinstance(tensor, StoredTensor):
            return info
        if len(tensor.shape) != len(tensor.strides):
            raise self._error(
                f"it has {len(tensor.shape)} dimensions and {len(tensor.strides)} strides", name
            )
        if count == 0 or not tensor.type.bits:
            return info
        storage = tensor.storage
        size = self._container.storage_size(storage.key)
        if size is None:
            raise self._error(f"its storage {storage.key[:60]!r} is not in the file", name)
        declared = storage.numel * storage.type.bits // 8
        if size != declared:
            reason = UnreadableReason.TRUNCATED if size < declared else UnreadableReason.BAD_PICKLE
            raise self._error(f"its storage has {size} bytes where the pickle says {declared}", name, reason)
        item = tensor.type.bits // 8
        last = tensor.offset + sum((d - 1) * s for d, s in zip(tensor.shape, tensor.strides, strict=True))
        available = storage.view_numel * storage.type.bits // 8
        if (last + 1) * item > available:
            raise self._error(
                f"it reaches {(last + 1) * item - available} bytes beyond its storage of {available} bytes",
                name,
            )
        if info.size_bytes > max(available, MAX_EXPANSION_BYTES):
            raise self._error(
                f"it repeats a storage of {available} bytes until it is {info.size_bytes} bytes large; save it with "
                ".contiguous() if that is meant",
                name,
                UnreadableReason.TOO_LARGE,
            )
        return info

    def _error(
        self, detail: str, tensor: str, reason: UnreadableReason = UnreadableReason.BAD_PICKLE
    ) -> UnreadableError:
        return UnreadableError(reason, self.path, detail, tensor)


def _effective_strides(tensor: StoredTensor) -> tuple[int, ...]:
    # The stride of a dimension of size 1 is never used, and may be a number that numpy cannot hold.
    return tuple(
        0 if d == 1 or s > MAX_BYTES // 16 else s for d, s in zip(tensor.shape, tensor.strides, strict=True)
    )
