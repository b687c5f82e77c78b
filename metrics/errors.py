"""Errors of the measuring side.

Tree::

    MetricsError
    └── UnreadableError   a model file, or one tensor in it, cannot be examined

Every error carries a closed ``reason`` (it becomes a metric label and a report field) and a sentence that
says what to do about it.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path


class UnreadableReason(StrEnum):
    """Why something that had to be examined could not be. The value is a metric label: no free text."""

    NOT_FOUND = "not_found"
    EMPTY_FILE = "empty_file"
    NO_TENSORS = "no_tensors"
    UNKNOWN_FORMAT = "unknown_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    BAD_HEADER = "bad_header"
    BAD_PICKLE = "bad_pickle"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    MISSING_SHARD = "missing_shard"
    UNSUPPORTED_DTYPE = "unsupported_dtype"
    UNSUPPORTED_TENSOR = "unsupported_tensor"
    QUANTISED_WITHOUT_SCALE = "quantised_without_scale"
    CHANGED_WHILE_READING = "changed_while_reading"
    IO_ERROR = "io_error"
    NO_CONVERGENCE = "no_convergence"
    NO_DEVICE = "no_device"
    MEMORY_LIMIT = "memory_limit"
    TIMEOUT = "timeout"
    WORKER_DIED = "worker_died"


TRANSIENT_REASONS = frozenset(
    {
        UnreadableReason.NOT_FOUND,
        UnreadableReason.CHANGED_WHILE_READING,
        UnreadableReason.IO_ERROR,
        UnreadableReason.NO_DEVICE,
        UnreadableReason.MEMORY_LIMIT,
        UnreadableReason.TIMEOUT,
        UnreadableReason.WORKER_DIED,
    }
)
"""Reasons that another attempt on the same bytes may cure."""


class MetricsError(Exception):
    """Root of the errors raised by ``layerwatch.metrics``."""


class UnreadableError(MetricsError):
    """A model file, or one tensor in it, cannot be examined.

    Attributes:
        reason: member of the closed list.
        path: the file (or directory) concerned.
        tensor: the tensor concerned, or None when the whole file is.
        detail: one sentence for the user, naming what was found and what was expected.
    """

    def __init__(
        self, reason: UnreadableReason, path: Path | str, detail: str, tensor: str | None = None
    ) -> None:
        self.reason = reason
        self.path = str(path)
        self.tensor = tensor
        self.detail = detail
        where = self.path if tensor is None else f"{self.path}: tensor {tensor!r}"
        super().__init__(f"{where}: {reason.value}: {detail}")

    @property
    def transient(self) -> bool:
        """True when another attempt on the same bytes may succeed."""
        return self.reason in TRANSIENT_REASONS
