"""Which version another is judged against: its parent, the accepted version, or the model's history."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from layerwatch.daemon.store import baselines, versions
from layerwatch.daemon.store.records import BaselineKind, BaselineRecord, VersionKey, VersionRecord
from layerwatch.metrics.findings import Verdict

_HEALTHY = (Verdict.PASS, Verdict.WARN)


@dataclass(frozen=True, slots=True)
class BaselineChoice:
    """A chosen baseline.

    Attributes:
        version: the baseline.
        relation: how the judged version relates to it, when that is declared.
        chosen_by: ``parent``, ``pinned``, ``accepted`` or ``history``, with the reason why not the one before.
    """

    version: VersionRecord
    relation: str | None
    chosen_by: str

    @property
    def is_history(self) -> bool:
        """True when neither a declaration nor a person named it."""
        return self.chosen_by.startswith("history")


def choose_baseline(connection: Connection, version: VersionRecord) -> BaselineChoice | None:
    """Choose in the order pinned, parent, accepted, history; None when there is nothing to compare with.

    A parent or history version that failed or is undecided is passed over, unless it was accepted since: a
    repaired version must not be judged against the broken one. A pin is a person's explicit wish and outranks the
    declared parent.
    """
    key = version.key
    chosen = {
        record.kind: row
        for record in baselines.in_use(connection, key.registry, key.model)
        if (row := _row_of(connection, record)) is not None
        and row.id != version.id
        and row.verdict is not None
    }
    pinned, accepted = chosen.get(BaselineKind.PINNED), chosen.get(BaselineKind.ACCEPTED)
    if pinned is not None:
        return BaselineChoice(pinned, _relation_to(version, pinned), "pinned")
    passed_over = ""
    if version.lineage.parent is not None:
        parent = versions.current(connection, VersionKey(key.registry, key.model, version.lineage.parent))
        if parent is not None and parent.id != version.id:
            is_accepted = accepted is not None and parent.id == accepted.id
            if parent.verdict in _HEALTHY or is_accepted:
                return BaselineChoice(parent, version.lineage.relation, "parent")
        passed_over = f" (declared parent {version.lineage.parent} {_why_not(parent, version)})"
    if accepted is not None:
        return BaselineChoice(accepted, _relation_to(version, accepted), f"accepted{passed_over}")
    earlier = versions.previous_passing(connection, key.registry, key.model, version.order_key)
    if earlier is not None and earlier.id != version.id:
        return BaselineChoice(earlier, _relation_to(version, earlier), f"history{passed_over}")
    return None


def _row_of(connection: Connection, record: BaselineRecord) -> VersionRecord | None:
    """The chosen version, unless other bytes took its name since."""
    row = versions.current(connection, VersionKey(record.registry, record.model, record.version))
    return row if row is not None and row.fingerprint == record.fingerprint else None


def _relation_to(version: VersionRecord, baseline: VersionRecord) -> str | None:
    return version.lineage.relation if version.lineage.parent == baseline.key.version else None


def _why_not(parent: VersionRecord | None, version: VersionRecord) -> str:
    if parent is None:
        return "is not in the registry"
    if parent.id == version.id:
        return "is the version itself"
    return "was not judged yet" if parent.verdict is None else f"has the verdict {parent.verdict}"
