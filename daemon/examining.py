"""One version beside its baseline, as the rules see it: the same for the pipeline, the backtest and the bisection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection

from layerwatch.daemon.fingerprints import is_stand_in
from layerwatch.daemon.history import ModelHistory
from layerwatch.daemon.merging import MergeFound, merge_of
from layerwatch.daemon.store import measurements, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import ContentRecord, VersionRecord
from layerwatch.metrics.change import AlignedChange
from layerwatch.metrics.examination import Examination, InPlaceChange, Problem
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.joining import examine
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.relation import Relation


def examine_stored(
    database: Database,
    content: ContentRecord,
    baseline: ContentRecord | None,
    exact: Mapping[str, AlignedChange],
    *,
    in_place: InPlaceChange | None = None,
    baseline_problem: Problem | None = None,
    relation: Relation | None = None,
    history: ModelHistory | None = None,
    version: VersionRecord | None = None,
) -> Examination:
    """Join two contents of the store, one pair of layers in memory at a time.

    Args:
        exact: element-wise comparisons by layer name, as far as there are any; sketches serve for the rest.
        relation: how the version came from this baseline, where that is declared.
        history: of the model before this version; None where it does not matter.
        version: whose content it is, for what it declares to be merged from; None where it does not matter.
    """

    def load(digest: str) -> Measurement | None:
        with database.read() as connection:
            return measurements.load(connection, digest)

    usual = history or ModelHistory()
    merged = MergeFound() if version is None else merge_of(database, version, content, load)
    return replace(
        examine(content, baseline, load, exact, in_place),
        baseline_problem=baseline_problem,
        relation=relation if baseline is not None else None,
        history=usual.layers,
        history_remark=usual.remark,
        merge=merged.evidence,
        merge_remarks=merged.remarks,
    )


def in_place_change(connection: Connection, version: VersionRecord) -> InPlaceChange | None:
    """Other bytes than those that were examined last under this name.

    Bytes that were replaced before they were examined, and moments at which nothing could be read, do not count:
    a slow writer, or a disk that fails for a while, is no tampering.
    """
    if is_stand_in(version.fingerprint):
        return None
    unread: str | None = None
    later: VersionRecord | None = version
    while later is not None and (previous := later.previous_fingerprint) is not None:
        before = versions.previous_revision(connection, later)
        if is_stand_in(previous):
            unread = previous
        elif before is None or before.verdict is not None:
            readable = before is None or before.verdict is not Verdict.UNDECIDED
            unchanged = previous == version.fingerprint
            return None if unchanged else InPlaceChange(previous, version.fingerprint, readable)
        later = before
    return None if unread is None else InPlaceChange(unread, version.fingerprint, was_readable=False)
