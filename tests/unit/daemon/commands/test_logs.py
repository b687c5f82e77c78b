"""Log lines: one per event, whatever the names and messages in it hold."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from layerwatch.daemon.commands.logs import configure_logging

FORGED = "gone\n2026-01-01 00:00:00,000 INFO layerwatch: all is well\r\x1b[2J\u2028end"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the daemon's logging writes."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    configure_logging(verbose=False)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("layerwatch").setLevel(logging.NOTSET)


def test_a_line_break_in_a_message_begins_no_line(log: io.StringIO) -> None:
    logging.getLogger("layerwatch.test").warning("%s", FORGED)
    (line,) = log.getvalue().splitlines()
    assert line.endswith(r"gone\x0a2026-01-01 00:00:00,000 INFO layerwatch: all is well\x0d\x1b[2J\x2028end")


def test_control_characters_of_an_exception_are_escaped_and_none_of_its_lines_looks_like_an_event(
    log: io.StringIO,
) -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("layerwatch.test").exception("unexpected", stack_info=True)
    first, *others = log.getvalue().split("\n")[:-1]
    assert first.endswith("ERROR layerwatch.test: unexpected")
    assert "  Traceback (most recent call last):" in others
    assert "  ValueError: gone" in others
    assert r"  2026-01-01 00:00:00,000 INFO layerwatch: all is well\x0d\x1b[2J\x2028end" in others
    assert any(line.startswith("  Stack (most recent call last)") for line in others)
    assert all(line.startswith("  ") and line.isprintable() for line in others)
