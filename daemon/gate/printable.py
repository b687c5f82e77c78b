"""Foreign text for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Names come from untrusted files: no control character reaches the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
