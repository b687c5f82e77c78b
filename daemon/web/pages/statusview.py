"""What the page of the status shows: how each part of the daemon is, and what is wrong, worst first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from layerwatch.daemon.statusfacts import ReceiverFacts, RegistryFacts, StatusFacts
from layerwatch.daemon.store.condition import Queue, ReceiverState
from layerwatch.daemon.store.errors import StoreReason
from layerwatch.daemon.web.pages import whattodo

MOST_VERSIONS = 20
"""Versions of each kind that the queue tells of."""

_LONG_UNLISTED = timedelta(minutes=10)
_LONG_UNDELIVERED = timedelta(minutes=15)
_LONG_UNSCANNED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        severity: critical or warning.
        words: what is wrong, foreign text.
        todo: what a person can do about it.
        part: anchor of the part of the page that tells more.
    """

    severity: str
    words: str
    todo: str
    part: str


@dataclass(frozen=True, slots=True)
class StoreView:
    """How the store is.

    Attributes:
        trouble: why it cannot be read; None where it can, and all else is filled in.
    """

    trouble: StoreReason | None = None
    kind: str = ""
    size_bytes: int = 0
    firing: int = 0
    versions: Mapping[str, int] = field(default_factory=dict)
    queue: Queue | None = None
    receivers: Mapping[str, ReceiverState] = field(default_factory=dict)


def problems(facts: StatusFacts, store: StoreView, now: datetime) -> list[Problem]:
    """Everything that is wrong, worst first."""
    found = [
        *_of_process(facts, store, now),
        *(one for registry in facts.registries for one in registry_problems(registry, facts, now)),
        *(
            one
            for receiver in facts.receivers
            for one in receiver_problems(receiver, store.receivers.get(receiver.name), now)
        ),
        *_of_queue(store.queue, now),
    ]
    return sorted(found, key=lambda one: one.severity != "critical")


def _of_process(facts: StatusFacts, store: StoreView, now: datetime) -> Iterator[Problem]:
    if store.trouble is not None:
        todo = whattodo.STORE.get(store.trouble, whattodo.STORE_OTHERWISE)
        yield Problem("critical", f"The store cannot be used ({store.trouble}).", todo, "daemon")
    for beat in facts.loops:
        if beat.loop in facts.late:
            silent = (
                f"Loop {beat.loop} is stuck: silent for {span(now - beat.last)}, limit {span(beat.limit)}."
            )
            yield Problem(
                "critical", silent, "See the log of the daemon; if it stays so, start it again.", "loops"
            )
    if facts.diary.repeated:
        twice = "Series are exported twice, for which Prometheus refuses every scrape."
        yield Problem("critical", twice, "Please report it, with the names of the series.", "daemon")
    if facts.diary.load_failed_at is not None:
        yield Problem(
            "warning",
            "The changed configuration was refused; the one before stays in force.",
            "layerwatch config check tells every mistake in it.",
            "daemon",
        )
    if facts.restart_for:
        keys = ", ".join(facts.restart_for)
        yield Problem("warning", f"Changes wait for a restart: {keys}.", "Start the daemon again.", "daemon")
    if not facts.registries:
        yield Problem(
            "warning",
            "No registry is configured: nothing is watched.",
            "Add one to registries.",
            "registries",
        )


def registry_problems(registry: RegistryFacts, facts: StatusFacts, now: datetime) -> Iterator[Problem]:
    """What is wrong with a registry of a daemon."""
    reason = registry.error_reason
    if reason is None:
        return
    is_old = now - (registry.listed_at or facts.diary.started_at) > _LONG_UNLISTED
    if reason.misconfigured:
        words = f"Registry {registry.name} is misconfigured ({reason})."
    else:
        words = f"Registry {registry.name} cannot be listed ({reason})."
    severity = "critical" if is_old or reason.misconfigured else "warning"
    yield Problem(severity, words, whattodo.REGISTRY[reason], "registries")


def receiver_problems(
    receiver: ReceiverFacts, state: ReceiverState | None, now: datetime
) -> Iterator[Problem]:
    """What is wrong with a receiver."""
    name = receiver.name
    if receiver.trouble is not None:
        words = f"Heartbeat {name} did not take the last sign of life."
        yield Problem("warning", words, "See why below; it is tried again by itself.", "receivers")
    if receiver.is_disabled:
        words = f"Receiver {name} answered 410 and is told nothing any more."
        todo = "Set it up anew, load the configuration again, then send what was given up: layerwatch delivery replay"
        yield Problem("critical", words, f"{todo} {name}", "receivers")
    if state is None:
        return
    if state.given_up is not None and not receiver.is_disabled:
        events = counted(state.given_up.events, "event")
        words = f"{events} will not reach receiver {name} ({state.given_up.reason})."
        todo = (
            f"{whattodo.RECEIVER[state.given_up.reason]} Send them again: layerwatch delivery replay {name}"
        )
        yield Problem("critical", words, todo, "receivers")
    if state.backlog is not None and state.error_reason is not None:
        waits = now - state.backlog.oldest
        words = f"Receiver {name} takes nothing ({state.error_reason}): {counted(state.backlog.waiting, 'event')} "
        words += f"waiting, the first for {span(waits)}."
        severity = "critical" if waits > _LONG_UNDELIVERED else "warning"
        yield Problem(severity, words, whattodo.RECEIVER[state.error_reason], "receivers")


def _of_queue(queue: Queue | None, now: datetime) -> Iterator[Problem]:
    if queue is None:
        return
    if queue.unexamined:
        words = f"{counted(queue.unexamined, 'version')} could not be examined, or not all of it: how it is, is not known."
        yield Problem("warning", words, "What to do about each stands below.", "queue")
    if queue.retrying:
        known = counted(len(queue.retrying), "version")
        most = "at least " if len(queue.retrying) >= MOST_VERSIONS else ""
        words = f"The scan of {most}{known} failed and is tried again."
        yield Problem("warning", words, "What to do about each stands below.", "queue")
    if queue.oldest is not None and now - queue.oldest > _LONG_UNSCANNED:
        words = f"{counted(queue.waiting, 'version')} waiting for a scan, the first for {span(now - queue.oldest)}."
        yield Problem("warning", words, "See what is scanned now; raise scan.workers if it goes on.", "queue")


def counted(number: int, noun: str) -> str:
    """``1 event``, ``2 events``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def span(duration: timedelta) -> str:
    """How long, in its largest unit or two: ``0.2 s``, ``40 s``, ``5 min``, ``2 h 10 min``, ``3 d 4 h``."""
    seconds = max(0, int(duration.total_seconds()))
    if timedelta() < duration < timedelta(seconds=1):
        return f"{duration.total_seconds():.1f} s"
    if seconds < 120:
        return f"{seconds} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 120:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    return f"{days} d" + (f" {hours % 24} h" if hours % 24 else "")


def size(number: int) -> str:
    """Bytes in a unit that people read."""
    amount = float(number)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
