"""The outbox: who may send what, in which order, and what becomes of it."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.outbox import OutboxEntry, Result
from layerwatch.daemon.store import outbox, tables
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.outbox import (
    CLAIM,
    Backlog,
    DatabaseOutbox,
    GivenUp,
    NewEntry,
    OutboxRecord,
    OutboxStatus,
)
from storetools import NOW, NewDatabase, later

DAY = timedelta(days=1)
REFUSED = (DeliveryReason.CLIENT_ERROR, "400")
GONE = (DeliveryReason.GONE, "410")
TIMEOUT = (DeliveryReason.TIMEOUT, "no answer in 15 s")


def _queue(
    database: Database,
    *event_ids: str,
    receiver: str = "oncall",
    stream: str | None = None,
    seconds: float = 0,
) -> None:
    with database.write() as connection:
        for event_id in event_ids:
            payload = f'{{"id": "{event_id}"}}'
            outbox.enqueue(connection, event_id, receiver, payload, later(seconds), stream)


def _names(entries: Sequence[OutboxEntry]) -> list[str]:
    return [entry.event_id for entry in entries]


def _records(database: Database) -> dict[str, OutboxRecord]:
    with database.read() as connection:
        return {record.entry.event_id: record for record in outbox.list_outbox(connection, 1000)}


def _only(database: Database) -> OutboxRecord:
    (record,) = _records(database).values()
    return record


def _left_behind(database: Database) -> list[GivenUp]:
    with database.read() as connection:
        return outbox.given_up(connection, later(10**6))


# Queueing


def test_an_event_is_queued_once_for_each_receiver(database: Database) -> None:
    with database.write() as connection:
        assert outbox.enqueue(connection, "e", "oncall", "{}", NOW)
        assert not outbox.enqueue(connection, "e", "oncall", "{...}", later(1))
        assert outbox.enqueue(connection, "e", "chat", "{}", NOW)
    deliveries = DatabaseOutbox(database, "daemon")
    for receiver in ("oncall", "chat"):
        (entry,) = deliveries.claim(receiver, NOW, 10)
        assert (entry.receiver, entry.payload, entry.created_at) == (receiver, "{}", NOW)


def test_many_events_are_queued_as_each_by_itself(database: Database) -> None:
    _queue(database, "known")
    with database.write() as connection:
        outbox.enqueue_all(connection, [], later(1))
        entries = [NewEntry(name, "oncall", f'"{name}"', "s") for name in ("known", "new", "newer")]
        outbox.enqueue_all(connection, entries, later(1))
    found = _records(database)
    assert {name: record.entry.created_at for name, record in found.items()} == {
        "known": NOW,
        "new": later(1),
        "newer": later(1),
    }
    assert (found["known"].entry.payload, found["new"].entry.payload) == ('{"id": "known"}', '"new"')
    assert (found["known"].entry.stream, found["new"].entry.stream) == (None, "s")
    assert found["new"].entry.id < found["newer"].entry.id


@pytest.mark.parametrize("fate", ["delivered", "given up"])
def test_an_event_that_is_over_is_not_queued_again(database: Database, fate: str) -> None:
    _queue(database, "e")
    deliveries = DatabaseOutbox(database, "daemon")
    (entry,) = deliveries.claim("oncall", NOW, 1)
    deliveries.settle([Result(entry.id, None if fate == "delivered" else GONE)], NOW)
    _queue(database, "e")
    with database.write() as connection:
        outbox.enqueue_all(connection, [NewEntry("e", "oncall", "{}", "s")], NOW)
    assert deliveries.claim("oncall", later(99), 10) == []


def test_an_event_shares_the_fate_of_its_transaction(database: Database) -> None:
    def fail() -> None:
        with database.write() as connection:
            outbox.enqueue(connection, "e", "oncall", "{}", NOW)
            outbox.enqueue_all(connection, [NewEntry("f", "oncall", "{}", "s")], NOW)
            raise RuntimeError("after the events were queued")

    with pytest.raises(RuntimeError):
        fail()
    assert DatabaseOutbox(database, "daemon").claim("oncall", later(99), 10) == []


# Claiming


def test_what_is_due_comes_lowest_id_first_and_no_more_than_asked(database: Database) -> None:
    _queue(database, "a", "b", "c")
    _queue(database, "other", receiver="chat")
    deliveries = DatabaseOutbox(database, "daemon")
    first = deliveries.claim("oncall", NOW, 10)[0]
    assert first == OutboxEntry(first.id, "a", "oncall", '{"id": "a"}', NOW, 0, NOW)
    deliveries.settle([Result(first.id, TIMEOUT, later(10))], NOW)
    assert _names(deliveries.claim("oncall", later(9), 10)) == ["b", "c"]
    assert _names(deliveries.claim("oncall", later(10), 2)) == ["a", "b"]


def test_two_daemons_never_have_the_same_event(database: Database) -> None:
    names = [f"e{number:03}" for number in range(60)]
    _queue(database, *names)
    claimed: dict[str, list[str]] = {"one": [], "other": []}
    begin = threading.Barrier(2)

    def take(owner: str) -> None:
        deliveries = DatabaseOutbox(database, owner)
        begin.wait()
        while entries := deliveries.claim("oncall", NOW, 7):
            claimed[owner] += _names(entries)
            if len(claimed[owner]) > 2 * len(names):
                break
            deliveries.settle([Result(entry.id) for entry in entries], NOW)

    threads = [threading.Thread(target=take, args=(owner,)) for owner in claimed]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed["one"] + claimed["other"]) == names


def test_what_another_daemon_claimed_is_left_to_it(database: Database) -> None:
    _queue(database, "a", "b", "c")
    one, other = DatabaseOutbox(database, "one"), DatabaseOutbox(database, "other")
    assert _names(one.claim("oncall", NOW, 2)) == ["a", "b"]
    assert _names(other.claim("oncall", NOW, 9)) == ["c"]
    assert other.claim("oncall", NOW + CLAIM - timedelta(seconds=1), 9) != []  # its own


@pytest.mark.parametrize(
    ("owner", "after", "taken"),
    [
        ("other", timedelta(0), False),
        ("other", CLAIM - timedelta(seconds=1), False),
        ("other", CLAIM, True),
        # The clock was set back: nobody knows how old the claim is.
        ("other", timedelta(seconds=-1), True),
        ("daemon", timedelta(0), True),
    ],
)
def test_a_claim_is_taken_over_when_it_is_ones_own_or_old_or_from_the_future(
    database: Database, owner: str, after: timedelta, taken: bool
) -> None:
    _queue(database, "e", seconds=-86_400)
    DatabaseOutbox(database, "daemon").claim("oncall", NOW, 1)
    assert bool(DatabaseOutbox(database, owner).claim("oncall", NOW + after, 1)) is taken


def test_a_daemon_that_starts_ends_the_claims_of_the_one_before(database: Database) -> None:
    _queue(database, "a", "b")
    DatabaseOutbox(database, "before").claim("oncall", NOW, 1)
    after = DatabaseOutbox(database, "after")
    after.release_all()
    assert _names(after.claim("oncall", NOW, 9)) == ["a", "b"]


def test_what_is_given_back_untried_is_there_for_anybody_and_counts_no_attempt(database: Database) -> None:
    _queue(database, "a", "b")
    one, other = DatabaseOutbox(database, "one"), DatabaseOutbox(database, "other")
    entries = one.claim("oncall", NOW, 9)
    one.release([entries[1].id])
    (entry,) = other.claim("oncall", NOW, 9)
    assert (entry.event_id, entry.attempts) == ("b", 0)


# Order


def test_events_of_one_stream_wait_for_the_one_before_them_and_others_go_on(database: Database) -> None:
    _queue(database, "a1", "a2", stream="a")
    _queue(database, "b1", stream="b")
    _queue(database, "single", "another")
    deliveries = DatabaseOutbox(database, "daemon")
    first = deliveries.claim("oncall", NOW, 1)[0]
    deliveries.settle([Result(first.id, TIMEOUT, later(60))], later(1))
    assert _names(deliveries.claim("oncall", later(2), 9)) == ["b1", "single", "another"]
    assert _names(deliveries.claim("oncall", later(60), 9)) == ["a1", "a2", "b1", "single", "another"]


def test_the_streams_of_two_receivers_are_two(database: Database) -> None:
    _queue(database, "a1", stream="a")
    _queue(database, "a2", stream="a", receiver="chat")
    deliveries = DatabaseOutbox(database, "daemon")
    first = deliveries.claim("oncall", NOW, 1)[0]
    deliveries.settle([Result(first.id, TIMEOUT, later(60))], later(1))
    assert _names(deliveries.claim("chat", later(2), 9)) == ["a2"]


def test_what_another_daemon_is_sending_holds_up_what_comes_after_it(database: Database) -> None:
    _queue(database, "a1", "a2", stream="a")
    _queue(database, "b1", stream="b")
    one, other = DatabaseOutbox(database, "one"), DatabaseOutbox(database, "other")
    (sent,) = one.claim("oncall", NOW, 1)
    assert _names(other.claim("oncall", NOW, 9)) == ["b1"]
    one.settle([Result(sent.id)], NOW)
    assert _names(other.claim("oncall", NOW, 9)) == ["a2", "b1"]


@pytest.mark.parametrize("error", [None, GONE])
def test_what_is_over_holds_up_nothing(database: Database, error: tuple[DeliveryReason, str] | None) -> None:
    _queue(database, "a1", "a2", stream="a")
    deliveries = DatabaseOutbox(database, "daemon")
    deliveries.settle([Result(deliveries.claim("oncall", NOW, 1)[0].id, error)], NOW)
    assert _names(deliveries.claim("oncall", NOW, 9)) == ["a2"]


_EVENTS = st.lists(st.sampled_from([None, "a", "b"]), min_size=1, max_size=8)
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["one", "other"]),
        st.integers(1, 4),
        st.lists(st.sampled_from(["taken", "fails", "given up", "untried", "lost"]), min_size=4, max_size=4),
        st.sampled_from([0, 1, 30, 700, -40, -100_000]),
    ),
    max_size=10,
)


@settings(max_examples=40, deadline=None)
@given(streams=_EVENTS, steps=_STEPS)
def test_whatever_happens_no_event_of_a_stream_is_taken_before_an_earlier_one_that_still_waits(
    new_database: NewDatabase,
    streams: list[str | None],
    steps: list[tuple[str, int, list[str], int]],
) -> None:
    with new_database() as database:
        stream_of = {f"e{number}": stream for number, stream in enumerate(streams)}
        for name, stream in stream_of.items():
            _queue(database, name, stream=stream)
        over: list[str] = []
        seconds = 0.0
        for owner, limit, fates, step in steps:
            seconds += step
            now = later(seconds)
            deliveries = DatabaseOutbox(database, owner)
            entries = deliveries.claim("oncall", now, limit)
            held_up: set[str | None] = set()
            results = []
            for entry, fate in zip(entries, fates, strict=False):
                assert entry.event_id not in over
                before = [
                    name
                    for name in list(stream_of)[: list(stream_of).index(entry.event_id)]
                    if entry.stream is not None and stream_of[name] == entry.stream and name not in over
                ]
                # As the dispatcher does it: what follows a failure in its stream is given back.
                if entry.stream is not None and entry.stream in held_up:
                    deliveries.release([entry.id])
                    continue
                assert before == []
                if fate == "taken":
                    results.append(Result(entry.id))
                elif fate == "given up":
                    results.append(Result(entry.id, REFUSED))
                elif fate == "fails":
                    results.append(Result(entry.id, TIMEOUT, now + timedelta(seconds=30)))
                elif fate == "untried":
                    deliveries.release([entry.id])
                if fate in ("taken", "given up"):
                    over.append(entry.event_id)
                else:
                    held_up.add(entry.stream)
            deliveries.settle(results, now)
        # Nothing is lost: all of it is over or can still be had, once time goes on and claims are old.
        later_on = later(max(seconds, 0) + 1_000_000)
        last = DatabaseOutbox(database, "last")
        while entries := last.claim("oncall", later_on, 3):
            over += _names(entries)
            last.settle([Result(entry.id) for entry in entries], later_on)
        assert sorted(over) == sorted(stream_of)


# A clock that is set back


def test_after_the_clock_was_set_back_a_day_everything_is_due_at_once(database: Database) -> None:
    _queue(database, "new")
    _queue(database, "failed", "behind", stream="s")
    deliveries = DatabaseOutbox(database, "daemon")
    failed = deliveries.claim("oncall", NOW, 9)[1]
    deliveries.settle([Result(failed.id, TIMEOUT, later(3600))], NOW)
    assert _names(deliveries.claim("oncall", later(3599), 9)) == ["new"]
    assert _names(deliveries.claim("oncall", NOW - DAY, 9)) == ["new", "failed", "behind"]


def test_after_the_clock_was_set_back_a_new_failure_is_waited_for_by_the_new_clock(
    database: Database,
) -> None:
    _queue(database, "e")
    deliveries = DatabaseOutbox(database, "daemon")
    (entry,) = deliveries.claim("oncall", NOW - DAY, 9)
    deliveries.settle([Result(entry.id, TIMEOUT, NOW - DAY + timedelta(minutes=1))], NOW - DAY)
    assert deliveries.claim("oncall", NOW - DAY + timedelta(seconds=59), 9) == []
    assert _names(deliveries.claim("oncall", NOW - DAY + timedelta(minutes=1), 9)) == ["e"]


# Results


def test_failures_are_counted_and_the_last_one_is_shown(database: Database) -> None:
    _queue(database, "e")
    deliveries = DatabaseOutbox(database, "daemon")
    number = deliveries.claim("oncall", NOW, 1)[0].id
    deliveries.settle([Result(number, TIMEOUT, later(2))], later(1))
    deliveries.settle([Result(number, (DeliveryReason.SERVER_ERROR, "503"), later(4))], later(3))
    record = _only(database)
    assert record.status is OutboxStatus.WAITING
    assert (record.entry.attempts, record.entry.next_attempt_at) == (2, later(4))
    assert (record.failed_at, record.error_reason, record.error_detail) == (
        later(3),
        DeliveryReason.SERVER_ERROR,
        "503",
    )


def test_a_result_ends_the_claim(database: Database) -> None:
    _queue(database, "e")
    one, other = DatabaseOutbox(database, "one"), DatabaseOutbox(database, "other")
    (entry,) = one.claim("oncall", NOW, 1)
    one.settle([Result(entry.id, TIMEOUT, later(5))], NOW)
    assert _names(other.claim("oncall", later(5), 1)) == ["e"]


def test_all_results_are_recorded_or_none(sqlite_database: Database) -> None:
    _queue(sqlite_database, *(f"e{number}" for number in range(5)))
    deliveries = DatabaseOutbox(sqlite_database, "daemon")
    entries = deliveries.claim("oncall", NOW, 9)
    results = [*(Result(entry.id) for entry in entries[:4]), Result(entries[4].id, TIMEOUT, later(9))]
    fails = f"""CREATE TRIGGER fails BEFORE UPDATE ON outbox WHEN NEW.id = {entries[4].id}
        BEGIN SELECT RAISE(ABORT, 'as if the disk were full'); END"""
    with sqlite_database.write() as connection:
        connection.exec_driver_sql(fails)
    with pytest.raises(sa.exc.IntegrityError):
        deliveries.settle(results, later(1))
    assert {record.status for record in _records(sqlite_database).values()} == {OutboxStatus.WAITING}
    with sqlite_database.write() as connection:
        connection.exec_driver_sql("DROP TRIGGER fails")
    deliveries.settle(results, later(2))
    found = _records(sqlite_database)
    assert [found[f"e{number}"].delivered_at for number in range(4)] == [later(2)] * 4
    assert found["e4"].entry.attempts == 1


def test_a_late_failure_does_not_bring_back_what_was_delivered(database: Database) -> None:
    _queue(database, "e")
    deliveries = DatabaseOutbox(database, "daemon")
    number = deliveries.claim("oncall", NOW, 1)[0].id
    deliveries.settle([Result(number)], later(1))
    for late in (Result(number, TIMEOUT, later(3)), Result(number, GONE), Result(number)):
        deliveries.settle([late], later(2))
    record = _only(database)
    assert (record.status, record.delivered_at, record.dead_at) == (OutboxStatus.DELIVERED, later(1), None)
    assert (record.entry.attempts, record.error_reason) == (0, None)


def test_a_late_success_does_not_bring_back_what_was_given_up(database: Database) -> None:
    _queue(database, "e")
    deliveries = DatabaseOutbox(database, "daemon")
    number = deliveries.claim("oncall", NOW, 1)[0].id
    deliveries.settle([Result(number, GONE)], later(1))
    deliveries.settle([Result(number)], later(2))
    record = _only(database)
    assert (record.status, record.dead_at, record.delivered_at) == (OutboxStatus.DEAD, later(1), None)


def test_more_results_than_fit_into_one_statement_are_recorded(database: Database) -> None:
    with database.write() as connection:
        entries = [NewEntry(f"e{number}", "oncall", "{}", f"s{number}") for number in range(2500)]
        outbox.enqueue_all(connection, entries, NOW)
    deliveries = DatabaseOutbox(database, "daemon")
    claimed = deliveries.claim("oncall", NOW, 5000)
    assert len(claimed) == 2500
    deliveries.release([entry.id for entry in claimed])
    deliveries.settle([Result(entry.id) for entry in claimed], later(1))
    with database.read() as connection:
        assert outbox.backlogs(connection) == []


# Giving up


def test_what_is_too_old_is_given_up_for_its_receiver_alone(database: Database) -> None:
    _queue(database, "old", "old and claimed", seconds=-10)
    _queue(database, "delivered", seconds=-10)
    _queue(database, "new")
    _queue(database, "elsewhere", receiver="chat", seconds=-10)
    deliveries = DatabaseOutbox(database, "daemon")
    claimed = deliveries.claim("oncall", NOW, 9)
    deliveries.settle([Result(claimed[2].id)], NOW)
    assert deliveries.expire("oncall", NOW, later(1), "older than 10 s") == 2
    assert deliveries.expire("oncall", NOW, later(2), "older than 10 s") == 0
    found = _records(database)
    assert {name for name, record in found.items() if record.status is OutboxStatus.DEAD} == {
        "old",
        "old and claimed",
    }
    old = found["old"]
    assert (old.dead_at, old.error_reason, old.error_detail) == (
        later(1),
        DeliveryReason.EXPIRED,
        "older than 10 s",
    )
    assert _names(deliveries.claim("oncall", NOW, 9)) == ["new"]
    assert _names(deliveries.claim("chat", NOW, 9)) == ["elsewhere"]


def test_what_waits_for_receivers_that_are_gone_is_given_up(database: Database) -> None:
    _queue(database, "a", "b", receiver="gone")
    _queue(database, "c", receiver="gone too")
    _queue(database, "d")
    with database.write() as connection:
        assert outbox.give_up_others(connection, ["oncall", "new"], later(1)) == {"gone": 2, "gone too": 1}
        assert outbox.give_up_others(connection, ["oncall", "new"], later(2)) == {}
        assert outbox.backlogs(connection) == [Backlog("oncall", 1, NOW)]
    record = _records(database)["a"]
    assert (record.status, record.dead_at, record.error_reason) == (
        OutboxStatus.DEAD,
        later(1),
        DeliveryReason.RECEIVER_REMOVED,
    )


# Replaying


def test_a_dead_event_is_kept_and_can_be_replayed_under_its_id(database: Database) -> None:
    _queue(database, "e")
    deliveries = DatabaseOutbox(database, "daemon")
    number = deliveries.claim("oncall", NOW, 1)[0].id
    deliveries.settle([Result(number, TIMEOUT, later(1))], NOW)
    deliveries.settle([Result(number, (DeliveryReason.EXPIRED, "older than 1 h"))], later(2))
    assert deliveries.claim("oncall", later(99), 10) == []
    record = _only(database)
    assert (record.status, record.dead_at) == (OutboxStatus.DEAD, later(2))
    assert (record.error_reason, record.error_detail) == (DeliveryReason.EXPIRED, "older than 1 h")

    with database.write() as connection:
        outbox.replay(connection, number, later(500))
    assert deliveries.claim("oncall", later(500), 10) == [
        OutboxEntry(number, "e", "oncall", '{"id": "e"}', later(500), 0, later(500))
    ]


def test_only_dead_events_are_replayed(database: Database) -> None:
    _queue(database, "e")
    number = _only(database).entry.id
    with database.write() as connection:
        for entry_id, reason in ((number, StoreReason.WRONG_STATE), (4711, StoreReason.NOT_FOUND)):
            with pytest.raises(StoreError) as caught:
                outbox.replay(connection, entry_id, NOW)
            assert caught.value.reason is reason


def test_all_dead_events_of_a_receiver_are_replayed_in_their_order(database: Database) -> None:
    _queue(database, "a", "b", "c", stream="s")
    _queue(database, "other", receiver="chat")
    deliveries = DatabaseOutbox(database, "daemon")
    delivered, *dead = deliveries.claim("oncall", NOW, 9)
    deliveries.settle([Result(delivered.id), *(Result(one.id, GONE) for one in dead)], NOW)
    deliveries.settle([Result(deliveries.claim("chat", NOW, 9)[0].id, GONE)], NOW)
    with database.write() as connection:
        assert outbox.replay_all(connection, "oncall", later(5)) == 2
        assert outbox.replay_all(connection, "oncall", later(5)) == 0
    assert _names(deliveries.claim("oncall", later(5), 9)) == ["b", "c"]
    assert deliveries.claim("chat", later(5), 9) == []


def test_the_last_event_of_a_group_follows_an_older_one_that_is_replayed(database: Database) -> None:
    """Otherwise a receiver that keeps no count would be left with an incident that is over."""
    _queue(database, "begin", "middle", "end", stream="s")
    _queue(database, "elsewhere", stream="t")
    deliveries = DatabaseOutbox(database, "daemon")
    begin, *others = deliveries.claim("oncall", NOW, 9)
    deliveries.settle([Result(begin.id, GONE), *(Result(one.id) for one in others)], NOW)
    with database.write() as connection:
        assert outbox.replay_all(connection, "oncall", later(5)) == 1
    assert _names(deliveries.claim("oncall", later(5), 9)) == ["begin", "end"]


def test_what_is_replayed_may_be_claimed_by_anybody(database: Database) -> None:
    _queue(database, "expired", "removed", seconds=-10)
    one, other = DatabaseOutbox(database, "one"), DatabaseOutbox(database, "other")
    one.claim("oncall", NOW, 1)
    one.expire("oncall", NOW, NOW, "too old")
    with database.write() as connection:
        outbox.replay_all(connection, "oncall", NOW)
    assert _names(other.claim("oncall", NOW, 9)) == ["expired", "removed"]


# What is shown


def test_the_oldest_undelivered_event_counts_neither_delivered_nor_dead_ones(database: Database) -> None:
    def oldest() -> object:
        with database.read() as connection:
            return outbox.oldest_undelivered(connection)

    assert oldest() is None
    for step in range(3):
        _queue(database, f"e{step}", seconds=step)
    assert oldest() == NOW
    deliveries = DatabaseOutbox(database, "daemon")
    one, two, three = deliveries.claim("oncall", later(9), 9)
    deliveries.settle([Result(one.id), Result(two.id, GONE)], later(9))
    assert oldest() == three.created_at


def test_backlogs_are_counted_by_receiver(database: Database) -> None:
    _queue(database, "a", seconds=5)
    _queue(database, "b", "c", "d", receiver="chat")
    deliveries = DatabaseOutbox(database, "daemon")
    deliveries.settle([Result(deliveries.claim("chat", NOW, 1)[0].id)], NOW)
    with database.read() as connection:
        assert outbox.backlogs(connection) == [Backlog("chat", 2, NOW), Backlog("oncall", 1, later(5))]


def test_the_outbox_is_listed_latest_first_by_status(database: Database) -> None:
    _queue(database, "a", "b", "c", "d")
    deliveries = DatabaseOutbox(database, "daemon")
    a, b, _, _ = deliveries.claim("oncall", NOW, 9)
    deliveries.settle([Result(a.id), Result(b.id, GONE)], NOW)
    with database.read() as connection:

        def listed(limit: int, status: OutboxStatus | None = None) -> list[str]:
            return [record.entry.event_id for record in outbox.list_outbox(connection, limit, status)]

        assert listed(3) == ["d", "c", "b"]
        assert listed(9, OutboxStatus.WAITING) == ["d", "c"]
        assert listed(9, OutboxStatus.DELIVERED) == ["a"]
        assert listed(9, OutboxStatus.DEAD) == ["b"]


def test_given_up_counts_since_the_last_delivery_and_names_the_latest_reason(database: Database) -> None:
    _queue(database, *"abcdef")
    _queue(database, "other", receiver="chat")
    deliveries = DatabaseOutbox(database, "daemon")
    a, b, c, d, e, f = (entry.id for entry in deliveries.claim("oncall", NOW, 9))
    assert _left_behind(database) == []
    deliveries.settle([Result(a, REFUSED)], later(1))
    assert _left_behind(database) == [GivenUp("oncall", 1, later(1), *REFUSED)]
    deliveries.settle([Result(b)], later(2))
    assert _left_behind(database) == []
    deliveries.settle([Result(c, GONE)], later(3))
    deliveries.settle([Result(d, REFUSED)], later(4))
    (other,) = deliveries.claim("chat", NOW, 9)
    deliveries.settle([Result(other.id, TIMEOUT)], later(5))
    assert _left_behind(database) == [
        GivenUp("chat", 1, later(5), *TIMEOUT),
        GivenUp("oncall", 2, later(3), *REFUSED),
    ]
    # A failed attempt is no delivery, and neither is one to another receiver.
    deliveries.settle([Result(e, TIMEOUT, later(60))], later(6))
    assert [one.receiver for one in _left_behind(database)] == ["chat", "oncall"]
    deliveries.settle([Result(f)], later(7))
    assert [one.receiver for one in _left_behind(database)] == ["chat"]


def test_an_event_that_is_refused_after_another_was_taken_in_the_same_moment_is_left_behind(
    database: Database,
) -> None:
    _queue(database, "taken", "refused")
    deliveries = DatabaseOutbox(database, "daemon")
    taken, refused = deliveries.claim("oncall", NOW, 9)
    deliveries.settle([Result(taken.id), Result(refused.id, REFUSED)], later(1))
    assert _left_behind(database) == [GivenUp("oncall", 1, later(1), *REFUSED)]


# Very many


def _fill(database: Database, rows: int, payload: str, streams: int, **values: object) -> None:
    """Many waiting rows at once, in ``streams`` streams."""
    with database.write() as connection:
        for start in range(0, rows, 10_000):
            connection.execute(
                sa.insert(tables.outbox),
                [
                    {
                        "event_id": f"e{number}",
                        "receiver": "oncall",
                        "payload": payload,
                        "created_at": NOW,
                        "attempts": 0,
                        "next_attempt_at": NOW,
                        "stream": f"s{number % streams}",
                        **values,
                    }
                    for number in range(start, min(start + 10_000, rows))
                ],
            )


@pytest.mark.parametrize("streams", [1, 1000])
def test_of_100_000_waiting_events_a_claim_takes_the_first_few(database: Database, streams: int) -> None:
    _fill(database, 100_000, "{}", streams)
    deliveries = DatabaseOutbox(database, "daemon")
    first = deliveries.claim("oncall", NOW, 200)
    assert _names(first) == [f"e{number}" for number in range(200)]
    deliveries.settle([Result(entry.id) for entry in first], NOW)
    assert _names(deliveries.claim("oncall", NOW, 200)) == [f"e{number}" for number in range(200, 400)]


def _held_up_by_the_first_of_very_many(database: Database) -> None:
    _fill(database, 100_000, "{}", 1)
    deliveries = DatabaseOutbox(database, "daemon")
    first = deliveries.claim("oncall", NOW, 1)[0]
    deliveries.settle([Result(first.id, TIMEOUT, later(60))], NOW)
    assert deliveries.claim("oncall", later(1), 200) == []
    assert len(deliveries.claim("oncall", later(60), 200)) == 200


def test_the_first_of_100_000_in_one_stream_holds_up_the_others(sqlite_database: Database) -> None:
    _held_up_by_the_first_of_very_many(sqlite_database)


@pytest.mark.server
def test_the_first_of_100_000_in_one_stream_on_a_server_holds_up_the_others(
    postgresql_database: Database,
) -> None:
    _held_up_by_the_first_of_very_many(postgresql_database)


def test_a_claim_needs_no_more_memory_than_its_batch(sqlite_database: Database) -> None:
    payload = "x" * 20_000
    _fill(sqlite_database, 3000, payload, 100)
    deliveries = DatabaseOutbox(sqlite_database, "daemon")
    deliveries.claim("oncall", NOW, 1)
    tracemalloc.start()
    try:
        entries = deliveries.claim("oncall", NOW, 200)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(entries) == 200
    # Each payload at most three times: as the driver reads it, as a row, as an entry.
    assert peak < 3 * 200 * len(payload)


def _plans(database: Database, action: Callable[[], object]) -> list[str]:
    """How SQLite goes about the statements of ``action``, one line for each table that it reads."""
    seen: list[tuple[str, Any]] = []

    def hear(connection: object, cursor: object, statement: str, parameters: Any, *rest: object) -> None:
        seen.append((statement, parameters))

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", hear)
    try:
        action()
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", hear)
    with database.read() as connection:
        return [
            str(row.detail)
            for statement, parameters in seen
            if statement.startswith(("SELECT", "UPDATE"))
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]


def test_a_claim_reads_by_index_and_sorts_nothing(sqlite_database: Database) -> None:
    _fill(sqlite_database, 100, "{}", 5)
    deliveries = DatabaseOutbox(sqlite_database, "daemon")
    plans = _plans(sqlite_database, lambda: deliveries.claim("oncall", NOW, 20))
    assert plans
    assert [line for line in plans if line.startswith("SCAN") or "TEMP B-TREE" in line] == []
    used = " ".join(plans)
    assert "SEARCH outbox USING INDEX ix_outbox_waiting (receiver=?)" in used
    assert "ix_outbox_retry (receiver=? AND next_attempt_at>?)" in used
    assert "ix_outbox_claimed (receiver=? AND claimed_at>? AND claimed_at<?)" in used


def test_what_looks_at_the_outbox_all_the_time_does_not_read_what_is_over(sqlite_database: Database) -> None:
    _fill(sqlite_database, 100, "{}", 5, delivered_at=NOW)
    deliveries = DatabaseOutbox(sqlite_database, "daemon")

    def looks() -> None:
        deliveries.expire("oncall", NOW, NOW, "")
        with sqlite_database.read() as connection:
            outbox.backlogs(connection)
            outbox.oldest_undelivered(connection)
            outbox.given_up(connection, NOW)

    plans = _plans(sqlite_database, looks)
    assert [
        line
        for line in plans
        if not any(f"ix_outbox_{name}" in line for name in ("waiting", "retry", "dead", "delivered"))
    ] == []
