"""What a registry must offer: a listing of complete versions and refs, and local files to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from layerwatch.daemon.store.ordering import sort_key
from layerwatch.metrics.manifest import Manifest
from layerwatch.metrics.merge import MergeRecipe
from layerwatch.metrics.relation import Relation


@dataclass(frozen=True, slots=True)
class DeclaredLineage:
    """What a version's author says about its origin.

    Attributes:
        parent: name of a version of the same model, model/version of another one of the same registry, the name of
            another model as its author wrote it, or an address (``hf:owner/name@revision``).
        relation: how it came from the parent, or None when not said.
        source: where the declaration was read, for the report.
        parents: for a merge, the versions that went into it, in the order of the recipe's weights.
        recipe: how they were merged, as far as it is declared.
        confidence: how far it is to be believed, 0..1; None for what is usual of its source (``declarations.py``).
        is_baseline: False where the version's layers do not stand where the parent's do (layers stacked anew, a
            mixture of experts): it comes from there, and is not judged against it.
    """

    parent: str
    relation: Relation | None
    source: str
    parents: tuple[str, ...] = ()
    recipe: MergeRecipe | None = None
    confidence: float | None = None
    is_baseline: bool = True


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

    @property
    def age(self) -> tuple[bytes, str]:
        """Sorts versions of one model from oldest to newest."""
        return sort_key(self.order_key), self.version


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
        versions: complete versions, ordered by model and order key. All of them, or, unless ``complete``, those that
            are new or may have changed since the look before.
        refs: the watched refs that exist, always all of them.
            A ref may point at an unfinished version.
        unfinished: (model, version) of versions that are still being written, or being written again.
        remarks: sentences about entries that were left out, with the reason.
        unlisted: models that exist but could not be listed now, with the reason: nothing is known of their
            versions, so that none of them may be taken for gone.
        empty: there is no model at all, not even one without versions, as in a folder whose volume is not mounted.
        complete: True when a version that is not listed is gone; False when only changes were asked for.
        still_there: locations of versions that were recalled or listed before and are offered still, although no
            ref leads to them any more and they are not in ``versions``.
    """

    versions: tuple[FoundVersion, ...]
    refs: tuple[FoundRef, ...]
    unfinished: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()
    unlisted: tuple[tuple[str, RegistryReason], ...] = ()
    empty: bool = False
    complete: bool = True
    still_there: frozenset[str] = frozenset()


class RegistryReason(StrEnum):
    """Why a registry could not be read. The value is a metric label."""

    NOT_FOUND = "not_found"
    NOT_PERMITTED = "not_permitted"
    IO_ERROR = "io_error"
    VERSION_GONE = "version_gone"
    EMPTY = "empty"
    UNREACHABLE = "unreachable"
    SERVER_ERROR = "server_error"
    RATE_LIMITED = "rate_limited"
    BAD_RESPONSE = "bad_response"
    CERTIFICATE = "certificate"
    NOT_INSTALLED = "not_installed"
    NO_SPACE = "no_space"

    @property
    def misconfigured(self) -> bool:
        """True where only a person can help: asking again soon would not, and may lock an account."""
        return self in _MISCONFIGURED


_MISCONFIGURED = frozenset(
    {
        RegistryReason.NOT_PERMITTED,
        RegistryReason.BAD_RESPONSE,
        RegistryReason.CERTIFICATE,
        RegistryReason.NOT_INSTALLED,
    }
)


class RegistryUnavailable(Exception):  # noqa: N818 - named after the state, as operators do
    """The registry, or one version of it, cannot be read now.

    Attributes:
        reason: member of the closed list; ``reason.misconfigured`` tells whether another attempt is of any use.
        detail: a sentence for the user: what was tried, what came back, what to do. Never holds a secret.
        retry_after: how long the server asked to be left alone, or None.
    """

    def __init__(self, reason: RegistryReason, detail: str, retry_after: timedelta | None = None) -> None:
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after
        super().__init__(f"{reason.value}: {detail}")


@dataclass(frozen=True, slots=True)
class VerdictNote:
    """What is written beside a version in its registry.

    Attributes:
        verdict: pass, warn, fail or undecided.
        fingerprint: of the bytes that were judged.
        report: where the report can be read; empty when the daemon's address is not configured.
    """

    verdict: str
    fingerprint: str
    report: str


VerdictWriter = Callable[[str, VerdictNote], None]
"""Writes a verdict beside the version at a location, in place of an earlier one; raises RegistryUnavailable."""


Progress = Callable[[], None]
"""Told that bytes arrive."""


def no_progress() -> None:
    """Nobody wants to know."""


class Registry(Protocol):
    """A place where models come from. What lies behind it is only read, but for verdicts where that was asked for."""

    @property
    def name(self) -> str:
        """Name from the configuration."""

    @property
    def verdict_writer(self) -> VerdictWriter | None:
        """Takes verdicts where that is possible and configured, else None."""

    def recall(self, published: Mapping[str, str]) -> None:
        """Before the first listing: location -> token of what an earlier process found complete."""

    def listing(self, now: datetime, everything: bool = True) -> Listing:
        """Look at what is watched; raises RegistryUnavailable.

        Args:
            everything: list all versions, whatever is known already; else the registry may list changes alone.
        """

    def manifest(self, found: FoundVersion, anew: bool = False, progress: Progress = no_progress) -> Manifest:
        """Digests of the weight files.

        Args:
            anew: read and hash the bytes, whatever the registry promises and whatever was kept of them.
            progress: called again and again while bytes arrive; what it raises ends the download.

        Raises:
            RegistryUnavailable, UnreadableError.
        """

    def lineage(self, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
        """What the version's author says about its origin, the most reliable first; raises RegistryUnavailable."""

    def token(self, location: str) -> str | None:
        """The current token of a version, or None when it is gone; raises RegistryUnavailable."""

    def open(self, location: str, progress: Progress = no_progress) -> AbstractContextManager[Path]:
        """A local path to the weight files, valid inside the context; raises RegistryUnavailable, UnreadableError."""
