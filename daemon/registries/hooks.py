"""Events that registries send: who may send them, and what they are about. An event is a hint to look, never a fact."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from importlib import import_module
from threading import Lock


class HookReason(StrEnum):
    """Why an event was refused. The value is a metric label."""

    FORGED = "forged"
    STALE = "stale"
    REPLAYED = "replayed"
    MALFORMED = "malformed"


class HookRefused(Exception):  # noqa: N818 - named after the state, as operators do
    """An event is not acted upon.

    Attributes:
        reason: member of the closed list.
        detail: a sentence for whoever set the hook up; repeats nothing of the event.
    """

    def __init__(self, reason: HookReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.value}: {detail}")


@dataclass(frozen=True, slots=True)
class HookEvent:
    """An event that passed its check.

    Attributes:
        delivery_id: equal for every delivery of the same event, or None where the sender has no such thing.
        model: what it is about, as the registry names it, or None when it does not say.
        relevant: False for events that no look would find anything after (a pull, say).
        insistent: its sender repeats it until it is taken, and sends no other before: a repetition is counted, and
            answered as if it were taken.
    """

    delivery_id: str | None = None
    model: str | None = None
    relevant: bool = True
    insistent: bool = False


VerifyHook = Callable[[str, Mapping[str, str], bytes, datetime], HookEvent]
"""(secret, headers with lower-case names, raw body, now) -> event; raises HookRefused."""


BEARER_KINDS = frozenset({"directory", "oci", "objectstore"})
"""Kinds whose senders prove themselves by a bearer token alone: the server's own will do."""


def verifier_of(kind: str) -> VerifyHook:
    """How events of this kind of registry are checked."""
    verify: VerifyHook = import_module(f"layerwatch.daemon.registries.{kind}.hook").verify_hook
    return verify


def require_bearer(secret: str, headers: Mapping[str, str], bare: bool = False) -> None:
    """Raise HookRefused unless the ``Authorization`` header carries the secret as a bearer token.

    Args:
        bare: the secret alone, without the word "Bearer", will do as well.
    """
    given = headers.get("authorization", "").encode(errors="replace")
    is_bearer = hmac.compare_digest(given, f"Bearer {secret}".encode())
    is_bare = hmac.compare_digest(given, secret.encode()) and bare
    if not (is_bearer or is_bare):
        raise HookRefused(
            HookReason.FORGED, "the header Authorization does not carry the registry's hook_secret"
        )


class Deliveries:
    """Remembers which events came, so that a replayed one is told from a new one. Safe for several threads.

    Args:
        window: how long an event is remembered; senders with signed times refuse older ones by themselves.
        limit: so many are remembered at most, the latest.
    """

    def __init__(self, window: timedelta = timedelta(minutes=30), limit: int = 10_000) -> None:
        self._window = window
        self._limit = limit
        self._seen: OrderedDict[str, datetime] = OrderedDict()
        self._lock = Lock()

    def require_new(self, delivery_id: str, now: datetime) -> None:
        """Note a delivery; raises HookRefused (REPLAYED) when it came before."""
        with self._lock:
            while self._seen and next(iter(self._seen.values())) < now - self._window:
                self._seen.popitem(last=False)
            if delivery_id in self._seen:
                raise HookRefused(HookReason.REPLAYED, "this delivery came before")
            self._seen[delivery_id] = now
            if len(self._seen) > self._limit:
                self._seen.popitem(last=False)
