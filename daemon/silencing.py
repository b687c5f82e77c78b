"""Which alerts silences hold back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection

from layerwatch.alerts.model import AlertIdentity, AlertPhase, AlertState
from layerwatch.alerts.people import EntryError
from layerwatch.alerts.silences import shown, silenced_by
from layerwatch.config.crosschecks import known_labels, matcher_mistake
from layerwatch.config.matchers import Matcher, all_match
from layerwatch.config.owners import OwnerSettings
from layerwatch.daemon.alertlabels import labels_of
from layerwatch.daemon.store import alerts, silences


def check_labels(matchers: Sequence[Matcher], owners: Sequence[OwnerSettings]) -> None:
    """Raise EntryError for a matcher that no alert can ever fulfil, as one with a misspelt label."""
    known = known_labels(owners)
    for matcher in matchers:
        mistake = matcher_mistake(matcher, known)
        if mistake is not None:
            raise EntryError("matchers", f"{shown(matcher)}: {mistake}")


def firing_that_match(
    connection: Connection, matchers: Sequence[Matcher], owners: Sequence[OwnerSettings]
) -> list[AlertState]:
    """The alerts that fire now and fulfil all matchers, sorted by identity.

    Args:
        owners: ``alerts.owners`` of the configuration.
    """
    return [
        state
        for state in alerts.list_states(connection, AlertPhase.FIRING)
        if all_match(matchers, labels_of(state, owners))
    ]


def silenced(
    connection: Connection, states: Iterable[AlertState], owners: Sequence[OwnerSettings], now: datetime
) -> dict[AlertIdentity, str]:
    """The silence, in words, that holds back each of these alerts now; those that none does are left out."""
    active = silences.active(connection, now)
    found = {}
    for state in states:
        silence = silenced_by(labels_of(state, owners), active, now)
        if silence is not None:
            found[state.identity] = f"silence {silence.id} by {silence.author}: {silence.reason}"
    return found
