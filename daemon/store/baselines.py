"""Chosen baselines: accepted and pinned versions. The history only grows."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.chunks import chunks
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.ordering import sort_key
from layerwatch.daemon.store.records import BaselineKind, BaselineRecord, VersionKey, VersionRecord
from layerwatch.daemon.store.versionrows import of_key
from layerwatch.metrics.findings import Verdict

_EVENTS = tables.baseline_events
_ACCEPTED = (BaselineKind.ACCEPTED, BaselineKind.AUTO_ACCEPTED)
_PASSING = (Verdict.PASS.value, Verdict.WARN.value)

AUTOMATIC = "layerwatch"
"""Who accepts where no person does."""


def accept(
    connection: sa.Connection, registry: str, model: str, version: str, by: str, reason: str, now: datetime
) -> BaselineRecord:
    """Declare a version normal: it is the model's baseline until another is accepted or pinned.

    Raises:
        StoreError: ``not_found`` when the model has no such version.
    """
    return _choose(connection, VersionKey(registry, model, version), BaselineKind.ACCEPTED, by, reason, now)


def accept_automatically(
    connection: sa.Connection, registry: str, model: str, version: str, reason: str, now: datetime
) -> BaselineRecord:
    """Make a version that passed the model's accepted baseline, without a person's word: it ends no alert.

    Raises:
        StoreError: ``not_found`` when the model has no such version.
    """
    key = VersionKey(registry, model, version)
    return _choose(connection, key, BaselineKind.AUTO_ACCEPTED, AUTOMATIC, reason, now)


def pin(
    connection: sa.Connection, registry: str, model: str, version: str, by: str, reason: str, now: datetime
) -> BaselineRecord:
    """Make a version the model's baseline until it is unpinned, whatever is accepted meanwhile.

    Raises:
        StoreError: ``not_found`` when the model has no such version.
    """
    return _choose(connection, VersionKey(registry, model, version), BaselineKind.PINNED, by, reason, now)


def unpin(
    connection: sa.Connection, registry: str, model: str, by: str, reason: str, now: datetime
) -> BaselineRecord:
    """Take the pin off; the latest accepted version is the baseline again.

    Raises:
        StoreError: ``nothing_pinned``.
    """
    chosen = pinned(connection, registry, model)
    if chosen is None:
        raise StoreError(StoreReason.NOTHING_PINNED, f"no version of {registry}/{model} is pinned")
    key = VersionKey(registry, model, chosen.version)
    return _append(connection, key, BaselineKind.UNPINNED, by, reason, now, chosen.fingerprint)


def pinned(connection: sa.Connection, registry: str, model: str) -> BaselineRecord | None:
    """The version that is pinned now, or None."""
    latest = _latest(connection, registry, model, (BaselineKind.PINNED, BaselineKind.UNPINNED))
    return latest if latest is not None and latest.kind is BaselineKind.PINNED else None


def chosen(connection: sa.Connection, registry: str, model: str) -> list[BaselineRecord]:
    """The versions that were chosen as the model's baseline, the one that counts first.

    That is the pinned one, and the one accepted last, which counts again once the pin is off; as far as there are any.
    """
    found = (
        pinned(connection, registry, model),
        _latest(connection, registry, model, _ACCEPTED),
    )
    return [record for record in found if record is not None]


def accepted(connection: sa.Connection, registry: str, model: str) -> list[BaselineRecord]:
    """What may count as the accepted version, best first.

    Those that layerwatch accepted since a person last did, latest first, and then the one of that person.
    """
    found = []
    for record in history(connection, registry, model):
        if record.kind in _ACCEPTED:
            found.append(record)
        if record.kind is BaselineKind.ACCEPTED:
            break
    return found


def history(connection: sa.Connection, registry: str, model: str) -> list[BaselineRecord]:
    """Everything that was ever done to the model's baseline, latest first."""
    query = sa.select(_EVENTS).where(*_of_model(registry, model)).order_by(_EVENTS.c.id.desc())
    return [_to_record(row) for row in connection.execute(query)]


def in_use(connection: sa.Connection, registry: str, model: str) -> list[BaselineRecord]:
    """The pinned version and those accepted last, by a person and by layerwatch, as far as there are any."""
    chosen = (
        pinned(connection, registry, model),
        _latest(connection, registry, model, (BaselineKind.ACCEPTED,)),
        _latest(connection, registry, model, (BaselineKind.AUTO_ACCEPTED,)),
    )
    return [record for record in chosen if record is not None]


def was_accepted(connection: sa.Connection, key: VersionKey, fingerprint: str) -> bool:
    """Whether a person ever called these bytes under this name normal, or they are pinned now.

    Accepting another version later takes nothing back.
    """
    return acceptance_of(connection, key, fingerprint) is not None


def acceptance_of(connection: sa.Connection, key: VersionKey, fingerprint: str) -> BaselineRecord | None:
    """How a person last called these bytes normal, or how they are pinned now; see `was_accepted`."""
    accepted = (
        sa.select(_EVENTS)
        .where(
            *_of_model(key.registry, key.model),
            _EVENTS.c.version == key.version,
            _EVENTS.c.fingerprint == fingerprint,
            _EVENTS.c.kind == BaselineKind.ACCEPTED.value,
        )
        .order_by(_EVENTS.c.id.desc())
        .limit(1)
    )
    for row in connection.execute(accepted):
        return _to_record(row)
    chosen = pinned(connection, key.registry, key.model)
    is_it = chosen is not None and (chosen.version, chosen.fingerprint) == (key.version, fingerprint)
    return chosen if is_it else None


def accepted_among(
    connection: sa.Connection, versions: Iterable[tuple[VersionKey, str]]
) -> set[tuple[VersionKey, str]]:
    """Those of these bytes, given as (version, fingerprint), of which `was_accepted` is true."""
    wanted = set(versions)
    found: set[tuple[VersionKey, str]] = set()
    kinds = [kind.value for kind in (BaselineKind.ACCEPTED, BaselineKind.PINNED, BaselineKind.UNPINNED)]
    for chunk in chunks({(key.registry, key.model) for key, _ in wanted}):
        # SQLite uses no index for pairs. Other models that come with them are not wanted, and drop out at the end.
        query = (
            sa.select(_EVENTS)
            .where(
                _EVENTS.c.registry.in_({registry for registry, _ in chunk}),
                _EVENTS.c.model.in_({model for _, model in chunk}),
                _EVENTS.c.kind.in_(kinds),
            )
            .order_by(_EVENTS.c.id)
        )
        pins: dict[tuple[str, str], BaselineRecord] = {}
        for record in map(_to_record, connection.execute(query)):
            if record.kind is BaselineKind.ACCEPTED:
                found.add((VersionKey(record.registry, record.model, record.version), record.fingerprint))
            else:
                pins[record.registry, record.model] = record
        for pin in pins.values():
            if pin.kind is BaselineKind.PINNED:
                found.add((VersionKey(pin.registry, pin.model, pin.version), pin.fingerprint))
    return found & wanted


def has_known_good(connection: sa.Connection, version: VersionRecord) -> bool:
    """Whether there was anything good in a model before this version: chosen by a person, accepted, or passing.

    What was replaced by other bytes, unpinned, lost or is gone counts: nobody gets rid of it by publishing.
    """
    key = version.key
    for record in history(connection, key.registry, key.model):
        is_itself = (record.version, record.fingerprint) == (key.version, version.fingerprint)
        is_by_person = record.kind is not BaselineKind.AUTO_ACCEPTED
        if not is_itself and (is_by_person or record.at <= version.discovered_at):
            return True
    rows = tables.versions
    query = sa.select(sa.literal(1)).where(
        rows.c.registry == key.registry,
        rows.c.model == key.model,
        rows.c.id != version.id,
        rows.c.verdict.in_(_PASSING),
        sa.or_(rows.c.id < version.id, rows.c.sort_key < sort_key(version.order_key)),
    )
    return connection.execute(query.limit(1)).first() is not None


def _choose(
    connection: sa.Connection, key: VersionKey, kind: BaselineKind, by: str, reason: str, now: datetime
) -> BaselineRecord:
    fingerprint = connection.execute(sa.select(tables.versions.c.fingerprint).where(of_key(key))).scalar()
    if fingerprint is None:
        detail = (
            f"{key.registry}/{key.model} has no version {key.version!r}; layerwatch baseline versions "
            f"{key.registry}/{key.model} lists them"
        )
        raise StoreError(StoreReason.NOT_FOUND, detail)
    return _append(connection, key, kind, by, reason, now, fingerprint)


def _append(
    connection: sa.Connection,
    key: VersionKey,
    kind: BaselineKind,
    by: str,
    reason: str,
    now: datetime,
    fingerprint: str,
) -> BaselineRecord:
    connection.execute(
        sa.insert(_EVENTS).values(
            registry=key.registry,
            model=key.model,
            version=key.version,
            fingerprint=fingerprint,
            kind=kind.value,
            actor=by,
            reason=reason,
            at=now,
        )
    )
    return BaselineRecord(key.registry, key.model, key.version, kind, by, reason, now, fingerprint)


def _latest(
    connection: sa.Connection, registry: str, model: str, kinds: tuple[BaselineKind, ...]
) -> BaselineRecord | None:
    query = (
        sa.select(_EVENTS)
        .where(*_of_model(registry, model), _EVENTS.c.kind.in_([kind.value for kind in kinds]))
        .order_by(_EVENTS.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else _to_record(row)


def _of_model(registry: str, model: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _EVENTS.c.registry == registry, _EVENTS.c.model == model


def _to_record(row: sa.Row[tuple[object, ...]]) -> BaselineRecord:
    return BaselineRecord(
        registry=row.registry,
        model=row.model,
        version=row.version,
        kind=BaselineKind(row.kind),
        by=row.actor,
        reason=row.reason,
        at=row.at,
        fingerprint=row.fingerprint,
    )
