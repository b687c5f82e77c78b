"""Fingerprints of versions whose bytes cannot be read."""

from __future__ import annotations

import hashlib

_UNREADABLE = "unreadable-"


def stand_in(token: str) -> str:
    """In place of the fingerprint of bytes that cannot be read.

    Changes whenever the files do, so that the scan tells the reason and the version is tried anew.
    """
    return _UNREADABLE + hashlib.sha256(token.encode()).hexdigest()[:32]


def is_stand_in(fingerprint: str) -> bool:
    """True for what `stand_in` made: nothing is known about the bytes."""
    return fingerprint.startswith(_UNREADABLE)
