"""How a registry is treated: how often it is asked, how long it is left alone after a failure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zlib import crc32

from layerwatch.daemon.registries.base import RegistryUnavailable

MISCONFIGURED_WAIT = timedelta(minutes=15)
"""Where only a person can help, the next try comes after this time, with a hint, a reload or a reconcile."""

_LONGEST_WAIT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Manners:
    """How a registry is treated.

    Attributes:
        poll: time between two looks, from which the waiting times after failures grow; None: it costs nothing to ask
            again at the next look.
        reconcile: time between two reconciles.
        rehash: within this time each version is hashed again; by default at every reconcile.
        parallel: so many versions are fingerprinted at a time.
    """

    poll: timedelta | None = None
    reconcile: timedelta = timedelta(hours=6)
    rehash: timedelta = timedelta(0)
    parallel: int = 1

    def is_due(self, location: str, now: datetime) -> bool:
        """Whether a version takes its turn in the reconcile of this time: each has its place in the cycle."""
        turns = max(1, self.rehash // self.reconcile)
        turn = (now - datetime.fromtimestamp(0, UTC)) // self.reconcile
        return crc32(location.encode(errors="surrogateescape")) % turns == turn % turns

    def wait_after(self, error: RegistryUnavailable, failures: int, name: str) -> timedelta:
        """How long to leave a registry alone that failed so many times in a row."""
        if self.poll is None:
            return timedelta(0)
        if error.retry_after is not None:
            return min(error.retry_after, timedelta(hours=1))
        if error.reason.misconfigured:
            return MISCONFIGURED_WAIT
        # Half of it by chance, the same for the same registry: not all come back at the same moment.
        share = 0.5 + 0.5 * crc32(f"{name} {failures}".encode()) / 2**32
        return min(self.poll * 2.0 ** min(failures - 1, 20), max(self.poll, _LONGEST_WAIT)) * share
