"""Several open files that make up one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.names import without_wrappers
from layerwatch.metrics.tensors import (
    Array,
    CodeInPickle,
    Reader,
    TensorInfo,
    UnexaminedFile,
    foreign_code_of,
)


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a model.

    Attributes:
        path: the file.
        label: what its names are prefixed with when two parts hold the same name; "" for the shards of one
            model, where the same name twice is an error.
        reader: the file, open.
    """

    path: Path
    label: str
    reader: Reader


class ModelReader:
    """All tensors of one or more parts, under the names of the model (wrapper prefixes taken off).

    Args:
        path: the file or directory that was asked for.
        parts: at least one, in order. Closed by :meth:`close`.
        owners: which file holds which name, as the index declares it; decides where shards repeat a name.
        left_out, unexamined, foreign_code: of files beside the parts, as in :class:`Reader`; those of the parts are
            added.

    Raises:
        UnreadableError: BAD_HEADER when two shards of one model hold the same tensor and no index decides;
            MISSING_SHARD when a shard lacks a tensor that the index places in it.
    """

    def __init__(
        self,
        path: Path,
        parts: Sequence[Part],
        owners: Mapping[str, Path] | None = None,
        left_out: Sequence[tuple[str, str]] = (),
        unexamined: Sequence[UnexaminedFile] = (),
        foreign_code: Sequence[CodeInPickle] = (),
    ) -> None:
        self._path = path
        self._parts = tuple(parts)
        self._left_out = tuple(left_out)
        self._unexamined = tuple(unexamined)
        self._foreign_code = tuple(foreign_code)
        listed: dict[str, tuple[Part, TensorInfo]] = {}
        for part, prefix in zip(self._parts, _prefixes(self._parts), strict=True):
            for info in part.reader.tensors():
                if owners is not None and owners.get(info.name, part.path) != part.path:
                    continue
                name = prefix + info.name
                if name in listed:
                    raise UnreadableError(
                        UnreadableReason.BAD_HEADER,
                        part.path,
                        f"this tensor is also in {listed[name][0].path.name} and no index says which one counts",
                        name,
                    )
                listed[name] = (part, info)
        for name, owner in (owners or {}).items():
            if name not in listed:
                raise UnreadableError(
                    UnreadableReason.MISSING_SHARD,
                    path,
                    f"the index places it in {owner.name}, which does not hold it; index and shards do not belong "
                    "together",
                    name,
                )
        shown = without_wrappers(listed)
        self._tensors = {shown[name]: found for name, found in listed.items()}

    @property
    def format(self) -> str:
        """``safetensors``, ``pytorch``, or both joined by ``+`` for a directory that mixes them."""
        return "+".join(sorted({part.reader.format for part in self._parts}))

    def tensors(self) -> Sequence[TensorInfo]:
        """All tensors, part by part, each in the order of its file."""
        return tuple(replace(info, name=name) for name, (_, info) in self._tensors.items())

    @property
    def left_out(self) -> Sequence[tuple[str, str]]:
        """What the parts leave out, then the files beside them."""
        return (*(one for part in self._parts for one in part.reader.left_out), *self._left_out)

    @property
    def unexamined(self) -> Sequence[UnexaminedFile]:
        """What could not be read in the parts' folders, then beside them."""
        return (*(one for part in self._parts for one in part.reader.unexamined), *self._unexamined)

    @property
    def metadata(self) -> Mapping[str, object]:
        """What the parts declare; where several declare a key, the one with the most tensors counts, of these the first."""
        by_size = sorted(self._parts, key=lambda part: len(part.reader.tensors()), reverse=True)
        return {key: value for part in reversed(by_size) for key, value in part.reader.metadata.items()}

    @property
    def foreign_code(self) -> Sequence[CodeInPickle]:
        """Those of the parts."""
        return (*(one for part in self._parts for one in foreign_code_of(part.reader)), *self._foreign_code)

    def load(self, name: str) -> Array:
        """The values of one tensor; KeyError for a name that is not listed."""
        part, info = self._tensors[name]
        return part.reader.load(info.name)

    def release(self) -> None:
        """Give back the memory of what was read so far, in every part."""
        for part in self._parts:
            part.reader.release()

    def close(self) -> None:
        """Close every part."""
        for part in self._parts:
            part.reader.close()


def _prefixes(parts: Sequence[Part]) -> list[str]:
    labelled: dict[str, set[str]] = {}
    for part in parts:
        labelled.setdefault(part.label, set()).update(info.name for info in part.reader.tensors())
    total = sum(len(names) for names in labelled.values())
    if len(set().union(*labelled.values())) == total:
        return ["" for _ in parts]
    return [f"{part.label}." if part.label else "" for part in parts]
