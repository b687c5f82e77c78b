"""Glob patterns of models, refs and repositories."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

_WILDCARDS = frozenset("*?[")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name fits one of the patterns; upper and lower case are different."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_glob(pattern: str) -> bool:
    """Whether a pattern may fit more than one name."""
    return not _WILDCARDS.isdisjoint(pattern)
