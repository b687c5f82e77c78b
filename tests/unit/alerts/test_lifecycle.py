"""The life of an alert: what is told, why, and under which id."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alertvalues import IDENTITY, NOW, TWELVE_HOURS, finding, seen
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import (
    AlertIdentity,
    AlertPhase,
    AlertState,
    Observation,
    Transition,
    TransitionReason,
)
from layerwatch.metrics.findings import RuleGroup, Severity

Look = tuple[Observation, timedelta]


def live(looks: list[Look]) -> tuple[AlertState | None, list[Transition]]:
    """All events of a history of (observation, time since the previous look)."""
    state: AlertState | None = None
    now = NOW
    told: list[Transition] = []
    for observation, pause in looks:
        now += pause
        state, transitions = advance(state, observation, now, TWELVE_HOURS)
        told.extend(transitions)
    return state, told


def reasons(*observations: Observation, pause: timedelta = timedelta(minutes=1)) -> list[TransitionReason]:
    return [event.reason for event in live([(each, pause) for each in observations])[1]]


class TestOneStep:
    def test_the_first_finding_fires(self) -> None:
        state, (event,) = advance(None, seen(finding("fc2")), NOW, TWELVE_HOURS)

        assert event.reason is TransitionReason.FIRST
        assert event.state is state
        assert state == AlertState(
            identity=IDENTITY,
            phase=AlertPhase.FIRING,
            episode=1,
            version="v5",
            fingerprint="sha256:v5",
            severity=Severity.CRITICAL,
            layers=("fc2",),
            started_at=NOW,
            notified_at=NOW,
            sequence=1,
        )

    def test_nothing_found_before_any_alert_leaves_no_trace(self) -> None:
        assert advance(None, seen(), NOW, TWELVE_HOURS) == (None, ())
        assert advance(None, seen(version=None), NOW, TWELVE_HOURS) == (None, ())

    def test_a_layer_not_told_before_is_news(self) -> None:
        assert reasons(seen(finding("fc1")), seen(finding("fc1"), finding("fc2"))) == [
            TransitionReason.FIRST,
            TransitionReason.NEW_LAYERS,
        ]

    def test_a_finding_about_the_whole_version_counts_as_a_layer(self) -> None:
        state, told = live([(seen(finding("fc1")), timedelta(0)), (seen(finding(None)), timedelta(0))])

        assert [event.reason for event in told] == [TransitionReason.FIRST, TransitionReason.NEW_LAYERS]
        assert state is not None
        assert state.layers == ("", "fc1")

    def test_a_worse_severity_is_news_and_outranks_new_layers(self) -> None:
        warning, critical = finding("fc1", Severity.WARNING), finding("fc1", Severity.CRITICAL)

        assert reasons(seen(warning), seen(critical, finding("fc2")))[1:] == [
            TransitionReason.RAISED_SEVERITY
        ]

    def test_a_milder_or_smaller_alert_is_no_news_and_coming_back_is_none_either(self) -> None:
        bad = seen(finding("fc1"), finding("fc2"))
        milder = seen(finding("fc2", Severity.WARNING))

        assert reasons(bad, milder, bad) == [TransitionReason.FIRST]

    def test_another_version_with_the_same_fault_is_no_news_but_the_state_follows_the_ref(self) -> None:
        state, told = live(
            [(seen(finding()), timedelta(0)), (seen(finding(), version="v6"), timedelta(minutes=1))]
        )

        assert [event.reason for event in told] == [TransitionReason.FIRST]
        assert state is not None
        assert (state.version, state.fingerprint) == ("v6", "sha256:v6")
        assert state.notified_at == NOW

    def test_an_alert_that_goes_on_is_repeated_when_the_interval_is_over_and_not_before(self) -> None:
        state, _ = advance(None, seen(finding()), NOW, TWELVE_HOURS)
        almost = NOW + TWELVE_HOURS - timedelta(seconds=1)

        assert advance(state, seen(finding()), almost, TWELVE_HOURS) == (state, ())
        again, (event,) = advance(state, seen(finding()), NOW + TWELVE_HOURS, TWELVE_HOURS)
        assert event.reason is TransitionReason.REPEAT_INTERVAL
        assert again is not None
        assert again.notified_at == NOW + TWELVE_HOURS
        assert again.started_at == NOW

    def test_news_starts_the_repeat_interval_anew(self) -> None:
        later = timedelta(hours=11)
        history = [
            (seen(finding("fc1")), timedelta(0)),
            (seen(finding("fc2")), later),
            (seen(finding("fc2")), later),
        ]

        assert [event.reason for event in live(history)[1]][1:] == [TransitionReason.NEW_LAYERS]

    def test_a_version_without_findings_resolves(self) -> None:
        state, told = live([(seen(finding()), timedelta(0)), (seen(version="v6"), timedelta(hours=1))])

        assert told[1].reason is TransitionReason.VERSION_PASSED
        assert told[1].findings == ()
        assert state is not None
        assert state.phase is AlertPhase.RESOLVED
        assert state.version == "v6"
        assert state.notified_at == NOW + timedelta(hours=1)

    def test_a_ref_that_is_gone_resolves_with_its_own_reason_and_the_last_version_known(self) -> None:
        state, told = live([(seen(finding()), timedelta(0)), (seen(version=None), timedelta(0))])

        assert told[1].reason is TransitionReason.REF_GONE
        assert told[1].verdict is None
        assert state is not None
        assert state.version == "v5"

    def test_a_resolved_alert_stays_resolved_silently(self) -> None:
        assert len(reasons(seen(finding()), seen(), seen(), seen(version=None))) == 2

    def test_the_same_version_fires_again_as_a_new_episode_under_a_new_id(self) -> None:
        _, told = live([(look, timedelta(minutes=1)) for look in (seen(finding()), seen(), seen(finding()))])

        assert [event.state.episode for event in told] == [1, 1, 2]
        assert told[0].event_id != told[2].event_id
        assert told[2].state.sequence == 3

    def test_an_alert_does_not_resolve_while_its_layer_cannot_be_examined(self) -> None:
        fired = seen(finding("fc2"))

        assert reasons(fired, seen(undecided_layers=frozenset({"fc2"}))) == [TransitionReason.FIRST]
        assert reasons(fired, seen(undecided_layers=frozenset({""}))) == [TransitionReason.FIRST]
        assert reasons(fired, seen(undecided_layers=frozenset({"other"}))) == [
            TransitionReason.FIRST,
            TransitionReason.VERSION_PASSED,
        ]

    def test_an_alert_that_cannot_be_examined_is_still_repeated(self) -> None:
        held = seen(undecided_layers=frozenset({"fc2"}))

        assert reasons(seen(finding("fc2")), held, pause=TWELVE_HOURS)[1:] == [
            TransitionReason.REPEAT_INTERVAL
        ]

    def test_a_crash_that_lost_the_state_gives_the_same_id_later(self) -> None:
        _, (before,) = advance(None, seen(finding()), NOW, TWELVE_HOURS)
        _, (after,) = advance(None, seen(finding()), NOW + timedelta(hours=3), TWELVE_HOURS)

        assert before.event_id == after.event_id


class TestContract:
    def test_an_observation_of_another_identity_is_refused(self) -> None:
        state, _ = advance(None, seen(finding()), NOW, TWELVE_HOURS)
        other = AlertIdentity("local", "other", "latest", RuleGroup.WEIGHTS)

        with pytest.raises(ValueError, match="cannot take an observation"):
            advance(state, seen(finding(), identity=other), NOW, TWELVE_HOURS)

    def test_findings_without_a_version_are_refused(self) -> None:
        with pytest.raises(ValueError, match="without a version"):
            advance(None, replace(seen(finding()), version=None), NOW, TWELVE_HOURS)

    def test_a_repeat_interval_of_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="more than zero"):
            advance(None, seen(), NOW, timedelta(0))


findings = st.lists(
    st.builds(finding, st.sampled_from(["fc1", "fc2", "conv", None]), st.sampled_from(Severity)), max_size=3
)
observations = st.one_of(
    st.builds(
        lambda found, version, undecided: seen(*found, version=version, undecided_layers=undecided),
        findings,
        st.sampled_from(["v1", "v2", "v3"]),
        st.frozensets(st.sampled_from(["", "fc1", "fc2"]), max_size=1),
    ),
    st.just(seen(version=None)),
)
histories = st.lists(
    st.tuples(observations, st.integers(0, 1440).map(lambda minutes: timedelta(minutes=minutes))), max_size=30
)


class TestEveryHistory:
    @settings(deadline=None)
    @given(histories)
    def test_each_episode_begins_with_one_firing_and_ends_with_at_most_one_resolution(
        self, looks: list[Look]
    ) -> None:
        _, told = live(looks)

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
            assert {event.state.started_at for event in events} == {events[0].state.notified_at}

    @settings(deadline=None)
    @given(histories)
    def test_ids_are_unique_and_sequences_count_up_by_one(self, looks: list[Look]) -> None:
        _, told = live(looks)

        assert len({event.event_id for event in told}) == len(told)
        assert [event.state.sequence for event in told] == list(range(1, len(told) + 1))

    @settings(deadline=None)
    @given(histories)
    def test_looking_twice_at_the_same_moment_tells_nothing_twice(self, looks: list[Look]) -> None:
        doubled = [
            look
            for observation, pause in looks
            for look in ((observation, pause), (observation, timedelta(0)))
        ]

        assert live(doubled) == live(looks)

    @settings(deadline=None)
    @given(histories)
    def test_a_replay_gives_the_same_events(self, looks: list[Look]) -> None:
        assert live(looks) == live(list(looks))

    @settings(deadline=None)
    @given(histories)
    def test_within_an_episode_severity_and_layers_only_grow(self, looks: list[Look]) -> None:
        _, told = live(looks)

        for before, after in pairwise(event.state for event in told):
            if before.episode == after.episode:
                assert after.severity.at_least(before.severity)
                assert set(before.layers) <= set(after.layers)

    @settings(deadline=None)
    @given(histories)
    def test_an_alert_fires_exactly_while_its_last_look_found_something_or_could_not_tell(
        self, looks: list[Look]
    ) -> None:
        state, _ = live(looks)

        last = looks[-1][0] if looks else seen()
        if last.findings:
            assert state is not None
            assert state.phase is AlertPhase.FIRING
            assert (state.version, state.fingerprint) == (last.version, last.fingerprint)
        elif not last.undecided_layers:
            assert state is None or state.phase is AlertPhase.RESOLVED


def test_an_accepted_version_resolves_with_that_reason() -> None:
    state, _ = advance(None, seen(finding()), NOW, TWELVE_HOURS)
    accepted = replace(seen(version="v5"), accepted=True)
    ended, (transition,) = advance(state, accepted, NOW + timedelta(minutes=1), TWELVE_HOURS)
    assert ended is not None
    assert ended.phase is AlertPhase.RESOLVED
    assert transition.reason is TransitionReason.VERSION_ACCEPTED
