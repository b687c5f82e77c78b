"""What goes into the store and comes out of it, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from layerwatch.metrics.census.remark import StorageRemark
from layerwatch.metrics.coupling import Coupling
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.merge import MergeRecipe


@dataclass(frozen=True, slots=True, order=True)
class VersionKey:
    """Names of a version: registry and model as configured, version as the registry calls it."""

    registry: str
    model: str
    version: str


class VersionState(StrEnum):
    """Where a version is: waiting for its scan, being scanned, or judged."""

    PENDING = "pending"
    SCANNING = "scanning"
    JUDGED = "judged"


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a version comes from, as far as it is declared.

    Attributes:
        parent: name of a version of the same model, or a URI; None when unknown.
        relation: retrained, finetuned, quantized, pruned, distilled, merged, adapter; None when unknown.
        source: where this was read (card, config, tag, weights).
        confidence: 0..1.
        parents: for a merge, what went into it, in the order of the recipe's weights: names of versions of the same
            model, or model/version for another one of the same registry.
        recipe: how they were merged, as far as it is declared.
    """

    parent: str | None = None
    relation: str | None = None
    source: str | None = None
    confidence: float | None = None
    parents: tuple[str, ...] = ()
    recipe: MergeRecipe | None = None


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """One revision of a version: the bytes that were found under its name at one time.

    Attributes:
        id: row number, never given twice.
        revision: 1 for the first bytes seen under this name, one more for each change of them.
        fingerprint: of these bytes.
        previous_fingerprint: of the revision before; None for the first.
        source_path: where the registry's files can be read.
        order_key: place among the versions of the model; runs of digits compare as numbers (``v9`` < ``v10``).
        attempts: scans begun since discovery or the last call to `reopen`.
        not_before: no scan before this time; None when none is imposed.
        discovered_at: when this revision was registered.
        judged_at, verdict: of the last judgement; kept while a rescan waits.
        current: False once other bytes were found under the same name.
        gone_at: since when the registry no longer lists the version; None while it does.
        token: what the registry showed when the bytes were last hashed (sizes, times, an ETag); while it stays
            the same they need not be hashed again. None when the registry has no such thing.
        report: JSON text of the last report. None before the first judgement, after retention dropped it, and
            in every list (reports are large).
    """

    id: int
    key: VersionKey
    revision: int
    fingerprint: str
    previous_fingerprint: str | None
    source_path: str
    order_key: str
    lineage: Lineage
    state: VersionState
    attempts: int
    not_before: datetime | None
    discovered_at: datetime
    judged_at: datetime | None
    verdict: Verdict | None
    current: bool
    gone_at: datetime | None
    report: str | None
    token: str | None = None


@dataclass(frozen=True, slots=True)
class SkippedTensor:
    """A tensor that is not examined by nature, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ContentRecord:
    """What was found in one set of weight files. Versions with equal bytes share it.

    Attributes:
        fingerprint, metric_set: its key.
        format: format of the weight files.
        size_bytes: size of the weight files.
        layers: in file order.
        file_problem: (reason, detail) when the whole could not be examined, or None.
        measure_seconds: time the measuring took.
        couplings: what the layers share.
        remarks: what the storage contradicts.
    """

    fingerprint: str
    metric_set: str
    format: str
    size_bytes: int
    layers: tuple[LayerEntry, ...]
    skipped: tuple[SkippedTensor, ...]
    file_problem: tuple[str, str] | None
    measure_seconds: float
    couplings: tuple[Coupling, ...] = ()
    remarks: tuple[StorageRemark, ...] = ()


@dataclass(frozen=True, slots=True)
class RefRecord:
    """A movable name and the version row it points at."""

    registry: str
    model: str
    ref: str
    version_id: int


class BaselineKind(StrEnum):
    """What was done: a version accepted as normal, pinned until further notice, or the pin taken off.

    ``accepted`` is a person's word and ends alerts; ``auto-accepted`` is layerwatch's own, for a version that passed.
    """

    ACCEPTED = "accepted"
    AUTO_ACCEPTED = "auto-accepted"
    PINNED = "pinned"
    UNPINNED = "unpinned"


@dataclass(frozen=True, slots=True)
class BaselineRecord:
    """One entry of a model's baseline history.

    Attributes:
        version: name of the version; with ``unpinned`` the one that was pinned.
        by: who did it; ``layerwatch`` where nobody did.
        reason: why, in that person's words.
        fingerprint: of the bytes that were under this name then; bytes that replace them are not the baseline.
    """

    registry: str
    model: str
    version: str
    kind: BaselineKind
    by: str
    reason: str
    at: datetime
    fingerprint: str
