"""Manifests of OCI artifacts that hold models: ModelPack, KitOps, Docker's models, and plain files pushed by oras."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from layerwatch.metrics.manifest import WEIGHT_SUFFIXES

MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
TITLE = "org.opencontainers.image.title"
FILEPATH = "org.cncf.model.filepath"
CREATED = "org.opencontainers.image.created"
KITFILE_TYPE = "application/vnd.kitops.modelkit.config.v1+json"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", re.ASCII)
_MODELPACK = re.compile(
    r"application/vnd\.(?:cncf|cnai)\.model\.(weight\.config|\w+)\.v1\.(raw|tar)(?:\+(gzip|zstd))?", re.ASCII
)
_KITOPS = re.compile(r"application/vnd\.kitops\.modelkit\.(\w+)\.v1\.(raw|tar)(?:\+(gzip|zstd))?", re.ASCII)
_LAYER = re.compile(r"application/vnd\.oci\.image\.layer\.v1\.tar(?:\+(gzip|zstd))?", re.ASCII)
_UNPACK = "io.deis.oras.content.unpack"
_WITH_WEIGHTS = frozenset({"weight", "weight.config", "model", "modelpart", "layer"})
"""Roles of layers whose archives are looked into; those of data sets, code and documents are not."""
_UNNAMED = {
    "application/vnd.docker.ai.gguf.v3": "model.gguf",
    "application/vnd.docker.ai.safetensors": "model.safetensors",
}
"""Layers that are one file which may have no name, and the name that they get."""
_DATED_CONFIGS = ("application/vnd.cncf.model.config.v1+json", "application/vnd.docker.ai.model.config.")
_LARGEST = 2**50
_MOST_LAYERS = 10_000


class Packing(StrEnum):
    """How files lie in a layer."""

    RAW = "raw"
    TAR = "tar"
    TAR_GZIP = "tar+gzip"
    TAR_ZSTD = "tar+zstd"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a blob or another manifest."""

    media_type: str
    digest: str
    size_bytes: int
    annotations: dict[str, str]

    @property
    def sha256(self) -> str | None:
        """Of its bytes, in hex, or None when the digest is another one."""
        kind, _, value = self.digest.partition(":")
        return value if kind == "sha256" else None


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that may hold files of a model.

    Attributes:
        path: of the file, for a raw layer; of an archive, nothing.
    """

    packing: Packing
    blob: Descriptor
    path: str = ""

    @property
    def with_weights(self) -> bool:
        """Whether there may be weights in it, as far as can be told without looking into it."""
        return self.packing is not Packing.RAW or self.path.lower().endswith(WEIGHT_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A manifest."""

    layers: tuple[Layer, ...]
    config: Descriptor | None
    annotations: dict[str, str]

    @property
    def is_model(self) -> bool:
        """Whether it holds weights, as far as the manifest tells."""
        return any(layer.with_weights for layer in self.layers)

    @property
    def created(self) -> datetime | None:
        """When it was made, as its author says."""
        return moment(self.annotations.get(CREATED))

    @property
    def dated_config(self) -> Descriptor | None:
        """The configuration, when it is of a kind that holds the time of creation."""
        config = self.config
        return config if config is not None and config.media_type.startswith(_DATED_CONFIGS) else None


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests."""

    manifests: tuple[Descriptor, ...]


def is_digest(text: str) -> bool:
    """Whether the text is a digest such as ``sha256:...``."""
    return _DIGEST.fullmatch(text) is not None


def parse_manifest(body: bytes) -> Artifact | Index:
    """Read a manifest; raises ValueError with a sentence when it is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is no JSON") from error
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - what is wrong is the text
    manifests = document.get("manifests")
    if isinstance(manifests, list) and document.get("layers") is None:
        return Index(tuple(_descriptor(one) for one in manifests[:_MOST_LAYERS]))
    layers = document.get("layers")
    if not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
        raise ValueError("it has no list of layers, or an endless one")
    config = document.get("config")
    found = [_layer(_descriptor(one)) for one in layers]
    return Artifact(
        tuple(layer for layer in found if layer is not None),
        None if config is None else _descriptor(config),
        _annotations(document.get("annotations")),
    )


def moment(text: object) -> datetime | None:
    """A point in time as RFC 3339 writes it, in UTC; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def config_moment(body: bytes) -> datetime | None:
    """The time of creation in the configuration of a ModelPack or a Docker model."""
    try:
        document = json.loads(body)
        descriptor = document.get("descriptor")
        inside = descriptor.get("createdAt") if isinstance(descriptor, dict) else None
        return moment(inside) or moment(document.get("created"))
    except (ValueError, AttributeError, RecursionError):
        return None


def plain_path(path: str) -> str:
    """A path inside a version without leading ``./``; raises ValueError when it leads out of it."""
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    parts = path.split("/")
    if not path or ".." in parts or "." in parts or "" in parts or not path.isprintable() or "\\" in path:
        raise ValueError(f"it names a file that cannot be its own: {path[:200]!r}")
    return path


def _layer(blob: Descriptor) -> Layer | None:
    named = blob.annotations.get(FILEPATH) or blob.annotations.get(TITLE)
    known = _MODELPACK.fullmatch(blob.media_type) or _KITOPS.fullmatch(blob.media_type)
    if known is not None:
        role, form, compression = known.groups()
        if form == "tar":
            return Layer(_packing(compression), blob) if role in _WITH_WEIGHTS else None
        if role == "dataset":
            return None
        if named is None:
            if role not in _WITH_WEIGHTS:
                return None
            raise ValueError(
                f"a layer of {blob.media_type} says by no annotation {FILEPATH} which file it is"
            )
        return Layer(Packing.RAW, blob, named)
    if named is None:
        name = _UNNAMED.get(blob.media_type)
        return None if name is None else Layer(Packing.RAW, blob, name)
    archive = _LAYER.fullmatch(blob.media_type)
    # oras gives a plain file the type of an archive when none was named; a folder is marked, or is tar+gzip.
    folder = archive is not None and (
        blob.annotations.get(_UNPACK) == "true"
        or (archive[1] is not None and not named.lower().endswith(WEIGHT_SUFFIXES))
    )
    if archive is not None and folder:
        return Layer(_packing(archive[1]), blob)
    return Layer(Packing.RAW, blob, named)


def _packing(compression: str | None) -> Packing:
    return Packing.TAR if compression is None else Packing(f"tar+{compression}")


def _descriptor(value: Any) -> Descriptor:
    if not isinstance(value, dict):
        raise ValueError("one of its descriptors is no object")  # noqa: TRY004 - what is wrong is the text
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(media_type, str) or not isinstance(digest, str) or not is_digest(digest):
        raise ValueError("one of its descriptors has no media type, or no digest of a known kind")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST:
        raise ValueError("one of its descriptors has no size that could be one")
    return Descriptor(media_type, digest, size, _annotations(value.get("annotations")))


def _annotations(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}
