"""The body of an event: complete, bounded, and safe whatever the names in it are."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alertvalues import NOW, TWELVE_HOURS, finding, firing, resolved, seen
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import AlertIdentity, AlertState, Observation, Transition
from layerwatch.alerts.payload import MOST_BYTES, EventContext, build_event, encode_event
from layerwatch.metrics.findings import Finding, RuleGroup, Severity


def test_a_firing_event_reads_as_documented() -> None:
    transition = firing(finding("fc2"), finding("fc1", Severity.WARNING))
    context = EventContext(
        "v4", "finetuned", "parent", undecided_layers=1, external_url="https://lw.example/"
    )

    event = build_event(transition, context)

    assert event == {
        "type": "layerwatch.alert.firing",
        "timestamp": "2026-03-01T12:00:00Z",
        "data": {
            "event_id": transition.event_id,
            "alert_id": event["data"]["alert_id"],
            "sequence": 1,
            "episode": 1,
            "reason": "first",
            "phase": "firing",
            "registry": "local",
            "model": "digits-mlp",
            "ref": "latest",
            "group": "weights",
            "version": "v5",
            "fingerprint": "sha256:v5",
            "verdict": "fail",
            "severity": "critical",
            "started_at": "2026-03-01T12:00:00Z",
            "summary": "digits-mlp v5 (latest, against v4): layer fc2 is broken: relative change 0.92 (limit 0.35); "
            "1 more layer",
            "findings": [
                {
                    "rule": "relative_change",
                    "severity": severity,
                    "layer": layer,
                    "message": "relative change 0.92 (limit 0.35)",
                    "evidence": {"relative_change": 0.92, "limit": 0.35},
                }
                for layer, severity in (("fc2", "critical"), ("fc1", "warning"))
            ],
            "findings_omitted": 0,
            "baseline": {"version": "v4", "relation": "finetuned", "chosen_by": "parent"},
            "undecided_layers": 1,
            "links": {
                "report": "https://lw.example/report?registry=local&model=digits-mlp&ref=latest",
                "runbook": "https://lw.example/explain/relative_change",
            },
        },
    }


def test_what_is_not_known_is_null() -> None:
    data = build_event(resolved(version=None), EventContext())["data"]

    assert (data["baseline"], data["links"], data["verdict"]) == (None, None, None)


def test_a_resolution_pairs_with_its_firing_and_shows_no_findings() -> None:
    fired, ended = build_event(firing(), EventContext()), build_event(resolved(), EventContext())

    assert ended["type"] == "layerwatch.alert.resolved"
    assert ended["data"]["alert_id"] == fired["data"]["alert_id"]
    assert ended["data"]["event_id"] != fired["data"]["event_id"]
    assert ended["data"]["findings"] == []
    assert ended["timestamp"] == "2026-03-01T13:00:00Z"
    assert ended["data"]["started_at"] == "2026-03-01T12:00:00Z"


def summary_after(*looks: Observation, pause: timedelta = timedelta(hours=13)) -> str:
    state: AlertState | None = None
    told: tuple[Transition, ...] = ()
    for number, look in enumerate(looks):
        state, told = advance(state, look, NOW + number * pause, TWELVE_HOURS)
    return str(build_event(told[0], EventContext())["data"]["summary"])


@pytest.mark.parametrize(
    ("looks", "summary"),
    [
        (
            [seen(finding("a", Severity.WARNING, message="it moved"))],
            "digits-mlp v5 (latest): layer a is suspect: it moved",
        ),
        ([seen(finding(None, message="is smaller than v4"))], "digits-mlp v5 (latest): is smaller than v4"),
        (
            [seen(finding("a", message="it broke"), finding("b"), finding("c"))],
            "digits-mlp v5 (latest): layer a is broken: it broke; 2 more layers",
        ),
        (
            [seen(finding("a", message="it broke"), finding("a"))],
            "digits-mlp v5 (latest): layer a is broken: it broke; 1 more finding",
        ),
        (
            [seen(finding("a", message="it broke"))] * 2,
            "digits-mlp v5 (latest): still firing since 2026-03-01T12:00:00Z: layer a is broken: it broke",
        ),
        (
            [seen(finding("a")), seen(undecided_layers=frozenset({"a"}), version="v6")],
            "digits-mlp v6 (latest): firing since 2026-03-01T12:00:00Z and undecided now: a could not be examined",
        ),
        (
            [seen(finding("a")), seen(version="v6")],
            "digits-mlp v6 (latest): resolved, no finding about weights left; was firing since 2026-03-01T12:00:00Z",
        ),
        (
            [seen(finding("a")), seen(version=None)],
            "digits-mlp (latest): resolved because the ref or the model is gone; was firing since 2026-03-01T12:00:00Z",
        ),
    ],
)
def test_the_summary_is_one_sentence_for_people(looks: list[Observation], summary: str) -> None:
    assert summary_after(*looks) == summary


def test_a_layer_that_could_not_be_examined_is_not_called_broken() -> None:
    unread = Finding(
        "unreadable", RuleGroup.EXAMINATION, Severity.CRITICAL, "fc2", "could not be examined: cut off"
    )

    summary = build_event(firing(unread), EventContext())["data"]["summary"]
    assert summary == "digits-mlp v5 (latest): layer fc2: could not be examined: cut off"


def test_at_most_twenty_findings_are_shown_and_the_rest_counted() -> None:
    event = build_event(firing(*(finding(f"layer{number}") for number in range(50))), EventContext())

    assert [each["layer"] for each in event["data"]["findings"]] == [f"layer{number}" for number in range(20)]
    assert event["data"]["findings_omitted"] == 30
    assert event["data"]["summary"].endswith("; 49 more layers")


def test_control_characters_in_names_do_not_reach_the_receiver() -> None:
    identity = AlertIdentity("local", "model\r\nX-Injected: 1", "la\u202etest", RuleGroup.WEIGHTS)
    body = encode_event(build_event(firing(finding("fc\x1b[2J2"), identity=identity), EventContext()))

    assert not {"\r", "\n", "\x1b", "\u202e"} & set(json.dumps(json.loads(body), ensure_ascii=False))
    assert json.loads(body)["data"]["model"] == "model X-Injected: 1"


def test_numbers_that_are_not_finite_become_null() -> None:
    evidence = {"alpha": float("nan"), "ratio": float("inf"), "limit": 2.0}
    event = build_event(firing(finding(evidence=evidence)), EventContext())

    assert event["data"]["findings"][0]["evidence"] == {"alpha": None, "ratio": None, "limit": 2.0}


def test_a_body_with_nan_is_refused_rather_than_sent() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        encode_event({"value": float("nan")})


hostile = st.one_of(st.text(max_size=50), st.sampled_from(["\U0001f4a3" * 2000, '"\\' * 2000, "\x00" * 2000]))


@settings(deadline=None)
@given(
    names=st.tuples(hostile, hostile, hostile, hostile),
    layers=st.lists(hostile, min_size=1, max_size=40),
    message=hostile,
    values=st.dictionaries(hostile, st.one_of(st.floats(), hostile, st.none(), st.booleans()), max_size=30),
)
def test_the_body_stays_below_its_limit_whatever_the_names_are(
    names: tuple[str, str, str, str], layers: list[str], message: str, values: dict[str, float | str | None]
) -> None:
    identity = AlertIdentity(names[0], names[1], names[2], RuleGroup.WEIGHTS)
    found = [finding(layer, message=message, evidence=values) for layer in layers]
    transition = firing(*found, identity=identity, version=names[3])
    context = EventContext(names[3], names[0], names[1], external_url="https://lw.example")

    body = encode_event(build_event(transition, context))

    assert len(body.encode("utf-8")) < MOST_BYTES
    data = json.loads(body)["data"]
    assert len(data["findings"]) + data["findings_omitted"] == len(layers)


def test_the_same_transition_gives_the_same_bytes() -> None:
    assert encode_event(build_event(firing(), EventContext())) == encode_event(
        build_event(firing(), EventContext())
    )
