"""Who is told what, in tests of the daemon: routings of receivers that need nobody at the other end, and the outbox."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from layerwatch.alerts.inhibition import build_inhibitions
from layerwatch.alerts.receivers import build_receivers
from layerwatch.alerts.routing import build_routes
from layerwatch.config.alerts import AlertsSettings
from layerwatch.daemon.notifying import Routing, notify
from layerwatch.daemon.store import outbox

AT_ONCE = {"group_wait": "0s", "group_interval": "0s"}
"""Times of a route that waits for nothing."""


def routing(
    *receivers: str,
    no_ends: Collection[str] = (),
    route: Mapping[str, Any] | None = None,
    **alerts: Any,
) -> Routing:
    """What the daemon makes of a configuration with these receivers, of which the first is told by the root.

    Args:
        no_ends: receivers that are not told of resolutions.
        route: what the root says besides; it waits for nothing unless told to.
        alerts: further keys of ``alerts``.
    """
    told = [{"name": one, "kind": "log", "send_resolved": one not in no_ends} for one in receivers]
    root = {"receiver": receivers[0], **AT_ONCE, **(route or {})} if receivers else None
    settings = AlertsSettings.model_validate({"receivers": told, "route": root, **alerts})
    built = build_receivers(settings.receivers)
    return Routing(
        root=build_routes(settings),
        wants_ends={name: receiver.send_resolved for name, receiver in built.items()},
        inhibitions=build_inhibitions(settings),
        owners=settings.owners,
    )


ONCALL = routing("oncall")
"""One receiver, told of everything at once."""


def events(connection: sa.Connection, receiver: str | None = None) -> list[dict[str, Any]]:
    """``data`` of the queued events in the order of queueing, wherever they are now; of one receiver or of all."""
    records = reversed(outbox.list_outbox(connection, 100_000))
    return [
        json.loads(record.entry.payload)["data"]
        for record in records
        if receiver in (None, record.entry.receiver)
    ]


def event_ids(connection: sa.Connection) -> list[str]:
    """Ids of the queued events in the order of queueing."""
    return [record.entry.event_id for record in reversed(outbox.list_outbox(connection, 100_000))]


def tell(
    connection: sa.Connection, now: datetime, told: Routing = ONCALL, receiver: str | None = None
) -> list[dict[str, Any]]:
    """Queue what is due, and ``data`` of it."""
    before = len(events(connection, receiver))
    notify(connection, told, now)
    return events(connection, receiver)[before:]
