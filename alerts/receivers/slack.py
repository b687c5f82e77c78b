"""Slack: Block Kit to an incoming webhook, or one variable to the trigger of a workflow.

Limits: 50 blocks, 3,000 characters in the text of a section (https://docs.slack.dev/reference/block-kit/blocks). Slack
has no published limit for all blocks together; above 12,000 characters findings are left out and counted. Slack cannot take a message back: the
end of an alert is a second one, and an event told twice is shown twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from layerwatch.alerts.event import encode_event
from layerwatch.alerts.message import Message, as_text, fitted, inert, message_of
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.receivers.posting import Posting, revealed
from layerwatch.config.secrets import Secret

SECTION_LIMIT = 3000
BLOCKS_LIMIT = 50
BODY_LIMIT = 12_000
_WORKFLOW_PATHS = ("/triggers/", "/workflows/")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True, slots=True)
class SlackReceiver:
    """Writes one message per event.

    Attributes:
        name: name in the configuration.
        url: incoming webhook or workflow trigger; read at each attempt.
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
        url = revealed(self.url, "url")
        workflow = urlsplit(url).path.startswith(_WORKFLOW_PATHS)
        encode = encode_for_workflow if workflow else encode_for_slack
        self.posting.send(url, encode(entry.payload), now)


def encode_for_slack(payload: str) -> str:
    """The body for an incoming webhook: blocks, and a text for notifications."""
    return fitted(
        message_of(payload),
        lambda message: encode_event(_blocks(message)),
        lambda text: len(text) <= BODY_LIMIT and text.count('"type":"section"') <= BLOCKS_LIMIT,
    )


def encode_for_workflow(payload: str) -> str:
    """The body for a workflow's trigger, which takes strings only: the variable ``text``."""
    return fitted(
        message_of(payload),
        lambda message: encode_event({"text": f"{message.label}: {as_text(message)}"}),
        lambda text: len(text) <= BODY_LIMIT,
    )


def escaped(text: str) -> str:
    """``text`` without the three characters that Slack's mentions, channels and links begin or end with.

    https://docs.slack.dev/messaging/formatting-message-text/#escaping
    """
    return text.translate(_ENTITIES)


def _blocks(message: Message) -> dict[str, Any]:
    blocks = [_section(f"*{message.label}* ", message.summary)]
    for section in message.sections:
        if len(message.sections) > 1:
            blocks.append(_section("*▸* ", section.title))
        blocks += [_section(f"*{fact.name}:* ", fact.text) for fact in section.facts]
        blocks += [
            _section("• ", f"{finding.text}\n{finding.numbers}".rstrip()) for finding in section.findings
        ]
        if section.more:
            blocks.append(_marked(f"• {section.more}"))
        if section.links:
            links = (f"<{escaped(link.url)}|{link.title}>" for link in section.links)
            blocks.append(_marked(" | ".join(links)))
    blocks += [_section("", line) for line in message.omitted]
    return {
        "text": f"{message.label}: {escaped(inert(message.summary))}",
        "blocks": blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _section(ours: str, foreign: str) -> dict[str, Any]:
    """A section of its own for each foreign text, so that formatting that one begins ends with it."""
    text = ours + escaped(foreign)
    while len(text) > SECTION_LIMIT:
        foreign = foreign[: len(foreign) * 9 // 10]
        text = f"{ours}{escaped(foreign)}…"
    return _marked(text)


def _marked(text: str) -> dict[str, Any]:
    # Verbatim: bare addresses and channel names in the text do not become links.
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}
