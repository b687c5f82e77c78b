"""Sends alerts again to receivers that forget: an Alertmanager keeps no alert over a restart, nor for ever."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from layerwatch.alerts.errors import DeliveryError
from layerwatch.alerts.event import Notification, build_event, encode_event
from layerwatch.alerts.grouping import Candidate
from layerwatch.alerts.model import AlertIdentity, AlertPhase, TransitionReason
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.receivers.alertmanager import AlertmanagerReceiver
from layerwatch.alerts.receivers.base import Receiver
from layerwatch.daemon.notifying import described_now
from layerwatch.daemon.store import alerts
from layerwatch.daemon.store.database import Database

_LOGGER = logging.getLogger(__name__)

RESEND_EVERY = timedelta(minutes=1)
_ENDS_FOR = timedelta(minutes=15)
"""So long an end is sent again, as a Prometheus does."""

_AT_A_TIME = 50
_MOST_BYTES = 10_000_000
"""Nothing may be left out; every alert is of bounded size."""


class Resender:
    """Tells every Alertmanager again what it was told, for as long as it holds.

    What is sent here is never the first to be told: that is the outbox's. A failure is logged and made up by the next turn.
    What is silenced or muted here since is sent all the same: an Alertmanager that hears nothing more would call it over.

    Args:
        database: the store.
        receivers: of the moment, by name.
        clock: tz-aware time now.
    """

    def __init__(
        self,
        database: Database,
        receivers: Callable[[], Mapping[str, Receiver]],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._receivers = receivers
        self._clock = clock

    def turn(self) -> str:
        """Send once; a sentence for the log."""
        receivers = [one for one in self._receivers().values() if isinstance(one, AlertmanagerReceiver)]
        if not receivers:
            return "resend: no receiver forgets"
        now = self._clock()
        with self._database.read() as connection:
            identities = [one.identity for one in alerts.ended_since(connection, now - _ENDS_FOR)]
            identities += [one.identity for one in alerts.to_be_told(connection)]
        sent = 0
        for receiver in receivers:
            for start in range(0, len(identities), _AT_A_TIME):
                told = self._believed(receiver, identities[start : start + _AT_A_TIME])
                if told:
                    sent += self._send(receiver, told, now)
        return f"resend: {sent} alerts"

    def _believed(
        self, receiver: AlertmanagerReceiver, identities: Sequence[AlertIdentity]
    ) -> list[dict[str, object]]:
        """What the receiver was told of these, as it is at this moment: the outbox may be faster than this loop."""
        with self._database.read() as connection:
            told_to = alerts.load_told(connection, receiver.name)
            texts = alerts.told_texts(connection, identities)
            states = {one: alerts.load_state(connection, one) for one in identities}
        found = []
        for identity, state in states.items():
            heard = told_to.get((receiver.name, identity))
            if heard is None or state is None or identity not in texts:
                continue
            fires = state.phase is AlertPhase.FIRING
            over = not heard.firing and heard.sequence == state.sequence and receiver.send_resolved
            if (heard.firing and fires) or (over and not fires):
                found.append(described_now(Candidate(state, heard), json.loads(texts[identity])))
        return found

    def _send(self, receiver: AlertmanagerReceiver, told: list[dict[str, object]], now: datetime) -> int:
        event = Notification(
            event_id="resent",
            group_id="resent",
            labels={},
            sequence=0,
            reason=TransitionReason.REPEAT_INTERVAL,
            at=now,
            alerts=tuple(told),
            muted=0,
            transitions=(),
        )
        payload = encode_event(build_event(event, _MOST_BYTES))
        try:
            receiver.send(OutboxEntry(0, "resent", receiver.name, payload, now, 0, now), now)
        except DeliveryError as error:
            _LOGGER.warning("receiver %s was not told again: %s", receiver.name, error)
            return 0
        return len(told)
