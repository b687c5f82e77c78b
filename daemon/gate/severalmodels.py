"""Folders that hold several models or versions, where one is asked for: to be told, and never guessed at."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from enum import StrEnum
from pathlib import Path

from layerwatch.daemon.store.ordering import sort_key
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.manifest import weight_files
from layerwatch.metrics.readers.detect import open_model

_DESCRIPTIONS = ("model_index.json", "config.json")
_SHOWN = 5


class SeveralModelsReason(StrEnum):
    """How it was told that a folder holds several models: by their files' names, or by the same tensor names."""

    SAME_FILES = "same_files"
    SAME_TENSORS = "same_tensors"


class SeveralModelsError(Exception):
    """A folder is no model: those below it are.

    Attributes:
        folder: as it was named.
        models: the folders that hold one each, relative to it, in natural order.
    """

    def __init__(self, reason: SeveralModelsReason, folder: Path, models: Sequence[str]) -> None:
        self.reason = reason
        self.folder = folder
        self.models = tuple(models)
        shown = ", ".join(self.models[:_SHOWN])
        more = f" and {len(self.models) - _SHOWN} more" if len(self.models) > _SHOWN else ""
        before, last = (folder / name for name in self.models[-2:])
        super().__init__(
            f"{folder} holds several models or versions ({shown}{more}): name one, for example {last}, with "
            f"--baseline {before} to compare two"
        )


def require_one_model(path: Path) -> None:
    """Do nothing for a file, and for a folder that is one model.

    Versions hold files of the same names, numbers aside, or tensors of the same names; the parts of one model do not,
    or are described by a ``model_index.json`` or ``config.json`` above them (a diffusion pipeline's ``unet/`` and
    ``vae/``). A folder with weights of its own is a model, whatever lies below it.

    Raises:
        SeveralModelsError: the folder holds several, each complete by itself.
    """
    if not path.is_dir():
        return
    try:
        inside = [file.relative_to(path) for file in weight_files(path)]
    except (OSError, UnreadableError, ValueError):
        # Told with its reason when the model is opened.
        return
    top = Path()
    while (held := _by_folder(inside, top)) is not None and len(held) == 1:
        if _is_described(path / top):
            return
        top = top / next(iter(held))
    if held is None or _is_described(path / top):
        return
    for reason, alike in (
        (SeveralModelsReason.SAME_FILES, _alike(_file_names(held))),
        (SeveralModelsReason.SAME_TENSORS, _alike(dict(_tensor_names(path / top, held)))),
    ):
        if alike:
            names = sorted(((top / name).as_posix() for name in alike), key=sort_key)
            raise SeveralModelsError(reason, path, names)


def _by_folder(files: Sequence[Path], top: Path) -> dict[str, list[Path]] | None:
    """Files below each subfolder of ``top``, which holds all of them; None where it holds one itself, or none."""
    held: dict[str, list[Path]] = {}
    for file in files:
        below = file.relative_to(top)
        if len(below.parts) == 1:
            return None
        held.setdefault(below.parts[0], []).append(Path(*below.parts[1:]))
    return held or None


def _is_described(folder: Path) -> bool:
    return any((folder / name).exists() for name in _DESCRIPTIONS)


def _alike(held: Mapping[str, frozenset[str]]) -> list[str]:
    """The folders that hold the same as another one."""
    count = Counter(held.values())
    return [folder for folder, names in held.items() if names and count[names] > 1]


def _file_names(held: Mapping[str, Sequence[Path]]) -> dict[str, frozenset[str]]:
    return {
        folder: frozenset(re.sub(r"\d+", "0", file.as_posix()) for file in files)
        for folder, files in held.items()
    }


def _tensor_names(top: Path, held: Mapping[str, Sequence[Path]]) -> Iterator[tuple[str, frozenset[str]]]:
    """Of every subfolder that is a whole model by itself."""
    for folder in held:
        try:
            with closing(open_model(top / folder)) as reader:
                yield folder, frozenset(tensor.name for tensor in reader.tensors())
        except (OSError, UnreadableError, ValueError):
            continue
