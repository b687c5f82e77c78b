"""Alerts about alerting: events that a receiver never took are a finding of their own, told to whoever can be told."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection

from layerwatch.alerts.model import AlertIdentity, AlertPhase, Observation, TransitionReason
from layerwatch.alerts.payload import AlertContext, Diagnosis
from layerwatch.daemon.alerting import AlertPolicy, advance_alert
from layerwatch.daemon.store import alerts
from layerwatch.daemon.store.outbox import GivenUp
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict

REGISTRY = "layerwatch"
"""What stands for a registry in alerts about the daemon's own work."""

REF = "deliveries"
RULE = "undelivered"


def follow_deliveries(
    connection: Connection,
    left_behind: Sequence[GivenUp],
    receivers: Collection[str],
    policy: AlertPolicy,
    now: datetime,
) -> bool:
    """Bring the alerts about deliveries up to date: one fires for each receiver that left events behind.

    It ends once the receiver takes an event again, those that were given up are queued again, or it is configured no
    more.

    Args:
        left_behind: from `layerwatch.daemon.store.outbox.given_up`.
        receivers: those that are configured.

    Returns:
        True when one changed.
    """
    left = {one.receiver: one for one in left_behind if one.receiver in receivers}
    changed = False
    for receiver, given_up in left.items():
        observation = Observation(
            _identity(receiver),
            receiver,
            # Another one when more are given up, so that repetitions have the present count.
            f"{REF}:{given_up.events}",
            Verdict.FAIL,
            (_finding(given_up),),
            scan=str(given_up.first),
        )
        changed |= advance_alert(
            connection, observation, policy, now, lambda: AlertContext(
                diagnoses=(_DIAGNOSIS,), external_url=policy.external_url
            ),
        )  # fmt: skip
    for state in alerts.list_states(connection, AlertPhase.FIRING, REGISTRY):
        receiver = state.identity.model
        if state.identity.group is RuleGroup.DELIVERY and receiver not in left:
            there = receiver in receivers
            over = Observation(
                state.identity,
                receiver if there else None,
                REF if there else None,
                Verdict.PASS if there else None,
                (),
                ends_as=TransitionReason.DELIVERED,
            )
            changed |= advance_alert(connection, over, policy, now)
    return changed


_DIAGNOSIS = Diagnosis(
    None,
    "undelivered events",
    "The receiver refused them for good, is gone, or could not be reached for as long as its max_age.",
    "Mend the receiver or its settings, load the configuration again, then send them: layerwatch delivery replay RECEIVER.",
)


def _identity(receiver: str) -> AlertIdentity:
    return AlertIdentity(REGISTRY, receiver, REF, RuleGroup.DELIVERY)


def _finding(given_up: GivenUp) -> Finding:
    since = given_up.first.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    events = "1 event" if given_up.events == 1 else f"{given_up.events} events"
    return Finding(
        RULE,
        RuleGroup.DELIVERY,
        Severity.CRITICAL,
        None,
        f"{events} will not reach the receiver, given up since {since} ({given_up.reason.value}: {given_up.detail})",
        {"events": given_up.events, "reason": given_up.reason.value},
    )
