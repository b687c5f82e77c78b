"""JSON from untrusted files: bounded depth, no duplicate keys, typed errors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from layerwatch.metrics.errors import UnreadableError, UnreadableReason

MAX_DEPTH = 32
"""Deepest nesting accepted. A safetensors header has 3 levels, an index 2."""

# Possessive quantifiers: an unterminated string must not make the search quadratic.
_STRING_OR_BRACKET = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


class _DuplicateKeyError(ValueError):
    pass


def parse_object(raw: bytes, path: Path, what: str) -> dict[str, Any]:
    """Parse a JSON object.

    Args:
        raw: UTF-8 text.
        path: the file it comes from, for the error.
        what: what the text is ("header", "index"), for the error.

    Raises:
        UnreadableError: TOO_DEEP for nesting beyond :data:`MAX_DEPTH`; BAD_HEADER for anything that is no
            JSON object, or one with the same key twice (parsers differ on which one counts).
    """
    if _depth(raw) > MAX_DEPTH:
        raise UnreadableError(
            UnreadableReason.TOO_DEEP, path, f"the JSON of the {what} nests deeper than {MAX_DEPTH} levels"
        )
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except _DuplicateKeyError as error:
        raise UnreadableError(
            UnreadableReason.BAD_HEADER, path, f"the {what} holds the key {error} twice"
        ) from error
    except UnicodeDecodeError as error:
        raise UnreadableError(UnreadableReason.BAD_HEADER, path, f"the {what} is not UTF-8") from error
    except ValueError as error:
        raise UnreadableError(
            UnreadableReason.BAD_HEADER, path, f"the {what} is not JSON: {error}"
        ) from error
    if not isinstance(value, dict):
        raise UnreadableError(
            UnreadableReason.BAD_HEADER, path, f"the {what} is a JSON {type(value).__name__}, not an object"
        )
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(repr(key[:100]))
            seen.add(key)
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _depth(raw: bytes) -> int:
    """Deepest bracket nesting outside strings, found without recursion (json.loads itself recurses)."""
    depth = deepest = 0
    for found in _STRING_OR_BRACKET.finditer(raw):
        first = raw[found.start()]
        if first in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"}]":
            depth -= 1
    return deepest
