"""What a registry must offer: a listing of complete versions and refs, and local files to read."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from layerwatch.metrics.manifest import Manifest
from layerwatch.metrics.merge import MergeRecipe
from layerwatch.metrics.relation import Relation


@dataclass(frozen=True, slots=True)
class DeclaredLineage:
    """What a version's author says about its origin.

    Attributes:
        parent: name of a version of the same model.
        relation: how it came from the parent, or None when not said.
        source: where the declaration was read, for the report.
        parents: for a merge, the versions that went into it, in the order of the recipe's weights.
        recipe: how they were merged, as far as it is declared.
    """

    parent: str
    relation: Relation | None
    source: str
    parents: tuple[str, ...] = ()
    recipe: MergeRecipe | None = None


@dataclass(frozen=True, slots=True)
class FoundVersion:
    """One complete version in a listing.

    Attributes:
        location: where it lives, in the registry's own terms (a path, a URI).
        order_key: text that sorts versions of one model from oldest to newest in natural order: runs of digits
            compare as numbers (``v2`` before ``v10``).
        token: changes when the version's files may have changed; cheap to obtain, no content hash.
    """

    model: str
    version: str
    location: str
    order_key: str
    token: str
    lineage: DeclaredLineage | None = None


@dataclass(frozen=True, slots=True)
class FoundRef:
    """A movable name and the version that it points at now."""

    model: str
    ref: str
    version: str


@dataclass(frozen=True, slots=True)
class Listing:
    """One look at a registry.

    Attributes:
        versions: complete versions, ordered by model and order key.
        refs: the watched refs that exist.
            A ref may point at an unfinished version.
        unfinished: (model, version) of versions that are still being written, or being written again.
        remarks: sentences about entries that were left out, with the reason.
        unlisted: models that exist but could not be listed now, with the reason: nothing is known of their
            versions, so that none of them may be taken for gone.
        empty: there is no model at all, not even one without versions, as in a folder whose volume is not mounted.
    """

    versions: tuple[FoundVersion, ...]
    refs: tuple[FoundRef, ...]
    unfinished: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()
    unlisted: tuple[tuple[str, RegistryReason], ...] = ()
    empty: bool = False


class RegistryReason(StrEnum):
    """Why a registry could not be read. The value is a metric label."""

    NOT_FOUND = "not_found"
    NOT_PERMITTED = "not_permitted"
    IO_ERROR = "io_error"
    VERSION_GONE = "version_gone"
    EMPTY = "empty"


class RegistryUnavailable(Exception):  # noqa: N818 - named after the state, as operators do
    """The registry, or one version of it, cannot be read now; another attempt may succeed.

    Attributes:
        reason: member of the closed list.
        detail: a sentence for the user.
    """

    def __init__(self, reason: RegistryReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.value}: {detail}")


class Registry(Protocol):
    """A place where models come from. Implementations are read-only and hold no connection between calls."""

    @property
    def name(self) -> str:
        """Name from the configuration."""

    def recall(self, published: Mapping[str, str]) -> None:
        """Before the first listing: location -> token of what an earlier process found complete."""

    def listing(self, now: datetime) -> Listing:
        """Look at everything that is watched; raises RegistryUnavailable."""

    def manifest(self, found: FoundVersion) -> Manifest:
        """Hash the weight files; raises RegistryUnavailable or UnreadableError."""

    def token(self, location: str) -> str | None:
        """The current token of a version, or None when it is gone."""

    def open(self, location: str) -> AbstractContextManager[Path]:
        """A local path to the weight files, valid inside the context; raises RegistryUnavailable."""
