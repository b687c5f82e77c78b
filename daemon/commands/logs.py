"""Log lines of the daemon: one per event, to standard error, for people or for log collectors."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class LogFormat(StrEnum):
    """How an event is written."""

    TEXT = "text"
    JSON = "json"


class _OneLineFormatter(logging.Formatter):
    """Names in messages come from registries and files: no line break or control character in them may forge a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - overrides logging's name
        return _escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - overrides logging's name
        return _escaped_lines(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - overrides logging's name
        return _escaped_lines(super().formatStack(stack_info))


class _JsonFormatter(logging.Formatter):
    """One JSON object per event: time (RFC 3339, UTC), level, logger, message, and what went wrong where it did.

    Everything beyond ASCII is escaped, so that a line is a line for every reader.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        event = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["error"] = self.formatException(record.exc_info)
        if record.stack_info:
            event["stack"] = self.formatStack(record.stack_info)
        return json.dumps(event)


def _escaped(line: str) -> str:
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in line)


def _escaped_lines(text: str) -> str:
    # Indented, so that no line of it, however it was made up, looks like the beginning of an event.
    return "\n".join(f"  {_escaped(line)}" for line in text.split("\n"))


def configure_logging(verbose: bool, log_format: LogFormat = LogFormat.TEXT) -> None:
    """Send everything of layerwatch to standard error, and only warnings of its libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JsonFormatter()
        if log_format is LogFormat.JSON
        else _OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("layerwatch").setLevel(logging.DEBUG if verbose else logging.INFO)
