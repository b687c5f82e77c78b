"""The bytes of one pickle inside a file, with a limit on what one opcode may take."""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from layerwatch.metrics.errors import UnreadableError, UnreadableReason

ByteSource = bytes | mmap.mmap

MAX_ARGUMENT_BYTES = 256 * 2**20
"""Largest argument of one opcode (a string, a number) that is copied out of the file."""

MAX_LINE_BYTES = 2**16
"""Longest line of a text opcode."""

MAX_OPCODES = 10_000_000
"""Most opcodes in one pickle; a state dict takes about 30 per tensor."""


class PickleStream:
    """A window of a file in the shape that :mod:`pickletools` reads from.

    Args:
        source: the file's bytes.
        path: the file, for errors.
        begin, end: the window; ``end`` is exclusive.
    """

    def __init__(self, source: ByteSource, path: Path, begin: int = 0, end: int | None = None) -> None:
        self._source = source
        self.path = path
        self._position = begin
        self._end = len(source) if end is None else end

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes; raises UnreadableError when they are not there or too many."""
        available = self._end - self._position
        if count > available:
            raise self.error(
                UnreadableReason.TRUNCATED,
                f"the pickle at byte {self._position} asks for {count} bytes, {count - available} of them are "
                "missing: copy the file again",
            )
        if count > MAX_ARGUMENT_BYTES:
            raise self.error(
                UnreadableReason.TOO_LARGE,
                f"one value of the pickle takes {count} bytes, more than is accepted",
            )
        begin = self._position
        self._position += count
        return self._source[begin : begin + count]

    def readline(self) -> bytes:
        """Up to and including the next newline."""
        begin = self._position
        limit = min(self._end, begin + MAX_LINE_BYTES)
        found = self._source.find(b"\n", begin, limit)
        if found < 0:
            if limit == self._end:
                raise self.error(UnreadableReason.TRUNCATED, f"the pickle ends inside a line at byte {begin}")
            raise self.error(
                UnreadableReason.TOO_LARGE, f"a line of the pickle is longer than {MAX_LINE_BYTES} bytes"
            )
        self._position = found + 1
        return self._source[begin : self._position]

    def tell(self) -> int:
        """Position in the file."""
        return self._position

    def operations(self) -> Iterator[tuple[str, Any]]:
        """Opcode names and their decoded arguments, up to and including STOP.

        Raises:
            UnreadableError: TRUNCATED, TOO_LARGE, or BAD_PICKLE for bytes that are no opcode.
        """
        decoded = pickletools.genops(cast(IO[bytes], self))
        for _ in range(MAX_OPCODES):
            try:
                opcode, argument, _position = next(decoded)
            except StopIteration:
                return
            except (ValueError, AssertionError, Warning) as error:
                # Warning: invalid escapes in text opcodes, where warnings are turned into errors.
                raise self.error(
                    UnreadableReason.BAD_PICKLE,
                    f"the pickle is damaged before byte {self._position}: {error}",
                ) from error
            yield opcode.name, argument
        raise self.error(
            UnreadableReason.TOO_LARGE,
            f"the pickle has more than {MAX_OPCODES} opcodes; weights take far fewer",
        )

    def error(self, reason: UnreadableReason, detail: str) -> UnreadableError:
        """An error about this file."""
        return UnreadableError(reason, self.path, detail)
