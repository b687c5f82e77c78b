"""States of alerts, their transitions, and what each receiver was told of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from layerwatch.alerts.grouping import Told
from layerwatch.alerts.model import (
    Acknowledgement,
    AlertPhase,
    AlertState,
    Pending,
    Transition,
    TransitionReason,
)
from layerwatch.daemon.store import alerts, tables
from layerwatch.daemon.store.alerts import GroupRecord
from layerwatch.daemon.store.database import Database
from layerwatch.metrics.findings import RuleGroup, Verdict
from storetools import NOW, firing, judged, later, registered


def _state(connection: sa.Connection, model: str = "m", sequence: int = 1) -> AlertState:
    state = firing(registered(connection, "1", model=model))
    return replace(state, sequence=sequence, event_id=f"evt_{model}_{sequence}", changed_at=later(sequence))


def _transition(state: AlertState) -> Transition:
    return Transition(state.event_id, state, state.reason, (), Verdict.FAIL)


def _told_names(connection: sa.Connection) -> list[str]:
    return [state.identity.model for state in alerts.to_be_told(connection)]


# States


def test_an_alert_state_is_replaced_by_the_next(database: Database) -> None:
    with database.write() as connection:
        state = _state(connection)
        assert alerts.load_state(connection, state.identity) is None
        alerts.save_state(connection, state)
        assert alerts.load_state(connection, state.identity) == state
        resolved = replace(
            state,
            phase=AlertPhase.RESOLVED,
            episode=2,
            sequence=2,
            layers=(),
            changed_at=later(9),
            reason=TransitionReason.MOVED_BACK,
            event_id="evt_2",
            rules=(),
        )
        alerts.save_state(connection, resolved)
        assert alerts.list_states(connection) == [resolved]


def test_counts_of_scans_and_an_acknowledgement_come_back_and_go_again(database: Database) -> None:
    with database.write() as connection:
        plain = _state(connection)
        full = replace(
            plain,
            phase=AlertPhase.PENDING,
            pending=Pending("17 2025-03-01", (("dead_rows", 2), ("nan", 1))),
            acknowledgement=Acknowledgement("ann", later(5), "on it, see #12"),
        )
        for state in (full, plain, full):
            alerts.save_state(connection, state)
            assert alerts.load_state(connection, state.identity) == state


def test_alert_states_are_listed_by_phase_registry_and_model(database: Database) -> None:
    with database.write() as connection:
        states = [
            replace(firing(judged(connection, "1", model=model, registry=registry)), phase=phase)
            for registry, model, phase in (
                ("r1", "a", AlertPhase.FIRING),
                ("r1", "b", AlertPhase.RESOLVED),
                ("r2", "a", AlertPhase.FIRING),
            )
        ]
        for state in reversed(states):
            alerts.save_state(connection, state)
        assert alerts.list_states(connection) == states
        assert alerts.list_states(connection, AlertPhase.FIRING) == [states[0], states[2]]
        assert alerts.list_states(connection, registry="r1") == states[:2]
        assert alerts.list_states(connection, registry="r1", model="b") == [states[1]]
        assert alerts.list_states(connection, AlertPhase.RESOLVED, "r2") == []


def test_what_is_told_of_many_alerts_is_read_at_once(database: Database) -> None:
    with database.write() as connection:
        states = [firing(judged(connection, "1", model=f"m{number}")) for number in range(3)]
        for state in states:
            alerts.save_state(connection, state)
        for state in states[:2]:
            alerts.save_told(connection, state.identity, f'"{state.identity.model}"')
        identities = [state.identity for state in states]
        assert alerts.told_texts(connection, identities) == dict(
            zip(identities, ['"m0"', '"m1"'], strict=False)
        )
        # More than fit into one statement.
        many = [replace(identities[0], ref=str(number)) for number in range(3000)]
        assert alerts.told_texts(connection, [*many, identities[1]]) == {identities[1]: '"m1"'}


def test_what_is_told_of_an_alert_outlives_its_next_state(database: Database) -> None:
    with database.write() as connection:
        state = _state(connection)
        alerts.save_state(connection, state)
        assert alerts.told_of(connection, state.identity) is None
        alerts.save_told(connection, state.identity, '{"headline": "broken"}')
        alerts.save_state(connection, replace(state, sequence=2))
        assert alerts.told_of(connection, state.identity) == '{"headline": "broken"}'
        other = replace(state.identity, group=RuleGroup.INTEGRITY)
        assert alerts.told_of(connection, other) is None


# Transitions


def test_transitions_of_each_alert_come_in_their_order(database: Database) -> None:
    with database.write() as connection:
        states = [_state(connection, model, number) for model in ("a", "b") for number in (3, 1, 2)]
        for state in states:
            alerts.record_transition(connection, _transition(state))
        a, b = states[0].identity, states[3].identity
        without = replace(a, group=RuleGroup.INTEGRITY)
        assert alerts.transitions_of(connection, {a, b, without}) == {
            a: [(1, "evt_a_1"), (2, "evt_a_2"), (3, "evt_a_3")],
            b: [(1, "evt_b_1"), (2, "evt_b_2"), (3, "evt_b_3")],
            without: [],
        }
        many = [replace(a, ref=str(number)) for number in range(3000)]
        assert alerts.transitions_of(connection, [*many, b])[b] == [
            (number, f"evt_b_{number}") for number in (1, 2, 3)
        ]


def test_a_transition_that_is_there_stays_as_it_is(database: Database) -> None:
    with database.write() as connection:
        state = _state(connection)
        alerts.record_transition(connection, _transition(state))
        before = connection.execute(sa.select(tables.alert_transitions)).all()
        alerts.record_transition(connection, _transition(replace(state, changed_at=later(99))))
        assert connection.execute(sa.select(tables.alert_transitions)).all() == before
        assert len(before) == 1


def test_an_alert_its_transition_and_what_is_told_share_the_fate_of_their_transaction(
    database: Database,
) -> None:
    def fail() -> None:
        with database.write() as connection:
            state = _state(connection)
            alerts.save_state(connection, state)
            alerts.record_transition(connection, _transition(state))
            alerts.save_told_to(connection, [("oncall", state)])
            alerts.save_groups(connection, {"grp_1": GroupRecord("oncall", {}, NOW, 1)})
            raise RuntimeError("after everything was written")

    with pytest.raises(RuntimeError):
        fail()
    with database.read() as connection:
        assert alerts.list_states(connection) == []
        assert connection.execute(sa.select(tables.alert_transitions)).all() == []
        assert (alerts.load_told(connection), alerts.load_groups(connection)) == ({}, {})


# What receivers were told


def test_how_far_a_receiver_was_told_is_kept_for_each_alert(database: Database) -> None:
    with database.write() as connection:
        a, b = (_state(connection, model) for model in ("a", "b"))
        alerts.save_told_to(connection, [])
        alerts.save_told_to(connection, [("oncall", a), ("chat", a), ("oncall", b)])
        alerts.save_told_to(connection, [("oncall", replace(a, sequence=2, phase=AlertPhase.RESOLVED))])
        assert alerts.load_told(connection) == {
            ("oncall", a.identity): Told(2, False),
            ("chat", a.identity): Told(1, True),
            ("oncall", b.identity): Told(1, True),
        }


def test_receivers_that_are_no_longer_there_are_forgotten(database: Database) -> None:
    with database.write() as connection:
        state = _state(connection)
        alerts.save_told_to(connection, [(receiver, state) for receiver in ("oncall", "chat", "mail")])
        alerts.forget_receivers_but(connection, ["mail", "oncall", "new"])
        assert {receiver for receiver, _ in alerts.load_told(connection)} == {"mail", "oncall"}
        alerts.forget_receivers_but(connection, [])
        assert alerts.load_told(connection) == {}


def test_to_be_told_are_those_that_fire_and_those_that_a_receiver_believes_to(database: Database) -> None:
    with database.write() as connection:
        for model, phase, believed in (
            ("fires", AlertPhase.FIRING, None),
            ("ended", AlertPhase.RESOLVED, True),
            ("ended-and-told", AlertPhase.RESOLVED, False),
            ("ended-unheard", AlertPhase.RESOLVED, None),
            ("waits", AlertPhase.PENDING, None),
        ):
            state = replace(_state(connection, model), phase=phase)
            alerts.save_state(connection, state)
            alerts.save_told(connection, state.identity, "{}")
            if believed is not None:
                known = AlertPhase.FIRING if believed else AlertPhase.RESOLVED
                alerts.save_told_to(connection, [("oncall", replace(state, phase=known))])
        assert _told_names(connection) == ["ended", "fires"]
        # Another receiver's belief is enough, and an alert is there once however many have it.
        ended = alerts.to_be_told(connection)[0]
        fires = replace(ended, phase=AlertPhase.FIRING)
        alerts.save_told_to(connection, [("oncall", ended), ("chat", fires), ("mail", fires)])
        assert _told_names(connection) == ["ended", "fires"]


def test_ends_are_found_by_their_time(database: Database) -> None:
    with database.write() as connection:
        for model, phase, seconds in (
            ("old", AlertPhase.RESOLVED, 10),
            ("recent", AlertPhase.RESOLVED, 20),
            ("fires", AlertPhase.FIRING, 20),
        ):
            state = replace(_state(connection, model), phase=phase, changed_at=later(seconds))
            alerts.save_state(connection, state)
            alerts.save_told(connection, state.identity, "{}")
        # It ended before anybody could be told that it fired.
        alerts.save_state(connection, replace(_state(connection, "untold"), phase=AlertPhase.RESOLVED))
        found = alerts.ended_since(connection, later(10))
        assert [state.identity.model for state in found] == ["recent"]


def test_what_fires_of_some_models_is_told_at_once(database: Database) -> None:
    with database.write() as connection:
        for model in ("a", "b", "c"):
            alerts.save_state(connection, _state(connection, model))
        alerts.save_state(connection, replace(_state(connection, "over"), phase=AlertPhase.RESOLVED))
        asked = [("r", "a"), ("r", "over"), ("other", "b"), ("r", "none")]
        assert [state.identity.model for state in alerts.firing_of(connection, asked)] == ["a"]
        assert alerts.firing_of(connection, []) == []


# Groups


def test_a_group_is_replaced_by_its_next_record_and_never_lies_in_the_future(database: Database) -> None:
    labels = {"model": ["m"], "rule": ["dead_rows", "nan"]}
    first = GroupRecord("oncall", labels, NOW, 1)
    other = GroupRecord("chat", {}, later(-5), 4)
    second = replace(first, told_at=later(86_400), sequence=2)
    with database.write() as connection:
        alerts.save_groups(connection, {"grp_1": first, "grp_2": other})
        assert alerts.load_groups(connection) == {"grp_1": first, "grp_2": other}
        alerts.save_groups(connection, {})
        alerts.save_groups(connection, {"grp_1": second})
        assert alerts.load_groups(connection) == {"grp_1": second, "grp_2": other}
        # The clock was set back a day.
        assert alerts.turn_back(connection, NOW) == 1
        assert alerts.turn_back(connection, NOW) == 0
        assert alerts.load_groups(connection) == {"grp_1": replace(second, told_at=NOW), "grp_2": other}
