"""What the page of alerts shows of each alert: what is wrong, who was told, how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import Acknowledgement, AlertIdentity, AlertState, TransitionReason
from layerwatch.daemon.store.alertdeliveries import Delivery
from layerwatch.daemon.store.alertends import EndedAlert
from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.metrics.findings import RuleGroup

_MOST_FINDINGS = 3
_ENDS = {
    TransitionReason.VERSION_PASSED: ("", " passed"),
    TransitionReason.MOVED_BACK: ("moved back to ", ""),
    TransitionReason.VERSION_ACCEPTED: ("", " was accepted"),
}
"""What stands before and behind the version that an alert ended with."""

_OTHER_ENDS = {
    TransitionReason.REF_GONE: "the ref is gone",
    TransitionReason.DELIVERED: "its events are delivered, or queued again",
}


@dataclass(frozen=True, slots=True)
class Broken:
    """One thing that is wrong. All text is foreign.

    Attributes:
        layer: empty for the version as a whole.
        words: what is wrong.
        numbers: the layer's numbers in words; may be empty.
        link: page of the layer; None where there is none.
    """

    layer: str
    words: str = ""
    numbers: str = ""
    link: str | None = None


@dataclass(frozen=True, slots=True)
class AlertRow:
    """A firing alert as the page shows it. All text is foreign.

    Attributes:
        broken: the worst findings; ``more`` are not shown.
        muted_by: what holds it back now, in words; None when people are told.
        deliveries: where the messages about it are.
        link: relative, to the page of what is wrong.
    """

    alert_id: str
    severity: str
    registry: str
    model: str
    ref: str
    version: str
    group: str
    since: datetime
    broken: tuple[Broken, ...]
    more: int
    acknowledgement: Acknowledgement | None
    muted_by: str | None
    deliveries: Sequence[Delivery]
    link: str


@dataclass(frozen=True, slots=True)
class EndedRow:
    """An alert that is over. All text is foreign.

    Attributes:
        version: that it began with; None where that is not kept any more.
        how: why it ended: words before and behind the version it ended with.
        ended_with: that version; empty where it was none.
        link: relative, to the page of the version that it began with, or of the one it ended with.
    """

    severity: str
    registry: str
    model: str
    ref: str
    group: str
    version: str | None
    began_at: datetime
    ended_at: datetime
    lasted: timedelta
    how: tuple[str, str]
    ended_with: str
    link: str


def firing_row(
    state: AlertState, told: str | None, muted_by: str | None, deliveries: Sequence[Delivery]
) -> AlertRow:
    """The row of a firing alert.

    Args:
        told: JSON text of what messages tell about it; None where nothing is told yet.
    """
    identity = state.identity
    links = VersionLinks(identity.registry, identity.model, state.version, state.fingerprint)
    broken = tuple(_broken(state, told, links))
    return AlertRow(
        alert_id=alert_id(identity, state.episode),
        severity=state.severity.value,
        registry=identity.registry,
        model=identity.model,
        ref=identity.ref,
        version=state.version,
        group=identity.group.value,
        since=state.started_at,
        broken=broken[:_MOST_FINDINGS],
        more=_count(told, len(broken)) - len(broken[:_MOST_FINDINGS]),
        acknowledgement=state.acknowledgement,
        muted_by=muted_by,
        deliveries=deliveries,
        link=_page(identity, links),
    )


def ended_row(ended: EndedAlert) -> EndedRow:
    """The row of an alert that is over."""
    episode = ended.episode
    identity = episode.identity
    began_with = episode.versions[0] if episode.versions else None
    ended_with = episode.ended_with or ""
    links = VersionLinks(identity.registry, identity.model, began_with or ended_with)
    how = _ENDS.get(ended.reason)
    return EndedRow(
        severity=str(episode.severity),
        registry=identity.registry,
        model=identity.model,
        ref=identity.ref,
        group=identity.group.value,
        version=began_with,
        began_at=episode.began_at,
        ended_at=ended.ended_at,
        lasted=ended.ended_at - episode.began_at,
        how=how or (_OTHER_ENDS.get(ended.reason, str(ended.reason)), ""),
        ended_with=ended_with if how else "",
        link=_page(identity, links),
    )


def _page(identity: AlertIdentity, links: VersionLinks) -> str:
    # What alerts about deliveries are about is a receiver.
    return "status#receivers" if identity.group is RuleGroup.DELIVERY else links.this()


def _broken(state: AlertState, told: str | None, links: VersionLinks) -> Iterable[Broken]:
    """What `layerwatch.alerts.payload.describe` tells, worst first; the bare layers where nothing is told yet."""
    described: Mapping[str, Any] = json.loads(told) if told is not None else {}
    for finding in described.get("findings", ()):
        layer = finding["layer"] or ""
        yield Broken(layer, finding["message"], finding["numbers"] or "", _layer(layer, links))
    if described and not described["findings"]:
        yield Broken("", described["headline"])
    if not described:
        yield from (
            Broken(layer, link=_layer(layer, links)) if layer else Broken("", "the version as a whole")
            for layer in state.layers
        )


def _layer(layer: str, links: VersionLinks) -> str | None:
    return links.layer(layer) if layer else None


def _count(told: str | None, least: int) -> int:
    return least if told is None else least + int(json.loads(told).get("findings_omitted", 0))
