"""What an alert tells: complete, and safe whatever the names in it are."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alertvalues import IDENTITY, NOW, finding, firing, resolved, seen
from layerwatch.alerts.event import encode_event
from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import (
    AlertIdentity,
    AlertState,
    Transition,
    TransitionReason,
)
from layerwatch.alerts.payload import (
    MOST_DIAGNOSES,
    MOST_LAYERS,
    AlertContext,
    Diagnosis,
    describe,
    iso,
    name,
    undecided,
)
from layerwatch.metrics.findings import Finding, RuleGroup, Severity

NOTHING = AlertContext()


def ended(why: TransitionReason, version: str | None = "v6") -> Transition:
    state, _ = advance(None, seen(finding()), NOW)
    over = replace(seen(version=version), ends_as=why)
    _, (transition,) = advance(state, over, NOW + timedelta(hours=1))
    return transition


def test_a_firing_alert_reads_as_documented() -> None:
    transition = firing(finding("fc2"), finding("fc1", Severity.WARNING))
    context = AlertContext(
        baseline_version="v4",
        baseline_relation="finetuned",
        baseline_chosen_by="parent",
        broken_parent=("v4", "fc9"),
        diagnoses=(Diagnosis("fc2", "scaled", "a lost scale.", "check the export."),),
        numbers={"fc2": "alpha 5.3 -> 22.6, 24 sigma"},
        undecided_layers=1,
        external_url="https://lw.example/",
    )

    assert describe(transition, context) == {
        "alert_id": alert_id(IDENTITY, 1),
        "transition": transition.event_id,
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
        "changed_at": "2026-03-01T12:00:00Z",
        "headline": "layer fc2 is broken: relative change 0.92 (limit 0.35); 1 more layer",
        "layers": ["fc1", "fc2"],
        "findings": [
            {
                "rule": "relative_change",
                "severity": severity,
                "layer": layer,
                "message": "relative change 0.92 (limit 0.35)",
                "numbers": numbers,
                "evidence": {"relative_change": 0.92, "limit": 0.35},
            }
            for layer, severity, numbers in (
                ("fc2", "critical", "alpha 5.3 -> 22.6, 24 sigma"),
                ("fc1", "warning", None),
            )
        ],
        "findings_omitted": 0,
        "diagnoses": [
            {
                "layer": "fc2",
                "title": "scaled",
                "likely_cause": "a lost scale.",
                "what_to_do": "check the export.",
            }
        ],
        "baseline": {"version": "v4", "relation": "finetuned", "chosen_by": "parent"},
        "broken_parent": {"version": "v4", "layer": "fc9"},
        "last_good": None,
        "milder": [],
        "broken_version": None,
        "undecided_layers": 1,
        "links": {
            "report": "https://lw.example/report?registry=local&model=digits-mlp&ref=latest",
            "runbook": "https://lw.example/explain/relative_change",
            "picture": "https://lw.example/spectrum.png?registry=local&model=digits-mlp&version=v5&layer=fc2",
        },
    }


def test_what_is_not_known_is_null() -> None:
    told = describe(ended(TransitionReason.REF_GONE, version=None), NOTHING)

    assert [told[key] for key in ("baseline", "links", "verdict", "broken_parent")] == [None] * 4
    assert describe(firing(), AlertContext(broken_parent=("v4", None)))["broken_parent"] == {
        "version": "v4",
        "layer": None,
    }


def test_an_end_pairs_with_its_begin_and_shows_no_findings() -> None:
    fired, over = describe(firing(), NOTHING), describe(resolved(), NOTHING)

    assert over["alert_id"] == fired["alert_id"]
    assert over["transition"] != fired["transition"]
    assert (over["phase"], over["sequence"], over["findings"]) == ("resolved", 2, [])
    assert (over["started_at"], over["changed_at"]) == ("2026-03-01T12:00:00Z", "2026-03-01T13:00:00Z")
    assert over["layers"] == ["fc2"]


@pytest.mark.parametrize(
    ("findings", "headline"),
    [
        ([finding("a", Severity.WARNING, message="it moved")], "layer a is suspect: it moved"),
        ([finding("a", Severity.INFO, message="it moved")], "layer a: it moved"),
        ([finding(None, message="is smaller than v4")], "is smaller than v4"),
        (
            [finding("a", message="it broke"), finding("b"), finding("c")],
            "layer a is broken: it broke; 2 more layers",
        ),
        (
            [finding("a", message="it broke"), finding("a"), finding("b"), finding(None)],
            "layer a is broken: it broke; 1 more layer",
        ),
        ([finding("a", message="it broke"), finding("a")], "layer a is broken: it broke; 1 more finding"),
        (
            [finding(None, message="it broke"), finding(None), finding(None)],
            "it broke; 2 more findings",
        ),
    ],
)
def test_the_headline_says_what_is_worst_and_how_much_is_behind_it(
    findings: list[Finding], headline: str
) -> None:
    assert describe(firing(*findings), NOTHING)["headline"] == headline


@pytest.mark.parametrize(
    ("why", "version", "headline"),
    [
        (TransitionReason.VERSION_PASSED, "v6", "resolved, no finding about weights left"),
        (TransitionReason.MOVED_BACK, "v4", "resolved because the ref moved back to this version"),
        (TransitionReason.VERSION_ACCEPTED, "v5", "resolved because the version was accepted as it is"),
        (TransitionReason.REF_GONE, None, "resolved because the ref or the model is gone"),
        (TransitionReason.DELIVERED, "v5", "resolved, events are delivered again"),
    ],
)
def test_the_headline_of_an_end_says_why(why: TransitionReason, version: str | None, headline: str) -> None:
    told = describe(ended(why, version), NOTHING)

    assert (told["headline"], told["reason"]) == (headline, why.value)
    assert told["version"] == (version or "v5")


def test_a_layer_that_could_not_be_examined_is_not_called_broken() -> None:
    unread = Finding(
        "unreadable", RuleGroup.EXAMINATION, Severity.CRITICAL, "fc2", "could not be examined: cut off"
    )

    assert describe(firing(unread), NOTHING)["headline"] == "layer fc2: could not be examined: cut off"


def test_no_more_than_a_few_of_each_are_told_and_findings_left_out_are_counted() -> None:
    found = [finding(f"layer{number:02}") for number in range(50)]
    context = AlertContext(diagnoses=[Diagnosis(one.layer, "t", "c", "d") for one in found])
    told = describe(firing(*found), context)

    assert [each["layer"] for each in told["findings"]] == [f"layer{number:02}" for number in range(20)]
    assert told["findings_omitted"] == 30
    assert told["headline"].endswith("; 49 more layers")
    assert len(told["layers"]) == MOST_LAYERS
    assert [each["layer"] for each in told["diagnoses"]] == [f"layer{n:02}" for n in range(MOST_DIAGNOSES)]


class TestLinks:
    def test_names_are_encoded_so_that_none_leads_elsewhere(self) -> None:
        identity = AlertIdentity("re/g", "../mo del?&#", "@é", RuleGroup.WEIGHTS)
        links = describe(
            firing(finding("a/b&c"), identity=identity, version="v#1"),
            AlertContext(external_url="https://lw.example/base/"),
        )["links"]

        assert links == {
            "report": "https://lw.example/base/report?registry=re%2Fg&model=..%2Fmo+del%3F%26%23&ref=%40%C3%A9",
            "runbook": "https://lw.example/base/explain/relative_change",
            "picture": "https://lw.example/base/spectrum.png?registry=re%2Fg&model=..%2Fmo+del%3F%26%23"
            "&version=v%231&layer=a%2Fb%26c",
        }

    def test_there_is_no_picture_of_a_version_as_a_whole_and_no_rule_behind_an_end(self) -> None:
        context = AlertContext(external_url="https://lw.example")

        assert describe(firing(finding(None)), context)["links"]["picture"] is None
        links = describe(resolved(), context)["links"]
        assert (links["runbook"], links["picture"]) == (None, None)
        assert links["report"] == "https://lw.example/report?registry=local&model=digits-mlp&ref=latest"

    def test_an_alert_about_deliveries_leads_to_the_list_of_them(self) -> None:
        lost = replace(finding(None), group=RuleGroup.DELIVERY, rule="undelivered")
        identity = replace(IDENTITY, group=RuleGroup.DELIVERY)
        links = describe(firing(lost, identity=identity), AlertContext(external_url="https://lw.example"))[
            "links"
        ]

        assert links["report"] == "https://lw.example/api/v1/deliveries?status=dead"

    def test_a_link_that_names_make_too_long_is_left_out(self) -> None:
        identity = replace(IDENTITY, model="模" * 200, ref="模" * 200)
        links = describe(firing(identity=identity), AlertContext(external_url="https://lw.example"))["links"]

        assert links["report"] is None
        assert links["runbook"] is not None


class TestUndecided:
    """An alert that fires, now that its ref points at a version in which it cannot be looked for."""

    def held(self, told: dict[str, Any], version: str = "v6", *layers: str) -> dict[str, Any]:
        state: AlertState = replace(firing().state, version=version, fingerprint=f"sha256:{version}")
        return undecided(told, state, frozenset(layers or ("fc2", "conv1")))

    def test_it_says_what_could_not_be_examined_and_where_it_was_broken(self) -> None:
        told = self.held(describe(firing(), AlertContext("v4")))

        assert told["headline"] == "undecided now, fc2 could not be examined; broken before in v5"
        assert (told["version"], told["fingerprint"], told["verdict"]) == ("v6", "sha256:v6", "undecided")
        assert (told["findings"], told["findings_omitted"], told["undecided_layers"]) == ([], 0, 2)
        assert (told["phase"], told["severity"], told["reason"]) == ("firing", "critical", "first")
        assert told["diagnoses"] == []

    def test_a_layer_that_could_be_examined_is_not_named(self) -> None:
        told = self.held(describe(firing(finding("fc1"), finding("fc2")), NOTHING), "v6", "fc2")

        assert told["headline"].startswith("undecided now, fc2 could not be examined; ")

    def test_of_a_version_as_a_whole_it_is_the_version(self) -> None:
        told = self.held(describe(firing(finding(None)), NOTHING))

        assert told["headline"].startswith("undecided now, the version could not be examined; ")

    def test_it_names_three_layers_at_most(self) -> None:
        names = [f"l{number}" for number in range(9)]
        told = self.held(describe(firing(*map(finding, names)), NOTHING), "v6", *names)

        assert told["headline"].startswith("undecided now, l0, l1, l2 could not be examined")

    def test_after_a_second_such_version_it_still_names_the_one_that_was_broken(self) -> None:
        told = self.held(self.held(describe(firing(), NOTHING)), "v7")

        assert told["version"] == "v7"
        assert told["headline"].endswith("; broken before in v5")

    def test_its_picture_is_not_that_of_another_version(self) -> None:
        told = self.held(describe(firing(), AlertContext("v4", external_url="https://lw.example")))

        assert "version=v5" not in (told["links"]["picture"] or "")


class TestForeignText:
    def test_control_characters_in_names_do_not_reach_the_receiver(self) -> None:
        identity = AlertIdentity("local", "model\r\nX-Injected: 1", "la\u202etest", RuleGroup.WEIGHTS)
        context = AlertContext(
            "v\n4", broken_parent=("v\x004", "f\tc"), diagnoses=(Diagnosis("a\nb", "t\nu", "c\nd", "d\ne"),)
        )
        told = describe(firing(finding("fc\x1b[2J2"), identity=identity), context)

        text = json.dumps(told, ensure_ascii=False)
        assert not any(escape in text for escape in ("\\r", "\\n", "\\t", "\\u00", "\u202e"))
        assert told["model"] == "model X-Injected: 1"
        assert told["ref"] == "latest"

    def test_numbers_that_are_not_finite_become_null(self) -> None:
        evidence = {"alpha": float("nan"), "ratio": float("inf"), "limit": 2.0}
        told = describe(firing(finding(evidence=evidence)), NOTHING)

        assert told["findings"][0]["evidence"] == {"alpha": None, "ratio": None, "limit": 2.0}

    def test_a_name_is_one_line_of_bounded_length(self) -> None:
        assert name("a\nb") == "a b"
        assert len(name("x" * 10_000)) == 200


def test_times_are_told_in_utc() -> None:
    assert iso(datetime(2026, 3, 1, 14, 0, tzinfo=timezone(timedelta(hours=2)))) == "2026-03-01T12:00:00Z"


hostile = st.one_of(st.text(max_size=50), st.sampled_from(["\U0001f4a3" * 2000, '"\\' * 2000, "\x00" * 2000]))


@settings(deadline=None)
@given(
    names=st.tuples(hostile, hostile, hostile, hostile),
    layers=st.lists(hostile, min_size=1, max_size=40),
    message=hostile,
    values=st.dictionaries(hostile, st.one_of(st.floats(), hostile, st.none(), st.booleans()), max_size=30),
)
def test_what_is_told_is_bounded_and_can_be_written_as_json_whatever_the_names_are(
    names: tuple[str, str, str, str], layers: list[str], message: str, values: dict[str, float | str | None]
) -> None:
    identity = AlertIdentity(names[0], names[1], names[2], RuleGroup.WEIGHTS)
    found = [finding(layer, message=message, evidence=values) for layer in layers]
    context = AlertContext(
        names[3],
        names[0],
        names[1],
        broken_parent=(names[3], message),
        diagnoses=[Diagnosis(layer, message, message, message) for layer in layers],
        numbers=dict.fromkeys(layers, message),
        external_url="https://lw.example",
    )
    told = describe(firing(*found, identity=identity, version=names[3]), context)

    assert len(encode_event(told).encode("utf-8")) < 400_000
    assert len(told["findings"]) + told["findings_omitted"] == len(layers)
    assert json.loads(encode_event(told)) == told
