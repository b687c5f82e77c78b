"""The bodies that services get: within their published limits and forms, whatever the names are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from alertvalues import NOW, finding, firing, resolved
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import AlertIdentity, Observation, Transition
from layerwatch.alerts.payload import EventContext, build_event, encode_event
from layerwatch.alerts.receivers.alertmanager import encode_alerts
from layerwatch.alerts.receivers.pagerduty import encode_for_pagerduty
from layerwatch.alerts.receivers.slack import encode_for_slack, encode_for_workflow
from layerwatch.alerts.receivers.teams import encode_for_teams
from layerwatch.metrics.findings import RuleGroup, Severity, Verdict

CONTEXT = EventContext("v4", "finetuned", "parent", undecided_layers=2, external_url="https://lw.example/")
KEY = "0123456789abcdef0123456789abcdef"

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
def payloads(draw: Callable[[st.SearchStrategy[Any]], Any]) -> str:
    """Stored events, firing, with names, messages and evidence of strangers."""
    registry, model, ref, version, message = (draw(hostile) for _ in range(5))
    layers = draw(st.lists(hostile, min_size=1, max_size=30))
    evidence = draw(st.dictionaries(hostile, st.one_of(st.floats(), hostile), max_size=5))
    transition = firing(
        *(finding(layer, message=message, evidence=evidence) for layer in layers),
        identity=AlertIdentity(registry, model, ref, RuleGroup.WEIGHTS),
        version=version,
    )
    context = EventContext(version, model, registry, 3, "https://lw.example/")
    return encode_event(build_event(transition, context))


def stored(transition: Transition) -> str:
    return encode_event(build_event(transition, CONTEXT))


def many(count: int) -> str:
    return stored(firing(*(finding(f"model.layers.{number}.mlp.down_proj") for number in range(count))))


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
        for text in [body["text"], *(block["text"]["text"] for block in body["blocks"])]:
            ours = re.sub(
                r"<https://lw\.example/[^<>|@\s]*\|(?:Report|What the rule means)>", "", text, flags=re.ASCII
            )
            assert not {"<", ">"} & set(ours)
            assert not re.search(r"&(?!amp;|lt;|gt;)", ours)
        assert "@" not in body["text"]

    @settings(deadline=None, max_examples=40)
    @given(payloads())
    def test_a_workflow_gets_one_string_without_mentions(self, payload: str) -> None:
        body = json.loads(encode_for_workflow(payload))

        assert body.keys() == {"text"}
        assert not {"@", "<"} & set(body["text"])

    def test_all_findings_of_the_event_are_shown_and_the_others_counted(self) -> None:
        lines = [block["text"]["text"] for block in json.loads(encode_for_slack(many(50)))["blocks"]]

        assert sum(line.startswith("• model.layers.") for line in lines) == 20
        assert "• 30 more not shown here" in lines

    def test_a_section_that_escapes_make_too_long_is_cut(self) -> None:
        broken = finding("&" * 200, message="<" * 400, evidence={"&" * 60: "&" * 100})
        sections = [
            block["text"]["text"] for block in json.loads(encode_for_slack(stored(firing(broken))))["blocks"]
        ]

        (section,) = [text for text in sections if text.startswith("• ")]
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
                assert element["title"] in ("Report", "What the rule means")
                assert element["url"].startswith("https://lw.example/")
            if element["type"] == "TextRun":
                assert element.get("weight", "Bolder") == "Bolder"
                assert element.get("color", "Attention") in ("Attention", "Warning", "Good")
        assert {element["type"] for element in card["body"]} == {"RichTextBlock"}

    def test_findings_that_do_not_fit_are_counted(self) -> None:
        payload = stored(firing(*(finding(f"{number:03}" * 60, message="b" * 390) for number in range(30))))
        assert len(json.loads(payload)["data"]["findings"]) == 20

        text = encode_for_teams(payload)
        runs = [each["text"] for each in elements(json.loads(text)) if each["type"] == "TextRun"]
        shown = sum(run.startswith("• 0") for run in runs)
        assert 10 < shown < 20
        assert f"• {30 - shown} more not shown here" in runs
        assert len(text.encode("utf-16-le")) <= 28_000

    def test_the_colour_says_how_bad_it_is(self) -> None:
        def colour(transition: Transition) -> str:
            card = json.loads(encode_for_teams(stored(transition)))["attachments"][0]["content"]
            return str(card["body"][0]["inlines"][0]["color"])

        assert colour(firing()) == "Attention"
        assert colour(firing(finding(severity=Severity.WARNING))) == "Warning"
        assert colour(resolved()) == "Good"


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
        assert all(link.keys() == {"href", "text"} for link in event["links"])
        assert all(link["href"].startswith("https://lw.example/") for link in event["links"])

    def test_an_episode_is_one_incident_and_the_next_one_another(self) -> None:
        look = Observation(
            identity=AlertIdentity("local", "m", "latest", RuleGroup.WEIGHTS),
            version="v1",
            fingerprint="sha256:1",
            verdict=Verdict.FAIL,
            findings=(finding(),),
        )
        state, keys = None, []
        for hours, findings in enumerate([(finding(),), (), (finding(),)]):
            seen = Observation(look.identity, "v1", f"sha256:{hours}", Verdict.FAIL, findings)
            state, (transition,) = advance(state, seen, NOW + timedelta(hours=hours), timedelta(hours=12))
            keys.append(json.loads(encode_for_pagerduty(stored(transition), KEY))["dedup_key"])

        assert keys[0] == keys[1] != keys[2]


class TestAlertmanager:
    """API v2 as published: github.com/prometheus/alertmanager, api/v2/openapi.yaml, postableAlerts."""

    @settings(deadline=None, max_examples=80)
    @given(payloads())
    def test_every_alert_has_the_published_form(self, payload: str) -> None:
        for alert in json.loads(encode_alerts(payload, NOW + timedelta(hours=24))):
            assert alert.keys() <= {"labels", "annotations", "startsAt", "endsAt", "generatorURL"}
            assert alert["labels"].keys() == {
                "alertname", "registry", "model", "ref", "rule_group", "severity",
            }  # fmt: skip
            for texts in (alert["labels"], alert["annotations"]):
                assert all(isinstance(text, str) for text in texts.values())
            assert alert["startsAt"] <= alert["endsAt"]
            assert alert.get("generatorURL", "https://").startswith("https://")

    def test_first_and_last_event_are_about_the_same_labels(self) -> None:
        first, last = (
            json.loads(encode_alerts(stored(each), NOW + timedelta(hours=24)))
            for each in (firing(), resolved())
        )

        assert len(first) == len(last) == 1
        assert first[0]["labels"] == last[0]["labels"]
        assert first[0]["labels"]["severity"] == "critical"
        assert (first[0]["endsAt"], last[0]["endsAt"]) == ("2026-03-02T12:00:00Z", "2026-03-01T13:00:00Z")

    def test_the_event_that_it_became_worse_ends_its_milder_forms(self) -> None:
        identity = AlertIdentity("local", "m", "latest", RuleGroup.WEIGHTS)
        state, told = None, []
        for hours, severity in enumerate([Severity.WARNING, Severity.CRITICAL]):
            seen = Observation(identity, "v1", "sha256:1", Verdict.FAIL, (finding(severity=severity),))
            state, (transition,) = advance(state, seen, NOW + timedelta(hours=hours), timedelta(hours=12))
            told.append(json.loads(encode_alerts(stored(transition), NOW + timedelta(hours=24))))

        ends = [{alert["labels"]["severity"]: alert["endsAt"] for alert in alerts} for alerts in told]
        later, now = "2026-03-02T12:00:00Z", "2026-03-01T13:00:00Z"
        assert ends == [{"warning": later}, {"critical": later, "info": now, "warning": now}]
