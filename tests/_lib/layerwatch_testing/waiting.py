"""Waiting for what other threads and processes do: by asking until a deadline, ever less often."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

_SHORTEST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.25
_PAUSE_SHARE = 0.02
"""Of what was waited already: asking costs those that are waited for."""


def until(ask: Callable[[], Answer | None], what: str, seconds: float = 60) -> Answer:
    """The first answer of ``ask`` that is true; fails the test when there is none in time."""
    began = time.monotonic()
    while True:
        answer = ask()
        if answer:
            return answer
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(min(max(_SHORTEST_PAUSE_SECONDS, _PAUSE_SHARE * waited), _LONGEST_PAUSE_SECONDS))
