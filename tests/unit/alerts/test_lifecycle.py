"""The life of an alert: when it begins, gets worse and ends, why, and under which id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alertvalues import IDENTITY, NOW, finding, seen
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import (
    Acknowledgement,
    AlertIdentity,
    AlertPhase,
    AlertState,
    Observation,
    Pending,
    Transition,
    TransitionReason,
)
from layerwatch.metrics.findings import Finding, RuleGroup, Severity

Look = tuple[Observation, timedelta]

MINUTE = timedelta(minutes=1)
TWICE = {"relative_change": 2}
THRICE = {"relative_change": 3}


def live(
    looks: Iterable[Look], for_scans: Mapping[str, int] | None = None, state: AlertState | None = None
) -> tuple[AlertState | None, list[Transition]]:
    """All transitions of a history of (observation, time since the previous look)."""
    now = NOW
    told: list[Transition] = []
    for observation, pause in looks:
        now += pause
        state, transitions = advance(state, observation, now, for_scans or {})
        told.extend(transitions)
    return state, told


def spaced(*observations: Observation) -> list[Look]:
    return [(each, MINUTE) for each in observations]


def reasons(*observations: Observation, for_scans: Mapping[str, int] | None = None) -> list[TransitionReason]:
    return [event.reason for event in live(spaced(*observations), for_scans)[1]]


def scans(*observations: Observation) -> list[Observation]:
    """The observations as those of one scan each."""
    return [replace(each, scan=f"scan {number}") for number, each in enumerate(observations, start=1)]


def by_rule(rule: str, layer: str | None = "fc2", severity: Severity = Severity.CRITICAL) -> Finding:
    return replace(finding(layer, severity), rule=rule)


def known(state: AlertState | None) -> AlertState:
    assert state is not None
    return state


class TestOneStep:
    def test_the_first_finding_fires(self) -> None:
        state, (event,) = advance(None, replace(seen(finding("fc2")), scan="s1"), NOW)

        assert event.reason is TransitionReason.FIRST
        assert event.state is state
        assert event.findings == (finding("fc2"),)
        assert state == AlertState(
            identity=IDENTITY,
            phase=AlertPhase.FIRING,
            episode=1,
            version="v5",
            fingerprint="sha256:v5",
            severity=Severity.CRITICAL,
            layers=("fc2",),
            started_at=NOW,
            changed_at=NOW,
            sequence=1,
            reason=TransitionReason.FIRST,
            event_id=event.event_id,
            rules=("relative_change",),
            pending=Pending("s1", (("relative_change", 1),)),
        )

    def test_nothing_found_before_any_alert_leaves_no_trace(self) -> None:
        assert advance(None, seen(), NOW) == (None, ())
        assert advance(None, seen(version=None), NOW) == (None, ())

    def test_a_layer_not_told_before_is_news(self) -> None:
        assert reasons(seen(finding("fc1")), seen(finding("fc1"), finding("fc2"))) == [
            TransitionReason.FIRST,
            TransitionReason.NEW_LAYERS,
        ]

    def test_a_finding_about_the_whole_version_counts_as_a_layer(self) -> None:
        state, told = live(spaced(seen(finding("fc1")), seen(finding(None))))

        assert [event.reason for event in told] == [TransitionReason.FIRST, TransitionReason.NEW_LAYERS]
        assert known(state).layers == ("", "fc1")

    def test_a_worse_severity_is_news_and_outranks_new_layers(self) -> None:
        warning, critical = finding("fc1", Severity.WARNING), finding("fc1", Severity.CRITICAL)
        state, told = live(spaced(seen(warning), seen(critical, finding("fc2"))))

        assert [event.reason for event in told[1:]] == [TransitionReason.RAISED_SEVERITY]
        assert (known(state).severity, known(state).layers) == (Severity.CRITICAL, ("fc1", "fc2"))

    def test_a_milder_or_smaller_alert_is_no_news_and_coming_back_is_none_either(self) -> None:
        bad = seen(finding("fc1"), finding("fc2"))
        milder = seen(finding("fc2", Severity.WARNING))

        assert reasons(bad, milder, bad) == [TransitionReason.FIRST]

    def test_another_version_with_the_same_fault_is_no_news_but_the_state_follows_the_ref(self) -> None:
        state, told = live(spaced(seen(by_rule("nan")), seen(by_rule("scaled"), version="v6")))

        assert [event.reason for event in told] == [TransitionReason.FIRST]
        now = known(state)
        assert (now.version, now.fingerprint, now.rules) == ("v6", "sha256:v6", ("scaled",))
        assert now.changed_at == NOW + MINUTE

    def test_time_alone_changes_nothing(self) -> None:
        state, _ = advance(None, seen(finding()), NOW)

        for later in (timedelta(days=30), timedelta(days=-30)):
            after, transitions = advance(state, seen(finding()), NOW + later)
            assert transitions == ()
            assert replace(known(after), pending=Pending()) == replace(known(state), pending=Pending())

    def test_a_version_without_findings_resolves(self) -> None:
        state, told = live([(seen(finding()), timedelta(0)), (seen(version="v6"), MINUTE * 60)])

        assert told[1].reason is TransitionReason.VERSION_PASSED
        assert told[1].findings == ()
        ended = known(state)
        assert ended.phase is AlertPhase.RESOLVED
        assert ended.version == "v6"
        assert (ended.started_at, ended.changed_at) == (NOW, NOW + MINUTE * 60)
        assert (ended.layers, ended.rules) == (("fc2",), ("relative_change",))

    @pytest.mark.parametrize(
        "why",
        [
            TransitionReason.VERSION_PASSED,
            TransitionReason.MOVED_BACK,
            TransitionReason.VERSION_ACCEPTED,
            TransitionReason.DELIVERED,
        ],
    )
    def test_it_ends_as_the_observation_says(self, why: TransitionReason) -> None:
        ended = replace(seen(version="v4"), ends_as=why)
        state, told = live(spaced(seen(finding()), ended))

        assert told[1].reason is why
        assert known(state).reason is why

    def test_why_it_would_end_does_not_matter_while_there_are_findings(self) -> None:
        back = replace(seen(finding(), version="v4"), ends_as=TransitionReason.MOVED_BACK)

        assert reasons(seen(finding()), back) == [TransitionReason.FIRST]

    def test_a_ref_that_is_gone_resolves_with_its_own_reason_and_the_last_version_known(self) -> None:
        gone = replace(seen(version=None), ends_as=TransitionReason.MOVED_BACK)
        state, told = live(spaced(seen(finding()), gone))

        assert told[1].reason is TransitionReason.REF_GONE
        assert told[1].verdict is None
        assert known(state).version == "v5"

    def test_a_resolved_alert_stays_resolved_silently(self) -> None:
        assert len(reasons(seen(finding()), seen(), seen(), seen(version=None))) == 2

    def test_the_same_version_fires_again_as_a_new_episode_under_a_new_id(self) -> None:
        _, told = live(spaced(seen(finding()), seen(), seen(finding())))

        assert [event.state.episode for event in told] == [1, 1, 2]
        assert told[0].event_id != told[2].event_id
        assert told[2].state.sequence == 3
        assert told[2].state.started_at == NOW + 3 * MINUTE

    def test_an_alert_does_not_resolve_while_its_layer_cannot_be_examined(self) -> None:
        fired = seen(finding("fc2"))

        assert reasons(fired, seen(undecided_layers=frozenset({"fc2"}))) == [TransitionReason.FIRST]
        assert reasons(fired, seen(undecided_layers=frozenset({""}))) == [TransitionReason.FIRST]
        assert reasons(fired, seen(undecided_layers=frozenset({"other"}))) == [
            TransitionReason.FIRST,
            TransitionReason.VERSION_PASSED,
        ]

    def test_an_alert_that_cannot_be_examined_follows_its_ref_and_keeps_its_rules(self) -> None:
        state, _ = live(spaced(seen(finding("fc2")), seen(version="v6", undecided_layers=frozenset({"fc2"}))))

        now = known(state)
        assert (now.phase, now.version, now.rules) == (AlertPhase.FIRING, "v6", ("relative_change",))

    def test_a_crash_that_lost_the_state_gives_the_same_id_later(self) -> None:
        _, (before,) = advance(None, seen(finding()), NOW)
        _, (after,) = advance(None, seen(finding()), NOW + timedelta(hours=3))

        assert before.event_id == after.event_id


class TestConfirmation:
    """``for_scans``: so many scans in a row must find something by the rule."""

    def test_it_is_pending_until_the_scan_that_completes_the_count(self) -> None:
        first, second, third = scans(*[seen(finding())] * 3)
        state, told = live(spaced(first, second), THRICE)

        assert told == []
        waits = known(state)
        assert (waits.phase, waits.episode, waits.sequence) == (AlertPhase.PENDING, 0, 0)
        assert (waits.version, waits.layers, waits.severity) == ("v5", ("fc2",), Severity.CRITICAL)
        assert waits.pending == Pending("scan 2", (("relative_change", 2),))
        assert waits.started_at == NOW + MINUTE

        fired, (event,) = advance(state, third, NOW + timedelta(hours=1), THRICE)
        assert event.reason is TransitionReason.FIRST
        assert (event.state.episode, event.state.sequence) == (1, 1)
        assert known(fired).started_at == NOW + timedelta(hours=1)

    def test_a_scan_that_is_seen_twice_counts_once(self) -> None:
        (scan,) = scans(seen(finding()))
        state, told = live(spaced(scan, scan, scan), TWICE)

        assert told == []
        assert known(state).pending.counts == (("relative_change", 1),)

    def test_the_scan_that_completed_the_count_seen_again_fires_no_second_time(self) -> None:
        first, second = scans(seen(finding()), seen(finding()))

        assert reasons(first, second, second, second, for_scans=TWICE) == [TransitionReason.FIRST]

    def test_a_scan_without_the_finding_resets_the_count(self) -> None:
        bad, good = seen(finding()), seen()

        assert reasons(*scans(bad, good, bad, good, bad), for_scans=TWICE) == []
        assert reasons(*scans(bad, good, bad, bad), for_scans=TWICE) == [TransitionReason.FIRST]

    def test_a_pending_alert_about_which_nothing_is_found_any_more_is_over_untold(self) -> None:
        state, told = live(spaced(*scans(seen(finding()), seen())), TWICE)

        assert told == []
        assert (known(state).phase, known(state).sequence) == (AlertPhase.RESOLVED, 0)
        assert known(state).pending.counts == ()

    def test_a_pending_alert_whose_ref_is_gone_is_over_untold(self) -> None:
        state, told = live(spaced(*scans(seen(finding()), seen(version=None), seen(finding()))), TWICE)

        assert told == []
        assert known(state).pending.counts == (("relative_change", 1),)

    def test_a_version_that_could_not_be_read_neither_counts_nor_resets(self) -> None:
        bad, unread = seen(finding()), seen(version="v6", undecided_layers=frozenset({""}))
        state, told = live(spaced(*scans(bad, unread)), TWICE)

        assert told == []
        assert known(state).phase is AlertPhase.PENDING
        assert known(state).version == "v5"
        assert reasons(*scans(bad, unread, unread, bad), for_scans=TWICE) == [TransitionReason.FIRST]

    def test_only_rules_that_want_it_wait(self) -> None:
        slow, quick = by_rule("relative_change", "fc1"), by_rule("nan", "fc2")
        state, (event,) = live(spaced(*scans(seen(slow, quick))), TWICE)

        assert event.findings == (quick,)
        assert (known(state).layers, known(state).rules) == (("fc2",), ("nan",))

        after, told = advance(state, scans(seen(), seen(slow, quick))[1], NOW + MINUTE, TWICE)
        assert [each.reason for each in told] == [TransitionReason.NEW_LAYERS]
        assert known(after).rules == ("nan", "relative_change")

    def test_each_rule_counts_for_itself(self) -> None:
        one, other = by_rule("relative_change"), by_rule("scaled")

        both = {"relative_change": 2, "scaled": 2}
        assert reasons(*scans(seen(one), seen(other), seen(one), seen(other)), for_scans=both) == []
        assert reasons(*scans(seen(one), seen(one, other)), for_scans=both) == [TransitionReason.FIRST]

    def test_another_layer_by_the_same_rule_goes_on_counting(self) -> None:
        _, (event,) = live(spaced(*scans(seen(finding("fc1")), seen(finding("fc2")))), TWICE)

        assert event.state.layers == ("fc2",)

    def test_waiting_begins_anew_after_an_end(self) -> None:
        bad, good = seen(finding()), seen()
        state, told = live(spaced(*scans(bad, bad, good, bad)), TWICE)

        assert [each.reason for each in told] == [TransitionReason.FIRST, TransitionReason.VERSION_PASSED]
        waits = known(state)
        assert (waits.phase, waits.episode, waits.sequence) == (AlertPhase.PENDING, 1, 2)
        assert waits.event_id == told[1].event_id
        assert waits.changed_at == told[1].state.changed_at

        _, (again,) = advance(state, replace(bad, scan="scan 5"), NOW, TWICE)
        assert (again.state.episode, again.state.sequence) == (2, 3)

    def test_what_waits_when_an_alert_ends_is_pending_from_there_on(self) -> None:
        quick, slow = scans(seen(by_rule("nan")), seen(by_rule("relative_change", "fc1")))
        state, told = live(spaced(quick, slow), TWICE)

        assert [each.reason for each in told] == [TransitionReason.FIRST, TransitionReason.VERSION_PASSED]
        assert told[1].state.phase is AlertPhase.RESOLVED
        assert (known(state).phase, known(state).layers) == (AlertPhase.PENDING, ("fc1",))
        assert (known(state).sequence, known(state).event_id) == (2, told[1].event_id)
        assert advance(state, slow, NOW + timedelta(hours=1), TWICE) == (state, ())

    def test_what_fires_goes_on_when_its_layer_could_not_be_examined_for_once(self) -> None:
        bad = seen(finding("fc2"))
        held = seen(undecided_layers=frozenset({"fc2"}))

        assert reasons(*scans(bad, bad, held, bad), for_scans=TWICE) == [TransitionReason.FIRST]

    def test_what_fires_goes_on_when_the_configuration_wants_more_scans_than_before(self) -> None:
        first, second = scans(seen(finding()), seen(finding()))
        state, _ = advance(None, first, NOW)

        after, told = advance(state, second, NOW + MINUTE, THRICE)
        assert told == ()
        assert known(after).phase is AlertPhase.FIRING


class TestAcknowledgement:
    ON_IT = Acknowledgement("ann", NOW, "rolling back")

    def fired(self) -> AlertState:
        state, _ = advance(None, seen(finding("fc1", Severity.WARNING)), NOW)
        return replace(known(state), acknowledgement=self.ON_IT)

    def test_it_stays_while_nothing_changes(self) -> None:
        fired = self.fired()
        for look in (
            seen(finding("fc1", Severity.WARNING), version="v6"),
            seen(undecided_layers=frozenset({"fc1"})),
        ):
            after, _ = advance(fired, look, NOW + MINUTE)
            assert known(after).acknowledgement == self.ON_IT

    @pytest.mark.parametrize(
        "look",
        [
            seen(finding("fc1", Severity.CRITICAL)),
            seen(finding("fc1", Severity.WARNING), finding("fc2", Severity.WARNING)),
            seen(),
            seen(version=None),
        ],
        ids=["worse", "more layers", "over", "gone"],
    )
    def test_news_and_the_end_clear_it(self, look: Observation) -> None:
        after, (event,) = advance(self.fired(), look, NOW + MINUTE)

        assert known(after).acknowledgement is None
        assert event.state.acknowledgement is None

    def test_it_does_not_come_back_with_the_next_episode(self) -> None:
        state, told = live(spaced(seen(), seen(finding())), state=self.fired())

        assert len(told) == 2
        assert known(state).acknowledgement is None


class TestContract:
    def test_an_observation_of_another_identity_is_refused(self) -> None:
        state, _ = advance(None, seen(finding()), NOW)
        other = AlertIdentity("local", "other", "latest", RuleGroup.WEIGHTS)

        with pytest.raises(ValueError, match="cannot take an observation"):
            advance(state, seen(finding(), identity=other), NOW)

    def test_findings_without_a_version_are_refused(self) -> None:
        with pytest.raises(ValueError, match="without a version"):
            advance(None, replace(seen(finding()), version=None), NOW)


RULES = ["relative_change", "scaled", "nan"]
WAITS = st.dictionaries(st.sampled_from(RULES), st.integers(1, 3))

findings = st.lists(
    st.builds(
        by_rule,
        st.sampled_from(RULES),
        st.sampled_from(["fc1", "fc2", "conv", None]),
        st.sampled_from(Severity),
    ),
    max_size=3,
)
observations = st.one_of(
    st.builds(
        lambda found, version, undecided, ends_as: replace(
            seen(*found, version=version, undecided_layers=undecided), ends_as=ends_as
        ),
        findings,
        st.sampled_from(["v1", "v2", "v3"]),
        st.frozensets(st.sampled_from(["", "fc1", "fc2"]), max_size=1),
        st.sampled_from(
            [
                TransitionReason.VERSION_PASSED,
                TransitionReason.MOVED_BACK,
                TransitionReason.VERSION_ACCEPTED,
            ]
        ),
    ),
    st.just(seen(version=None)),
)
# The clock may be set back between two looks.
pauses = st.one_of(st.integers(0, 1440), st.sampled_from([-1440, 1440])).map(
    lambda minutes: timedelta(minutes=minutes)
)


@st.composite
def histories(draw: st.DrawFn) -> list[Look]:
    """Looks at scans, some of which are looked at more than once."""
    looks: list[Look] = []
    for number, observation in enumerate(draw(st.lists(observations, max_size=25))):
        one = replace(observation, scan=f"scan {number}")
        looks += [(one, draw(pauses)) for _ in range(draw(st.sampled_from([1, 1, 2])))]
    return looks


class TestEveryHistory:
    @settings(deadline=None)
    @given(histories(), WAITS)
    def test_each_episode_begins_with_one_firing_and_ends_with_at_most_one_resolution(
        self, looks: list[Look], waits: dict[str, int]
    ) -> None:
        _, told = live(looks, waits)

        episodes: dict[int, list[Transition]] = {}
        for event in told:
            episodes.setdefault(event.state.episode, []).append(event)
        assert list(episodes) == list(range(1, len(episodes) + 1))
        for number, events in episodes.items():
            assert events[0].reason is TransitionReason.FIRST
            assert all(event.reason is not TransitionReason.FIRST for event in events[1:])
            phases = [event.state.phase for event in events]
            assert all(phase is AlertPhase.FIRING for phase in phases[:-1])
            assert phases[-1] is AlertPhase.RESOLVED or number == len(episodes)
            assert {event.state.started_at for event in events} == {events[0].state.changed_at}

    @settings(deadline=None)
    @given(histories(), WAITS)
    def test_ids_are_unique_and_sequences_count_up_by_one(
        self, looks: list[Look], waits: dict[str, int]
    ) -> None:
        state, told = live(looks, waits)

        assert len({event.event_id for event in told}) == len(told)
        assert [event.state.sequence for event in told] == list(range(1, len(told) + 1))
        if told:
            assert (known(state).sequence, known(state).event_id) == (len(told), told[-1].event_id)

    @settings(deadline=None)
    @given(histories(), WAITS)
    def test_looking_twice_at_the_same_scan_changes_nothing(
        self, looks: list[Look], waits: dict[str, int]
    ) -> None:
        doubled = [
            look
            for observation, pause in looks
            for look in ((observation, pause), (observation, timedelta(0)))
        ]

        assert live(doubled, waits) == live(looks, waits)

    @settings(deadline=None)
    @given(histories(), WAITS)
    def test_a_replay_gives_the_same_transitions(self, looks: list[Look], waits: dict[str, int]) -> None:
        assert live(looks, waits) == live(list(looks), dict(waits))

    @settings(deadline=None)
    @given(histories(), WAITS)
    def test_times_go_into_no_id(self, looks: list[Look], waits: dict[str, int]) -> None:
        _, told = live(looks, waits)
        _, later = live([(observation, pause + MINUTE) for observation, pause in looks], waits)

        assert [event.event_id for event in told] == [event.event_id for event in later]

    @settings(deadline=None)
    @given(histories(), WAITS)
    def test_within_an_episode_severity_and_layers_only_grow(
        self, looks: list[Look], waits: dict[str, int]
    ) -> None:
        _, told = live(looks, waits)

        for before, after in pairwise(told):
            if before.state.episode == after.state.episode:
                assert after.state.severity.at_least(before.state.severity)
                assert set(before.state.layers) <= set(after.state.layers)
                if after.state.phase is AlertPhase.FIRING:
                    assert (before.state.severity, before.state.layers) != (
                        after.state.severity,
                        after.state.layers,
                    )

    @settings(deadline=None)
    @given(histories())
    def test_without_confirmation_it_fires_exactly_while_something_is_found_or_may_be(
        self, looks: list[Look]
    ) -> None:
        state, _ = live(looks)

        last = looks[-1][0] if looks else seen()
        if last.findings:
            assert known(state).phase is AlertPhase.FIRING
            assert (known(state).version, known(state).fingerprint) == (last.version, last.fingerprint)
        elif not last.undecided_layers:
            assert state is None or state.phase is AlertPhase.RESOLVED

    @settings(deadline=None)
    @given(histories(), WAITS)
    def test_what_is_found_is_never_told_as_over_nor_what_is_not_as_pending(
        self, looks: list[Look], waits: dict[str, int]
    ) -> None:
        """A model of the doc string: rules that fire go on firing for as long as they find something."""
        state: AlertState | None = None
        for observation, _ in looks:
            before = state
            state, transitions = advance(state, observation, NOW, waits)
            fired = before is not None and before.phase is AlertPhase.FIRING
            if fired and {each.rule for each in observation.findings} & set(known(before).rules):
                assert all(event.state.phase is AlertPhase.FIRING for event in transitions)
            if state is not None and state.phase is AlertPhase.PENDING and not observation.findings:
                assert "" in observation.undecided_layers
