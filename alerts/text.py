"""Text of strangers made fit for messages: model, layer and version names come from whoever uploaded them."""

from __future__ import annotations

import unicodedata

# Characters that can stand for one kept character before the text is cut unread; keeps a 100 MB name cheap.
_READ_AHEAD = 8


def plain(text: str, limit: int) -> str:
    """``text`` as one printable line of at most ``limit`` characters.

    Control, format (bidirectional overrides, zero-width joiners), surrogate, private-use and unassigned
    characters are removed; line and paragraph separators and runs of white space become one space. What is cut
    off shows as ``…``. The result is still foreign text: escape it for the format it is put into.

    Args:
        text: any string.
        limit: most characters of the result, at least 1.
    """
    if len(text) <= limit and text.isascii() and text.isprintable() and text == " ".join(text.split()):
        return text  # As nearly all of it is.
    head = text[: limit * _READ_AHEAD]
    kept = "".join(
        " " if character.isspace() else character
        for character in head
        if character.isspace() or not unicodedata.category(character).startswith("C")
    )
    line = " ".join(kept.split())
    if len(line) <= limit and len(head) == len(text):
        return line
    return line[: limit - 1].rstrip() + "…"
