"""Which version another is judged against: its parent, the accepted version, or the model's history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from sqlalchemy import Connection

from layerwatch.config.baselines import BaselinesSettings
from layerwatch.daemon.measuring import is_complete
from layerwatch.daemon.store import baselines, contents, versions
from layerwatch.daemon.store.ordering import sort_key
from layerwatch.daemon.store.origins import resolve
from layerwatch.daemon.store.records import BaselineKind, BaselineRecord, VersionKey, VersionRecord
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.measurement import METRIC_SET
from layerwatch.metrics.relation import Relation

_HEALTHY = (Verdict.PASS, Verdict.WARN)
_BY_ITSELF = ("history", "accepted automatically")

_MOST_CANDIDATES = 50
"""Versions of the history that are looked at; one that was lost is followed by older ones, which mostly are too."""

_DEFAULT = BaselinesSettings()


class _Voucher(Enum):
    """Who says, beside the publisher of a version, that its declared parent is good to compare with."""

    OWN_MODEL = auto()
    CONFIGURATION = auto()
    PERSON = auto()
    NOBODY = auto()


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


def choose_baseline(
    connection: Connection, version: VersionRecord, settings: BaselinesSettings = _DEFAULT
) -> BaselineChoice | None:
    """Choose in the order pinned, parent, accepted, history; None when there is nothing to compare with.

    A parent or history version that failed or is undecided is passed over, unless it was accepted since: a
    repaired version must not be judged against the broken one. A pin is a person's explicit wish and outranks the
    declared parent. Of what nobody named, a version that can be compared with no more is passed over too.

    The parent may be a version of another model, in any registry, whose measurements are in the store. Where only a
    model is named, it must be clear which version is meant. Who publishes a version writes its declaration, so this
    must not take the model's own baseline from it: a parent elsewhere counts as one of the model itself only where
    ``settings.parents_from`` names its model. One that a person accepted or pinned there comes after the accepted
    version, and before history; any other counts only while the model has nothing good of its own to go by.
    """
    key = version.key
    declared = version.lineage.parent
    parent = None if declared is None else resolve(connection, version, declared, exact=True)
    pinned = _usable(connection, baselines.pinned(connection, key.registry, key.model), version)
    if pinned is not None:
        return BaselineChoice(pinned, _relation_to(version, pinned, parent), "pinned")
    accepted, how = _accepted(connection, version)
    passed_over = ""
    if declared is not None:
        why_not = _why_not(connection, parent, version, accepted, settings)
        if parent is not None and why_not is None:
            return BaselineChoice(parent, version.lineage.relation, "parent")
        passed_over = f" (declared parent {declared} {why_not})"
    if accepted is not None:
        return BaselineChoice(accepted, _relation_to(version, accepted, parent), f"{how}{passed_over}")
    lost = ""
    for earlier in versions.passing_before(
        connection, key.registry, key.model, version.order_key, _MOST_CANDIDATES
    ):
        if earlier.id == version.id:
            continue
        if not _is_lost(connection, earlier):
            relation = _relation_to(version, earlier, parent)
            return BaselineChoice(earlier, relation, f"history{passed_over}{lost}")
        lost = lost or f" ({earlier.key.version} is gone, and its measurements are lost)"
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
    must not take the baseline back. Nor is one that passed against a version of another model which its publisher
    alone named.

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
    if against is not None and _is_publishers_choice(connection, version, against, settings):
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
        is_earlier = sort_key(row.order_key) < sort_key(version.order_key)
        if row.verdict in _HEALTHY and is_earlier and not _is_lost(connection, row):
            return row, "accepted automatically"
    return None, ""


def _is_lost(connection: Connection, version: VersionRecord) -> bool:
    """Whether nothing is left to compare with: neither its files, which could be measured again, nor its numbers."""
    return version.gone_at is not None and not _is_measured(connection, version)


def _is_measured(connection: Connection, version: VersionRecord) -> bool:
    content = contents.load(connection, version.fingerprint, METRIC_SET)
    return content is not None and is_complete(connection, content)


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


def _relation_to(version: VersionRecord, baseline: VersionRecord, parent: VersionRecord | None) -> str | None:
    return version.lineage.relation if parent is not None and parent.id == baseline.id else None


def _voucher(
    connection: Connection, parent: VersionRecord, version: VersionRecord, settings: BaselinesSettings
) -> _Voucher:
    if (parent.key.registry, parent.key.model) == (version.key.registry, version.key.model):
        return _Voucher.OWN_MODEL
    if settings.allows_parents_from(parent.key.registry, parent.key.model):
        return _Voucher.CONFIGURATION
    is_accepted = baselines.was_accepted(connection, parent.key, parent.fingerprint)
    return _Voucher.PERSON if is_accepted else _Voucher.NOBODY


def _is_publishers_choice(
    connection: Connection, version: VersionRecord, against: str, settings: BaselinesSettings
) -> bool:
    """Whether the version of this name, which one was judged against, was named by its publisher alone."""
    declared = version.lineage.parent
    parent = None if declared is None else resolve(connection, version, declared, exact=True)
    if parent is None or parent.key.version != against:
        return False
    if _voucher(connection, parent, version, settings) is not _Voucher.NOBODY:
        return False
    # Its own model may have a version of this name, too. What another scan changed meanwhile is no excuse.
    choice = choose_baseline(connection, version, settings)
    return choice is None or choice.version.id == parent.id or choice.version.key.version != against


def _why_not(
    connection: Connection,
    parent: VersionRecord | None,
    version: VersionRecord,
    accepted: VersionRecord | None,
    settings: BaselinesSettings,
) -> str | None:
    """Why the declared parent is no baseline, or None where it is one."""
    key = version.key
    if parent is None:
        declared = version.lineage.parent or ""
        if declared == key.version:
            return "is the version itself"
        is_elsewhere = "/" in declared or ":" in declared
        return "does not name one version that is known here" if is_elsewhere else "is not in the registry"
    voucher = _voucher(connection, parent, version, settings)
    is_elsewhere = voucher is not _Voucher.OWN_MODEL
    is_accepted = accepted is not None and parent.id == accepted.id
    if is_elsewhere:
        is_accepted = baselines.was_accepted(connection, parent.key, parent.fingerprint)
    if parent.verdict not in _HEALTHY and not is_accepted:
        return "was not judged yet" if parent.verdict is None else f"has the verdict {parent.verdict}"
    if is_elsewhere and not _is_measured(connection, parent):
        return "is not measured"
    if voucher is _Voucher.PERSON and accepted is not None:
        return "is of another model, and the accepted version goes before"
    if voucher is _Voucher.NOBODY and (accepted is not None or baselines.has_known_good(connection, version)):
        return "is of another model: nobody accepted it there, and baselines.parents_from does not name that model"
    return None
