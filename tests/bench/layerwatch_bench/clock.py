"""Timing."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)


def seconds(action: Callable[[], object]) -> float:
    """Wall-clock seconds of one run."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def least_seconds(actions: Mapping[Name, Callable[[], object]], rounds: int) -> dict[Name, float]:
    """The shortest of several runs of each action, after one to warm up: what the machine does when undisturbed.

    The actions take turns, so that a slow minute of the machine does not fall on one of them alone.
    """
    for action in actions.values():
        action()
    taken = [{name: seconds(action) for name, action in actions.items()} for _ in range(rounds)]
    return {name: min(round_[name] for round_ in taken) for name in actions}
