"""Waiting for what other threads and processes do: by asking until a deadline, never by a fixed pause."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

_PAUSE_SECONDS = 0.02


def until(ask: Callable[[], Answer | None], what: str, seconds: float = 60) -> Answer:
    """The first answer of ``ask`` that is true; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(_PAUSE_SECONDS)
