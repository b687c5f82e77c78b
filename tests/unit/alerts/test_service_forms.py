"""The bodies that services get: within their published limits and forms, whatever the names are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from alertvalues import NOW, event_of, finding, firing, payload_of, resolved, seen
from layerwatch.alerts.event import encode_event
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import AlertIdentity, AlertState, Transition
from layerwatch.alerts.payload import AlertContext, Diagnosis
from layerwatch.alerts.receivers.alertmanager import encode_alerts
from layerwatch.alerts.receivers.pagerduty import encode_for_pagerduty
from layerwatch.alerts.receivers.slack import encode_for_slack, encode_for_workflow
from layerwatch.alerts.receivers.teams import encode_for_teams
from layerwatch.metrics.findings import RuleGroup, Severity

CONTEXT = AlertContext("v4", "finetuned", "parent", undecided_layers=2, external_url="https://lw.example/")
KEY = "0123456789abcdef0123456789abcdef"
TITLES = ("Report", "Spectrum", "What the rule means")

hostile = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            *("&" * 500, "<" * 500, "\U0001f4a3" * 500, '"\\' * 300, "```*_~", "{{ template }}"),
            *("<!channel> <@U1|x> <https://evil.example|y>", "[y](https://evil.example)"),
            *("<at>all</at>", "@all"),
        ]
    ),
)


@st.composite
def alerts(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Transition:
    """An alert, firing, with names, messages and evidence of strangers."""
    registry, model, ref, version, message = (draw(hostile) for _ in range(5))
    layers = draw(st.lists(hostile, min_size=1, max_size=30))
    evidence = draw(st.dictionaries(hostile, st.one_of(st.floats(), hostile), max_size=5))
    return firing(
        *(finding(layer, message=message, evidence=evidence) for layer in layers),
        identity=AlertIdentity(registry, model, ref, RuleGroup.WEIGHTS),
        version=version,
    )


@st.composite
def payloads(draw: Callable[[st.SearchStrategy[Any]], Any]) -> str:
    """Stored events about up to four alerts, of which the first fires."""
    told = draw(st.lists(alerts(), min_size=1, max_size=4))
    told[1:] = [over(one) if draw(st.booleans()) else one for one in told[1:]]
    name, message = draw(hostile), draw(hostile)
    context = AlertContext(
        name,
        name,
        name,
        broken_parent=(name, name),
        diagnoses=[Diagnosis(name, name, message, message)],
        numbers={layer: message for one in told for layer in one.state.layers},
        undecided_layers=3,
        external_url="https://lw.example/",
    )
    return payload_of(*told, context=context)


def over(fired: Transition, after: timedelta = timedelta(hours=1)) -> Transition:
    identity = fired.state.identity
    _, (transition,) = advance(
        fired.state, seen(identity=identity, version="v6"), fired.state.changed_at + after
    )
    return transition


def of(model: str, ref: str = "latest", group: RuleGroup = RuleGroup.WEIGHTS) -> Transition:
    return firing(replace(finding(), group=group), identity=AlertIdentity("local", model, ref, group))


def stored(*transitions: Transition) -> str:
    return payload_of(*transitions, context=CONTEXT)


def many(count: int) -> str:
    return stored(firing(*(finding(f"model.layers.{number}.mlp.down_proj") for number in range(count))))


def sections_of(payload: str) -> list[str]:
    return [block["text"]["text"] for block in json.loads(encode_for_slack(payload))["blocks"]]


class TestSlack:
    """Block Kit as published: docs.slack.dev/reference/block-kit/blocks (50 blocks per message, section text 1 to
    3,000 characters) and docs.slack.dev/messaging/formatting-message-text (escapes: & < >)."""

    @settings(deadline=None, max_examples=80)
    @given(payloads())
    def test_every_message_is_within_the_limits_and_names_are_inert(self, payload: str) -> None:
        body = json.loads(encode_for_slack(payload))

        assert body.keys() == {"text", "blocks", "unfurl_links", "unfurl_media"}
        assert 1 <= len(body["blocks"]) <= 50
        for block in body["blocks"]:
            assert block.keys() == {"type", "text"}
            assert block["type"] == "section"
            assert block["text"].keys() == {"type", "text", "verbatim"}
            assert (block["text"]["type"], block["text"]["verbatim"]) == ("mrkdwn", True)
            assert 1 <= len(block["text"]["text"]) <= 3000
        titles = "|".join(TITLES)
        for text in [body["text"], *(block["text"]["text"] for block in body["blocks"])]:
            ours = re.sub(rf"<https://lw\.example/[^<>|@\s]*\|(?:{titles})>", "", text, flags=re.ASCII)
            assert not {"<", ">"} & set(ours)
            assert not re.search(r"&(?!amp;|lt;|gt;)", ours)
        assert "@" not in body["text"]

    @settings(deadline=None, max_examples=40)
    @given(payloads())
    def test_a_workflow_gets_one_string_without_mentions(self, payload: str) -> None:
        body = json.loads(encode_for_workflow(payload))

        assert body.keys() == {"text"}
        assert not {"@", "<"} & set(body["text"])

    def test_ten_findings_are_shown_and_the_others_counted(self) -> None:
        lines = sections_of(many(50))

        assert sum(line.startswith("• model.layers.") for line in lines) == 10
        assert "• 40 more findings not shown here" in lines

    def test_of_more_blocks_than_slack_takes_findings_go_first_from_the_last_version(self) -> None:
        told = [
            firing(
                *(finding(f"layer{number}", evidence={}) for number in range(20)),
                identity=AlertIdentity("local", model, "latest", RuleGroup.WEIGHTS),
            )
            for model in ("worst", "second", "last")
        ]
        lines = sections_of(payload_of(*told))

        assert len(lines) <= 50
        places = [
            next(number for number, line in enumerate(lines) if line == f"*▸* {model} v5 (latest)")
            for model in ("worst", "second", "last")
        ]
        assert places == sorted(places)
        shown = [
            sum(line.startswith("• layer") for line in lines[start:end])
            for start, end in zip(places, [*places[1:], None], strict=True)
        ]
        assert shown[0] >= shown[2]
        assert shown == sorted(shown, reverse=True)

    def test_a_section_that_escapes_make_too_long_is_cut(self) -> None:
        broken = finding("&" * 200, message="<" * 400, evidence={"&" * 60: 1.0, "<" * 60: 2.0})
        (section,) = [text for text in sections_of(stored(firing(broken))) if text.startswith("• ")]

        assert 2500 < len(section) <= 3000
        assert section.endswith(";…")

    def test_an_event_told_twice_is_the_same_message(self) -> None:
        assert encode_for_slack(many(3)) == encode_for_slack(many(3))


ALLOWED = {
    "AdaptiveCard": {"type", "$schema", "version", "body", "actions", "msteams"},
    "RichTextBlock": {"type", "inlines"},
    "TextRun": {"type", "text", "weight", "color", "isSubtle"},
    "Action.OpenUrl": {"type", "title", "url"},
}
"""Of each element what is used here, all of it in version 1.2 or older: adaptivecards.io/explorer."""


def elements(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "type" in value:
            yield value
        for part in value.values():
            yield from elements(part)
    elif isinstance(value, list):
        for part in value:
            yield from elements(part)


def runs_of(payload: str) -> list[str]:
    return [
        each["text"] for each in elements(json.loads(encode_for_teams(payload))) if each["type"] == "TextRun"
    ]


class TestTeams:
    """The message around the card, and 28 KB: learn.microsoft.com/connectors/teams. Text of a TextRun is shown as
    it is: adaptivecards.io/explorer/TextRun.html."""

    @settings(deadline=None, max_examples=80)
    @given(payloads())
    def test_every_card_is_within_the_limits_and_names_are_in_text_runs_only(self, payload: str) -> None:
        text = encode_for_teams(payload)
        message = json.loads(text)

        assert len(text.encode("utf-16-le")) <= 28_000
        assert message.keys() == {"type", "attachments"}
        assert message["type"] == "message"
        (attachment,) = message["attachments"]
        assert attachment.keys() == {"contentType", "contentUrl", "content"}
        assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
        card = attachment["content"]
        assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
        for element in elements(card):
            assert element.keys() <= ALLOWED[element["type"]]
            if element["type"] == "Action.OpenUrl":
                assert element["title"] in TITLES
                assert element["url"].startswith("https://lw.example/")
            if element["type"] == "TextRun":
                assert element.get("weight", "Bolder") == "Bolder"
                assert element.get("color", "Attention") in ("Attention", "Warning", "Good")
        assert {element["type"] for element in card["body"]} == {"RichTextBlock"}

    def test_findings_that_do_not_fit_are_counted(self) -> None:
        payload = stored(firing(*(finding(f"{number:03}" * 60, message="b" * 390) for number in range(30))))
        runs = runs_of(payload)
        shown = sum(run.startswith("• 0") for run in runs)
        assert 1 < shown <= 10
        assert f"• {30 - shown} more findings not shown here" in runs

    def test_each_version_has_its_title_when_there_are_several(self) -> None:
        runs = runs_of(stored(of("m"), over(of("n"))))

        assert "m v5 (latest)" in runs
        assert "n v6 (latest), resolved" in runs
        assert "m v5 (latest)" not in runs_of(stored(of("m")))

    def test_the_colour_says_how_bad_it_is(self) -> None:
        def colour(*told: Transition) -> str:
            card = json.loads(encode_for_teams(stored(*told)))["attachments"][0]["content"]
            return str(card["body"][0]["inlines"][0]["color"])

        assert colour(firing()) == "Attention"
        assert colour(firing(finding(severity=Severity.WARNING))) == "Warning"
        assert colour(firing(finding(severity=Severity.INFO))) == "Accent"
        assert colour(resolved()) == "Good"
        assert colour(of("m"), over(of("n"))) == "Attention"


class TestPagerDuty:
    """Events API v2 as published: developer.pagerduty.com/docs/events-api-v2/trigger-events (summary up to 1,024
    characters, dedup_key up to 255, an event up to 512 KB, four severities; routing_key has 32 characters)."""

    @settings(deadline=None, max_examples=80)
    @given(payloads())
    def test_every_event_is_within_the_limits(self, payload: str) -> None:
        text = encode_for_pagerduty(payload, KEY)
        event = json.loads(text)

        assert len(text.encode("utf-8")) <= 512_000
        assert event["routing_key"] == KEY
        assert event["event_action"] == "trigger"
        assert 1 <= len(event["dedup_key"]) <= 255
        told = event["payload"]
        assert 1 <= len(told["summary"]) <= 1024
        assert told["severity"] in ("critical", "error", "warning", "info")
        assert told["source"]
        assert datetime.fromisoformat(told["timestamp"]).tzinfo is not None
        assert all(link.keys() == {"href", "text"} for link in event["links"])
        assert all(link["href"].startswith("https://lw.example/") for link in event["links"])
        assert all(image["src"].startswith("https://lw.example/") for image in event.get("images", ()))

    def event(self, *told: Transition, context: AlertContext = CONTEXT) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(encode_for_pagerduty(payload_of(*told, context=context), KEY))
        return found

    def test_a_group_is_one_incident_that_ends_when_nothing_in_it_fires(self) -> None:
        events = [
            self.event(of("m")),
            self.event(of("m"), of("n")),
            self.event(of("n"), over(of("m"))),
            self.event(over(of("n"))),
        ]

        assert [event["event_action"] for event in events] == ["trigger"] * 3 + ["resolve"]
        assert len({event["dedup_key"] for event in events}) == 1
        assert events[0]["dedup_key"] == event_of()["data"]["group_id"]
        assert events[3].keys() == {"routing_key", "dedup_key", "event_action"}

    def test_it_says_what_is_worst_and_what_else(self) -> None:
        worst = firing(finding(), identity=AlertIdentity("local", "m", "latest", RuleGroup.WEIGHTS))
        told = self.event(worst, of("n"))["payload"]

        assert told["summary"].endswith("1 more version (n)")
        assert (told["source"], told["component"], told["group"], told["class"]) == (
            "local/m",
            "latest",
            "m",
            "weights",
        )
        details = told["custom_details"]
        assert details["Baseline"] == "v4 (parent, finetuned)"
        assert [one["layer"] for one in details["Findings"]] == ["fc2", "fc2"]
        assert details["Also"] == ["n v5 (latest)"]

    def test_a_picture_is_shown_only_from_where_pagerduty_takes_one(self) -> None:
        assert self.event(of("m"))["images"][0]["src"].startswith("https://lw.example/spectrum.png?")
        assert "images" not in self.event(of("m"), context=AlertContext(external_url="http://lw.example"))
        without = self.event(of("m"), context=AlertContext())
        assert "images" not in without
        assert "client_url" not in without
        assert without["links"] == []


LATER = NOW + timedelta(hours=24)


class TestAlertmanager:
    """API v2 as published: github.com/prometheus/alertmanager, api/v2/openapi.yaml, postableAlerts."""

    def forms(self, *told: Transition, holds_until: datetime = LATER) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(encode_alerts(stored(*told), holds_until))
        return found

    @settings(deadline=None, max_examples=80)
    @given(payloads())
    def test_every_alert_has_the_published_form(self, payload: str) -> None:
        for alert in json.loads(encode_alerts(payload, LATER)):
            assert alert.keys() <= {"labels", "annotations", "startsAt", "endsAt", "generatorURL"}
            assert alert["labels"].keys() == {
                "alertname", "registry", "model", "ref", "rule_group", "severity",
            }  # fmt: skip
            for texts in (alert["labels"], alert["annotations"]):
                assert all(isinstance(text, str) for text in texts.values())
            assert alert["startsAt"] <= alert["endsAt"]
            assert alert.get("generatorURL", "https://").startswith("https://")

    def test_no_alert_ends_before_it_starts_when_the_clock_was_set_back(self) -> None:
        """Alertmanager refuses such an alert, and with it counts the whole request as failed."""
        fired = of("m")
        day = timedelta(days=1)
        ended = self.forms(over(fired, -day))
        held = self.forms(fired, holds_until=NOW - day + timedelta(hours=4))
        _, worse = self.history(Severity.WARNING, Severity.CRITICAL, every=-day)

        for alert in (*ended, *held, *self.forms(worse)):
            assert datetime.fromisoformat(alert["startsAt"]) <= datetime.fromisoformat(alert["endsAt"])

    def test_all_alerts_of_an_event_go_together_each_as_it_stands(self) -> None:
        told = self.forms(of("m"), of("m", "@champion"), over(of("n")))

        assert [(alert["labels"]["model"], alert["labels"]["ref"], alert["endsAt"]) for alert in told] == [
            ("m", "latest", "2026-03-02T12:00:00Z"),
            ("m", "@champion", "2026-03-02T12:00:00Z"),
            ("n", "latest", "2026-03-01T13:00:00Z"),
        ]
        assert told[0]["annotations"]["summary"].startswith("m v5 (latest, against v4): layer fc2 is broken")
        assert told[0]["annotations"]["event_id"] == of("m").event_id

    def test_what_is_said_of_an_alert_does_not_depend_on_the_others_of_the_event(self) -> None:
        """So that one that is sent again by itself is the same alert with the same annotations."""
        (alone,) = self.forms(of("n"))
        together = self.forms(of("m"), of("n"), over(of("k")))

        assert alone in together

    def test_first_and_last_event_are_about_the_same_labels(self) -> None:
        (first,), (last,) = self.forms(firing()), self.forms(resolved())

        assert first["labels"] == last["labels"]
        assert first["labels"]["severity"] == "critical"
        assert (first["endsAt"], last["endsAt"]) == ("2026-03-02T12:00:00Z", "2026-03-01T13:00:00Z")
        assert first["startsAt"] == last["startsAt"]

    def history(self, *severities: Severity, every: timedelta = timedelta(hours=1)) -> list[Transition]:
        """An alert that was raised from each severity to the next."""
        identity = AlertIdentity("local", "m", "latest", RuleGroup.WEIGHTS)
        state: AlertState | None = None
        told = []
        for number, severity in enumerate(severities):
            look = seen(finding(severity=severity), identity=identity)
            state, (transition,) = advance(state, look, NOW + number * every)
            told.append(transition)
        return told

    def ends(self, transition: Transition, *milder: Severity) -> dict[str, str]:
        payload = payload_of(transition, context=AlertContext(milder=milder))
        return {
            alert["labels"]["severity"]: alert["endsAt"]
            for alert in json.loads(encode_alerts(payload, LATER))
        }

    def test_the_event_that_it_became_worse_ends_its_milder_forms(self) -> None:
        mild, worse = self.history(Severity.WARNING, Severity.CRITICAL)

        later, now = "2026-03-02T12:00:00Z", "2026-03-01T13:00:00Z"
        assert self.ends(mild) == {"warning": later}
        assert self.ends(worse, Severity.WARNING) == {"critical": later, "warning": now}


def test_an_event_is_text_of_every_service() -> None:
    """One stored event serves them all; what a service cannot show must not make it fail."""
    event = encode_event(event_of(of("m"), over(of("n")), muted=3))

    for encode in (encode_for_slack, encode_for_workflow, encode_for_teams):
        assert "m v5" in encode(event)
    assert "m v5" in encode_for_pagerduty(event, KEY)
    assert "m v5" in encode_alerts(event, LATER)
