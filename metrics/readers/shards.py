"""Sharded models: the index file, and the numbered file names that stand in for a missing one.

Convention of Hugging Face (https://huggingface.co/docs/safetensors/metadata_parsing): ``weight_map`` in
``*.index.json`` maps each tensor to a file in the same directory; shards are called
``<stem>-00001-of-00003.<suffix>``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.strictjson import parse_object

INDEX_SUFFIX = ".index.json"

DISTRIBUTED_SUFFIX = ".distcp"
DISTRIBUTED_METADATA = ".metadata"
"""Names of the files of a distributed checkpoint: those that hold tensors, and the one that says what is where."""

_MAX_INDEX_BYTES = 100_000_000
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5,6})-of-(?P<total>\d{5,6})(?P<suffix>\.\w+)", re.ASCII)


def read_index(path: Path) -> dict[str, Path]:
    """Which file holds which tensor, as an index declares it, in the index's order.

    Raises:
        UnreadableError: the index is no such JSON, or names a file outside its own directory (BAD_HEADER), or
            maps no tensor (NO_TENSORS).
    """
    file = MappedFile(path)
    try:
        if file.size > _MAX_INDEX_BYTES:
            raise UnreadableError(
                UnreadableReason.TOO_LARGE, path, f"{file.size} bytes; an index may have {_MAX_INDEX_BYTES}"
            )
        document = parse_object(file.map[:], path, "index")
    finally:
        file.close()
    weight_map = document.get("weight_map")
    if not isinstance(weight_map, dict):
        raise UnreadableError(UnreadableReason.BAD_HEADER, path, "the index has no weight_map object")
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or name in ("", ".", "..") or re.search(r"[/\\\0]", name):
            raise UnreadableError(
                UnreadableReason.BAD_HEADER,
                path,
                "weight_map must name a file in the directory of the index, without any folder",
                tensor,
            )
    if not weight_map:
        raise UnreadableError(UnreadableReason.NO_TENSORS, path, "the weight_map of the index is empty")
    return {tensor: path.parent / name for tensor, name in weight_map.items()}


def require_shards(index: Path, shards: Iterable[Path], available: Collection[Path] | None = None) -> None:
    """Raise UnreadableError(MISSING_SHARD) when a file that the index names is not there.

    Args:
        index: the index, for the error.
        shards: the files it names.
        available: the weight files of the directory that is opened; None when the index itself was asked for.
    """
    missing = [s.name for s in shards if not s.is_file() or (available is not None and s not in available)]
    if missing:
        raise UnreadableError(
            UnreadableReason.MISSING_SHARD,
            index,
            f"{len(missing)} of the files it names are not there: {_listing(missing)}; copy the rest of the model",
        )


def series(paths: Iterable[Path]) -> list[tuple[Path, ...]]:
    """Group files by model: the numbered shards of one model together, every other file by itself.

    Raises:
        UnreadableError: MISSING_SHARD when a series is incomplete.
    """
    groups: dict[tuple[str, int, str], list[Path]] = {}
    for path in sorted(paths):
        numbered = _NUMBERED.fullmatch(path.name)
        key = (
            (numbered["stem"], int(numbered["total"]), numbered["suffix"]) if numbered else (path.name, 0, "")
        )
        groups.setdefault(key, []).append(path)
    for (_, total, _), members in groups.items():
        if total:
            _require_series(members, total)
    return [tuple(members) for members in groups.values()]


def model_name(path: Path) -> str:
    """What a file calls its model: its name without the suffix and the number of a shard."""
    stem = path.name.removesuffix(".tar").rpartition(".")[0]
    return re.sub(r"-\d{5,6}-of-\d{5,6}$", "", stem, flags=re.ASCII)


def _require_series(members: list[Path], total: int) -> None:
    numbers = {int(found["number"]) for path in members if (found := _NUMBERED.fullmatch(path.name))}
    # The shards of some exports are counted from 0.
    first = 0 if 0 in numbers else 1
    missing = total - len(numbers & set(range(first, first + total)))
    if missing > 0 or len(numbers) > total:
        raise UnreadableError(
            UnreadableReason.MISSING_SHARD,
            members[0].parent,
            f"{len(numbers)} of {total} shards are there ({_listing([path.name for path in members])}); copy the "
            "rest of the model",
        )


def _listing(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
