"""Names of models, versions and refs: which count, and which fit a glob pattern."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

_WILDCARDS = frozenset("*?[")
_UNFINISHED_SUFFIXES = (".tmp", ".partial", "~")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name fits one of the patterns; upper and lower case are different."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_glob(pattern: str) -> bool:
    """Whether a pattern may fit more than one name."""
    return not _WILDCARDS.isdisjoint(pattern)


def is_visible(name: str) -> bool:
    """Whether a model, a version or a ref of this name counts: not what is hidden, or still being written."""
    return bool(name) and not name.startswith(".") and not name.endswith(_UNFINISHED_SUFFIXES)
