"""Which files an Orbax checkpoint is made of, told by their names alone (`orbax` reads them)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

METADATA = "_METADATA"

_NOTES = frozenset({"_CHECKPOINT_METADATA", "_sharding", "commit_success.txt"})


def array_files(folder: Path, names: Iterable[str]) -> frozenset[str]:
    """Which of the files in one folder of a checkpoint its arrays are made of; others say when and how it was saved."""
    return frozenset() if folder.name == "array_metadatas" else frozenset(names) - _NOTES
