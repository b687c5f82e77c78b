"""Which version another is judged against: its parent, the accepted version, or the model's history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from layerwatch.config.baselines import BaselinesSettings
from layerwatch.daemon.store import baselines, versions
from layerwatch.daemon.store.ordering import sort_key
from layerwatch.daemon.store.records import BaselineKind, BaselineRecord, VersionKey, VersionRecord
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.relation import Relation

_HEALTHY = (Verdict.PASS, Verdict.WARN)
_BY_ITSELF = ("history", "accepted automatically")


@dataclass(frozen=True, slots=True)
class BaselineChoice:
    """A chosen baseline.

    Attributes:
        version: the baseline.
        relation: how the judged version relates to it, when that is declared.
        chosen_by: ``parent``, ``pinned``, ``accepted``, ``accepted automatically`` or ``history``, with the reason
            why not the one before.
    """

    version: VersionRecord
    relation: str | None
    chosen_by: str

    @property
    def is_history(self) -> bool:
        """True when neither a declaration nor a person named it."""
        return self.chosen_by.startswith(_BY_ITSELF)


def known_relation(word: str | None) -> Relation | None:
    """The relation as the rules know it; None where it was not said, or in another release's word."""
    return Relation(word) if word in set(Relation) else None


def choose_baseline(connection: Connection, version: VersionRecord) -> BaselineChoice | None:
    """Choose in the order pinned, parent, accepted, history; None when there is nothing to compare with.

    A parent or history version that failed or is undecided is passed over, unless it was accepted since: a
    repaired version must not be judged against the broken one. A pin is a person's explicit wish and outranks the
    declared parent.
    """
    key = version.key
    pinned = _usable(connection, baselines.pinned(connection, key.registry, key.model), version)
    if pinned is not None:
        return BaselineChoice(pinned, _relation_to(version, pinned), "pinned")
    accepted, how = _accepted(connection, version)
    passed_over = ""
    if version.lineage.parent is not None:
        parent = versions.current(connection, VersionKey(key.registry, key.model, version.lineage.parent))
        if parent is not None and parent.id != version.id:
            is_accepted = accepted is not None and parent.id == accepted.id
            if parent.verdict in _HEALTHY or is_accepted:
                return BaselineChoice(parent, version.lineage.relation, "parent")
        passed_over = f" (declared parent {version.lineage.parent} {_why_not(parent, version)})"
    if accepted is not None:
        return BaselineChoice(accepted, _relation_to(version, accepted), f"{how}{passed_over}")
    earlier = versions.previous_passing(connection, key.registry, key.model, version.order_key)
    if earlier is not None and earlier.id != version.id:
        return BaselineChoice(earlier, _relation_to(version, earlier), f"history{passed_over}")
    return None


def accept_if_passing(
    connection: Connection,
    version: VersionRecord,
    verdict: Verdict,
    against: str | None,
    settings: BaselinesSettings,
    now: datetime,
) -> BaselineRecord | None:
    """Make a version that just passed the model's accepted baseline, where the configuration asks for it.

    Nothing but a pass is ever accepted, and no version that is older than the accepted one: a rescan of an old version
    must not take the baseline back.

    Args:
        against: name of the version it was judged against, for the reason; None without a baseline.

    Returns:
        The new entry, or None when there is none.
    """
    key = version.key
    if settings.accept != "pass" or verdict is not Verdict.PASS:
        return None
    present = versions.current(connection, key)
    if present is None or present.id != version.id:
        # Other bytes took its name while it was scanned: an entry would stand for those.
        return None
    for record in baselines.accepted(connection, key.registry, key.model)[:1]:
        row = _row_of(connection, record)
        if row is not None and sort_key(row.order_key) > sort_key(version.order_key):
            return None
        if (record.version, record.fingerprint) == (key.version, version.fingerprint):
            return None
    reason = f"verdict pass against {against}" if against else "verdict pass, without a baseline"
    return baselines.accept_automatically(connection, key.registry, key.model, key.version, reason, now)


def _accepted(connection: Connection, version: VersionRecord) -> tuple[VersionRecord | None, str]:
    """The accepted version, and by whom.

    What layerwatch accepted by itself counts only while it is healthy, and for later versions.
    """
    for record in baselines.accepted(connection, version.key.registry, version.key.model):
        row = _usable(connection, record, version)
        if row is None:
            continue
        if record.kind is BaselineKind.ACCEPTED:
            return row, "accepted"
        if row.verdict in _HEALTHY and sort_key(row.order_key) < sort_key(version.order_key):
            return row, "accepted automatically"
    return None, ""


def _usable(
    connection: Connection, record: BaselineRecord | None, version: VersionRecord
) -> VersionRecord | None:
    """The chosen version, unless it is the judged one itself, was replaced, or has not been judged."""
    row = None if record is None else _row_of(connection, record)
    return row if row is not None and row.id != version.id and row.verdict is not None else None


def _row_of(connection: Connection, record: BaselineRecord) -> VersionRecord | None:
    """The chosen version, unless other bytes took its name since."""
    row = versions.current(connection, VersionKey(record.registry, record.model, record.version))
    return row if row is not None and row.fingerprint == record.fingerprint else None


def _relation_to(version: VersionRecord, baseline: VersionRecord) -> str | None:
    return version.lineage.relation if version.lineage.parent == baseline.key.version else None


def _why_not(parent: VersionRecord | None, version: VersionRecord) -> str:
    if parent is None:
        # A merge may name models beside its own: they tell how it was made, but are no baseline.
        is_elsewhere = "/" in (version.lineage.parent or "")
        return "is not a version of this model" if is_elsewhere else "is not in the registry"
    if parent.id == version.id:
        return "is the version itself"
    return "was not judged yet" if parent.verdict is None else f"has the verdict {parent.verdict}"
