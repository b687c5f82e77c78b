"""What people read of an event, in parts: each receiver puts the parts into its own form and escapes them.

Every part may hold names that strangers chose. They are printable single lines of bounded length, as in the event
they come from, and must be escaped for the form they are put into, or passed through `inert`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from layerwatch.alerts.model import AlertPhase
from layerwatch.alerts.text import plain
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.rules import RULES

_CAUSES: Mapping[str, str] = {rule.name: rule.likely_cause for rule in RULES}
_MOST_CAUSES = 2
_CAUSE_LIMIT = 300
_MOST_NUMBERS = 6
_NUMBERS_LIMIT = 300
_LINK_TITLES = {"report": "Report", "runbook": "What the rule means"}

# Wide twins of the characters that mentions, tags and links of chat services begin with.
_WIDE = str.maketrans({"@": "＠", "<": "＜", "[": "［"})


@dataclass(frozen=True, slots=True)
class Fact:
    """A line such as ``Version: v5``."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class FoundLine:
    """One finding.

    Attributes:
        text: layer, severity, rule, and the finding's sentence.
        numbers: its evidence, ``name value`` pairs; empty without any.
    """

    text: str
    numbers: str


@dataclass(frozen=True, slots=True)
class Link:
    """A page about the event. Made of the configured address and percent-encoded names."""

    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Message:
    """An event as people read it.

    Attributes:
        phase: firing or resolved.
        severity: worst severity of the episode.
        subject: model, version and ref.
        summary: one sentence: what broke or ended, worst layer first.
        facts: since when, against which baseline, likely cause, what was not examined.
        findings: worst first.
        omitted: findings that are not in ``findings``.
        links: none when the daemon's external address is not configured.
    """

    phase: AlertPhase
    severity: Severity
    subject: str
    summary: str
    facts: tuple[Fact, ...]
    findings: tuple[FoundLine, ...]
    omitted: int
    links: tuple[Link, ...]

    @property
    def label(self) -> str:
        """One word for what to feel: ``CRITICAL``, ``WARNING``, ``INFO`` or ``RESOLVED``."""
        return "RESOLVED" if self.phase is AlertPhase.RESOLVED else self.severity.value.upper()

    @property
    def more(self) -> str | None:
        """A line about the findings left out; None when all are shown."""
        return f"{self.omitted} more not shown here" if self.omitted else None


def message_of(payload: str) -> Message:
    """The message in an event's stored JSON (`layerwatch.alerts.payload`).

    Raises:
        KeyError, ValueError: for a payload that is not one of ours.
    """
    data: dict[str, Any] = json.loads(payload)["data"]
    where = f"{data['model']} {data['version']} ({data['ref']})"
    return Message(
        phase=AlertPhase(data["phase"]),
        severity=Severity(data["severity"]),
        subject=where,
        summary=data["summary"],
        facts=tuple(_facts(data)),
        findings=tuple(_found(finding) for finding in data["findings"]),
        omitted=data["findings_omitted"],
        links=tuple(
            Link(title, url) for key, title in _LINK_TITLES.items() if (url := (data["links"] or {}).get(key))
        ),
    )


def fitted(message: Message, render: Callable[[Message], str], fits: Callable[[str], bool]) -> str:
    """``render(message)`` with as many findings, from the first, as ``fits`` allows; the others are counted."""
    text = render(message)
    while message.findings and not fits(text):
        message = replace(message, findings=message.findings[:-1], omitted=message.omitted + 1)
        text = render(message)
    return text


def as_text(message: Message) -> str:
    """Everything but label and subject as plain lines; names in it are `inert`, links work."""
    lines = [inert(message.summary), ""]
    lines += [f"{fact.name}: {inert(fact.text)}" for fact in message.facts]
    if message.findings:
        lines += ["", "Findings, worst first:"]
    for finding in message.findings:
        lines.append(f"- {inert(finding.text)}")
        if finding.numbers:
            lines.append(f"  {inert(finding.numbers)}")
    if message.more:
        lines.append(f"- {message.more}")
    if message.links:
        lines += ["", *(f"{link.title}: {link.url}" for link in message.links)]
    return "\n".join(lines)


def inert(text: str) -> str:
    """Foreign text in which no chat service finds a mention, a tag or a link: ``@all`` becomes ``＠all``."""
    return text.translate(_WIDE).replace("://", ": //")


def _facts(data: Mapping[str, Any]) -> list[Fact]:
    resolved = data["phase"] == AlertPhase.RESOLVED.value
    facts = [
        Fact("Model", f"{data['model']} in registry {data['registry']}"),
        Fact("Version", f"{data['version']}, ref {data['ref']}"),
        Fact("Was firing since" if resolved else "Firing since", data["started_at"]),
    ]
    baseline = data["baseline"]
    if baseline:
        about = [baseline["relation"], baseline["chosen_by"] and f"chosen as {baseline['chosen_by']}"]
        told = ", ".join(part for part in about if part)
        facts.append(Fact("Baseline", f"{baseline['version']} ({told})" if told else baseline["version"]))
    elif not resolved:
        facts.append(Fact("Baseline", "none"))
    causes = _causes([finding["rule"] for finding in data["findings"]])
    if causes:
        facts.append(Fact("Likely cause", causes))
    undecided = data["undecided_layers"]
    if undecided:
        layers = "1 layer, which" if undecided == 1 else f"{undecided} layers, which"
        facts.append(Fact("Not examined", f"{layers} may be broken too"))
    return facts


def _causes(rules: Sequence[str]) -> str:
    causes = list(dict.fromkeys(cause for rule in rules if (cause := _CAUSES.get(rule))))
    return plain(" ".join(causes[:_MOST_CAUSES]), _CAUSE_LIMIT) if causes else ""


def _found(finding: Mapping[str, Any]) -> FoundLine:
    where = "the whole version" if finding["layer"] is None else finding["layer"]
    numbers = [f"{name} {_number(value)}" for name, value in finding["evidence"].items() if value is not None]
    return FoundLine(
        text=f"{where} ({finding['severity']}, {finding['rule']}): {finding['message']}",
        numbers=plain(", ".join(numbers[:_MOST_NUMBERS]), _NUMBERS_LIMIT) if numbers else "",
    )


def _number(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
