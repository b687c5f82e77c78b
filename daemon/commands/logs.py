"""Log lines of the daemon: one per event, to standard error."""

from __future__ import annotations

import logging
import sys


class _OneLineFormatter(logging.Formatter):
    """Names in messages come from registries and files: no line break or control character in them may forge a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - overrides logging's name
        return "".join(
            character if character.isprintable() else f"\\x{ord(character):02x}"
            for character in super().formatMessage(record)
        )


def configure_logging(verbose: bool) -> None:
    """Send everything of layerwatch to standard error, and only warnings of its libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("layerwatch").setLevel(logging.DEBUG if verbose else logging.INFO)
