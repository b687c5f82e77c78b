"""The event that tells a group of alerts: one sentence for people, all the facts for machines, bounded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alertvalues import IDENTITY, NOW, event_of, finding, firing, resolved, seen
from layerwatch.alerts.event import (
    MOST_BYTES,
    MOST_TRANSITIONS,
    Notification,
    build_event,
    by_version,
    encode_event,
    summary_of,
    where_of,
)
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import AlertIdentity, Transition, TransitionReason
from layerwatch.alerts.payload import AlertContext, describe, undecided
from layerwatch.metrics.findings import Finding, RuleGroup, Severity

UNREAD = Finding(
    "unreadable", RuleGroup.EXAMINATION, Severity.WARNING, None, "could not be examined: cut off"
)


def of(
    model: str = "m",
    ref: str = "latest",
    *,
    version: str = "v5",
    severity: Severity = Severity.CRITICAL,
    message: str = "it broke",
    group: RuleGroup = RuleGroup.WEIGHTS,
) -> Transition:
    found = replace(finding("fc2", severity, message=message), group=group)
    return firing(found, identity=AlertIdentity("local", model, ref, group), version=version)


def over(fired: Transition, version: str | None = "v6") -> Transition:
    """How an alert ends an hour later."""
    identity = fired.state.identity
    _, (transition,) = advance(
        fired.state, seen(identity=identity, version=version), NOW + timedelta(hours=1)
    )
    return transition


def summary(*told: Transition, context: AlertContext | None = None, repeats: bool = False) -> str:
    reason = TransitionReason.REPEAT_INTERVAL if repeats else None
    return str(event_of(*told, context=context, reason=reason)["data"]["summary"])


def notification(*alerts: Mapping[str, Any], **more: Any) -> Notification:
    values: dict[str, Any] = {
        "event_id": "evt_1",
        "group_id": "grp_1",
        "labels": {},
        "sequence": 1,
        "reason": TransitionReason.FIRST,
        "at": NOW,
        "alerts": alerts,
        "muted": 0,
        "transitions": (),
    }
    return Notification(**{**values, **more})


def test_an_event_reads_as_documented() -> None:
    one, other = of("m"), over(of("m", "@champion"))
    told = [{**describe(each, AlertContext("v4")), "acknowledged_by": None} for each in (one, other)]
    event = build_event(
        notification(
            *told,
            labels={"registry": ("local",), "model": ("m",)},
            sequence=3,
            muted=2,
            transitions=("evt_a", "evt_b"),
        )
    )

    assert event == {
        "type": "layerwatch.alert.firing",
        "timestamp": "2026-03-01T12:00:00Z",
        "data": {
            "event_id": "evt_1",
            "group_id": "grp_1",
            "sequence": 3,
            "reason": "first",
            "phase": "firing",
            "severity": "critical",
            "subject": "m v5 (latest)",
            "summary": "m v5 (latest, against v4): layer fc2 is broken: it broke; resolved: m v6 (@champion, weights)",
            "labels": {"registry": ["local"], "model": ["m"]},
            "alerts": told,
            "alerts_omitted": 0,
            "muted": 2,
            "transitions": ["evt_a", "evt_b"],
        },
    }


def test_it_fires_while_anything_in_it_does_and_is_as_bad_as_the_worst_of_that() -> None:
    mild, bad = of("m", severity=Severity.WARNING), of("n", severity=Severity.CRITICAL)

    def head(*told: Transition) -> tuple[str, str, str]:
        event = event_of(*told)
        return event["type"], event["data"]["phase"], event["data"]["severity"]

    assert head(bad, mild) == ("layerwatch.alert.firing", "firing", "critical")
    assert head(mild, over(bad)) == ("layerwatch.alert.firing", "firing", "warning")
    assert head(over(mild), over(bad)) == ("layerwatch.alert.resolved", "resolved", "critical")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([of()], "m v5 (latest): layer fc2 is broken: it broke"),
        ([of(), of(ref="@champion")], "m v5 (@champion, latest): layer fc2 is broken: it broke"),
        (
            [of(), of("n")],
            "m v5 (latest): layer fc2 is broken: it broke; 1 more version (n)",
        ),
        (
            [of(), of(ref="@champion", version="v4"), of("k"), of("n"), of("o"), of("p")],
            "m v5 (latest): layer fc2 is broken: it broke; 5 more versions (k, m, n, ...)",
        ),
        (
            [of(), of(group=RuleGroup.EXAMINATION), of(group=RuleGroup.INTEGRITY)],
            (
                "m v5 (latest): layer fc2 is broken: it broke; also layer fc2: it broke; "
                "also layer fc2: it broke"
            ),
        ),
        (
            [of(), over(of(group=RuleGroup.INTEGRITY))],
            "m v5 (latest): layer fc2 is broken: it broke; resolved: m v6 (latest, integrity)",
        ),
        (
            [over(of())],
            "m v6 (latest): resolved, no finding about weights left; was firing since 2026-03-01 12:00 UTC",
        ),
        (
            [over(of()), over(of("n"), None)],
            (
                "m v6 (latest): resolved, no finding about weights left; was firing since 2026-03-01 12:00 UTC; "
                "1 more version (n)"
            ),
        ),
        (
            [over(of(), None)],
            "m v5 (latest): resolved because the ref or the model is gone; was firing since 2026-03-01 12:00 UTC",
        ),
    ],
)
def test_the_summary_is_one_sentence_for_people(told: list[Transition], expected: str) -> None:
    assert summary(*told) == expected


def test_the_summary_names_the_baseline_of_what_fires() -> None:
    assert summary(of(), context=AlertContext("v4")).startswith("m v5 (latest, against v4): layer fc2")
    assert "against" not in summary(over(of()), context=AlertContext("v4"))


def test_the_summary_of_a_repetition_says_since_when() -> None:
    assert summary(of(), repeats=True) == (
        "m v5 (latest): still firing since 2026-03-01 12:00 UTC: layer fc2 is broken: it broke"
    )


def test_the_summary_of_what_cannot_be_looked_for_any_more_says_so() -> None:
    told = undecided(
        describe(of(), AlertContext("v4")), replace(of().state, version="v6"), frozenset({"fc2"})
    )

    assert summary_of([told], TransitionReason.FIRST) == (
        "m v6 (latest, against v4): undecided now, fc2 could not be examined; broken before in v5"
    )


def test_a_moment_is_told_to_the_minute() -> None:
    state, _ = advance(None, seen(finding()), NOW + timedelta(microseconds=123_456))
    _, (transition,) = advance(state, seen(version="v6"), NOW + timedelta(hours=1))

    assert summary(transition).endswith("was firing since 2026-03-01 12:00 UTC")


def test_the_subject_says_what_it_is_about_without_what_happened() -> None:
    def subject(*told: Transition) -> str:
        return str(event_of(*told)["data"]["subject"])

    assert subject(of(), of(ref="@champion")) == "m v5 (@champion, latest)"
    assert subject(of(), of("n"), of("o")) == "m v5 (latest) and 2 more versions"
    assert subject(of(), over(of("n"))) == "m v5 (latest)"
    assert subject(over(of("n"))) == "n v6 (latest)"


def test_more_refs_than_five_are_cut() -> None:
    told = [describe(of(ref=f"r{number}"), AlertContext()) for number in range(7)]

    assert where_of(told) == "m v5 (r0, r1, r2, r3, r4, ...)"


def test_an_alert_about_deliveries_is_about_a_receiver() -> None:
    lost = replace(finding(None, message="3 events will not reach the receiver"), group=RuleGroup.DELIVERY)
    identity = AlertIdentity("layerwatch", "oncall", "deliveries", RuleGroup.DELIVERY)

    assert summary(firing(lost, identity=identity, version="oncall")) == (
        "receiver oncall: 3 events will not reach the receiver"
    )


def test_alerts_about_one_version_belong_together_unless_one_of_them_ended() -> None:
    one, two, three = of(), of(ref="@champion"), over(of(group=RuleGroup.INTEGRITY), "v5")
    other = of("n")
    told = [describe(each, AlertContext()) for each in (one, other, two, three)]

    assert [[alert["ref"] for alert in alerts] for alerts in by_version(told)] == [
        ["latest", "@champion"],
        ["latest"],
        ["latest"],
    ]


def test_alerts_come_worst_first_weights_before_the_rest_and_what_ended_last() -> None:
    told = [
        over(of("over")),
        of("mild", severity=Severity.WARNING),
        of("bad", group=RuleGroup.EXAMINATION),
        of("bad"),
        of("worse too"),
    ]

    alerts = event_of(*told)["data"]["alerts"]
    assert [(alert["model"], alert["group"]) for alert in alerts] == [
        ("bad", "weights"),
        ("worse too", "weights"),
        ("bad", "examination"),
        ("mild", "weights"),
        ("over", "weights"),
    ]


class TestSize:
    def test_findings_are_left_out_before_alerts_and_both_are_counted(self) -> None:
        told = [
            describe(
                firing(
                    *(finding(f"layer{number}", message="m" * 300) for number in range(20)),
                    identity=replace(IDENTITY, model=f"model{index}"),
                ),
                AlertContext(),
            )
            for index in range(5)
        ]
        data = build_event(notification(*told))["data"]

        assert len(data["alerts"]) == 5
        for before, after in zip(told, data["alerts"], strict=True):
            assert after["findings"] == before["findings"][: len(after["findings"])]
            assert len(after["findings"]) + after["findings_omitted"] == 20
        counts = [len(alert["findings"]) for alert in data["alerts"]]
        assert min(counts) >= 1
        assert max(counts) - min(counts) <= 1
        assert counts == sorted(counts, reverse=True)  # The worst, which come first, keep more.

    def test_alerts_go_from_the_least_bad_on(self) -> None:
        told = [describe(of(f"model{index}"), AlertContext()) for index in range(100)]
        data = build_event(notification(*told))["data"]

        kept = len(data["alerts"])
        assert 10 < kept < 100
        assert [alert["model"] for alert in data["alerts"]] == [f"model{index}" for index in range(kept)]
        assert data["alerts_omitted"] == 100 - kept
        assert data["summary"].endswith("; 99 more versions (model1, model10, model11, ...)")

    def test_what_was_given_is_not_changed(self) -> None:
        told = [describe(of(f"model{index}"), AlertContext()) for index in range(60)]
        before = json.dumps(told)
        build_event(notification(*told))

        assert json.dumps(told) == before

    def test_of_many_transitions_the_latest_are_kept(self) -> None:
        ids = tuple(f"evt_{number}" for number in range(500))
        data = build_event(notification(describe(of(), AlertContext()), transitions=ids))["data"]

        assert data["transitions"] == list(ids[-MOST_TRANSITIONS:])

    def test_the_limit_can_be_another(self) -> None:
        told = [describe(of(f"model{index}"), AlertContext()) for index in range(100)]

        assert build_event(notification(*told), 10_000_000)["data"]["alerts_omitted"] == 0

    def test_a_body_with_nan_is_refused_rather_than_sent(self) -> None:
        with pytest.raises(ValueError, match="JSON compliant"):
            encode_event({"value": float("nan")})


hostile = st.one_of(st.text(max_size=50), st.sampled_from(["\U0001f4a3" * 2000, '"\\' * 2000, "\x00" * 2000]))


@st.composite
def told_alerts(draw: st.DrawFn) -> list[Transition]:
    """Alerts with names and messages of strangers, some ended."""
    found = []
    for _ in range(draw(st.integers(1, 6))):
        identity = AlertIdentity(draw(hostile), draw(hostile), draw(hostile), RuleGroup.WEIGHTS)
        layers = draw(st.lists(hostile, min_size=1, max_size=25))
        message, evidence = draw(hostile), draw(st.dictionaries(hostile, hostile, max_size=5))
        fired = firing(
            *(finding(layer, message=message, evidence=evidence) for layer in layers),
            identity=identity,
            version=draw(hostile),
        )
        found.append(over(fired, draw(hostile)) if draw(st.booleans()) else fired)
    return found


@settings(deadline=None)
@given(told_alerts(), hostile)
def test_the_body_stays_below_its_limit_whatever_the_names_are(told: list[Transition], name: str) -> None:
    context = AlertContext(name, name, name, broken_parent=(name, name), external_url="https://lw.example")
    event = event_of(*told, context=context)
    body = encode_event(event)

    assert len(body.encode("utf-8")) < MOST_BYTES
    data = json.loads(body)["data"]
    assert data["alerts"]
    assert len(data["alerts"]) + data["alerts_omitted"] == len(told)
    of_transition = {transition.event_id: transition for transition in told}
    for alert in data["alerts"]:
        found = of_transition[alert["transition"]].findings
        assert len(alert["findings"]) + alert["findings_omitted"] == len(found)
    assert "\n" not in data["summary"]
    assert len(data["summary"]) <= 800


def test_the_same_event_is_the_same_bytes() -> None:
    one: Sequence[str] = [encode_event(event_of(firing(), resolved())) for _ in range(2)]

    assert one[0] == one[1]
