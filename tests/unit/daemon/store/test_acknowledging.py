"""Acknowledged alerts, and alerts by the names that people give them."""

from __future__ import annotations

import pytest

from firedalerts import ended, fired
from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import Acknowledgement, AlertIdentity, AlertPhase
from layerwatch.alerts.people import EntryError
from layerwatch.daemon.store import alertnames, alerts
from layerwatch.daemon.store.acknowledging import acknowledge, unacknowledge
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.metrics.findings import RuleGroup, Severity
from storetools import NOW, later


def test_who_is_on_a_firing_alert_is_kept_with_it(database: Database) -> None:
    with database.write() as connection:
        state = fired(connection)
        done = acknowledge(connection, state.identity, " ann ", "retraining", later(60))
    assert done.acknowledgement == Acknowledgement("ann", later(60), "retraining")
    with database.read() as connection:
        assert alerts.load_state(connection, state.identity) == done
        # It is no news: neither a transition nor another text.
        assert (done.sequence, done.changed_at) == (state.sequence, state.changed_at)
        assert alerts.told_of(connection, state.identity) is not None


def test_whoever_acknowledges_last_is_on_it(database: Database) -> None:
    with database.write() as connection:
        identity = fired(connection).identity
        acknowledge(connection, identity, "ann", "looking", NOW)
        done = acknowledge(connection, identity, "bob", "took over", later(1))
    assert done.acknowledgement == Acknowledgement("bob", later(1), "took over")


def test_an_acknowledgement_can_be_taken_back_once(database: Database) -> None:
    with database.write() as connection:
        identity = fired(connection).identity
        acknowledge(connection, identity, "ann", "looking", NOW)
        assert unacknowledge(connection, identity).acknowledgement is None
        state = alerts.load_state(connection, identity)
        assert state is not None and state.acknowledgement is None
        with pytest.raises(StoreError) as caught:
            unacknowledge(connection, identity)
    assert caught.value.reason is StoreReason.WRONG_STATE


def test_an_alert_that_gets_worse_or_ends_is_in_nobodys_hands(database: Database) -> None:
    with database.write() as connection:
        state = fired(connection, severity=Severity.WARNING)
        acknowledge(connection, state.identity, "ann", "looking", NOW)
        worse = fired(connection, severity=Severity.CRITICAL, now=later(1))
        assert worse.acknowledgement is None
        acknowledge(connection, state.identity, "ann", "still looking", later(2))
        assert ended(connection, state, now=later(3)).acknowledgement is None


def test_only_what_fires_can_be_acknowledged(database: Database) -> None:
    with database.write() as connection:
        over = ended(connection, fired(connection), now=later(1))
        assert over.phase is AlertPhase.RESOLVED
        never = AlertIdentity("prod", "never", "latest", RuleGroup.WEIGHTS)
        for identity, reason in ((over.identity, StoreReason.WRONG_STATE), (never, StoreReason.NOT_FOUND)):
            with pytest.raises(StoreError) as caught:
                acknowledge(connection, identity, "ann", "why", NOW)
            assert caught.value.reason is reason
            with pytest.raises(StoreError) as caught:
                unacknowledge(connection, identity)
            assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("by", "reason", "field"), [(" ", "why", "by"), ("ann", "", "reason"), ("a" * 101, "why", "by")]
)
def test_nobody_for_no_reason_is_refused(database: Database, by: str, reason: str, field: str) -> None:
    with database.write() as connection:
        identity = fired(connection).identity
        with pytest.raises(EntryError) as caught:
            acknowledge(connection, identity, by, reason, NOW)
    assert caught.value.field == field


def test_an_alert_is_found_by_its_id_or_the_beginning_of_it(database: Database) -> None:
    with database.write() as connection:
        state = fired(connection)
        fired(connection, "prod/spam")
        full = alert_id(state.identity, state.episode)
        digits = full.removeprefix("alert_")
        for name in (full, digits, digits[:8], f"alert_{digits[:8]}", digits[:20].upper()):
            assert alertnames.by_id(connection, name) == state


def test_what_is_no_id_or_that_of_no_alert_is_not_found(database: Database) -> None:
    with database.write() as connection:
        state = fired(connection)
        full = alert_id(state.identity, state.episode)
        other = "0" * 8 if not full.endswith("0" * 8) else "1" * 8
        for name in (
            full[:13],
            "",
            "prod/fraud",
            "alert_",
            full + "0",
            full.replace("alert", "event"),
            other,
        ):
            with pytest.raises(StoreError) as caught:
                alertnames.by_id(connection, name)
            assert caught.value.reason is StoreReason.NOT_FOUND, name


def test_an_alert_that_began_again_has_a_new_id(database: Database) -> None:
    with database.write() as connection:
        first = fired(connection)
        ended(connection, first, now=later(1))
        again = fired(connection, version="v5", now=later(2))
        with pytest.raises(StoreError):
            alertnames.by_id(connection, alert_id(first.identity, first.episode))
        assert alertnames.by_id(connection, alert_id(again.identity, again.episode)) == again


def test_the_beginning_of_several_ids_is_refused(database: Database) -> None:
    with database.write() as connection:
        # Found by search: the ids of refs r51791 and r83248 of prod/fraud begin with the same 8 digits.
        for ref in ("r51791", "r83248"):
            fired(connection, ref=ref)
        with pytest.raises(StoreError) as caught:
            alertnames.by_id(connection, "6a20bd18")
    assert "begins the ids of 2 alerts: write more of it" in caught.value.detail


def test_the_firing_alerts_of_a_model_are_found_by_its_name(database: Database) -> None:
    with database.write() as connection:
        latest = fired(connection)
        unread = fired(connection, group=RuleGroup.EXAMINATION, layers=(None,))
        champion = fired(connection, ref="champion")
        ended(connection, fired(connection, ref="old"), now=later(1))
        fired(connection, "prod/fraud2")
        assert alertnames.firing(connection, "prod", "fraud") == [champion, unread, latest]
        assert alertnames.firing(connection, "prod", "fraud", "latest") == [unread, latest]
        for ref in ("old", "other"):
            with pytest.raises(StoreError) as caught:
                alertnames.firing(connection, "prod", "fraud", ref)
            assert caught.value.reason is StoreReason.NOT_FOUND
