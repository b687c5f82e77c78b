"""Acknowledgements: somebody is on it. The alert is not repeated; its news and its end are told all the same."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa

from layerwatch.alerts.model import Acknowledgement, AlertIdentity, AlertPhase, AlertState
from layerwatch.alerts.people import checked_name, checked_reason
from layerwatch.daemon.store import alerts
from layerwatch.daemon.store.errors import StoreError, StoreReason


def acknowledge(
    connection: sa.Connection, identity: AlertIdentity, by: str, reason: str, now: datetime
) -> AlertState:
    """Keep who looks after a firing alert, in place of whoever did so far, until it ends or gets worse.

    Raises:
        EntryError: when ``by`` or ``reason`` is blank or too long.
        StoreError: ``not_found``; ``wrong_state`` when it does not fire.
    """
    taken = Acknowledgement(checked_name(by, "by"), now, checked_reason(reason))
    state = replace(_firing(connection, identity), acknowledgement=taken)
    alerts.save_state(connection, state)
    return state


def unacknowledge(connection: sa.Connection, identity: AlertIdentity) -> AlertState:
    """Take an acknowledgement back: the alert is repeated again.

    Raises:
        StoreError: ``not_found``; ``wrong_state`` when it does not fire, or nobody acknowledged it.
    """
    state = _firing(connection, identity)
    if state.acknowledgement is None:
        raise StoreError(StoreReason.WRONG_STATE, f"nobody acknowledged the alert of {_named(identity)}")
    state = replace(state, acknowledgement=None)
    alerts.save_state(connection, state)
    return state


def _firing(connection: sa.Connection, identity: AlertIdentity) -> AlertState:
    state = alerts.load_state(connection, identity)
    if state is None:
        raise StoreError(StoreReason.NOT_FOUND, f"there is no alert of {_named(identity)}")
    if state.phase is not AlertPhase.FIRING:
        raise StoreError(StoreReason.WRONG_STATE, f"the alert of {_named(identity)} is not firing")
    return state


def _named(identity: AlertIdentity) -> str:
    return f"{identity.registry}/{identity.model} {identity.ref} ({identity.group})"
