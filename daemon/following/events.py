"""What happened between two looks at a daemon, a sentence for each."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.daemon.following.seen import JUDGED, SCANNING, Look, SeenAlert
from layerwatch.daemon.gate.facts import counted

_MOST_LAYERS = 3


def beginning(look: Look) -> Iterator[str]:
    """How a daemon is found: counts, and every alert that fires. Foreign text."""
    waiting = len(look.versions) - len(look.in_state(JUDGED))
    yield (
        f"{counted(len(look.models), 'model')}, {counted(len(look.alerts), 'alert')} firing, "
        f"{counted(waiting, 'version')} to be judged"
    )
    for alert in look.alerts:
        yield f"alert fires since {alert.started_at:%Y-%m-%d %H:%M} UTC: {told(alert)}"


def happened(before: Look, now: Look) -> Iterator[str]:
    """Scans that began, verdicts, and alerts that came, changed and went. Foreign text."""
    old = {one.id: one for one in before.versions}
    for version in reversed(now.versions):
        known = old.get(version.id)
        if version.judgement is not None and (known is None or known.judgement != version.judgement):
            words = now.verdicts.get(version.judgement, "")
            yield f"{version.name}: {version.verdict}{f'; {words}' if words else ''}"
        elif version.state == SCANNING and (known is None or known.state != SCANNING):
            yield f"{version.name}: being scanned"
        elif known is None:
            yield f"{version.name}: found"
    yield from _of_alerts(before, now)


def _of_alerts(before: Look, now: Look) -> Iterator[str]:
    firing = {one.alert_id: one for one in before.alerts}
    for alert in now.alerts:
        known = firing.pop(alert.alert_id, None)
        if known is None:
            yield f"alert fires: {told(alert)}"
            continue
        if (known.severity, known.version, known.layers) != (alert.severity, alert.version, alert.layers):
            yield f"alert changed: {told(alert)}"
        if alert.acknowledged_by != known.acknowledged_by:
            by = f"{alert.acknowledged_by} is on it" if alert.acknowledged_by else "nobody is on it any more"
            yield f"alert of {alert.about} ({alert.group}): {by}"
        if alert.muted_by != known.muted_by:
            muted = f"held back: {alert.muted_by}" if alert.muted_by else "no longer held back"
            yield f"alert of {alert.about} ({alert.group}): {muted}"
    for gone in firing.values():
        yield f"alert over: {told(gone)}"


def told(alert: SeenAlert) -> str:
    """Severity, group, what it is about, layers."""
    layers = ", ".join(alert.layers[:_MOST_LAYERS])
    more = len(alert.layers) - _MOST_LAYERS
    if more > 0:
        layers += f" and {more} more"
    return f"{alert.severity} {alert.group} in {alert.about}{f': {layers}' if layers else ''}"
