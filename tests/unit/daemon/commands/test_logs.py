"""Log lines: one per event, whatever the names and messages in it hold."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime

import pytest

from layerwatch.daemon.commands.logs import LogFormat, configure_logging

FORGED = "gone\n2026-01-01 00:00:00,000 INFO layerwatch: all is well\r\x1b[2J\u2028end"


@contextmanager
def logging_to_text(log_format: LogFormat) -> Iterator[io.StringIO]:
    """What the daemon's logging writes."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    with redirect_stderr(written):
        configure_logging(verbose=False, log_format=log_format)
    try:
        yield written
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("layerwatch").setLevel(logging.NOTSET)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Lines for people."""
    with logging_to_text(LogFormat.TEXT) as written:
        yield written


@pytest.fixture
def json_log() -> Iterator[io.StringIO]:
    """Lines for collectors."""
    with logging_to_text(LogFormat.JSON) as written:
        yield written


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


def test_in_json_every_event_is_one_ascii_line_with_time_level_logger_and_message(
    json_log: io.StringIO,
) -> None:
    before = datetime.now(UTC)
    logging.getLogger("layerwatch.test").warning("%s", FORGED)
    assert json_log.getvalue().isascii()
    (line,) = json_log.getvalue().split("\n")[:-1]
    event = json.loads(line)
    assert event.keys() == {"time", "level", "logger", "message"}
    assert (event["level"], event["logger"], event["message"]) == ("warning", "layerwatch.test", FORGED)
    assert event["time"].endswith("Z")
    assert abs((datetime.fromisoformat(event["time"]) - before).total_seconds()) < 60


def test_in_json_an_exception_and_a_stack_stay_in_the_line_of_their_event(json_log: io.StringIO) -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("layerwatch.test").exception("unexpected", stack_info=True)
    (line,) = json_log.getvalue().split("\n")[:-1]
    event = json.loads(line)
    assert event["message"] == "unexpected"
    assert event["error"].startswith("Traceback") and f"ValueError: {FORGED}" in event["error"]
    assert event["stack"].startswith("Stack (most recent call last)")
