"""What people read of an event."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alertvalues import IDENTITY, finding, firing, resolved
from layerwatch.alerts.message import Message, as_text, fitted, inert, message_of
from layerwatch.alerts.model import Transition
from layerwatch.alerts.payload import EventContext, build_event, encode_event
from layerwatch.metrics.findings import Finding, RuleGroup, Severity

CONTEXT = EventContext("v4", "finetuned", "parent", undecided_layers=2, external_url="https://lw.example/")


def told(transition: Transition, context: EventContext = CONTEXT) -> Message:
    return message_of(encode_event(build_event(transition, context)))


def test_a_firing_event_reads_as_a_person_on_call_needs_it() -> None:
    worst = finding("fc2", message="alpha 5.3 -> 22.6, 24 sigma", evidence={"alpha": 22.5961, "fit": None})
    message = told(firing(worst, finding("fc1", Severity.WARNING)))

    assert (message.label, message.subject) == ("CRITICAL", "digits-mlp v5 (latest)")
    assert as_text(message) == (
        "digits-mlp v5 (latest, against v4): layer fc2 is broken: alpha 5.3 -> 22.6, 24 sigma; 1 more layer\n"
        "\n"
        "Model: digits-mlp in registry local\n"
        "Version: v5, ref latest\n"
        "Firing since: 2026-03-01T12:00:00Z\n"
        "Baseline: v4 (finetuned, chosen as parent)\n"
        "Likely cause: a conversion or a merge that went wrong in this layer alone: a scale, a mask, a wrong "
        "tensor under the name.\n"
        "Not examined: 2 layers, which may be broken too\n"
        "\n"
        "Findings, worst first:\n"
        "- fc2 (critical, relative_change): alpha 5.3 -> 22.6, 24 sigma\n"
        "  alpha 22.6\n"
        "- fc1 (warning, relative_change): relative change 0.92 (limit 0.35)\n"
        "  relative_change 0.92, limit 0.35\n"
        "\n"
        "Report: https://lw.example/report?registry=local&model=digits-mlp&ref=latest\n"
        "What the rule means: https://lw.example/explain/relative_change"
    )


def test_a_resolution_says_since_when_it_was_firing_and_no_cause() -> None:
    message = told(resolved(), EventContext())

    assert message.label == "RESOLVED"
    assert as_text(message) == (
        "digits-mlp v6 (latest): resolved, no finding about weights left; was firing since 2026-03-01T12:00:00Z\n"
        "\n"
        "Model: digits-mlp in registry local\n"
        "Version: v6, ref latest\n"
        "Was firing since: 2026-03-01T12:00:00Z"
    )


def test_without_a_baseline_it_is_said() -> None:
    assert "Baseline: none" in as_text(told(firing(), EventContext()))


def test_a_finding_about_the_whole_version_and_an_unknown_rule_are_told_too() -> None:
    strange = Finding("rule_of_tomorrow", RuleGroup.WEIGHTS, Severity.CRITICAL, None, "it is odd", {})
    message = told(firing(strange), EventContext())

    assert message.findings[0].text == "the whole version (critical, rule_of_tomorrow): it is odd"
    assert message.findings[0].numbers == ""
    assert "Likely cause" not in as_text(message)


def test_findings_that_do_not_fit_are_left_out_from_the_end_and_counted() -> None:
    message = told(firing(*(finding(f"layer{number}") for number in range(30))))

    text = fitted(message, as_text, lambda text: len(text) < 1000)
    kept = text.count("- layer")
    assert 0 < kept < 20
    assert [f"- layer{number} " in text for number in range(20)] == [True] * kept + [False] * (20 - kept)
    assert f"- {30 - kept} more not shown here" in text


def test_what_never_fits_loses_all_findings_and_no_more() -> None:
    text = fitted(told(firing()), as_text, lambda text: False)

    assert text.startswith("digits-mlp v5")
    assert "- 1 more not shown here" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@channel", "＠channel"),
        ("<!here> <@U1>", "＜!here> ＜＠U1>"),
        ("[x](https://evil.example)", "［x](https: //evil.example)"),
        ("layer3.1.conv2: 5.3 -> 22.6", "layer3.1.conv2: 5.3 -> 22.6"),
    ],
)
def test_foreign_text_loses_what_mentions_and_links_begin_with(text: str, expected: str) -> None:
    assert inert(text) == expected


@settings(deadline=None, max_examples=50)
@given(st.tuples(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60)), st.text(max_size=60))
def test_no_name_becomes_a_mention_a_tag_a_link_or_a_line(names: tuple[str, str, str], layer: str) -> None:
    identity = type(IDENTITY)(names[0], f"{names[1]}@all <!here>", names[2], RuleGroup.WEIGHTS)
    hostile = finding(f"{layer}\n[x](http://evil.example)", message=f"{layer} http://evil.example")
    with_names = as_text(told(firing(hostile, identity=identity), EventContext()))
    plain_names = as_text(told(firing(finding("fc2")), EventContext()))

    assert not {"@", "<", "["} & set(with_names)
    assert "://" not in with_names
    assert with_names.count("\n") == plain_names.count("\n")
