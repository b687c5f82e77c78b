"""Which events are due, for whom: routes, groups and what may not be told, over all alerts at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from alertvalues import finding, seen
from layerwatch.alerts.grouping import Told
from layerwatch.alerts.inhibition import build_inhibitions
from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import (
    Acknowledgement,
    AlertIdentity,
    AlertPhase,
    AlertState,
    TransitionReason,
)
from layerwatch.alerts.mutetimes import muted_by
from layerwatch.alerts.routing import build_routes, routes_for
from layerwatch.alerts.silences import Silence
from layerwatch.alerts.telling import GroupEvent, GroupTimes, KnownAlert, Plan, Telling, plan
from layerwatch.config.alerts import AlertsSettings
from layerwatch.config.matchers import Labels, all_match, parsed
from layerwatch.metrics.findings import Finding, RuleGroup, Severity

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)  # a Monday
SECOND, MINUTE, HOUR, DAY = (
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
)


def telling(configuration: str, silences: Sequence[Silence] = (), quiet: Sequence[str] = ()) -> Telling:
    """How alerts are told by the ``alerts`` section of a configuration.

    Args:
        quiet: receivers that are told of no end.
    """
    values: dict[str, Any] = yaml.safe_load(configuration)
    names = [*values.pop("names")]
    settings = AlertsSettings.model_validate(
        {"receivers": [{"name": name, "kind": "log"} for name in names], **values}
    )
    wants_ends = {name: name not in quiet for name in names}
    return Telling(build_routes(settings), wants_ends, build_inhibitions(settings), silences)


def silence(*matchers: str, number: int = 1, begins: datetime = NOON, ends: datetime) -> Silence:
    return Silence(number, parsed(matchers), "ann", "maintenance", begins, begins, ends)


def labels_of(state: AlertState) -> Labels:
    """The built-in labels, as the daemon gives them."""
    identity = state.identity
    return {
        "registry": (identity.registry,),
        "model": (identity.model,),
        "ref": (identity.ref,),
        "rule_group": (identity.group.value,),
        "severity": (state.severity.value,),
        "version": (state.version,),
        "rule": state.rules,
    }


def about(model: str = "m", ref: str = "latest", group: RuleGroup = RuleGroup.WEIGHTS) -> AlertIdentity:
    return AlertIdentity("local", model, ref, group)


@dataclass
class World:
    """Alerts, and what receivers were told of them, kept as the daemon keeps it in its store."""

    telling: Telling
    now: datetime = NOON
    states: dict[AlertIdentity, AlertState] = field(default_factory=dict)
    told: dict[tuple[str, AlertIdentity], Told] = field(default_factory=dict)
    groups: dict[str, GroupTimes] = field(default_factory=dict)
    events: list[GroupEvent] = field(default_factory=list)

    def sees(self, identity: AlertIdentity, *findings: Finding, version: str | None = "v5") -> None:
        state, _ = advance(
            self.states.get(identity), seen(*findings, identity=identity, version=version), self.now
        )
        if state is not None:
            self.states[identity] = state

    def looks(self) -> Plan:
        """One turn: decide, and note what is told, in one transaction."""
        for key, times in self.groups.items():
            if times.told_at > self.now:
                self.groups[key] = replace(times, told_at=self.now)
        known = [KnownAlert(state, labels_of(state)) for state in self.states.values()]
        due = plan(known, self.told, self.groups, self.telling, self.now)
        for event in due.events:
            for one in event.tell:
                self.heard(event.receiver, one.state, event.group_id)
            self.groups[event.group_id] = GroupTimes(self.now, event.sequence)
        for receiver, state in due.settled:
            self.heard(receiver, state)
        for heard in due.closed:
            self.told[heard] = replace(self.told[heard], firing=False)
        self.events += due.events
        return due

    def heard(self, receiver: str, state: AlertState, group_id: str = "") -> None:
        fires = state.phase is AlertPhase.FIRING
        self.told[(receiver, state.identity)] = Told(state.sequence, fires, group_id)

    def passes(self, time: timedelta) -> list[GroupEvent]:
        """Let time pass, then look once; what was told."""
        self.now += time
        return self.looks().events


def shown(events: Sequence[GroupEvent]) -> list[tuple[str, list[str], str]]:
    """Receiver, models (those that ended with a minus), reason."""
    return sorted(
        (
            event.receiver,
            [f"{'' if one.fires else '-'}{one.state.identity.model}" for one in event.tell],
            event.reason.value,
        )
        for event in events
    )


SIMPLE = "{names: [a], route: {receiver: a}}"
BOTH = """
names: [a, b]
route:
  receiver: a
  routes:
    - {receiver: b, continue: true}
    - {matchers: [severity=~"critical|warning"]}
"""


class TestGroups:
    def test_alerts_of_one_group_are_one_event_and_those_of_another_another(self) -> None:
        world = World(telling(SIMPLE))
        world.sees(about("m"), finding())
        world.sees(about("m", "@champion"), finding())
        world.sees(about("n"), finding())

        one, other = world.passes(30 * SECOND)
        assert shown([one, other]) == [("a", ["m", "m"], "first"), ("a", ["n"], "first")]
        assert one.labels == {"registry": ("local",), "model": ("m",)}
        assert one.group_id != other.group_id
        assert (one.sequence, one.muted) == (1, 0)

    def test_events_of_a_group_are_numbered_and_keep_its_name(self) -> None:
        world = World(telling(SIMPLE))
        world.sees(about(), finding())
        world.passes(MINUTE)
        world.passes(12 * HOUR)
        world.sees(about())
        world.passes(HOUR)

        assert [event.sequence for event in world.events] == [1, 2, 3]
        assert len({event.group_id for event in world.events}) == 1
        assert [event.reason.value for event in world.events] == [
            "first",
            "repeat_interval",
            "version_passed",
        ]

    def test_without_a_route_nobody_is_told(self) -> None:
        world = World(replace(telling(SIMPLE), root=None))
        world.sees(about(), finding())

        assert world.passes(DAY) == []

    def test_a_receiver_that_is_not_there_is_not_told(self) -> None:
        """A heartbeat, or one that was removed."""
        world = World(replace(telling(SIMPLE), wants_ends={"b": True}))
        world.sees(about(), finding())

        assert world.passes(DAY) == []
        assert world.told == {}


class TestRoutes:
    def test_a_route_that_continues_leads_to_two_receivers(self) -> None:
        world = World(telling(BOTH))
        world.sees(about(), finding())

        assert shown(world.passes(MINUTE)) == [("a", ["m"], "first"), ("b", ["m"], "first")]
        one, other = world.events
        assert one.event_id != other.event_id
        assert one.group_id != other.group_id

    def test_one_receiver_by_two_routes_is_told_once_by_the_first(self) -> None:
        world = World(
            telling(
                """
                names: [a]
                route:
                  receiver: a
                  routes:
                    - {matchers: [model=m], group_by: [model], group_wait: 2m, continue: true}
                    - {matchers: [severity=critical], group_by: []}
                """
            )
        )
        world.sees(about(), finding())

        assert world.passes(MINUTE) == []
        (event,) = world.passes(MINUTE)
        assert event.labels == {"model": ("m",)}
        assert world.passes(HOUR) == []

    def test_an_alert_that_got_worse_and_takes_another_route_is_told_there_and_its_end_to_both(self) -> None:
        world = World(
            telling(
                """
                names: [chat, pager]
                route: {receiver: chat, routes: [{matchers: [severity=critical], receiver: pager}]}
                """
            )
        )
        world.sees(about(), finding("fc1", Severity.WARNING))
        assert shown(world.passes(MINUTE)) == [("chat", ["m"], "first")]

        world.sees(about(), finding("fc1", Severity.CRITICAL))
        assert shown(world.passes(HOUR)) == [("pager", ["m"], "raised_severity")]
        assert shown(world.passes(12 * HOUR)) == [("pager", ["m"], "repeat_interval")]

        world.sees(about())
        assert shown(world.passes(HOUR)) == [
            ("chat", ["-m"], "version_passed"),
            ("pager", ["-m"], "version_passed"),
        ]
        assert world.passes(DAY) == []

    def test_the_end_is_told_under_the_name_of_the_group_that_told_the_begin(self) -> None:
        """Who opened an incident under the name of a group closes it under the same."""
        world = World(
            telling(
                """
                names: [chat, low, high]
                route:
                  receiver: chat
                  routes:
                    - {matchers: [severity=warning], receiver: low, group_by: [model, ref]}
                    - {matchers: [severity=critical], receiver: high}
                """
            )
        )
        world.sees(about(), finding("fc1", Severity.WARNING))
        (begin,) = world.passes(MINUTE)
        world.sees(about(), finding("fc1", Severity.CRITICAL))
        world.passes(HOUR)
        world.sees(about())
        (end,) = [event for event in world.passes(HOUR) if event.receiver == "low"]

        assert end.group_id == begin.group_id

    def test_what_was_told_by_a_route_that_is_gone_ends_under_the_same_name(self) -> None:
        world = World(
            telling("{names: [a], route: {receiver: a, routes: [{matchers: [severity=critical]}]}}")
        )
        world.sees(about(), finding())
        (begin,) = world.passes(MINUTE)
        world.telling = telling(SIMPLE)
        assert world.passes(HOUR) == []
        world.sees(about())
        (end,) = world.passes(HOUR)

        assert end.group_id == begin.group_id

    def test_an_alert_that_got_worse_within_one_receiver_stays_in_its_group(self) -> None:
        """Otherwise the incident of the milder form would stay open for ever."""
        world = World(
            telling(
                """
                names: [a]
                route:
                  receiver: a
                  routes:
                    - {matchers: [severity=warning], repeat_interval: 1d}
                    - {matchers: [severity=critical], repeat_interval: 1h}
                """
            )
        )
        world.sees(about(), finding("fc1", Severity.WARNING))
        (mild,) = world.passes(MINUTE)
        world.sees(about(), finding("fc1", Severity.CRITICAL))
        (worse,) = world.passes(HOUR)

        assert worse.group_id == mild.group_id

    def test_a_receiver_without_a_route_to_it_any_more_is_told_of_the_end_only(self) -> None:
        world = World(telling(BOTH))
        world.sees(about(), finding("fc1"))
        world.passes(MINUTE)
        world.telling = telling("{names: [a, b], route: {receiver: a}}")
        world.sees(about(), finding("fc2"))

        assert shown(world.passes(HOUR)) == [("a", ["m"], "new_layers")]
        world.sees(about(), version=None)
        assert shown(world.passes(HOUR)) == [("a", ["-m"], "ref_gone"), ("b", ["-m"], "ref_gone")]

    def test_a_receiver_that_wants_no_ends_has_them_settled(self) -> None:
        world = World(telling(SIMPLE, quiet=["a"]))
        world.sees(about(), finding())
        world.passes(MINUTE)
        world.sees(about())
        due = world.looks()

        assert [(receiver, state.identity) for receiver, state in due.settled] == [("a", about())]
        assert world.passes(DAY) == []
        world.sees(about(), finding())
        assert shown(world.passes(HOUR)) == [("a", ["m"], "first")]


class TestInhibition:
    UNREAD = replace(
        finding(None, message="could not be examined"), rule="unreadable", group=RuleGroup.EXAMINATION
    )

    def test_a_version_that_could_not_be_read_mutes_what_is_said_about_its_weights(self) -> None:
        world = World(telling(SIMPLE))
        world.sees(about(), finding())
        world.sees(about(group=RuleGroup.EXAMINATION), self.UNREAD)
        world.sees(about("other"), finding())
        due_at = world.now + MINUTE
        world.now = due_at
        due = world.looks()

        assert shown(due.events) == [("a", ["m"], "first"), ("a", ["other"], "first")]
        told = {one.state.identity.group for event in due.events[:1] for one in event.tell}
        assert told == {RuleGroup.EXAMINATION}
        assert due.events[0].muted == 1
        assert due.muted == {about(): "the version could not be read, which is told instead"}

        world.sees(about(group=RuleGroup.EXAMINATION))
        (event,) = world.passes(HOUR)
        assert [(one.fires, one.state.identity.group.value) for one in event.tell] == [
            (True, "weights"),
            (False, "examination"),
        ]

    def test_a_layer_that_could_not_be_read_does_not(self) -> None:
        world = World(telling(SIMPLE))
        world.sees(about(), finding())
        world.sees(about(group=RuleGroup.EXAMINATION), replace(self.UNREAD, layer="fc2"))
        world.sees(about("other", group=RuleGroup.EXAMINATION), self.UNREAD)
        world.sees(about(ref="@champion", group=RuleGroup.EXAMINATION), self.UNREAD)

        assert world.looks().muted == {}

    def test_a_configured_inhibition_mutes_its_targets_while_a_source_fires(self) -> None:
        world = World(
            telling(
                """
                names: [a]
                route: {receiver: a, group_by: []}
                inhibitions: [{source: [rule_group=integrity], target: [rule_group=weights], equal: [model]}]
                """
            )
        )
        changed = replace(finding(None), group=RuleGroup.INTEGRITY)
        world.sees(about(), finding())
        world.sees(about("free"), finding())
        world.sees(about(group=RuleGroup.INTEGRITY), changed)
        (event,) = world.passes(MINUTE)

        assert {(one.state.identity.model, one.state.identity.group.value) for one in event.tell} == {
            ("m", "integrity"),
            ("free", "weights"),
        }
        assert event.muted == 1
        assert world.looks().muted == {about(): "inhibited by local/m (latest, integrity)"}

        world.sees(about(group=RuleGroup.INTEGRITY))
        (event,) = world.passes(HOUR)
        assert about() in {one.state.identity for one in event.tell}

    def test_a_source_that_ended_inhibits_nothing(self) -> None:
        world = World(
            telling(
                """
                names: [a]
                route: {receiver: a}
                inhibitions: [{source: [rule_group=integrity], target: [rule_group=weights]}]
                """
            )
        )
        world.sees(about(group=RuleGroup.INTEGRITY), replace(finding(), group=RuleGroup.INTEGRITY))
        world.passes(MINUTE)
        world.sees(about(group=RuleGroup.INTEGRITY))
        world.sees(about(), finding())

        assert world.looks().muted == {}


class TestSilences:
    def test_a_silence_holds_back_begin_and_repetition_but_not_the_end(self) -> None:
        world = World(telling(SIMPLE, [silence("model=m", ends=NOON + 2 * DAY)]))
        world.sees(about(), finding())
        assert world.passes(HOUR) == []
        world.sees(about())
        assert world.passes(HOUR) == []  # Of an alert that it was not told of, the end is no news.

        world.telling = replace(world.telling, silences=())
        world.sees(about(), finding())
        assert len(world.passes(HOUR)) == 1
        world.telling = replace(world.telling, silences=[silence("model=m", ends=NOON + 2 * DAY)])
        assert world.passes(13 * HOUR) == []
        world.sees(about())
        assert shown(world.passes(HOUR)) == [("a", ["-m"], "version_passed")]

    def test_it_is_said_who_silenced_it_and_why(self) -> None:
        world = World(telling(SIMPLE, [silence("model=m", number=7, ends=NOON + DAY)]))
        world.sees(about(), finding())

        assert world.looks().muted == {about(): "silence 7 by ann: maintenance"}

    def test_what_is_still_broken_is_told_when_the_silence_is_over(self) -> None:
        world = World(telling(SIMPLE, [silence("model=m", ends=NOON + HOUR)]))
        world.sees(about(), finding())
        assert world.passes(HOUR - SECOND) == []
        assert shown(world.passes(SECOND)) == [("a", ["m"], "first")]

    def test_what_a_silence_hid_when_the_rest_of_its_group_ended_is_news_when_it_is_over(self) -> None:
        """The receiver was told that all is over, and closed its incident."""
        world = World(telling(SIMPLE))
        for ref in ("latest", "@champion"):
            world.sees(about("m", ref), finding())
        assert len(world.passes(MINUTE)) == 1
        world.telling = replace(world.telling, silences=[silence("ref=latest", ends=NOON + DAY)])
        world.sees(about("m", "@champion"))
        assert shown(world.passes(HOUR)) == [("a", ["-m"], "version_passed")]
        world.telling = replace(world.telling, silences=())

        assert shown(world.passes(HOUR)) == [("a", ["m"], "first")]
        world.sees(about("m", "latest"))
        assert shown(world.passes(HOUR)) == [("a", ["-m"], "version_passed")]

    def test_an_alert_ends_in_the_group_in_which_it_began(self) -> None:
        world = World(telling(SIMPLE))
        world.sees(about(), finding())
        (begin,) = world.passes(MINUTE)
        world.telling = telling("{names: [a], route: {receiver: a, group_by: [registry]}}")
        world.sees(about())
        (end,) = world.passes(HOUR)

        assert end.group_id == begin.group_id

    def test_a_mute_time_is_told_to_whoever_asks(self) -> None:
        world = World(
            telling(
                """
                names: [a]
                route: {receiver: a, mute_times: [always]}
                mute_times: [{name: always, times: [{hours: ["00:00-24:00"]}]}]
                """
            )
        )
        world.sees(about(), finding())
        due = world.looks()

        assert (due.events, due.resting) == ([], {about(): "mute time always of a"})

    def test_events_about_others_count_what_is_muted(self) -> None:
        world = World(
            telling("{names: [a], route: {receiver: a, group_by: []}}", [silence("model=m", ends=NOON + DAY)])
        )
        world.sees(about("m"), finding())
        world.sees(about("n"), finding())

        (event,) = world.passes(MINUTE)
        assert (shown([event]), event.muted) == ([("a", ["n"], "first")], 1)


class TestMuteTimes:
    NIGHTS = """
    names: [a, b]
    mute_times: [{name: nights, times: [{hours: ["22:00-06:00"]}]}]
    route: {receiver: a, mute_times: [nights], routes: [{receiver: b, continue: true}, {}]}
    """

    def test_they_hold_back_everything_on_their_route_the_end_too(self) -> None:
        world = World(telling(self.NIGHTS.replace("{}]", "{mute_times: [nights]}]")))
        world.sees(about("m"), finding())
        assert {event.receiver for event in world.passes(MINUTE)} == {"a", "b"}

        world.now = NOON + 11 * HOUR
        world.sees(about("m"))
        world.sees(about("n"), finding())
        assert {event.receiver for event in world.passes(MINUTE)} == {"b"}
        assert {event.receiver for event in world.passes(6 * HOUR)} == set()
        assert shown(world.passes(59 * MINUTE)) == [("a", ["-m"], "version_passed"), ("a", ["n"], "first")]

    def test_it_is_not_the_alert_that_is_muted(self) -> None:
        """Another route may tell it."""
        world = World(telling(self.NIGHTS), now=NOON + 11 * HOUR)
        world.sees(about(), finding())

        assert world.looks().muted == {}


class TestLookAgain:
    def test_it_is_the_earliest_time_at_which_an_event_may_be_due(self) -> None:
        world = World(telling("{names: [a], route: {receiver: a, group_wait: 2m}}"))
        world.sees(about("m"), finding())
        world.now += MINUTE
        world.sees(about("n"), finding())

        assert world.looks().look_again == NOON + 2 * MINUTE

    def test_only_news_can_make_anything_due_where_nothing_fires(self) -> None:
        world = World(telling(SIMPLE))
        assert world.looks().look_again is None
        world.sees(about(), finding())
        world.sees(about())
        assert world.looks().look_again is None

    def test_a_repetition_is_looked_for_when_it_is_due(self) -> None:
        world = World(telling(SIMPLE))
        world.sees(about(), finding())
        world.passes(MINUTE)

        assert world.looks().look_again == NOON + MINUTE + 12 * HOUR

    def test_silences_begin_and_end(self) -> None:
        soon = silence("model=x", begins=NOON + HOUR, ends=NOON + 2 * HOUR)
        world = World(telling(SIMPLE, [soon]))

        assert world.looks().look_again == NOON + HOUR
        world.now += HOUR
        assert world.looks().look_again == NOON + 2 * HOUR
        world.now += HOUR
        assert world.looks().look_again is None

    def test_mute_times_may_end_with_every_minute(self) -> None:
        world = World(telling(TestMuteTimes.NIGHTS.replace("{}]", "]")), now=NOON + 11 * HOUR)
        world.telling = telling(
            """
            names: [a]
            mute_times: [{name: nights, times: [{hours: ["22:00-06:00"]}]}]
            route: {receiver: a, mute_times: [nights]}
            """
        )
        world.sees(about(), finding())

        assert world.looks().look_again == world.now + MINUTE


IDENTITIES = [
    *(about(model, ref) for model, ref in (("m", "latest"), ("m", "@champion"), ("n", "latest"))),
    about("m", group=RuleGroup.EXAMINATION),
    about("n", group=RuleGroup.INTEGRITY),
]
CONFIGURATIONS = [
    """
    names: [a, b]
    mute_times: [{name: nights, times: [{hours: ["22:00-06:00"]}]}]
    inhibitions: [{source: [rule_group=integrity], target: [rule_group=weights, model=n], equal: [ref]}]
    route:
      receiver: a
      routes:
        - {receiver: b, group_by: [], mute_times: [nights], continue: true}
        - {matchers: [model=m], group_by: [model, ref], group_wait: 0s, group_interval: 1m}
    """,
    """
    names: [a, b]
    route:
      receiver: a
      group_interval: 0s
      group_wait: 0s
      routes: [{matchers: [severity=critical], receiver: b, repeat_interval: 1h, group_interval: 20m}]
    """,
    "{names: [a], route: {receiver: a, group_by: [...], repeat_interval: 6m}}",
]

BAD = st.lists(
    st.builds(finding, st.sampled_from(["fc1", "fc2", None]), st.sampled_from(Severity)),
    min_size=1,
    max_size=2,
)
steps = st.one_of(
    st.tuples(st.just("sees"), st.sampled_from(IDENTITIES), BAD, st.sampled_from(["v1", "v2"])),
    st.tuples(st.just("sees"), st.sampled_from(IDENTITIES), BAD, st.just("v1")),
    st.tuples(st.just("sees"), st.sampled_from(IDENTITIES), st.just([]), st.sampled_from(["v2", None])),
    st.tuples(st.just("passes"), st.sampled_from([1, 29, 61, 300])),
    st.tuples(st.just("passes"), st.sampled_from([1200, 3600, 30_000, 50_000])),
    st.tuples(st.just("set"), st.sampled_from([-86_400, -3600, -1, 3600, 86_400])),
    st.tuples(
        st.just("silence"),
        st.sampled_from(["model=m", "severity=critical", "ref=latest"]),
        st.integers(1, 30),
    ),
    st.tuples(st.just("unsilence")),
    st.tuples(st.just("acknowledge"), st.sampled_from(IDENTITIES)),
)


class Witness:
    """Sees every event as its receiver does, and knows nothing else."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.believes: dict[tuple[str, AlertIdentity], tuple[bool, int]] = {}
        self.ids: set[str] = set()
        self.last: dict[str, tuple[datetime, int, Mapping[str, tuple[str, ...]]]] = {}
        self.clock_was_set: set[str] = set()

    def step(self, step: tuple[Any, ...]) -> None:
        world = self.world
        what, *values = step
        if what == "sees":
            identity, findings, version = values
            own = [replace(one, group=identity.group) for one in findings]
            world.sees(identity, *own, version=version)
        elif what == "passes":
            world.now += timedelta(seconds=values[0])
        elif what == "set":
            world.now += timedelta(seconds=values[0])
            self.clock_was_set = set(self.last)
        elif what == "silence":
            matcher, hours = values
            new = silence(matcher, begins=world.now, ends=world.now + hours * HOUR)
            world.telling = replace(world.telling, silences=[*world.telling.silences, new])
        elif what == "unsilence":
            world.telling = replace(world.telling, silences=[])
        elif what == "acknowledge":
            state = world.states.get(values[0])
            if state is not None and state.phase is AlertPhase.FIRING:
                taken = Acknowledgement("ann", world.now, "on it")
                world.states[values[0]] = replace(state, acknowledgement=taken)
        self.watch(world.looks())
        assert world.looks().events == []  # Nothing is told twice within one moment.

    def watch(self, due: Plan) -> None:
        for event in due.events:
            self.hears(event)

    def hears(self, event: GroupEvent) -> None:
        world = self.world
        assert event.event_id not in self.ids
        self.ids.add(event.event_id)
        identities = [one.state.identity for one in event.tell]
        assert identities
        assert len(set(identities)) == len(identities)
        news = [
            one
            for one in event.tell
            if self.believes.get((event.receiver, one.state.identity)) != (one.fires, one.state.sequence)
        ]
        timing = self.timing(event)
        before = self.last.get(event.group_id)
        assert (event.reason is TransitionReason.REPEAT_INTERVAL) is not bool(news)
        if before is not None:
            told_at, sequence, labels = before
            assert event.sequence == sequence + 1
            assert event.labels == labels
            if event.group_id not in self.clock_was_set:
                least = timing[0] if news else timing[1]
                assert world.now - told_at >= least
        if not news:
            assert any(one.state.acknowledgement is None for one in event.tell)
        for one in event.tell:
            known = self.believes.get((event.receiver, one.state.identity))
            if one.fires:
                self.may_be_told(event, one.state)
            else:
                assert known is not None
                assert known[0]  # Only an end that it waits for.
            self.believes[(event.receiver, one.state.identity)] = (one.fires, one.state.sequence)
        self.last[event.group_id] = (world.now, event.sequence, event.labels)
        self.clock_was_set.discard(event.group_id)

    def timing(self, event: GroupEvent) -> tuple[timedelta, timedelta]:
        """The least group and repeat intervals of the routes by which the receiver hears of these alerts."""
        assert self.world.telling.root is not None
        routes = [
            route
            for one in event.tell
            for route in routes_for(self.world.telling.root, labels_of(one.state))
            if route.receiver == event.receiver
        ] or [self.world.telling.root]
        return (
            min(route.group_interval for route in routes),
            min(route.repeat_interval for route in routes),
        )

    def may_be_told(self, event: GroupEvent, state: AlertState) -> None:
        world = self.world
        assert world.telling.root is not None
        labels = labels_of(state)
        routes = [one for one in routes_for(world.telling.root, labels) if one.receiver == event.receiver]
        assert routes
        assert muted_by(routes[0].mute_times, world.now) is None
        for one in world.telling.silences:
            holds = one.starts_at <= world.now < one.ends_at
            assert not (holds and all_match(one.matchers, labels))

    def knows_the_truth(self) -> None:
        world = self.world
        assert world.telling.root is not None
        for identity, state in world.states.items():
            fires = state.phase is AlertPhase.FIRING
            led_to = {route.receiver for route in routes_for(world.telling.root, labels_of(state))}
            for receiver, wants_ends in world.telling.wants_ends.items():
                believed = self.believes.get((receiver, identity))
                if fires and receiver in led_to:
                    assert believed == (True, state.sequence)
                elif not fires and wants_ends:
                    assert believed is None or not believed[0]


class TestEveryHistory:
    @settings(deadline=None, max_examples=400)
    @given(
        st.sampled_from(CONFIGURATIONS),
        st.sampled_from([(), ("a",)]),
        st.lists(steps, min_size=5, max_size=40),
    )
    def test_receivers_hear_the_truth_once_in_time_and_nothing_else(
        self, configuration: str, quiet: tuple[str, ...], history: list[tuple[Any, ...]]
    ) -> None:
        world = World(telling(configuration, quiet=quiet))
        witness = Witness(world)
        for step in history:
            witness.step(step)

        # Everything is unmuted: no silence, no source of an inhibition, noon.
        world.telling = replace(world.telling, silences=[])
        for identity in IDENTITIES:
            if identity.group is not RuleGroup.WEIGHTS:
                world.sees(identity)
        self._settles(witness)
        witness.knows_the_truth()

        for identity in world.states:
            world.sees(identity, version=None)
        self._settles(witness)
        witness.knows_the_truth()
        for (receiver, identity), (fires, _) in witness.believes.items():
            assert not (fires and world.telling.wants_ends[receiver]), (receiver, identity)
        told = len(world.events)
        witness.step(("passes", 864_000))
        assert len(world.events) == told

    def _settles(self, witness: Witness) -> None:
        """Long enough for the longest wait and interval of the configurations, by day."""
        world = witness.world
        world.now = world.now.replace(hour=12) + DAY
        for _ in range(3):
            witness.step(("passes", 1200))

    @settings(deadline=None, max_examples=50)
    @given(st.sampled_from(CONFIGURATIONS), st.lists(steps, max_size=30))
    def test_the_same_history_gives_the_same_events(
        self, configuration: str, history: list[tuple[Any, ...]]
    ) -> None:
        def events() -> list[GroupEvent]:
            world = World(telling(configuration))
            witness = Witness(world)
            for step in history:
                witness.step(step)
            return world.events

        assert events() == events()

    @settings(deadline=None, max_examples=100)
    @given(st.sampled_from(CONFIGURATIONS), st.lists(steps, max_size=30))
    def test_when_time_alone_makes_something_due_it_was_said_before(
        self, configuration: str, history: list[tuple[Any, ...]]
    ) -> None:
        world = World(telling(configuration))
        witness = Witness(world)
        for step in history:
            witness.step(step)
        due = world.looks()
        start = world.now
        for _ in range(200):
            world.now += 10 * MINUTE
            known = [KnownAlert(state, labels_of(state)) for state in world.states.values()]
            if plan(known, world.told, world.groups, world.telling, world.now).events:
                assert due.look_again is not None
                assert start < due.look_again <= world.now
                return


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_the_histories_are_about_configurations_that_tell(configuration: str) -> None:
    world = World(telling(configuration))
    for number, identity in enumerate(IDENTITIES):
        severity = (Severity.WARNING, Severity.CRITICAL)[number % 2]
        world.sees(identity, replace(finding(severity=severity), group=identity.group))

    assert {event.receiver for event in world.passes(HOUR)} == set(world.telling.wants_ends)
