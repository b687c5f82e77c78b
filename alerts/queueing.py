"""Which receivers are told of a transition."""

from __future__ import annotations

from collections.abc import Iterable

from layerwatch.alerts.model import AlertPhase, Transition
from layerwatch.alerts.outbox import NewOutboxEntry
from layerwatch.alerts.receivers.base import Receiver


def entries_for(
    transition: Transition, payload: str, receivers: Iterable[Receiver]
) -> tuple[NewOutboxEntry, ...]:
    """Outbox rows for one event: one for each receiver that wants it, sorted by name.

    Args:
        transition: the event.
        payload: its exact JSON text, from `layerwatch.alerts.payload.encode_event`.
        receivers: the receivers its route leads to. One with ``send_resolved=False`` gets no resolutions.
    """
    resolved = transition.state.phase is AlertPhase.RESOLVED
    wanted = {receiver.name for receiver in receivers if receiver.send_resolved or not resolved}
    return tuple(
        NewOutboxEntry(transition.event_id, name, payload, transition.state.notified_at)
        for name in sorted(wanted)
    )
