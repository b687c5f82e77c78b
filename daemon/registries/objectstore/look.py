"""What the keys of a bucket say: which models, versions and refs there are, and what state each version is in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layerwatch.daemon.registries.patterns import is_visible
from layerwatch.daemon.registries.remote import is_weight

if TYPE_CHECKING:
    from obstore import ObjectMeta

REFS = ".refs"
_SHARD = re.compile(r"(.*)-(\d{5,6})-of-(\d{5,6})(\.\w+)", re.ASCII | re.DOTALL)
_DIGEST_BYTES = 16
_MODULUS = 2 ** (8 * _DIGEST_BYTES)


@dataclass(slots=True)
class Held:
    """What one version holds. Objects may be added in any order.

    Attributes:
        digest: of the weight objects, whatever their order.
        weights: how many there are.
        touched: when any of its objects was written last, in seconds since 1970.
        modified: when a weight object was.
        marked: whether the marker is there.
        shards: of numbered sets of weights (``-00001-of-00004``), how many are missing.
    """

    digest: int = 0
    weights: int = 0
    touched: float = 0.0
    modified: float = 0.0
    marked: bool = False
    shards: dict[str, int] | None = None

    def add(self, path: str, meta: ObjectMeta) -> None:
        """One more object, by its path inside the version."""
        written = meta["last_modified"].timestamp()
        self.touched = max(self.touched, written)
        if not is_weight(path):
            return
        state = f"{path}\0{identity(meta)}\0{meta['size']}"
        part = hashlib.sha256(state.encode()).digest()[:_DIGEST_BYTES]
        self.digest = (self.digest + int.from_bytes(part, "big")) % _MODULUS
        self.weights += 1
        self.modified = max(self.modified, written)
        if shard := _SHARD.fullmatch(path):
            stem, _, count, suffix = shard.groups()
            self.shards = {} if self.shards is None else self.shards
            key = f"{stem}\0{count}{suffix}"
            self.shards[key] = self.shards.get(key, int(count)) - 1

    @property
    def token(self) -> str:
        """Changes when a weight object was written, added or taken away."""
        return f"{self.digest:032x}"

    @property
    def lacks_shards(self) -> bool:
        """Whether a numbered set of weights has a gap."""
        return self.shards is not None and any(missing > 0 for missing in self.shards.values())


@dataclass(slots=True)
class Look:
    """What one walk over the keys has found so far.

    Args:
        watched: whether a model is.
        marker: name of the object that says that a version is complete, or None.

    Attributes:
        models: model -> version -> what it holds.
        refs: model -> ref -> (what identifies the object, its size).
        stray: remarks about weights in a model's own folder.
    """

    watched: Callable[[str], bool]
    marker: str | None
    models: dict[str, dict[str, Held]] = field(default_factory=dict)
    refs: dict[str, dict[str, tuple[str, int]]] = field(default_factory=dict)
    stray: list[str] = field(default_factory=list)

    def take(self, meta: ObjectMeta) -> None:
        """Look at one object."""
        key = meta["path"]
        model, _, rest = key.partition("/")
        if not rest or not is_visible(model) or not self.watched(model):
            return
        versions = self.models.setdefault(model, {})
        version, _, path = rest.partition("/")
        if version == REFS:
            if is_visible(path) and "/" not in path:
                self.refs.setdefault(model, {})[path] = (identity(meta), meta["size"])
            return
        if not is_visible(version):
            return
        if not path:
            if is_weight(version):
                self.stray.append(
                    f"{key}: weights belong into a folder of their own, named after the version; left out"
                )
            return
        held = versions.get(version)
        if held is None:
            held = versions[version] = Held()
        held.add(path, meta)
        if path == self.marker:
            held.marked = True


def identity(meta: ObjectMeta) -> str:
    """What changes when an object is written again. The version is left out: not every answer tells it."""
    return meta["e_tag"] or meta["version"] or meta["last_modified"].isoformat()
