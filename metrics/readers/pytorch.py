"""Checkpoints of ``torch.save``, read without torch and without running anything they contain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.checkpoint import CheckpointWeights, Tensor, find_tensors
from layerwatch.metrics.readers.dangerousglobals import ForeignCode
from layerwatch.metrics.readers.dtypes import MAX_BYTES, element_count, loadable_type
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.picklevalues import Quantiser, StoredTensor
from layerwatch.metrics.readers.torchlegacy import TorchLegacy
from layerwatch.metrics.readers.torchzip import TorchZip
from layerwatch.metrics.readers.window import Mapped
from layerwatch.metrics.readers.ziparchive import ZIP_MAGIC
from layerwatch.metrics.tensors import Array, CodeInPickle, TensorInfo, UnexaminedFile

MAX_EXPANSION_BYTES = 256 * 2**20
"""Most bytes of a view that repeats elements of its storage (``expand``: stride 0, overlapping windows)."""


_QUANTISED: dict[str, np.dtype[Any]] = {
    "QINT8": np.dtype(np.int8),
    "QUINT8": np.dtype(np.uint8),
    "QINT32": np.dtype("<i4"),
}
"""What holds the numbers of torch's quantised tensors."""


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

    Args:
        path: the file.
        file: its bytes where they are mapped already; closed by this reader.

    Raises:
        UnreadableError: the file is missing, empty, truncated, damaged, holds no weights, or describes a tensor
            that does not fit its storage.
    """

    def __init__(self, path: Path, file: Mapped | None = None) -> None:
        self.path = path
        self._file: Mapped = MappedFile(path) if file is None else file
        self._code = ForeignCode()
        try:
            self._container = _container(self._file, self._code)
            found = self._find()
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

    @property
    def metadata(self) -> Mapping[str, object]:
        """Nothing: the format declares none of the model."""
        return {}

    @property
    def foreign_code(self) -> Sequence[CodeInPickle]:
        """What the file would run where it is unpickled as it is."""
        return (CodeInPickle(self.path, self._code.names),) if self._code.names else ()

    def load(self, name: str) -> Array:
        """A read-only view of the tensor's bytes, strided as saved; KeyError for a name that is not listed.

        Of a tensor that torch quantised its values in float32.
        """
        tensor = self._tensors[name]
        if tensor.refusal is not None or not isinstance(tensor, StoredTensor):
            refusal = tensor.refusal or ""
            raise UnreadableError(UnreadableReason.UNSUPPORTED_TENSOR, self.path, refusal, name)
        if tensor.quantiser is not None:
            return self._dequantised(name, tensor, tensor.quantiser)
        dtype = loadable_type(tensor.type, self.path, name)
        self._file.ensure_unchanged()
        return self._view(tensor, dtype)

    def _find(self) -> CheckpointWeights:
        try:
            return find_tensors(self._container.root(), self.path)
        except UnreadableError as error:
            if not self._code.names or error.reason is not UnreadableReason.NO_TENSORS:
                raise
            # No reason to leave it out beside a model, as a file without weights is.
            (found,) = self.foreign_code
            raise UnreadableError(
                UnreadableReason.BAD_PICKLE, self.path, f"{error.detail}; {found.sentence}"
            ) from error

    def _view(self, tensor: StoredTensor, dtype: np.dtype[Any]) -> Array:
        if 0 in tensor.shape:
            empty: Array = np.empty(tensor.shape, dtype)
            empty.flags.writeable = False
            return empty
        begin = tensor.storage.view_offset * tensor.storage.type.bits // 8 + tensor.offset * dtype.itemsize
        strides = tuple(stride * dtype.itemsize for stride in _effective_strides(tensor))
        return np.ndarray(tensor.shape, dtype, self._container.storage(tensor.storage.key), begin, strides)

    def _dequantised(self, name: str, tensor: StoredTensor, quantiser: Quantiser) -> Array:
        self._file.ensure_unchanged()
        values = self._view(tensor, _QUANTISED[tensor.type.name]).astype(np.float32)
        with np.errstate(all="ignore"):
            values -= self._operand(name, quantiser.zero_point, tensor.shape, quantiser.axis)
            values *= self._operand(name, quantiser.scale, tensor.shape, quantiser.axis)
        values.flags.writeable = False
        return values

    def _operand(
        self, name: str, stored: float | StoredTensor, shape: tuple[int, ...], axis: int | None
    ) -> NDArray[np.float32]:
        if not isinstance(stored, StoredTensor) or axis is None:
            return np.asarray(stored, np.float32)
        numbers = self._view(stored, loadable_type(stored.type, self.path, name)).astype(np.float32)
        return numbers.reshape((-1,) + (1,) * (len(shape) - axis - 1))

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
        if tensor.quantiser is not None:
            for part in (tensor.quantiser.scale, tensor.quantiser.zero_point):
                if isinstance(part, StoredTensor):
                    self._check_operand(name, part, tensor.shape[tensor.quantiser.axis or 0])
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

    def _check_operand(self, name: str, part: StoredTensor, length: int) -> None:
        self._check(name, part)
        if part.shape != (length,) or part.quantiser is not None:
            raise self._error(
                f"its scales or zero points have shape {list(part.shape)}, one for each of {length} is needed",
                name,
            )

    def _error(
        self, detail: str, tensor: str, reason: UnreadableReason = UnreadableReason.BAD_PICKLE
    ) -> UnreadableError:
        return UnreadableError(reason, self.path, detail, tensor)


def _container(file: Mapped, code: ForeignCode) -> TorchContainer:
    # The legacy container has no directory at its end: it is read from whole files only.
    if isinstance(file, MappedFile) and file.map[:4] != ZIP_MAGIC:
        return TorchLegacy(file, code)
    return TorchZip(file, code)


def _effective_strides(tensor: StoredTensor) -> tuple[int, ...]:
    # The stride of a dimension of size 1 is never used, and may be a number that numpy cannot hold.
    return tuple(
        0 if d == 1 or s > MAX_BYTES // 16 else s for d, s in zip(tensor.shape, tensor.strides, strict=True)
    )
