"""What people read of an event. The whole texts are in test_message_texts.py."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alertvalues import IDENTITY, NOW, event_of, finding, firing, payload_of, resolved, seen
from layerwatch.alerts.event import encode_event
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.message import Message, Section, as_text, fitted, inert, message_of
from layerwatch.alerts.model import AlertIdentity, AlertPhase, Transition, TransitionReason
from layerwatch.alerts.payload import AlertContext, Diagnosis
from layerwatch.metrics.findings import Finding, RuleGroup, Severity

CONTEXT = AlertContext("v4", "finetuned", "parent", undecided_layers=2, external_url="https://lw.example/")
NOTHING = AlertContext()


def told(*transitions: Transition, context: AlertContext = CONTEXT) -> Message:
    return message_of(payload_of(*transitions, context=context))


def facts(message: Message, number: int = 0) -> dict[str, str]:
    return {fact.name: fact.text for fact in message.sections[number].facts}


def of(
    model: str, ref: str = "latest", version: str = "v5", group: RuleGroup = RuleGroup.WEIGHTS
) -> Transition:
    return firing(
        replace(finding(), group=group), identity=AlertIdentity("local", model, ref, group), version=version
    )


def over(fired: Transition, version: str = "v6") -> Transition:
    identity = fired.state.identity
    _, (transition,) = advance(
        fired.state, seen(identity=identity, version=version), NOW + timedelta(hours=1)
    )
    return transition


class TestOneAlert:
    def test_label_and_subject_say_how_bad_and_about_what(self) -> None:
        def head(*transitions: Transition) -> tuple[str, str]:
            return told(*transitions).label, told(*transitions).subject

        assert head(firing()) == ("CRITICAL", "digits-mlp v5 (latest)")
        assert head(firing(finding(severity=Severity.WARNING)))[0] == "WARNING"
        assert head(firing(finding(severity=Severity.INFO)))[0] == "INFO"
        assert head(resolved()) == ("RESOLVED", "digits-mlp v6 (latest)")

    def test_its_facts_are_those_a_person_asks_for_first(self) -> None:
        assert list(facts(told(firing())).items())[:4] == [
            ("Model", "digits-mlp in registry local"),
            ("Version", "v5, ref latest"),
            ("Firing since", "2026-03-01 12:00:00 UTC"),
            ("Baseline", "v4 (parent, finetuned)"),
        ]
        assert facts(told(firing()))["Not examined"] == "2 layers, which may be broken too"

    @pytest.mark.parametrize(
        ("context", "expected"),
        [
            (NOTHING, "none"),
            (AlertContext("v4"), "v4"),
            (AlertContext("v4", "finetuned"), "v4 (finetuned)"),
            (AlertContext("v4", None, "history"), "v4 (history)"),
        ],
    )
    def test_the_baseline_is_told_as_far_as_it_is_known(self, context: AlertContext, expected: str) -> None:
        assert facts(told(firing(), context=context))["Baseline"] == expected

    def test_one_layer_that_was_not_examined_is_one(self) -> None:
        message = told(firing(), context=AlertContext(undecided_layers=1))

        assert facts(message)["Not examined"] == "1 layer, which may be broken too"
        assert "Not examined" not in facts(told(firing(), context=NOTHING))

    def test_a_broken_parent_is_named_with_its_layer(self) -> None:
        with_layer = told(firing(), context=AlertContext("v4", broken_parent=("v4", "fc9")))
        without = told(firing(), context=AlertContext("v4", broken_parent=("v3", None)))

        assert facts(with_layer)["Parent"] == "v4 is broken itself (layer fc9): look there first"
        assert facts(without)["Parent"] == "v3 is broken itself: look there first"

    def test_cause_and_next_step_are_those_of_the_diagnosis(self) -> None:
        diagnosis = Diagnosis("fc2", "scaled", "a lost scale.", "check the export.")
        message = told(firing(), context=AlertContext(diagnoses=[diagnosis]))

        assert (facts(message)["Likely cause"], facts(message)["What to do"]) == (
            "a lost scale.",
            "check the export.",
        )

    def test_of_several_diagnoses_two_are_told_with_their_layers_each_cause_once(self) -> None:
        diagnoses = [
            Diagnosis("fc1", "scaled", "a lost scale.", "check the export."),
            Diagnosis("fc2", "scaled", "a lost scale.", "check the export."),
            Diagnosis(None, "unrelated", "another parent.", "name the parent."),
        ]
        message = told(firing(), context=AlertContext(diagnoses=diagnoses))

        explained = [
            (fact.name, fact.text)
            for fact in message.sections[0].facts
            if fact.name in ("Likely cause", "What to do")
        ]
        assert explained == [
            ("Likely cause", "fc1: a lost scale."),
            ("What to do", "fc1: check the export."),
            ("Likely cause", "the whole version: another parent."),
            ("What to do", "the whole version: name the parent."),
        ]

    def test_without_a_diagnosis_the_rules_say_the_cause(self) -> None:
        assert facts(told(firing()))["Likely cause"].startswith("a conversion or a merge that went wrong")

    def test_a_finding_about_the_whole_version_and_an_unknown_rule_are_told_too(self) -> None:
        strange = Finding("rule_of_tomorrow", RuleGroup.WEIGHTS, Severity.CRITICAL, None, "it is odd", {})
        message = told(firing(strange), context=NOTHING)

        (line,) = message.sections[0].findings
        assert (line.text, line.numbers) == (
            "the whole version (critical, rule_of_tomorrow): it is odd",
            "",
        )
        assert "Likely cause" not in facts(message)

    def test_a_layers_numbers_in_words_stand_in_place_of_the_evidence_and_once(self) -> None:
        context = AlertContext(numbers={"fc2": "alpha 5.3 -> 22.6, 24 sigma"})
        same_layer = (finding("fc2"), replace(finding("fc2"), rule="scaled"), finding("fc1"))
        lines = told(firing(*same_layer), context=context).sections[0].findings

        assert [line.numbers for line in lines] == [
            "alpha 5.3 -> 22.6, 24 sigma",
            "",
            "relative_change 0.92, limit 0.35",
        ]

    def test_of_the_evidence_numbers_are_told_and_no_more_than_six(self) -> None:
        evidence = {"text": "x", "flag": True, "none": None, **{f"n{k}": k + 0.123456 for k in range(9)}}
        (line,) = told(firing(finding(evidence=evidence))).sections[0].findings

        assert line.numbers == "n0 0.1235, n1 1.123, n2 2.123, n3 3.123, n4 4.123, n5 5.123"

    def test_an_end_says_from_when_to_when_about_what_and_why(self) -> None:
        assert facts(told(resolved(), context=NOTHING)) == {
            "Model": "digits-mlp in registry local",
            "Version": "v6, ref latest",
            "Was firing": "2026-03-01 12:00:00 UTC to 2026-03-01 13:00:00 UTC",
            "Was about": "fc2",
            "Resolved": "no finding about weights left",
        }

    def test_an_alert_about_deliveries_is_about_a_receiver_and_no_model(self) -> None:
        lost = replace(
            finding(None, message="3 events will not reach the receiver", evidence={}),
            group=RuleGroup.DELIVERY,
            rule="undelivered",
        )
        identity = AlertIdentity("layerwatch", "oncall", "deliveries", RuleGroup.DELIVERY)
        message = told(firing(lost, identity=identity, version="oncall"), context=NOTHING)

        assert message.subject == "receiver oncall"
        assert facts(message)["Receiver"] == "oncall"
        assert not {"Model", "Version", "Baseline"} & set(facts(message))

    def test_links_are_those_of_the_daemon_and_absent_without_its_address(self) -> None:
        assert [(link.title, link.url.split("?")[0]) for link in told(firing()).links] == [
            ("Report", "https://lw.example/report"),
            ("Spectrum", "https://lw.example/spectrum.png"),
            ("What the rule means", "https://lw.example/explain/relative_change"),
        ]
        assert told(firing(), context=NOTHING).links == ()


class TestSeveralAlerts:
    def test_refs_of_one_version_share_a_section_and_findings(self) -> None:
        message = told(of("m"), of("m", "@champion"))

        (section,) = message.sections
        assert section.title == "m v5 (@champion, latest)"
        assert facts(message)["Version"] == "v5, refs @champion, latest"
        assert len(section.findings) == 1

    def test_groups_of_findings_about_one_version_share_a_section(self) -> None:
        message = told(of("m"), of("m", group=RuleGroup.INTEGRITY))

        (section,) = message.sections
        assert len(section.findings) == 1  # They read the same.
        both = told(of("m"), firing(finding("other"), identity=of("m", "x").state.identity))
        assert [len(one.findings) for one in both.sections] == [2]

    def test_each_version_has_a_section_worst_first(self) -> None:
        message = told(over(of("done")), of("n"), of("m", version="v7"))

        assert [section.title for section in message.sections] == [
            "n v5 (latest)",
            "m v7 (latest)",
            "done v6 (latest), resolved",
        ]
        assert message.phase is AlertPhase.FIRING

    def test_beside_what_fires_the_end_of_others_is_told_with_its_reason(self) -> None:
        text = as_text(told(of("n"), over(of("done")), context=NOTHING))

        ended = text[text.index("done v6 (latest), resolved:") :]
        assert "Resolved: no finding about weights left" in ended

    def test_more_refs_than_five_are_cut(self) -> None:
        message = told(*(of("m", f"r{number}") for number in range(9)))

        assert facts(message)["Version"] == "v5, refs r0, r1, r2, r3, r4, ..."

    def test_what_is_left_out_or_muted_is_counted(self) -> None:
        event = event_of(*(of(f"m{number:03}") for number in range(100)), muted=1)
        omitted = event["data"]["alerts_omitted"]
        message = message_of(encode_event(event))

        assert message.omitted == (
            f"{omitted} more alerts not shown here",
            "1 more alert fires and is not told now: silenced, muted, or explained by another one",
        )
        two = message_of(encode_event(event_of(muted=2)))
        assert two.omitted[0].startswith("2 more alerts fire and are not told now: ")

    def test_a_repetition_says_that_it_is_one(self) -> None:
        repeated = event_of(reason=TransitionReason.REPEAT_INTERVAL)

        assert "still firing since" in message_of(encode_event(repeated)).summary


class TestFitting:
    def test_findings_that_do_not_fit_are_left_out_from_the_end_and_counted(self) -> None:
        message = told(firing(*(finding(f"layer{number}") for number in range(30))))

        text = fitted(message, as_text, lambda text: len(text) < 1100)
        kept = text.count("- layer")
        assert 0 < kept < 20
        assert [f"- layer{number} " in text for number in range(20)] == [True] * kept + [False] * (20 - kept)
        assert f"- {30 - kept} more findings not shown here" in text

    def test_of_several_versions_the_last_is_shortened_first_and_then_left_out_by_name(self) -> None:
        def bad(model: str) -> Transition:
            return firing(*(finding(f"l{n}") for n in range(9)), identity=replace(IDENTITY, model=model))

        message = told(bad("a"), bad("b"), context=NOTHING)
        whole = as_text(message)

        shorter = fitted(message, as_text, lambda text: len(text) < len(whole) - 50)
        assert shorter.count("- l") == 17
        assert shorter.index("- 1 more finding not shown here") > shorter.index("b v5 (latest):")

        shortest = fitted(message, as_text, lambda text: False)
        assert shortest.startswith("a v5 (latest): layer l0 is broken")
        assert shortest.count("- ") == 1
        assert "- 9 more findings not shown here" in shortest
        assert shortest.endswith("b v5 (latest): not shown here")

    def test_what_never_fits_loses_all_findings_and_no_more(self) -> None:
        text = fitted(told(firing()), as_text, lambda text: False)

        assert text.startswith("digits-mlp v5")
        assert "- 1 more finding not shown here" in text

    def test_what_fits_is_left_as_it_is(self) -> None:
        message = told(firing())

        assert fitted(message, as_text, lambda text: True) == as_text(message)

    def test_nothing_is_said_of_findings_left_out_where_none_are(self) -> None:
        assert Section("t", (), (), 0, ()).more is None


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


hostile = st.text(max_size=60)


@settings(deadline=None, max_examples=80)
@given(st.tuples(hostile, hostile, hostile, hostile), hostile)
def test_no_name_becomes_a_mention_a_tag_a_link_or_a_line(
    names: tuple[str, str, str, str], layer: str
) -> None:
    evil = "[x](http://evil.example) <!here> @all\n"

    def event(*given_names: str, layer: str, message: str) -> Message:
        registry, model, ref, version = given_names
        context = AlertContext(
            version,
            registry,
            model,
            broken_parent=(version, layer),
            diagnoses=[Diagnosis(layer, model, message, message)],
            numbers={layer: message},
        )
        one = firing(
            finding(layer, message=message),
            identity=AlertIdentity(registry, model, ref, RuleGroup.WEIGHTS),
            version=version,
        )
        other = firing(identity=AlertIdentity("r", f"{model}2", ref, RuleGroup.WEIGHTS))
        return told(one, over(other, version), context=context)

    foreign = as_text(event(*(f"{name}{evil}" for name in names), layer=layer + evil, message=layer + evil))
    plain = as_text(event("r", "m", "latest", "v5", layer="fc2", message="it broke"))

    assert not {"@", "<", "["} & set(foreign)
    assert "://" not in foreign
    assert foreign.count("\n") == plain.count("\n")
