"""What a reader hands out: names, shapes and stored types first, values one tensor at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from layerwatch.metrics.errors import UnreadableReason

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the file declares it.

    Attributes:
        name: full name in the file, without a ``module.`` prefix.
        shape: dimensions, each >= 0.
        dtype: stored type in safetensors spelling (``F32``, ``BF16``, ``F8_E4M3``, ``I8`` ...).
        size_bytes: bytes of the tensor's values (product of shape times item size).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class UnexaminedFile:
    """A file that may hold weights of the model and that was not examined. Its model is undecided.

    Attributes:
        name: relative to the model's directory, with ``/``, printable as UTF-8.
        reason: why not.
        detail: the same as a sentence.
    """

    name: str
    reason: UnreadableReason
    detail: str


@dataclass(frozen=True, slots=True)
class CodeInPickle:
    """A file whose pickle asks for functions that run code of its author, wherever it is unpickled unguarded.

    Attributes:
        path: the file.
        names: what it asks for, at least one, printable ASCII.
    """

    path: Path
    names: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What that means, without the name of the file."""
        more = len(self.names) - 1
        return (
            f"its pickle asks for {self.names[0]}{f' and {more} more' if more else ''}: whoever loads it without "
            "weights_only=True runs it"
        )


@runtime_checkable
class HoldsPickles(Protocol):
    """A reader of files that may carry code. Most formats hold data only, and their readers say nothing of it."""

    @property
    def foreign_code(self) -> Sequence[CodeInPickle]:
        """The files that do, known as soon as the model is open."""


class Reader(Protocol):
    """One open model: a file, or a set of shards that belong together.

    A reader never executes anything that the file contains and never holds more than one tensor in memory.
    """

    @property
    def format(self) -> str:
        """``safetensors`` or ``pytorch``."""

    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, in the order of the file, without loading values."""

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """What is there and is no part of the model (training state, copies in another format), with the reason.

        Names are files, relative to the model's directory, or keys of a checkpoint.
        """

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """Files that may belong to the model and cannot be read."""

    @property
    def metadata(self) -> Mapping[str, object]:
        """What the file itself declares about the model and that its layers are read by, as GGUF's key-value pairs."""

    def load(self, name: str) -> Array:
        """The values of one tensor in its stored type (``ml_dtypes`` for BF16 and FP8), read-only.

        Raises:
            UnreadableError: the values are not all there, or their type has no numpy counterpart.
        """

    def release(self) -> None:
        """Give back the memory of what was read so far. Arrays handed out stay valid and are read again when used."""

    def close(self) -> None:
        """Release files and memory maps. Arrays handed out stay valid until they are dropped."""


def foreign_code_of(reader: Reader) -> Sequence[CodeInPickle]:
    """The files of an open model that run code where they are unpickled unguarded."""
    return reader.foreign_code if isinstance(reader, HoldsPickles) else ()
