"""Which receivers are told."""

from __future__ import annotations

import logging

from alertvalues import NOW, firing, resolved
from layerwatch.alerts.outbox import NewOutboxEntry
from layerwatch.alerts.queueing import entries_for
from layerwatch.alerts.receivers.log import LogReceiver

LOUD = LogReceiver("loud", logging.getLogger("loud"))
PAGER = LogReceiver("pager", logging.getLogger("pager"), send_resolved=False)


def test_a_firing_alert_goes_to_every_receiver_once() -> None:
    transition = firing()

    assert entries_for(transition, "{}", [PAGER, LOUD, PAGER]) == (
        NewOutboxEntry(transition.event_id, "loud", "{}", NOW),
        NewOutboxEntry(transition.event_id, "pager", "{}", NOW),
    )


def test_a_resolution_is_kept_from_those_who_do_not_want_it() -> None:
    assert [entry.receiver for entry in entries_for(resolved(), "{}", [LOUD, PAGER])] == ["loud"]
