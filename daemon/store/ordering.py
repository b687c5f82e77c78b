"""Natural order of version names, as bytes that any database compares correctly."""

from __future__ import annotations

import re

_DIGITS = re.compile("([0-9]+)")


def sort_key(order_key: str) -> bytes:
    """Bytes whose order is the natural order of ``order_key``: runs of ASCII digits compare as numbers.

    Leading zeros do not count, so ``v01`` and ``v1`` have the same key. Text compares by code point. A digit
    run becomes the byte ``0``, the run's length in four bytes, and its digits, so that it stands between the
    same neighbours as a digit does.
    """
    pieces = []
    for index, piece in enumerate(_DIGITS.split(order_key)):
        if index % 2:
            digits = piece.lstrip("0").encode("ascii")
            pieces.append(b"0" + len(digits).to_bytes(4, "big") + digits)
        else:
            pieces.append(piece.encode("utf-8", "backslashreplace"))
    return b"".join(pieces)
