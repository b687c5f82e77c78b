"""What an alert tells, as JSON-ready values: kept with its state, and put into the events that tell it.

Names of models, refs, versions and layers are foreign text: they are one printable line of bounded length here,
but not escaped for HTML, Markdown or a chat service; whoever shows them must do that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from string import hexdigits
from typing import Any
from urllib.parse import quote, urlencode

from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import AlertPhase, AlertState, Transition, TransitionReason
from layerwatch.alerts.text import plain
from layerwatch.metrics.findings import EvidenceValue, Finding, RuleGroup, Severity, Verdict

MOST_FINDINGS = 20
MOST_LAYERS = 20
MOST_DIAGNOSES = 3

_NAME_LIMIT = 200
_MESSAGE_LIMIT = 400
_RULE_LIMIT = 64
_EVIDENCE_LIMIT = 16
_EVIDENCE_TEXT_LIMIT = 100
_LINK_LIMIT = 2000
_DIGITS = 12
_LAYERS_IN_A_SENTENCE = 3


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong with a layer, or the version (layer None), in the words of the report."""

    layer: str | None
    title: str
    likely_cause: str
    what_to_do: str


@dataclass(frozen=True, slots=True)
class AlertContext:
    """What is told of an alert besides its transition.

    Attributes:
        baseline_version: version it was judged against; None without a baseline.
        baseline_relation: how the version descends from the baseline (finetuned, quantized, ...); None if unknown.
        baseline_chosen_by: why this baseline (parent, accepted, history); None without one.
        broken_parent: version that it descends from or was judged against and that is broken itself, with the worst
            layer of that one where it names one; None when it is healthy or there is none.
        diagnoses: worst first.
        numbers: layer -> its numbers in words (`layerwatch.alerts.evidence`).
        undecided_layers: number of layers that had to be examined and could not be.
        external_url: where people reach the daemon's pages, for links; None when not configured.
        last_good: nearest version before it that passed; None where none is known.
        broken_version: of an alert that ends, the version that it was about last.
        milder: severities that it had before in this episode.
    """

    baseline_version: str | None = None
    baseline_relation: str | None = None
    baseline_chosen_by: str | None = None
    broken_parent: tuple[str, str | None] | None = None
    diagnoses: Sequence[Diagnosis] = ()
    numbers: Mapping[str, str] = field(default_factory=dict)
    undecided_layers: int = 0
    external_url: str | None = None
    last_good: str | None = None
    broken_version: str | None = None
    milder: tuple[Severity, ...] = ()


def describe(transition: Transition, context: AlertContext) -> dict[str, Any]:
    """One alert after a transition. A pure function of its input. Findings come worst first, at most 20.

    Numbers that are not finite are null.
    """
    shown = transition.findings[:MOST_FINDINGS]
    state = transition.state
    identity = state.identity
    return {
        "alert_id": alert_id(identity, state.episode),
        "transition": transition.event_id,
        "sequence": state.sequence,
        "episode": state.episode,
        "reason": transition.reason.value,
        "phase": state.phase.value,
        "registry": name(identity.registry),
        "model": name(identity.model),
        "ref": name(identity.ref),
        "group": identity.group.value,
        "version": name(state.version),
        "fingerprint": name(state.fingerprint),
        "verdict": transition.verdict.value if transition.verdict else None,
        "severity": state.severity.value,
        "milder": [severity.value for severity in context.milder],
        "started_at": iso(state.started_at),
        "changed_at": iso(state.changed_at),
        "headline": _headline(transition),
        "layers": [name(layer) for layer in state.layers[:MOST_LAYERS] if layer],
        "findings": [_finding(finding, context.numbers) for finding in shown],
        "findings_omitted": len(transition.findings) - len(shown),
        "diagnoses": [_diagnosis(one) for one in context.diagnoses[:MOST_DIAGNOSES]],
        "baseline": _baseline(context),
        "broken_parent": _parent(context),
        "last_good": None if context.last_good is None else name(context.last_good),
        "broken_version": None if context.broken_version is None else name(context.broken_version),
        "undecided_layers": context.undecided_layers,
        "links": _links(transition, context.external_url),
    }


def undecided(told: Mapping[str, Any], state: AlertState, layers: frozenset[str]) -> dict[str, Any]:
    """What was told of an alert that fires, now that its ref points at a version in which it cannot be looked for.

    Args:
        layers: that could not be examined in it; the empty name stands for the version as a whole.
    """
    unread = {name(layer) for layer in layers}
    about = ", ".join([layer for layer in told["layers"] if layer in unread][:_LAYERS_IN_A_SENTENCE])
    broken_in = told.get("broken_in") or told["version"]
    links = told["links"]
    return {
        **told,
        "broken_in": broken_in,
        "links": links and {**links, "picture": None, "runbook": None},
        "version": name(state.version),
        "fingerprint": name(state.fingerprint),
        "verdict": Verdict.UNDECIDED.value,
        "headline": f"undecided now, {about or 'the version'} could not be examined; "
        f"broken before in {broken_in}",
        "findings": [],
        "findings_omitted": 0,
        "diagnoses": [],
        "undecided_layers": len(layers),
    }


def name(text: str) -> str:
    """Foreign text as a name: one printable line of at most 200 characters."""
    return plain(text, _NAME_LIMIT)


def iso(moment: datetime) -> str:
    """A time in UTC, as in ``2026-03-01T12:00:00Z``."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _headline(transition: Transition) -> str:
    """What happened, without saying to which version."""
    state = transition.state
    group = state.identity.group
    if state.phase is AlertPhase.RESOLVED:
        if transition.reason is TransitionReason.VERSION_PASSED and group is RuleGroup.EXAMINATION:
            return "resolved, all of it could be examined"
        return _ENDS[transition.reason].format(group=group.value)
    worst = transition.findings[0]
    message = plain(worst.message, _MESSAGE_LIMIT)
    if worst.layer is not None:
        message = f"layer {name(worst.layer)}{_state_of_weights(worst)}: {message}"
    return f"{message}{_others(transition.findings)}"


_ENDS: Mapping[TransitionReason, str] = {
    TransitionReason.VERSION_PASSED: "resolved, no finding about {group} left",
    TransitionReason.MOVED_BACK: "resolved because the ref moved back to this version",
    TransitionReason.VERSION_ACCEPTED: "resolved because the version was accepted as it is",
    TransitionReason.REF_GONE: "resolved because the ref or the model is gone",
    TransitionReason.DELIVERED: "resolved, events are delivered again",
}


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


def _finding(finding: Finding, numbers: Mapping[str, str]) -> dict[str, Any]:
    evidence = list(finding.evidence.items())[:_EVIDENCE_LIMIT]
    words = numbers.get(finding.layer, "") if finding.layer is not None else ""
    return {
        "rule": plain(finding.rule, _RULE_LIMIT),
        "severity": finding.severity.value,
        "layer": None if finding.layer is None else name(finding.layer),
        "message": plain(finding.message, _MESSAGE_LIMIT),
        "numbers": plain(words, _MESSAGE_LIMIT) if words else None,
        "evidence": {plain(key, _RULE_LIMIT): _evidence_value(value) for key, value in evidence},
    }


def _evidence_value(value: EvidenceValue) -> EvidenceValue:
    if isinstance(value, str):
        return plain(value, _EVIDENCE_TEXT_LIMIT)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _diagnosis(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "layer": None if diagnosis.layer is None else name(diagnosis.layer),
        "title": plain(diagnosis.title, _NAME_LIMIT),
        "likely_cause": plain(diagnosis.likely_cause, _MESSAGE_LIMIT),
        "what_to_do": plain(diagnosis.what_to_do, _MESSAGE_LIMIT),
    }


def _baseline(context: AlertContext) -> dict[str, str | None] | None:
    if context.baseline_version is None:
        return None
    return {
        "version": name(context.baseline_version),
        "relation": None if context.baseline_relation is None else name(context.baseline_relation),
        "chosen_by": None if context.baseline_chosen_by is None else name(context.baseline_chosen_by),
    }


def _parent(context: AlertContext) -> dict[str, str | None] | None:
    if context.broken_parent is None:
        return None
    version, layer = context.broken_parent
    return {"version": name(version), "layer": None if layer is None else name(layer)}


def _links(transition: Transition, external_url: str | None) -> dict[str, str | None] | None:
    """Pages of the daemon about this alert; names go into the query, where a slash in them does no harm."""
    if external_url is None:
        return None
    base = external_url.rstrip("/")
    state: AlertState = transition.state
    identity = state.identity
    if identity.group is RuleGroup.DELIVERY:
        return {"report": f"{base}/api/v1/deliveries?status=dead", "runbook": None, "picture": None}
    model = {"registry": name(identity.registry), "model": name(identity.model)}
    worst = transition.findings[0] if transition.findings else None
    links = {
        "report": f"{base}/report?{urlencode({**model, 'ref': name(identity.ref)})}",
        "runbook": f"{base}/explain/{quote(plain(worst.rule, _RULE_LIMIT), safe='')}" if worst else None,
        "picture": None,
    }
    if worst is not None and worst.layer is not None:
        bytes_ = {"fingerprint": short} if (short := _short_digest(state.fingerprint)) else {}
        of_layer = urlencode({**model, "version": name(state.version), "layer": name(worst.layer), **bytes_})
        links["picture"] = f"{base}/spectrum.png?{of_layer}"
    return {kind: link if link and len(link) <= _LINK_LIMIT else None for kind, link in links.items()}


def _short_digest(fingerprint: str) -> str | None:
    """What tells the bytes of a version from others under its name; None where the fingerprint is no digest."""
    digits = fingerprint[:_DIGITS]
    return digits if len(digits) == _DIGITS and set(digits) <= set(hexdigits) else None
