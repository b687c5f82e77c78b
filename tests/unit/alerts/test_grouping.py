"""When a group of alerts is told: news, repetitions, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alertvalues import IDENTITY, NOW, finding, seen
from layerwatch.alerts.grouping import (
    Candidate,
    Decision,
    Timing,
    Told,
    decide,
    group_id,
    notification_id,
)
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import (
    Acknowledgement,
    AlertPhase,
    AlertState,
    Pending,
    TransitionReason,
)
from layerwatch.metrics.findings import RuleGroup, Severity

SECOND, MINUTE, HOUR, DAY = (
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
)
TIMING = Timing(30 * SECOND, 5 * MINUTE, 12 * HOUR)


def state(
    *severities: Severity, model: str = "m", at: datetime = NOW, group: RuleGroup = RuleGroup.WEIGHTS
) -> AlertState:
    """An alert that fired with the first severity and was raised to each of the others, a minute apart."""
    found: AlertState | None = None
    identity = replace(IDENTITY, model=model, group=group)
    for severity in severities or (Severity.CRITICAL,):
        found, _ = advance(found, seen(finding("fc2", severity), identity=identity), at)
        at += MINUTE
    assert found is not None
    return found


def ended(before: AlertState, at: datetime) -> AlertState:
    after, (_,) = advance(before, seen(identity=before.identity), at)
    assert after is not None
    return after


def again(before: AlertState, at: datetime) -> AlertState:
    after, (_,) = advance(before, seen(finding(), identity=before.identity), at)
    assert after is not None
    return after


def told(of: AlertState) -> Told:
    return Told(of.sequence, of.phase is AlertPhase.FIRING)


def known(of: AlertState, muted: bool = False) -> Candidate:
    """An alert that the receiver knows as it is."""
    return Candidate(of, told(of), muted)


def asked(
    *candidates: Candidate,
    now: datetime,
    told_at: datetime | None = None,
    timing: Timing = TIMING,
    send_resolved: bool = True,
) -> Decision:
    return decide(candidates, told_at, timing, now, send_resolved=send_resolved)


class TestNews:
    def test_a_new_alert_is_told_when_the_group_waited_and_not_before(self) -> None:
        new = Candidate(state(), None)

        assert asked(new, now=NOW) == Decision(look_again=NOW + 30 * SECOND)
        assert asked(new, now=NOW + 29 * SECOND) == Decision(look_again=NOW + 30 * SECOND)
        assert asked(new, now=NOW + 30 * SECOND) == Decision((new,), TransitionReason.FIRST)

    def test_the_wait_counts_from_the_first_bit_of_news(self) -> None:
        early, late = Candidate(state(), None), Candidate(state(model="n", at=NOW + 25 * SECOND), None)

        decision = asked(late, early, now=NOW + 30 * SECOND)
        assert decision.tell == (early, late)

    def test_without_a_wait_it_is_told_at_once(self) -> None:
        new = Candidate(state(), None)

        assert asked(new, now=NOW, timing=replace(TIMING, group_wait=timedelta(0))).tell == (new,)

    def test_an_alert_that_joins_waits_for_the_interval_since_the_last_event(self) -> None:
        old, new = known(state()), Candidate(state(model="n", at=NOW + MINUTE), None)
        told_at = NOW + 30 * SECOND

        assert asked(old, new, now=NOW + 4 * MINUTE, told_at=told_at) == Decision(
            look_again=told_at + 5 * MINUTE
        )
        due = asked(old, new, now=told_at + 5 * MINUTE, told_at=told_at)
        assert (due.tell, due.reason) == ((old, new), TransitionReason.FIRST)

    def test_a_group_that_was_quiet_for_long_tells_news_after_the_wait(self) -> None:
        new = Candidate(state(at=NOW), None)

        assert asked(new, now=NOW + 30 * SECOND, told_at=NOW - 3 * HOUR).tell == (new,)

    def test_an_alert_that_got_worse_is_news(self) -> None:
        raised = state(Severity.WARNING, Severity.CRITICAL)

        decision = asked(Candidate(raised, Told(1, True)), now=NOW + HOUR, told_at=NOW)
        assert decision.reason is TransitionReason.RAISED_SEVERITY

    def test_an_end_is_news_to_who_was_told_of_the_begin(self) -> None:
        fired = state()
        over = ended(fired, NOW + HOUR)
        candidate = Candidate(over, told(fired))

        assert asked(candidate, now=NOW + HOUR, told_at=NOW) == Decision(look_again=NOW + HOUR + 30 * SECOND)
        assert asked(candidate, now=NOW + HOUR + 30 * SECOND, told_at=NOW) == Decision(
            (candidate,), TransitionReason.VERSION_PASSED
        )

    def test_an_alert_that_ended_before_it_was_told_is_never_told(self) -> None:
        over = ended(state(), NOW + 10 * SECOND)

        assert asked(Candidate(over, None), now=NOW + DAY) == Decision()

    def test_an_end_that_was_told_is_not_told_again(self) -> None:
        over = ended(state(), NOW + HOUR)

        assert asked(known(over), now=NOW + DAY, told_at=NOW + HOUR) == Decision()

    def test_an_alert_that_fired_again_before_its_end_was_told_is_told_once(self) -> None:
        fired = state()
        back = again(ended(fired, NOW + HOUR), NOW + HOUR + MINUTE)
        candidate = Candidate(back, told(fired))

        decision = asked(candidate, now=NOW + 2 * HOUR, told_at=NOW)
        assert (decision.tell, decision.reason) == ((candidate,), TransitionReason.FIRST)
        assert asked(known(back), now=NOW + 3 * HOUR, told_at=NOW + 2 * HOUR).tell == ()

    def test_an_alert_that_fired_again_after_its_end_was_told_is_news(self) -> None:
        over = ended(state(), NOW + HOUR)
        candidate = Candidate(again(over, NOW + 2 * HOUR), told(over))

        assert asked(candidate, now=NOW + 3 * HOUR, told_at=NOW + HOUR).tell == (candidate,)

    def test_a_pending_alert_is_not_told_and_its_end_before_is(self) -> None:
        fired = state()
        waits = replace(
            ended(fired, NOW + HOUR), phase=AlertPhase.PENDING, pending=Pending("s", (("scaled", 1),))
        )

        assert asked(Candidate(waits, None), now=NOW + DAY) == Decision()
        assert asked(Candidate(waits, told(fired)), now=NOW + DAY, told_at=NOW).tell != ()

    def test_news_tells_everything_that_fires_and_what_ended_since_worst_first(self) -> None:
        mild = known(state(Severity.WARNING, model="mild"))
        bad = known(state(Severity.CRITICAL, model="bad", at=NOW + MINUTE))
        older = known(state(Severity.CRITICAL, model="older"))
        over = Candidate(ended(state(model="over"), NOW + HOUR), Told(1, True))
        long_over = known(ended(state(model="long over"), NOW + HOUR))

        decision = asked(over, long_over, mild, bad, older, now=NOW + 2 * HOUR, told_at=NOW)
        assert decision.tell == (older, bad, mild, over)

    @pytest.mark.parametrize(
        ("histories", "reason"),
        [
            ([(Severity.CRITICAL,), (Severity.WARNING, Severity.CRITICAL)], TransitionReason.FIRST),
            ([(Severity.WARNING, Severity.CRITICAL), ()], TransitionReason.RAISED_SEVERITY),
            ([(), ()], TransitionReason.VERSION_PASSED),
        ],
    )
    def test_the_weightiest_news_is_the_reason(
        self, histories: list[tuple[Severity, ...]], reason: TransitionReason
    ) -> None:
        candidates = []
        for number, severities in enumerate(histories):
            one = state(*severities, model=f"m{number}")
            if not severities:
                candidates.append(Candidate(ended(one, NOW + HOUR), Told(1, True)))
            else:
                candidates.append(Candidate(one, None if len(severities) == 1 else Told(1, True)))

        assert asked(*candidates, now=NOW + DAY, told_at=NOW).reason is reason

    @pytest.mark.parametrize("reason", sorted(set(TransitionReason) - {TransitionReason.REPEAT_INTERVAL}))
    def test_every_reason_of_a_transition_can_be_that_of_an_event(self, reason: TransitionReason) -> None:
        assert asked(Candidate(replace(state(), reason=reason), None), now=NOW + HOUR).reason is reason


class TestRepetition:
    def test_an_alert_that_goes_on_is_repeated_when_the_interval_is_over_and_not_before(self) -> None:
        goes_on = known(state())
        told_at = NOW + 30 * SECOND

        assert asked(goes_on, now=told_at, told_at=told_at) == Decision(look_again=told_at + 12 * HOUR)
        almost = told_at + 12 * HOUR - SECOND
        assert asked(goes_on, now=almost, told_at=told_at).tell == ()
        assert asked(goes_on, now=told_at + 12 * HOUR, told_at=told_at) == Decision(
            (goes_on,), TransitionReason.REPEAT_INTERVAL
        )

    def test_news_starts_the_interval_anew(self) -> None:
        first = known(state())
        second = known(state(model="n", at=NOW + 11 * HOUR))
        told_at = NOW + 11 * HOUR + 30 * SECOND

        assert asked(first, second, now=NOW + 13 * HOUR, told_at=told_at).tell == ()

    def test_a_group_that_nobody_knows_of_counts_from_the_last_change_in_it(self) -> None:
        """Such as after a change of the configuration that made other groups."""
        one, other = known(state()), known(state(model="n", at=NOW + HOUR))

        assert asked(one, other, now=NOW + 12 * HOUR) == Decision(look_again=NOW + 13 * HOUR)
        assert asked(one, other, now=NOW + 13 * HOUR).reason is TransitionReason.REPEAT_INTERVAL

    def test_an_acknowledged_alert_is_not_repeated(self) -> None:
        taken = replace(state(), acknowledgement=Acknowledgement("ann", NOW, "on it"))

        assert asked(known(taken), now=NOW + 30 * DAY, told_at=NOW) == Decision()

    def test_beside_one_that_nobody_took_an_acknowledged_alert_is_told_too(self) -> None:
        taken = known(replace(state(model="taken"), acknowledgement=Acknowledgement("ann", NOW, "on it")))
        open_ = known(state(model="open"))

        assert asked(taken, open_, now=NOW + DAY, told_at=NOW).tell == (open_, taken)

    def test_news_and_the_end_of_an_acknowledged_alert_are_told(self) -> None:
        taken = replace(
            state(Severity.WARNING), acknowledgement=Acknowledgement("ann", NOW, "on it"), sequence=2
        )
        assert asked(Candidate(taken, Told(1, True)), now=NOW + HOUR, told_at=NOW).tell != ()
        over = Candidate(ended(taken, NOW + HOUR), told(taken))
        assert asked(over, now=NOW + 2 * HOUR, told_at=NOW).tell == (over,)

    def test_a_group_in_which_nothing_fires_is_not_repeated(self) -> None:
        assert asked(known(ended(state(), NOW)), now=NOW + 30 * DAY, told_at=NOW) == Decision()
        assert asked(now=NOW) == Decision()


class TestMuted:
    def test_a_muted_alert_is_neither_told_nor_repeated(self) -> None:
        assert asked(Candidate(state(), None, muted=True), now=NOW + DAY) == Decision()
        assert asked(known(state(), muted=True), now=NOW + DAY, told_at=NOW) == Decision()

    def test_its_news_wait(self) -> None:
        new = Candidate(state(), None, muted=True)

        later = replace(new, muted=False)
        assert asked(later, now=NOW + DAY).tell == (later,)

    def test_an_event_about_others_does_not_tell_it(self) -> None:
        quiet, loud = known(state(model="quiet"), muted=True), Candidate(state(model="loud"), None)

        assert asked(quiet, loud, now=NOW + DAY, told_at=NOW).tell == (loud,)

    def test_a_muted_end_waits_too(self) -> None:
        over = Candidate(ended(state(), NOW + HOUR), Told(1, True), muted=True)

        assert asked(over, now=NOW + DAY, told_at=NOW) == Decision()
        assert asked(over, now=NOW + DAY, told_at=NOW, send_resolved=False) == Decision()


class TestReceiversThatWantNoEnds:
    def test_an_end_is_settled_and_not_told(self) -> None:
        over = Candidate(ended(state(), NOW + HOUR), Told(1, True))

        assert asked(over, now=NOW + HOUR, told_at=NOW, send_resolved=False) == Decision(settle=(over,))

    def test_it_does_not_make_an_event_of_what_goes_on(self) -> None:
        over = Candidate(ended(state(), NOW + HOUR), Told(1, True))
        goes_on = known(state(model="n"))

        decision = asked(over, goes_on, now=NOW + 2 * HOUR, told_at=NOW, send_resolved=False)
        assert decision == Decision(settle=(over,), look_again=NOW + 12 * HOUR)

    def test_nor_is_it_part_of_an_event_about_others(self) -> None:
        over = Candidate(ended(state(), NOW + HOUR), Told(1, True))
        new = Candidate(state(model="n", at=NOW + HOUR), None)

        for now in (NOW + HOUR, NOW + DAY):
            decision = asked(over, new, now=now, told_at=NOW, send_resolved=False)
            assert decision.settle == (over,)
        assert decision.tell == (new,)

    def test_an_alert_that_fires_again_is_told(self) -> None:
        over = ended(state(), NOW + HOUR)
        back = Candidate(again(over, NOW + 2 * HOUR), told(over))

        assert asked(back, now=NOW + DAY, told_at=NOW, send_resolved=False).tell == (back,)


class TestClocks:
    """Times that were noted under a clock that has been set back since lie in the future."""

    def test_news_of_the_future_is_told_now(self) -> None:
        new = Candidate(state(at=NOW + DAY), None)

        assert asked(new, now=NOW) == Decision((new,), TransitionReason.FIRST)

    def test_an_event_of_the_future_does_not_hold_up_news(self) -> None:
        new = Candidate(state(), None)

        assert asked(new, now=NOW + MINUTE, told_at=NOW + DAY).tell == (new,)

    def test_an_event_of_the_future_counts_as_now_for_repetitions(self) -> None:
        assert asked(known(state()), now=NOW, told_at=NOW + DAY) == Decision(look_again=NOW + 12 * HOUR)
        assert asked(known(state(at=NOW + DAY)), now=NOW) == Decision(look_again=NOW + 12 * HOUR)

    def test_after_a_jump_ahead_what_waits_is_told_at_once(self) -> None:
        new = Candidate(state(), None)

        assert asked(new, now=NOW + 365 * DAY).tell == (new,)
        assert asked(known(state()), now=NOW + 365 * DAY, told_at=NOW).tell != ()


states = st.builds(
    lambda phase, sequence, at, acknowledged: replace(
        state(),
        phase=phase,
        sequence=sequence,
        changed_at=NOW + at * MINUTE,
        acknowledgement=Acknowledgement("ann", NOW, "on it") if acknowledged else None,
    ),
    st.sampled_from(AlertPhase),
    st.integers(1, 4),
    st.integers(-3000, 3000),
    st.booleans(),
)
candidates = st.lists(
    st.builds(
        Candidate, states, st.none() | st.builds(Told, st.integers(1, 4), st.booleans()), st.booleans()
    ),
    max_size=5,
).map(
    lambda found: [
        replace(one, state=replace(one.state, identity=replace(IDENTITY, model=f"m{number}")))
        for number, one in enumerate(found)
    ]
)
moments = st.integers(-3000, 3000).map(lambda minutes: NOW + minutes * MINUTE)


class TestEveryGroup:
    @settings(deadline=None)
    @given(candidates, st.none() | moments, moments, st.booleans())
    def test_what_is_told_is_told_for_a_reason_and_to_who_may_hear_it(
        self, group: list[Candidate], told_at: datetime | None, now: datetime, send_resolved: bool
    ) -> None:
        decision = decide(group, told_at, TIMING, now, send_resolved=send_resolved)

        assert (decision.reason is None) == (not decision.tell)
        assert not any(one.muted for one in (*decision.tell, *decision.settle))
        assert len({one.state.identity for one in decision.tell}) == len(decision.tell)
        assert decision.look_again is None or (decision.look_again > now and not decision.tell)
        assert not any(one.fires or not one.is_news for one in decision.settle)
        assert not (send_resolved and decision.settle)
        if decision.tell:
            open_firing = {one.state.identity for one in group if one.fires and not one.muted}
            assert {one.state.identity for one in decision.tell if one.fires} == open_firing
            assert all(send_resolved and one.is_news for one in decision.tell if not one.fires)
            repeats = decision.reason is TransitionReason.REPEAT_INTERVAL
            assert repeats is not any(one.is_news for one in decision.tell)
            if told_at is not None and told_at <= now:
                least = TIMING.repeat_interval if repeats else TIMING.group_interval
                assert now - told_at >= least

    @settings(deadline=None)
    @given(candidates, st.none() | moments, moments, st.booleans())
    def test_when_it_says_to_look_again_something_is_due(
        self, group: list[Candidate], told_at: datetime | None, now: datetime, send_resolved: bool
    ) -> None:
        later = decide(group, told_at, TIMING, now, send_resolved=send_resolved).look_again

        clock_was_set_back = (told_at is not None and told_at > now) or any(
            one.state.changed_at > now for one in group
        )
        if later is not None and not clock_was_set_back:
            assert decide(group, told_at, TIMING, later, send_resolved=send_resolved).tell

    @settings(deadline=None)
    @given(st.data(), candidates, st.none() | moments, moments)
    def test_the_order_of_the_alerts_does_not_matter(
        self, data: st.DataObject, group: list[Candidate], told_at: datetime | None, now: datetime
    ) -> None:
        shuffled: Sequence[Candidate] = data.draw(st.permutations(group))

        assert (
            decide(group, told_at, TIMING, now, send_resolved=True).tell
            == decide(shuffled, told_at, TIMING, now, send_resolved=True).tell
        )


class TestIds:
    def test_an_id_never_changes_between_releases(self) -> None:
        # sha256 of ["oncall",[["model",["m"]]]], worked out with sha256sum.
        group = group_id("oncall", [["model", ["m"]]])
        assert group == "grp_234f54dd2f92ab9f26b3fa25f3179b69"
        # sha256 of [GROUP,7,[["local","m","latest","weights","sha256:v5","firing",1]]]
        event = notification_id(group, 7, [Candidate(state(), None)])
        assert event == "evt_f1dd85c6e394feb7b44a7719428c345b"

    def test_the_order_of_the_alerts_does_not_change_the_id_of_an_event(self) -> None:
        one, other = Candidate(state(), None), Candidate(state(model="n"), None)

        assert notification_id("g", 1, [one, other]) == notification_id("g", 1, [other, one])

    def test_events_differ_by_group_repetition_and_by_how_each_alert_stands(self) -> None:
        fired, worse = state(Severity.WARNING), state(Severity.WARNING, Severity.CRITICAL)
        other_version = replace(fired, fingerprint="sha256:v6")

        def event(of: AlertState, group: str = "g", number: int = 1) -> str:
            return notification_id(group, number, [Candidate(of, None)])

        ids = [
            event(fired),
            event(worse),
            event(ended(fired, NOW)),
            event(again(ended(fired, NOW), NOW)),
            event(other_version),
            event(fired, "other"),
            event(fired, number=2),
            event(fired, number=3),
        ]
        assert len(set(ids)) == len(ids)

    def test_borders_between_names_count(self) -> None:
        assert group_id("a", [["b", ["c"]]]) != group_id("a", [["b", []], ["c", []]])
        assert group_id("a", [["b", ["c,d"]]]) != group_id("a", [["b", ["c", "d"]]])
