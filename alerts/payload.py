"""The JSON body of an event, in the form of Standard Webhooks 1.0.0: ``type``, ``timestamp``, ``data``.

Names of models, refs, versions and layers are foreign text: they are one printable line of bounded length here,
but not escaped for HTML, Markdown or a chat service; whoever shows them must do that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import AlertPhase, AlertState, Transition, TransitionReason
from layerwatch.alerts.text import plain
from layerwatch.metrics.findings import EvidenceValue, Finding, RuleGroup, Severity

MOST_FINDINGS = 20
MOST_BYTES = 20_000
"""Upper limit of the encoded body: Standard Webhooks recommends less than 20 kB."""

_NAME_LIMIT = 200
_MESSAGE_LIMIT = 400
_RULE_LIMIT = 64
_EVIDENCE_LIMIT = 16
_EVIDENCE_TEXT_LIMIT = 100
_LINK_LIMIT = 2000


@dataclass(frozen=True, slots=True)
class EventContext:
    """What an event tells besides the transition itself.

    Attributes:
        baseline_version: version it was judged against; None without a baseline.
        baseline_relation: how the version descends from the baseline (finetuned, quantized, ...); None if unknown.
        baseline_chosen_by: why this baseline (parent, accepted, history); None without one.
        undecided_layers: number of layers that had to be examined and could not be.
        external_url: where people reach the daemon's pages, for links; None when not configured.
    """

    baseline_version: str | None = None
    baseline_relation: str | None = None
    baseline_chosen_by: str | None = None
    undecided_layers: int = 0
    external_url: str | None = None


def build_event(transition: Transition, context: EventContext) -> dict[str, Any]:
    """The event as JSON-ready values. A pure function of its input: every attempt sends the same body.

    ``data`` holds the full current state beside what happened, so that a receiver that sees events out of order
    can keep the one with the highest ``sequence`` and drop the others. Findings come worst first, at most 20,
    fewer when the body would reach 20,000 bytes; ``findings_omitted`` counts the rest. Numbers that are not
    finite are null.
    """
    event = _event(transition, context)
    data = event["data"]
    while data["findings"] and len(encode_event(event).encode("utf-8")) >= MOST_BYTES:
        data["findings"].pop()
        data["findings_omitted"] += 1
    return event


def encode_event(event: Mapping[str, Any]) -> str:
    """The exact text that is stored, signed and sent: compact JSON.

    Raises:
        ValueError: for NaN or infinity, which JSON does not have.
    """
    return json.dumps(event, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _event(transition: Transition, context: EventContext) -> dict[str, Any]:
    shown = transition.findings[:MOST_FINDINGS]
    state = transition.state
    identity = state.identity
    return {
        "type": f"layerwatch.alert.{state.phase.value}",
        "timestamp": _iso(state.notified_at),
        "data": {
            "event_id": transition.event_id,
            "alert_id": alert_id(identity, state.episode),
            "sequence": state.sequence,
            "episode": state.episode,
            "reason": transition.reason.value,
            "phase": state.phase.value,
            "registry": _name(identity.registry),
            "model": _name(identity.model),
            "ref": _name(identity.ref),
            "group": identity.group.value,
            "version": _name(state.version),
            "fingerprint": _name(state.fingerprint),
            "verdict": transition.verdict.value if transition.verdict else None,
            "severity": state.severity.value,
            "started_at": _iso(state.started_at),
            "summary": _summary(transition, context),
            "findings": [_finding(finding) for finding in shown],
            "findings_omitted": len(transition.findings) - len(shown),
            "baseline": _baseline(context),
            "undecided_layers": context.undecided_layers,
            "links": _links(transition, context.external_url),
        },
    }


def _summary(transition: Transition, context: EventContext) -> str:
    """One sentence for people."""
    state = transition.state
    since = _iso(state.started_at.replace(microsecond=0))
    model, version, ref = (_name(text) for text in (state.identity.model, state.version, state.identity.ref))
    if transition.reason is TransitionReason.REF_GONE:
        return f"{model} ({ref}): resolved because the ref or the model is gone; was firing since {since}"
    where = f"{model} {version} ({ref})"
    if transition.reason is TransitionReason.VERSION_ACCEPTED:
        return f"{where}: resolved because the version was accepted as it is; was firing since {since}"
    if state.phase is AlertPhase.RESOLVED:
        return (
            f"{where}: resolved, no finding about {state.identity.group.value} left; was firing since {since}"
        )
    still = transition.reason is TransitionReason.REPEAT_INTERVAL
    if not transition.findings:
        told = ", ".join(_name(layer) for layer in state.layers[:3] if layer) or "the version"
        return f"{where}: firing since {since} and undecided now: {told} could not be examined"
    worst = transition.findings[0]
    message = plain(worst.message, _MESSAGE_LIMIT)
    if worst.layer is not None:
        message = f"layer {_name(worst.layer)}{_state_of_weights(worst)}: {message}"
    still_firing = f"still firing since {since}: " if still else ""
    if context.baseline_version is not None:
        where = f"{model} {version} ({ref}, against {_name(context.baseline_version)})"
    return f"{where}: {still_firing}{message}{_others(transition.findings)}"


def _state_of_weights(finding: Finding) -> str:
    """What a finding makes of its layer, in the words of the report; empty when it is not about weights."""
    if finding.group is not RuleGroup.WEIGHTS:
        return ""
    return {Severity.CRITICAL: " is broken", Severity.WARNING: " is suspect", Severity.INFO: ""}[
        finding.severity
    ]


def _others(findings: Sequence[Finding]) -> str:
    """How many more layers, or else findings, there are behind the first finding; empty for none."""
    layers = {finding.layer for finding in findings} - {findings[0].layer, None}
    if layers:
        return f"; {len(layers)} more {'layer' if len(layers) == 1 else 'layers'}"
    more = len(findings) - 1
    return f"; {more} more {'finding' if more == 1 else 'findings'}" if more else ""


def _finding(finding: Finding) -> dict[str, Any]:
    evidence = list(finding.evidence.items())[:_EVIDENCE_LIMIT]
    return {
        "rule": plain(finding.rule, _RULE_LIMIT),
        "severity": finding.severity.value,
        "layer": None if finding.layer is None else _name(finding.layer),
        "message": plain(finding.message, _MESSAGE_LIMIT),
        "evidence": {plain(key, _RULE_LIMIT): _evidence_value(value) for key, value in evidence},
    }


def _evidence_value(value: EvidenceValue) -> EvidenceValue:
    if isinstance(value, str):
        return plain(value, _EVIDENCE_TEXT_LIMIT)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _baseline(context: EventContext) -> dict[str, str | None] | None:
    if context.baseline_version is None:
        return None
    return {
        "version": _name(context.baseline_version),
        "relation": None if context.baseline_relation is None else _name(context.baseline_relation),
        "chosen_by": None if context.baseline_chosen_by is None else _name(context.baseline_chosen_by),
    }


def _links(transition: Transition, external_url: str | None) -> dict[str, str | None] | None:
    """Pages of the daemon about this event; names go into the query, where a slash in them does no harm."""
    if external_url is None:
        return None
    base = external_url.rstrip("/")
    state: AlertState = transition.state
    query = urlencode(
        {
            "registry": _name(state.identity.registry),
            "model": _name(state.identity.model),
            "ref": _name(state.identity.ref),
        }
    )
    rule = transition.findings[0].rule if transition.findings else None
    runbook = None if rule is None else f"{base}/explain/{quote(plain(rule, _RULE_LIMIT), safe='')}"
    links = {"report": f"{base}/report?{query}", "runbook": runbook}
    return {name: link if link and len(link) <= _LINK_LIMIT else None for name, link in links.items()}


def _name(text: str) -> str:
    return plain(text, _NAME_LIMIT)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
