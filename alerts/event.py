"""The event that tells a group of alerts: JSON in the form of Standard Webhooks 1.0.0 (``type``, ``timestamp``, ``data``).

``data`` holds the full present state of every alert in it beside what happened, so that a receiver that sees events out
of order can keep the one with the highest ``sequence`` of a group and drop the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from layerwatch.alerts.model import AlertPhase, TransitionReason
from layerwatch.alerts.payload import iso, name
from layerwatch.alerts.text import plain
from layerwatch.metrics.findings import RuleGroup, Severity

MOST_BYTES = 20_000
"""Upper limit of the encoded body: Standard Webhooks recommends less than 20 kB."""

MOST_TRANSITIONS = 100
MOST_ALERTS = 100
_SUMMARY_LIMIT = 800
_OTHER_LIMIT = 100
_GROUPS = (RuleGroup.WEIGHTS, RuleGroup.EXAMINATION, RuleGroup.INTEGRITY, RuleGroup.DELIVERY)
_MOST_REFS = 5
_NEWS = (TransitionReason.FIRST, TransitionReason.NEW_LAYERS, TransitionReason.RAISED_SEVERITY)
"""What fires is told anew; for any other reason it is told again."""

_WORSE = {
    TransitionReason.RAISED_SEVERITY: "worse than before: ",
    TransitionReason.NEW_LAYERS: "more layers than before: ",
}

Described = Mapping[str, Any]
"""An alert as `layerwatch.alerts.payload.describe` tells it."""


@dataclass(frozen=True, slots=True)
class Notification:
    """What is told at once to one receiver.

    Attributes:
        event_id: equal for every attempt to deliver it.
        group_id: names the group; the same for all events about it.
        labels: what the alerts of the group have in common, with their values.
        sequence: number of this event within the group, rising.
        reason: why it is told now: the weightiest of its transitions, or that it repeats.
        at: when it was decided.
        alerts: those that fire and those that ended since the last event, at least one; of equally bad ones the first
            is told first.
        muted: alerts of the group that fire and are not told, because they are silenced, muted or inhibited.
        transitions: event ids of the transitions that are told with it for the first time, oldest first.
        omitted: alerts that are told with it and are not among ``alerts``, because there are too many.
    """

    event_id: str
    group_id: str
    labels: Mapping[str, Sequence[str]]
    sequence: int
    reason: TransitionReason
    at: datetime
    alerts: tuple[Described, ...]
    muted: int
    transitions: tuple[str, ...]
    omitted: int = 0


def build_event(notification: Notification, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The event as JSON-ready values. A pure function of its input: every attempt sends the same body.

    Where the body would reach ``most_bytes``, findings are left out, then whole alerts, from the least bad;
    ``findings_omitted`` and ``alerts_omitted`` count them.
    """
    alerts = sorted((dict(alert) for alert in notification.alerts), key=_place)
    firing = [alert for alert in alerts if alert["phase"] == AlertPhase.FIRING.value]
    phase = AlertPhase.FIRING if firing else AlertPhase.RESOLVED
    severity = max((Severity(alert["severity"]) for alert in firing or alerts), key=lambda one: one.rank)
    # So many never fit, and each costs.
    left_out = 0 if most_bytes > MOST_BYTES else max(0, len(alerts) - MOST_ALERTS)
    event: dict[str, Any] = {
        "type": f"layerwatch.alert.{phase.value}",
        "timestamp": iso(notification.at),
        "data": {
            "event_id": notification.event_id,
            "group_id": notification.group_id,
            "sequence": notification.sequence,
            "reason": notification.reason.value,
            "phase": phase.value,
            "severity": severity.value,
            "subject": _subject(firing or alerts),
            "summary": summary_of(alerts, notification.reason),
            "labels": {
                label: [plain(value, 200) for value in values][:_MOST_REFS]
                for label, values in notification.labels.items()
            },
            "alerts": alerts[: len(alerts) - left_out],
            "alerts_omitted": left_out + notification.omitted,
            "muted": notification.muted,
            "transitions": list(notification.transitions[-MOST_TRANSITIONS:]),
        },
    }
    _shrink(event, most_bytes)
    return event


def encode_event(event: Mapping[str, Any]) -> str:
    """The exact text that is stored, signed and sent: compact JSON.

    Raises:
        ValueError: for NaN or infinity, which JSON does not have.
    """
    return json.dumps(event, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def where_of(alerts: Sequence[Described]) -> str:
    """Model, version and refs of alerts about one version; the receiver of one about deliveries."""
    first = alerts[0]
    if first["group"] == RuleGroup.DELIVERY.value:
        return f"receiver {first['model']}"
    return f"{first['model']} {first['version']} ({_refs(alerts)})"


def by_version(alerts: Iterable[Described]) -> list[list[Described]]:
    """Alerts about the same version in the same phase together, in the order of the first of each."""
    found: dict[tuple[str, ...], list[Described]] = {}
    for alert in alerts:
        about = ("registry", "model", "version", "fingerprint", "phase")
        found.setdefault(tuple(alert[key] for key in about), []).append(alert)
    return list(found.values())


def summary_of(alerts: Sequence[Described], reason: TransitionReason) -> str:
    """One sentence for people: the worst first, how much there is behind it; ``reason`` says why it is told now.

    Of alerts that ended beside some that fire, no more is told than what they were about.
    """
    firing = [alert for alert in alerts if alert["phase"] == AlertPhase.FIRING.value]
    versions = by_version(firing or alerts)
    worst = versions[0]
    first = worst[0]
    where = where_of(worst)
    since = min(alert["started_at"] for alert in worst)[:16].replace("T", " ") + " UTC"
    if first["phase"] == AlertPhase.RESOLVED.value:
        told = f"{where}: {first['headline']}; was firing since {since}"
    else:
        if first["baseline"] is not None:
            where = f"{where[:-1]}, against {first['baseline']['version']})"
        still = f"still firing since {since}: " if reason not in _NEWS else _WORSE.get(reason, "")
        told = f"{where}: {still}{first['headline']}"
    besides = {alert["group"]: alert for alert in reversed(worst) if alert["group"] != first["group"]}
    for group, other in sorted(besides.items()):
        ended = other["phase"] == AlertPhase.RESOLVED.value
        told += f"; also {group if ended else plain(other['headline'], _OTHER_LIMIT)}"
    if len(versions) > 1:
        others = sorted({alerts[0]["model"] for alerts in versions[1:]})
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        told += f"; {len(versions) - 1} more {'version' if len(versions) == 2 else 'versions'} ({shown})"
    over = (
        by_version(alert for alert in alerts if alert["phase"] == AlertPhase.RESOLVED.value) if firing else []
    )
    if over:
        told += f"; resolved: {', '.join(map(_ended, over[:3]))}{', ...' if len(over) > 3 else ''}"
    return plain(told, _SUMMARY_LIMIT)


def _ended(alerts: Sequence[Described]) -> str:
    groups = " and ".join(sorted({alert["group"] for alert in alerts}))
    return f"{where_of(alerts)[:-1]}, {groups})"


def _place(alert: Described) -> tuple[bool, int, int]:
    """Worst first; of what is equally bad, what is wrong with the weights before how they came to be there."""
    ended = alert["phase"] == AlertPhase.RESOLVED.value
    return ended, -Severity(alert["severity"]).rank, _GROUPS.index(RuleGroup(alert["group"]))


def _shrink(event: dict[str, Any], most_bytes: int) -> None:
    """Findings go first, the last of the alert that has most, each alert keeping its worst; then whole alerts."""
    data = event["data"]
    alerts = data["alerts"]
    too_much = _size(event) - most_bytes + 1
    while too_much > 0:
        longest = max(reversed(alerts), key=lambda alert: len(alert["findings"]))
        if len(longest["findings"]) > 1 or (len(alerts) == 1 and longest["findings"]):
            too_much -= _size(longest["findings"][-1]) + 1
            longest["findings"] = longest["findings"][:-1]
            longest["findings_omitted"] += 1
        elif len(alerts) > 1:
            too_much -= _size(alerts.pop()) + 1
            data["alerts_omitted"] += 1
        elif len(data["transitions"]) > 1:
            too_much -= _size(data["transitions"][:-1])
            data["transitions"] = data["transitions"][-1:]
        else:
            break
        if too_much <= 0:
            # Counts grew, and the last comma of a list never was there.
            too_much = _size(event) - most_bytes + 1


def _size(part: Any) -> int:
    return len(encode_event(part).encode("utf-8"))


def _subject(alerts: Sequence[Described]) -> str:
    versions = by_version(alerts)
    more = len(versions) - 1
    return where_of(versions[0]) + (
        f" and {more} more {'version' if more == 1 else 'versions'}" if more else ""
    )


def _refs(alerts: Sequence[Described]) -> str:
    refs = sorted({name(alert["ref"]) for alert in alerts})
    return ", ".join(refs[:_MOST_REFS]) + (", ..." if len(refs) > _MOST_REFS else "")
