"""What people read of an event, in parts: each receiver puts the parts into its own form and escapes them.

Every part may hold names that strangers chose. They are printable single lines of bounded length, as in the event
they come from, and must be escaped for the form they are put into, or passed through `inert`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from layerwatch.alerts.event import by_version, where_of
from layerwatch.alerts.model import AlertPhase
from layerwatch.alerts.text import plain
from layerwatch.metrics.findings import RuleGroup, Severity, Verdict
from layerwatch.metrics.rules import RULES

_CAUSES: Mapping[str, str] = {rule.name: rule.likely_cause for rule in RULES}
_MOST_CAUSES = 2
_MOST_SHOWN = 10
"""Findings that people read at 3 a.m.; the report has all."""

_CAUSE_LIMIT = 300
_MOST_NAMES = 5
_NAME_LIMIT = 100
_MOST_NUMBERS = 6
_NUMBERS_LIMIT = 300
_LINK_TITLES = {"report": "Report", "picture": "Spectrum", "runbook": "What the rule means"}

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
        numbers: the layer's numbers in words, else the finding's evidence as ``name value`` pairs; empty without any.
    """

    text: str
    numbers: str


@dataclass(frozen=True, slots=True)
class Link:
    """A page about the alert. Made of the configured address and percent-encoded names."""

    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Section:
    """What is told of one version.

    Attributes:
        title: model, version and refs.
        facts: since when, against which baseline, likely cause, what to do, what was not examined.
        findings: worst first.
        omitted: findings that are not in ``findings``.
        links: none when the daemon's external address is not configured.
    """

    title: str
    facts: tuple[Fact, ...]
    findings: tuple[FoundLine, ...]
    omitted: int
    links: tuple[Link, ...]

    @property
    def more(self) -> str | None:
        """A line about the findings left out; None when all are shown."""
        return f"{_count(self.omitted, 'more finding')} not shown here" if self.omitted else None


@dataclass(frozen=True, slots=True)
class Message:
    """An event as people read it.

    Attributes:
        phase: firing while anything in it fires, else resolved.
        severity: the worst of what fires, else of what ended.
        subject: model, version and refs; how many more.
        summary: one sentence: what broke or ended, worst first.
        sections: one for each version, worst first; at least one.
        omitted: what the message leaves out beside findings, one line each.
    """

    phase: AlertPhase
    severity: Severity
    subject: str
    summary: str
    sections: tuple[Section, ...]
    omitted: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """One word for what to feel: ``CRITICAL``, ``WARNING``, ``INFO`` or ``RESOLVED``."""
        return "RESOLVED" if self.phase is AlertPhase.RESOLVED else self.severity.value.upper()

    @property
    def links(self) -> tuple[Link, ...]:
        """Links of the worst version."""
        return self.sections[0].links


def message_of(payload: str) -> Message:
    """The message in an event's stored JSON (`layerwatch.alerts.event`).

    Raises:
        KeyError, ValueError: for a payload that is not one of ours.
    """
    data: dict[str, Any] = json.loads(payload)["data"]
    omitted = []
    if data["alerts_omitted"]:
        omitted.append(f"{_count(data['alerts_omitted'], 'more alert')} not shown here")
    if data["muted"]:
        count = _count(data["muted"], "more alert")
        verb = "fires and is" if data["muted"] == 1 else "fire and are"
        omitted.append(f"{count} {verb} not told now: silenced, muted, or explained by another one")
    return Message(
        phase=AlertPhase(data["phase"]),
        severity=Severity(data["severity"]),
        subject=data["subject"],
        summary=data["summary"],
        sections=tuple(_section(alerts) for alerts in by_version(data["alerts"])),
        omitted=tuple(omitted),
    )


def fitted(message: Message, render: Callable[[Message], str], fits: Callable[[str], bool]) -> str:
    """``render(message)`` with as much as ``fits`` allows.

    Findings go first, from the last section and the least bad on, then whole sections; what is left out is counted.
    """
    text = render(message)
    while not fits(text):
        shorter = _shortened(message)
        if shorter is None:
            break
        message = shorter
        text = render(message)
    return text


def as_text(message: Message) -> str:
    """Everything but label and subject as plain lines; names in it are `inert`, links work."""
    lines = [inert(message.summary)]
    for section in message.sections:
        lines.append("")
        if len(message.sections) > 1:
            lines.append(f"{inert(section.title)}:")
        lines += [f"{fact.name}: {inert(fact.text)}" for fact in section.facts]
        if section.findings:
            lines += ["", "Findings, worst first:"]
        for finding in section.findings:
            lines.append(f"- {inert(finding.text)}")
            if finding.numbers:
                lines.append(f"  {inert(finding.numbers)}")
        if section.more:
            lines.append(f"- {section.more}")
        if section.links:
            lines += ["", *(f"{link.title}: {link.url}" for link in section.links)]
    if message.omitted:
        lines += ["", *message.omitted]
    return "\n".join(lines)


def inert(text: str) -> str:
    """Foreign text in which no chat service finds a mention, a tag or a link: ``@all`` becomes ``＠all``."""
    return text.translate(_WIDE).replace("://", ": //")


def _shortened(message: Message) -> Message | None:
    """The message with a little less; None when nothing more can be left out."""
    sections = list(message.sections)
    for place in reversed(range(len(sections))):
        section = sections[place]
        if section.findings:
            sections[place] = replace(section, findings=section.findings[:-1], omitted=section.omitted + 1)
            return replace(message, sections=tuple(sections))
    if len(sections) == 1:
        return None
    left_out = f"{inert(sections[-1].title)}: not shown here"
    return replace(message, sections=tuple(sections[:-1]), omitted=(*message.omitted, left_out))


def _section(alerts: Sequence[Mapping[str, Any]]) -> Section:
    """One version; its refs share their findings, which are told once."""
    found: dict[tuple[str | None, FoundLine], None] = {}
    omitted = 0
    for group in dict.fromkeys(alert["group"] for alert in alerts):
        same = [alert for alert in alerts if alert["group"] == group]
        found.update(
            {(one["layer"], _found(one, group)): None for alert in same for one in alert["findings"]}
        )
        omitted += max(alert["findings_omitted"] for alert in same)
    ended = alerts[0]["phase"] != AlertPhase.FIRING.value
    return Section(
        title=where_of(alerts) + (", resolved" if ended else ""),
        facts=tuple(_facts(alerts, ended)),
        findings=tuple(_numbers_once(list(found)[:_MOST_SHOWN])),
        omitted=omitted + max(0, len(found) - _MOST_SHOWN),
        links=tuple(
            Link(title, url)
            for key, title in _LINK_TITLES.items()
            if (url := (alerts[0]["links"] or {}).get(key))
        ),
    )


def _numbers_once(found: Iterable[tuple[str | None, FoundLine]]) -> Iterator[FoundLine]:
    """The lines; of those of one layer with the same numbers, only the first has them."""
    told = set()
    for layer, line in found:
        yield replace(line, numbers="") if (layer, line.numbers) in told else line
        told.add((layer, line.numbers))


def _facts(alerts: Sequence[Mapping[str, Any]], ended: bool) -> list[Fact]:
    first = alerts[0]
    began = _moment(min(one["started_at"] for one in alerts))
    over = _moment(max(one["changed_at"] for one in alerts))
    since = Fact("Was firing", f"{began} to {over}") if ended else Fact("Firing since", began)
    why = dict.fromkeys(one["headline"].removeprefix("resolved").lstrip(", ") for one in alerts)
    if first["group"] == RuleGroup.DELIVERY.value:
        more = [Fact("Resolved", "; ".join(why))] if ended else _explained(first["diagnoses"], ())
        return [Fact("Receiver", first["model"]), since, *more]
    refs = sorted({one["ref"] for one in alerts})
    shown = ", ".join(refs[:_MOST_NAMES]) + (", ..." if len(refs) > _MOST_NAMES else "")
    facts = [
        Fact("Model", f"{first['model']} in registry {first['registry']}"),
        Fact("Version", f"{first['version']}, {'ref' if len(refs) == 1 else 'refs'} {shown}"),
        since,
    ]
    if ended:
        layers = list(dict.fromkeys(layer for one in alerts for layer in one["layers"]))
        named = [first["broken_version"], ", ".join(layers[:_MOST_NAMES])]
        was = ": ".join(part for part in named if part)
        about = [Fact("Was about", was)] if was else []
        return [*facts, *about, Fact("Resolved", "; ".join(why))]
    taken = sorted({plain(by, _NAME_LIMIT) for one in alerts if (by := one.get("acknowledged_by"))})
    if taken:
        facts.append(Fact("Taken care of by", ", ".join(taken)))
    if first["verdict"] != Verdict.UNDECIDED.value or first["findings"]:
        facts.append(Fact("Baseline", _baseline(first["baseline"])))
    if first["last_good"] is not None:
        facts.append(Fact("Last good version", first["last_good"]))
    if parent := first["broken_parent"]:
        layer = f" (layer {parent['layer']})" if parent["layer"] else ""
        facts.append(Fact("Parent", f"{parent['version']} is broken itself{layer}: look there first"))
    facts += _explained(first["diagnoses"], [one["rule"] for alert in alerts for one in alert["findings"]])
    undecided = max(one["undecided_layers"] for one in alerts)
    if undecided:
        told = "1 layer, which" if undecided == 1 else f"{undecided} layers, which"
        facts.append(Fact("Not examined", f"{told} may be broken too"))
    return facts


def _baseline(baseline: Mapping[str, Any] | None) -> str:
    if baseline is None:
        return "none"
    about = [baseline["chosen_by"], baseline["relation"]]
    told = ", ".join(part for part in about if part)
    return f"{baseline['version']} ({told})" if told else str(baseline["version"])


def _explained(diagnoses: Sequence[Mapping[str, Any]], rules: Sequence[str]) -> list[Fact]:
    """Likely cause and next step: of the worst diagnoses that differ in them, else of the rules."""
    if diagnoses:
        layers = {(one["likely_cause"], one["what_to_do"]): one["layer"] for one in reversed(diagnoses)}
        told = [*reversed(layers.items())][:_MOST_CAUSES]
        facts = []
        for (cause, step), layer in told:
            about = f"{layer or 'the whole version'}: " if len(told) > 1 else ""
            facts += [Fact("Likely cause", about + cause), Fact("What to do", about + step)]
        return facts
    causes = list(dict.fromkeys(cause for rule in rules if (cause := _CAUSES.get(rule))))
    text = plain(" ".join(causes[:_MOST_CAUSES]), _CAUSE_LIMIT) if causes else ""
    return [Fact("Likely cause", text)] if text else []


def _found(finding: Mapping[str, Any], group: str) -> FoundLine:
    where = finding["layer"] or ("the receiver" if group == RuleGroup.DELIVERY.value else "the whole version")
    # Text in the evidence is for machines: the sentence has it in words.
    numbers = [
        f"{key} {_number(value)}"
        for key, value in finding["evidence"].items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    pairs = plain(", ".join(numbers[:_MOST_NUMBERS]), _NUMBERS_LIMIT) if numbers else ""
    return FoundLine(
        text=f"{where} ({finding['severity']}, {finding['rule']}): {finding['message']}",
        numbers=finding["numbers"] or pairs,
    )


def _moment(written: str) -> str:
    return written.split(".")[0].rstrip("Z").replace("T", " ") + " UTC"


def _number(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
