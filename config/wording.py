"""Small parts of the sentences in error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was most likely meant to be, or None when none is near."""
    by_folded = {_folded(candidate): candidate for candidate in known}
    matches = difflib.get_close_matches(_folded(word), by_folded, n=1, cutoff=0.6)
    return by_folded[matches[0]] if matches else None


def quote(text: str) -> str:
    """``text`` in double quotes, cut after 60 characters, on one line."""
    shown = text if len(text) <= 60 else f"{text[:60]}..."
    return '"' + "".join(character if character.isprintable() else "?" for character in shown) + '"'


def _folded(word: str) -> str:
    return word.lower().replace("-", "_")
