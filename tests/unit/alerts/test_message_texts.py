"""What people read of typical events, as a whole: the files in tests/_data/messages.

Each holds a sentence about the event, the text as mail and the like get it, what Slack and Teams show, PagerDuty's
summary, and the line of the log. ``LAYERWATCH_UPDATE_GOLDEN=1 pytest tests/unit/alerts/test_message_texts.py`` rewrites
them; read what changed as the person who is woken by it.
"""

from __future__ import annotations

import html
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from alertvalues import NOW
from layerwatch.alerts.event import Notification, build_event, encode_event
from layerwatch.alerts.evidence import in_words
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.message import as_text, inert, message_of
from layerwatch.alerts.model import AlertIdentity, Observation, Transition, TransitionReason
from layerwatch.alerts.outbox import OutboxEntry
from layerwatch.alerts.payload import AlertContext, Diagnosis, describe, undecided
from layerwatch.alerts.receivers.log import LogReceiver
from layerwatch.alerts.receivers.pagerduty import encode_for_pagerduty
from layerwatch.alerts.receivers.slack import encode_for_slack
from layerwatch.alerts.receivers.teams import encode_for_teams
from layerwatch.metrics.diagnosis import diagnoses
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict

FOLDER = Path(__file__).parents[2] / "_data" / "messages"
UPDATE = os.environ.get("LAYERWATCH_UPDATE_GOLDEN") == "1"

ADDRESS = "https://layerwatch.example"
WEIGHTS, EXAMINATION = RuleGroup.WEIGHTS, RuleGroup.EXAMINATION
CRITICAL, WARNING = Severity.CRITICAL, Severity.WARNING


# Findings as the judge words them.


def scaled(layer: str, times: float = 10.0) -> list[Finding]:
    """A layer that became so many times larger."""
    return [
        Finding(
            "scaled",
            WEIGHTS,
            CRITICAL,
            layer,
            f"same direction as the baseline (cosine 1.000) but {times:g} times larger: a wrong scale",
            {"norm_ratio": times, "median_norm_ratio": 1.0, "cosine": 0.9998, "limit_log10": 0.45},
        ),
        Finding(
            "huge_value",
            WEIGHTS,
            CRITICAL,
            layer,
            f"the largest weight is {times:g} times the baseline's (limit 8)",
            {"max_abs": 4.2, "ratio": times, "limit": 8.0},
        ),
        Finding(
            "relative_change",
            WEIGHTS,
            CRITICAL,
            layer,
            f"relative change {times - 1:g} from the baseline; the model's median is 0.0199, the limit 0.35",
            {"relative_change": times - 1, "median": 0.0199, "limit": 0.35},
        ),
    ]


def replaced(layer: str, severity: Severity = CRITICAL) -> Finding:
    return Finding(
        "replaced",
        WEIGHTS,
        severity,
        layer,
        "nothing in common with the baseline (cosine 0.01; the model's median is 0.97): replaced or re-initialised",
        {"cosine": 0.01, "median_cosine": 0.97, "limit": 0.3},
    )


def unread(layer: str | None) -> Finding:
    what = "model.safetensors: truncated: the tensors take 89640 bytes, but only 88640 follow the header"
    if layer is not None:
        what = f"model.safetensors: tensor '{layer}.weight': quantised_without_scale: there is no {layer}.weight_scale"
    return Finding(
        "unreadable", EXAMINATION, WARNING, layer, f"could not be examined: {what}", {"reason": "truncated"}
    )


BROKEN_NUMBERS = in_words(
    {
        "metrics": {"alpha": 22.6},
        "change": {
            "alpha_baseline": 5.3,
            "alpha_shift_sigmas": 24.2,
            "spectral_ratio": 0.124,
            "norm_ratio": 0.48,
            "relative_change": 1.41,
            "cosine": 0.01,
        },
    }
)
SCALED_NUMBERS = in_words(
    {
        "metrics": {"alpha": 3.12},
        "change": {
            "alpha_baseline": 3.12,
            "alpha_shift_sigmas": 0.0,
            "spectral_ratio": 10.0,
            "norm_ratio": 10.0,
            "max_abs_ratio": 10.0,
            "relative_change": 9.0,
            "cosine": 0.9998,
        },
    }
)


@dataclass(frozen=True)
class Told:
    """An alert of an event: its last transition, and what is told of it."""

    transition: Transition
    described: dict[str, Any]


def fired(
    *findings: Finding,
    model: str = "fraud-detector",
    ref: str = "production",
    version: str = "v42",
    group: RuleGroup = WEIGHTS,
    numbers: str = BROKEN_NUMBERS,
    hours: float = 0,
    acknowledged_by: str | None = None,
    **context: Any,
) -> Told:
    """An alert that began so many hours after noon, with what the daemon knows of it."""
    identity = AlertIdentity("mlflow-prod", model, ref, group)
    observation = Observation(identity, version, f"sha256:{version}", Verdict.FAIL, findings)
    _, (transition,) = advance(None, observation, NOW + timedelta(hours=hours))
    known: dict[str, Any] = {
        "baseline_version": "v41",
        "baseline_relation": "finetuned",
        "baseline_chosen_by": "parent",
        "diagnoses": tuple(
            Diagnosis(one.layer, one.title, one.likely_cause, one.what_to_do) for one in diagnoses(findings)
        ),
        "numbers": {one.layer: numbers for one in findings if one.layer is not None},
        "external_url": ADDRESS,
        **context,
    }
    described = describe(transition, AlertContext(**known))
    return Told(transition, {**described, "acknowledged_by": acknowledged_by})


def over(before: Told, why: TransitionReason, version: str | None = "v43", hours: float = 3) -> Told:
    """How that alert ended so many hours after noon."""
    identity = before.transition.state.identity
    observation = Observation(
        identity,
        version,
        None if version is None else f"sha256:{version}",
        None if version is None else Verdict.PASS,
        (),
        ends_as=why,
    )
    _, (transition,) = advance(before.transition.state, observation, NOW + timedelta(hours=hours))
    described = describe(transition, AlertContext(external_url=ADDRESS))
    return Told(transition, {**described, "acknowledged_by": None})


def event(
    *told: Told, reason: TransitionReason | None = None, muted: int = 0, hours: float | None = None
) -> str:
    """The stored event that tells these alerts."""
    last = max(one.transition.state.changed_at for one in told)
    why = reason or told[0].transition.reason
    return encode_event(
        build_event(
            Notification(
                event_id="evt_0123456789abcdef0123456789abcdef",
                group_id="grp_0123456789abcdef0123456789abcdef",
                labels={"registry": ("mlflow-prod",)},
                sequence=1 if why is TransitionReason.FIRST else 2,
                reason=why,
                at=last + timedelta(seconds=30) if hours is None else NOW + timedelta(hours=hours),
                alerts=tuple(one.described for one in told),
                muted=muted,
                transitions=tuple(one.transition.event_id for one in told),
            )
        )
    )


# The events.


def one_layer() -> str:
    """One layer of a new version has a wrong scale."""
    return event(fired(*scaled("encoder.layers.3.mlp.fc2"), numbers=SCALED_NUMBERS))


def many_layers() -> str:
    """25 layers of a new version were re-initialised."""
    layers = [f"model.layers.{number}.self_attn.q_proj" for number in range(25)]
    return event(fired(*(replaced(layer) for layer in layers)))


def two_refs() -> str:
    """Two refs point at one broken version."""
    return event(
        fired(replaced("classifier"), ref="production"), fired(replaced("classifier"), ref="@champion")
    )


def two_models() -> str:
    """Two models of one team broke, and are told together."""
    return event(
        fired(*scaled("encoder.layers.3.mlp.fc2"), numbers=SCALED_NUMBERS),
        fired(replaced("head", WARNING), model="fraud-embedder", version="v7", baseline_version="v6"),
        muted=1,
    )


def weights_and_examination() -> str:
    """One layer is broken, and another could not be read."""
    return event(
        fired(replaced("classifier"), undecided_layers=1),
        fired(unread("encoder.layers.0.mlp.fc1"), group=EXAMINATION, numbers="", undecided_layers=1),
    )


def unread_version() -> str:
    """A version could not be read at all."""
    return event(fired(unread(None), group=EXAMINATION, baseline_relation=None), muted=1)


def broken_parent() -> str:
    """The version that it descends from is broken already."""
    return event(fired(replaced("classifier"), broken_parent=("v41", "classifier")))


def no_baseline() -> str:
    """A first version, which nothing can be compared with."""
    nan = Finding("non_finite", WEIGHTS, CRITICAL, "head", "3 of 4096 weights are NaN", {"nan": 3, "inf": 0})
    none: dict[str, Any] = {
        "baseline_version": None,
        "baseline_relation": None,
        "baseline_chosen_by": None,
    }
    return event(fired(nan, version="v1", numbers="", **none))


def worse() -> str:
    """A warning became critical, and another layer broke."""
    before = fired(replaced("head", WARNING), version="v41", hours=-5).transition
    look = Observation(
        before.state.identity,
        "v42",
        "sha256:v42",
        Verdict.FAIL,
        (replaced("classifier"), replaced("head", WARNING)),
    )
    _, (transition,) = advance(before.state, look, NOW)
    numbers = dict.fromkeys(("classifier", "head"), BROKEN_NUMBERS)
    context = AlertContext("v41", "finetuned", "parent", numbers=numbers, external_url=ADDRESS)
    return event(Told(transition, {**describe(transition, context), "acknowledged_by": None}))


def repeated() -> str:
    """Nothing changed for twelve hours; of one ref somebody takes care."""
    return event(
        fired(replaced("classifier"), ref="production"),
        fired(replaced("classifier"), ref="@champion", acknowledged_by="ann"),
        reason=TransitionReason.REPEAT_INTERVAL,
        hours=12,
    )


def passed() -> str:
    """The next version is healthy."""
    return event(over(fired(replaced("classifier")), TransitionReason.VERSION_PASSED))


def moved_back() -> str:
    """The ref was moved back to the version before."""
    return event(over(fired(replaced("classifier")), TransitionReason.MOVED_BACK, "v41"))


def accepted() -> str:
    """A person accepted the version as it is."""
    return event(over(fired(replaced("classifier")), TransitionReason.VERSION_ACCEPTED, "v42"))


def gone() -> str:
    """The ref was removed."""
    return event(over(fired(replaced("classifier")), TransitionReason.REF_GONE, None))


def one_over_and_one_not() -> str:
    """One model is healthy again while another breaks."""
    return event(
        fired(replaced("head"), model="fraud-embedder", version="v7", baseline_version="v6", hours=3),
        over(fired(replaced("classifier")), TransitionReason.VERSION_PASSED),
    )


def undelivered() -> str:
    """A receiver did not take events, so another one is told."""
    lost = Finding(
        "undelivered",
        RuleGroup.DELIVERY,
        CRITICAL,
        None,
        "3 events will not reach the receiver, given up since 2026-03-01 09:12 UTC "
        "(gone: https://hooks.example answered 410)",
        {"events": 3, "reason": "gone"},
    )
    step = "Mend the receiver or its settings, load the configuration again, then send them."
    identity = AlertIdentity("layerwatch", "team-chat", "deliveries", RuleGroup.DELIVERY)
    observation = Observation(identity, "team-chat", "deliveries", Verdict.FAIL, (lost,))
    _, (transition,) = advance(None, observation, NOW)
    context = AlertContext(
        diagnoses=(Diagnosis(None, "undelivered events", "The receiver refused them for good.", step),),
        external_url=ADDRESS,
    )
    return event(Told(transition, {**describe(transition, context), "acknowledged_by": None}))


def cannot_be_told() -> str:
    """What was broken cannot be examined in the next version."""
    before = fired(replaced("classifier"))
    state = replace(before.transition.state, version="v43", fingerprint="sha256:v43")
    described = {**undecided(before.described, state, frozenset({"classifier"})), "acknowledged_by": None}
    return event(Told(before.transition, described), reason=TransitionReason.REPEAT_INTERVAL, hours=12)


EVENTS: Sequence[Callable[[], str]] = (
    one_layer,
    many_layers,
    two_refs,
    two_models,
    weights_and_examination,
    unread_version,
    broken_parent,
    no_baseline,
    worse,
    repeated,
    passed,
    moved_back,
    accepted,
    gone,
    one_over_and_one_not,
    undelivered,
    cannot_be_told,
)


# What people see of them.


def mail(payload: str) -> str:
    message = message_of(payload)
    return f"{message.label}: {inert(message.subject)}\n\n{as_text(message)}"


def slack(payload: str) -> str:
    """Without the signs of formatting: a line for each line of a block."""
    shown = "\n".join(block["text"]["text"] for block in json.loads(encode_for_slack(payload))["blocks"])
    plain = re.sub(
        r"^(• )?\*([^*\n]+)\*", r"\1\2", re.sub(r"<(\S+)\|([^>]+)>", r"\2 (\1)", shown), flags=re.MULTILINE
    )
    return html.unescape(plain)


def teams(payload: str) -> str:
    """A line for each block, and one for each button."""
    card = json.loads(encode_for_teams(payload))["attachments"][0]["content"]
    lines = ["".join(run["text"] for run in block["inlines"]) for block in card["body"]]
    return "\n".join([*lines, *(f"[{action['title']}] {action['url']}" for action in card["actions"])])


def pagerduty(payload: str) -> str:
    told = json.loads(encode_for_pagerduty(payload, "0" * 32))
    return str(told["payload"]["summary"] if "payload" in told else told["event_action"])


def log(payload: str) -> str:
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.levelname} {record.getMessage()}")

    logger, handler = logging.getLogger(__name__), Kept()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    identifier = json.loads(payload)["data"]["event_id"]
    try:
        LogReceiver("log", logger).send(OutboxEntry(1, identifier, "log", payload, NOW, 0, NOW), NOW)
    finally:
        logger.removeHandler(handler)
    return "\n".join(lines)


FORMS: Sequence[Callable[[str], str]] = (mail, slack, teams, pagerduty, log)


def written(build: Callable[[], str]) -> Iterator[str]:
    """The lines of an event's file."""
    payload = build()
    yield str(build.__doc__)
    for form in FORMS:
        yield f"=== {form.__name__}"
        yield form(payload)


@pytest.mark.parametrize("build", EVENTS, ids=lambda build: build.__name__)
def test_an_event_reads_as_in_its_file(build: Callable[[], str]) -> None:
    file = FOLDER / f"{build.__name__}.txt"
    text = "\n".join(written(build)) + "\n"
    if UPDATE:
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


def test_every_file_is_of_an_event() -> None:
    assert {file.stem for file in FOLDER.glob("*.txt")} == {build.__name__ for build in EVENTS}
