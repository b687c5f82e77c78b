"""Alerts by the names that people give them: their id or its beginning, or the model they are about."""

from __future__ import annotations

import re

import sqlalchemy as sa

from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import AlertPhase, AlertState
from layerwatch.daemon.store import alerts
from layerwatch.daemon.store.errors import StoreError, StoreReason

_PREFIX = "alert_"
_ID = re.compile(rf"(?:{_PREFIX})?([0-9a-f]{{8,32}})", re.IGNORECASE)


def is_id(name: str) -> bool:
    """Whether a name is an alert's id or the beginning of one: at least 8 hexadecimal digits, ``alert_`` or not."""
    return _ID.fullmatch(name) is not None


def by_id(connection: sa.Connection, name: str) -> AlertState:
    """The alert, in whatever phase, whose id begins so. An alert that began again has a new id.

    Raises:
        StoreError: ``not_found`` when there is none, several, or the name is no id.
    """
    written = _ID.fullmatch(name)
    if written is None:
        detail = (
            f"{name!r} is no id of an alert: those are alert_ and hexadecimal digits, of which 8 are enough"
        )
        raise StoreError(StoreReason.NOT_FOUND, detail)
    wanted = _PREFIX + written[1].lower()
    found = [
        state
        for state in alerts.list_states(connection)
        if alert_id(state.identity, state.episode).startswith(wanted)
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        detail = f"there is no alert {wanted}; layerwatch alert list --all shows those there are"
        raise StoreError(StoreReason.NOT_FOUND, detail)
    raise StoreError(
        StoreReason.NOT_FOUND, f"{wanted} begins the ids of {len(found)} alerts: write more of it"
    )


def firing(connection: sa.Connection, registry: str, model: str, ref: str | None = None) -> list[AlertState]:
    """The firing alerts of a model, or of one of its refs; at least one.

    Raises:
        StoreError: ``not_found`` when none fires.
    """
    found = [
        state
        for state in alerts.list_states(connection, AlertPhase.FIRING, registry, model)
        if ref is None or state.identity.ref == ref
    ]
    if not found:
        of = f"{registry}/{model}" if ref is None else f"ref {ref!r} of {registry}/{model}"
        detail = f"no alert of {of} is firing; layerwatch alert list shows those that are"
        raise StoreError(StoreReason.NOT_FOUND, detail)
    return found
