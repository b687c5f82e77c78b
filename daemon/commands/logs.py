"""Log lines of the daemon: one per event, to standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any


class _OneLineFormatter(logging.Formatter):
    """Names in messages come from registries and files: no line break or control character in them may forge a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - overrides logging's name
        return _escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - overrides logging's name
        return _escaped_lines(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - overrides logging's name
        return _escaped_lines(super().formatStack(stack_info))


def _escaped(line: str) -> str:
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in line)


def _escaped_lines(text: str) -> str:
    # Indented, so that no line of it, however it was made up, looks like the beginning of an event.
    return "\n".join(f"  {_escaped(line)}" for line in text.split("\n"))


def configure_logging(verbose: bool) -> None:
    """Send everything of layerwatch to standard error, and only warnings of its libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("layerwatch").setLevel(logging.DEBUG if verbose else logging.INFO)
