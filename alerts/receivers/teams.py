"""Microsoft Teams: an Adaptive Card 1.4 to the address of a workflow ("Send webhook alerts to a channel").

The message around the card, and 28 KB as its limit: https://learn.microsoft.com/connectors/teams/. All text is in
``TextRun`` elements, which show it as it is (https://adaptivecards.io/explorer/TextRun.html: Markdown is not
supported), so that no name becomes formatting or a link; mentions need an entity of their own, which is never sent.

A workflow answers 202 before it posts: one that fails behind it looks delivered here. Look at the workflow's run
history when cards are missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from layerwatch.alerts.event import encode_event
from layerwatch.alerts.message import Message, fitted, message_of
from layerwatch.alerts.model import AlertPhase
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.receivers.posting import Posting, revealed
from layerwatch.config.secrets import Secret
from layerwatch.metrics.findings import Severity

BODY_LIMIT = 28_000
_COLOURS = {Severity.CRITICAL: "Attention", Severity.WARNING: "Warning", Severity.INFO: "Accent"}


@dataclass(frozen=True, slots=True)
class TeamsReceiver:
    """Posts one card per event.

    Attributes:
        name: name in the configuration.
        url: address of the workflow; read at each attempt.
        posting: how to post.
        max_age: events older than this are given up.
        send_resolved: whether it is told of resolutions.
    """

    name: str
    url: Secret
    posting: Posting
    max_age: timedelta
    send_resolved: bool = True

    def check(self) -> None:
        """Find what is wrong with the settings without asking the network. Raises as `Posting.check`."""
        self.posting.check(revealed(self.url, "url"))

    def send(self, entry: OutboxEntry, now: datetime) -> None:
        """One POST. See `Receiver.send`."""
        self.posting.send(revealed(self.url, "url"), encode_for_teams(entry.payload), now)


def encode_for_teams(payload: str) -> str:
    """The body of the request for the event ``payload`` (its stored JSON)."""
    return fitted(
        message_of(payload),
        lambda message: encode_event(_envelope(message)),
        # Teams counts messages in UTF-16; for the connector it is not said, so the larger count is taken.
        lambda text: len(text.encode("utf-16-le")) <= BODY_LIMIT,
    )


def _envelope(message: Message) -> dict[str, Any]:
    return {
        "type": "message",
        "attachments": [
            {
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": None,
                "content": _card(message),
            }
        ],
    }


def _card(message: Message) -> dict[str, Any]:
    colour = "Good" if message.phase is AlertPhase.RESOLVED else _COLOURS[message.severity]
    body = [_line(_run(f"{message.label} ", weight="Bolder", color=colour), _run(message.summary))]
    for section in message.sections:
        if len(message.sections) > 1:
            body.append(_line(_run(section.title, weight="Bolder")))
        body += [_line(_run(f"{fact.name}: ", weight="Bolder"), _run(fact.text)) for fact in section.facts]
        for finding in section.findings:
            numbers = [_run(f" [{finding.numbers}]", isSubtle=True)] if finding.numbers else []
            body.append(_line(_run(f"• {finding.text}"), *numbers))
        if section.more:
            body.append(_line(_run(f"• {section.more}", isSubtle=True)))
    body += [_line(_run(line, isSubtle=True)) for line in message.omitted]
    return {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
        "actions": [
            {"type": "Action.OpenUrl", "title": link.title, "url": link.url} for link in message.links
        ],
    }


def _line(*runs: dict[str, Any]) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": list(runs)}


def _run(text: str, **look: str | bool) -> dict[str, Any]:
    return {"type": "TextRun", "text": text, **look}
