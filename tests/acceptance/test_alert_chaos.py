"""Nothing is lost and nothing is told under a new name, whatever happens between a verdict and the people who are told.

A worker with everything of the daemon but the scans (`layerwatch_testing.alertworker`) makes 1,000 transitions and
delivers them to seven receivers, while it is killed 200 times, the receivers misbehave in every way there is, the clock
is set forward and back by a day, the store is locked and its disk is full.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from layerwatch.alerts.grouping import Told
from layerwatch.alerts.model import AlertPhase, AlertState
from layerwatch.daemon.store import alerts, outbox, tables
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError
from layerwatch_testing.alertworker import ScriptedClock
from layerwatch_testing.servers.misbehaving import MisbehavingProcess, Mode, Taken

TRANSITIONS = 1000
KILLS = 200
SPEED = 60
DAY = 86_400.0
HOUR = 3_600.0
LOCKED_FOR = 33.0
"""Seconds: longer than a writer waits."""

MOODS = (
    Mode.OK,
    Mode.TIMEOUT,
    Mode.REFUSE,
    Mode.ERROR,
    Mode.BUSY,
    Mode.GONE,
    Mode.REDIRECT,
    Mode.HANG,
    Mode.RESET,
    Mode.GARBAGE,
    Mode.LOSE,
)


@dataclass
class World:
    """The store, the receivers, the worker, and the clock that all of them see."""

    folder: Path
    store: Path
    servers: dict[str, MisbehavingProcess]
    nursery: subprocess.Popen[str]
    clock_file: Path
    began: float
    offset: float = 0.0
    worker: int = 0
    log: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.store}"

    def simulated(self) -> float:
        """Seconds since the beginning, as the worker's clock has it, without its jumps."""
        return (time.time() - self.began) * SPEED

    def set_clock(self, offset: float) -> None:
        self.offset = offset
        ScriptedClock.write(self.clock_file, self.began, SPEED, offset)

    def start(self) -> None:
        assert self.nursery.stdin is not None and self.nursery.stdout is not None
        self.nursery.stdin.write("\n")
        self.nursery.stdin.flush()
        self.worker = json.loads(self.nursery.stdout.readline())

    def kill(self) -> None:
        # One that cannot open the store, as on a full disk, ends by itself, as the daemon does.
        with suppress(ProcessLookupError):
            os.kill(self.worker, signal.SIGKILL)
        # It may hold the lock of the store until it is gone.
        while Path(f"/proc/{self.worker}").exists():
            time.sleep(0.002)


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of 96 MB at ``folder``, where this user may make one; says whether."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    try:
        yield made.returncode == 0
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[World, bool]]:
    with ExitStack() as stack:
        disk = tmp_path / "disk"
        can_fill = stack.enter_context(small_disk(disk))
        servers = {
            name: stack.enter_context(MisbehavingProcess(tmp_path / f"{name}.jsonl", tls=name == "tls"))
            for name in ("steady", "moody", "grumpy", "slow", "vanishing", "impatient", "tls")
        }
        servers["slow"].behave(Mode.SLOW, milliseconds=100)
        config = tmp_path / "layerwatch.yaml"
        config.write_text(json.dumps(_config(disk / "layerwatch.db", servers)))
        clock_file = tmp_path / "clock"
        began = time.time()
        ScriptedClock.write(clock_file, began, SPEED, 0.0)
        errors = stack.enter_context((tmp_path / "worker.log").open("w"))
        nursery = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "layerwatch_testing.alertworker",
                config,
                clock_file,
                str(TRANSITIONS),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        stack.callback(nursery.communicate)
        made = World(tmp_path, disk / "layerwatch.db", servers, nursery, clock_file, began)
        stack.callback(_kill_quietly, made)
        yield made, can_fill


def _kill_quietly(world: World) -> None:
    with suppress(ProcessLookupError):
        os.kill(world.worker, signal.SIGKILL)


def _config(store: Path, servers: dict[str, MisbehavingProcess]) -> dict[str, object]:
    receivers = []
    for name, server in servers.items():
        receiver: dict[str, object] = {
            "name": name,
            "kind": "webhook",
            "url": f"{server.url}/{name}",
            "timeout": "1s",
            "max_age": "45m" if name == "impatient" else "30d",
            "allow_private_cidrs": ["127.0.0.0/8"],
        }
        if server.ca_file is not None:
            receiver["ca_file"] = str(server.ca_file)
        receivers.append(receiver)
    others = [name for name in servers if name != "steady"]
    return {
        "store": {"url": f"sqlite:///{store}"},
        "alerts": {
            "receivers": receivers,
            "route": {
                "receiver": "steady",
                "group_wait": "0s",
                "group_interval": "0s",
                "repeat_interval": "12h",
                "routes": [
                    *({"receiver": name, "continue": True} for name in others),
                    {"receiver": "steady"},
                ],
            },
        },
    }


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_thousand_transitions_survive_two_hundred_kills_and_every_misbehaviour(
    world: tuple[World, bool], record_property: Callable[[str, object], None]
) -> None:
    scene, can_fill = world
    chance = random.Random(7)
    happened = _live_through(scene, chance, can_fill)
    _recover(scene)
    record_property("table", _examine(scene, happened, can_fill))


def _live_through(world: World, chance: random.Random, can_fill: bool) -> Counter[str]:
    happened: Counter[str] = Counter()
    vanished_at: float | None = None
    disturbances: dict[int, Callable[[], None]] = {
        30: lambda: world.set_clock(world.offset + DAY),
        70: lambda: world.set_clock(world.offset - DAY),
        90: lambda: world.set_clock(world.offset - DAY),
        130: lambda: world.set_clock(world.offset + DAY),
        60: lambda: _lock(world, 1.0),
        110: lambda: _lock(world, LOCKED_FOR),
    }
    if can_fill:
        disturbances |= {80: lambda: _fill(world, 2.0), 150: lambda: _fill(world, 4.0)}
    for life in range(KILLS):
        world.start()
        mood, other = chance.choice(MOODS), chance.choice(MOODS)
        world.servers["moody"].behave(mood, retry_after=chance.choice((1, 20)))
        happened[f"moody: {mood}"] += 1
        if life % 5 == 0:
            world.servers["grumpy"].behave(other)
            world.servers["tls"].behave(Mode.BAD_CERTIFICATE if life % 10 else Mode.OK)
        if life == 20:
            vanished_at = world.simulated()
            world.servers["vanishing"].behave(Mode.REFUSE)
            world.servers["impatient"].behave(Mode.REFUSE)
        if vanished_at is not None and world.simulated() - vanished_at > 1.2 * HOUR:
            world.servers["vanishing"].behave(Mode.OK)
            world.servers["impatient"].behave(Mode.OK)
            happened["hours that two receivers were away"] += 1
            vanished_at = None
        time.sleep(chance.uniform(0.05, 0.7))
        if life in disturbances:
            disturbances[life]()
            happened["disturbances of clock, lock and disk"] += 1
        world.kill()
        happened["kills"] += 1
    for server in world.servers.values():
        server.behave(Mode.OK)
    return happened


def _lock(world: World, seconds: float) -> None:
    """Write to the database from another process's point of view, for longer than a writer waits."""
    other = sqlite3.connect(world.store, timeout=20, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        other.execute("ROLLBACK")
    finally:
        other.close()


def _fill(world: World, seconds: float) -> None:
    """Leave no byte free on the disk of the store for a while."""
    filler = world.store.with_name("filler")
    with filler.open("wb", buffering=0) as opened:
        try:
            while True:
                opened.write(bytes(65_536))
        except OSError:
            pass
    time.sleep(seconds)
    filler.unlink()


def _recover(world: World) -> None:
    """Everybody is well again; what was given up is sent again by hand, as the manual says."""
    world.start()
    _wait(world, lambda database: _judged(database) >= TRANSITIONS and not _waiting(database))
    world.kill()
    database = Database.open(world.url)
    with database.write() as connection:
        for name in world.servers:
            outbox.replay_all(connection, name, datetime.fromtimestamp(time.time() + 10 * DAY, UTC))
    database.close()
    world.start()
    _wait(world, lambda database: not _waiting(database))
    world.kill()


def _wait(world: World, done: Callable[[Database], bool]) -> None:
    deadline = time.monotonic() + 240
    database = Database.open(world.url)
    try:
        while True:
            try:
                if done(database):
                    return
            except StoreError:
                pass
            if time.monotonic() > deadline:
                with database.read() as connection:
                    pytest.fail(
                        f"after four minutes {_judged(database)} versions are judged and "
                        f"{outbox.backlogs(connection)} wait; see {world.folder}/worker.log"
                    )
            time.sleep(0.5)
    finally:
        database.close()


def _judged(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(tables.versions)).scalar_one())


def _waiting(database: Database) -> int:
    with database.read() as connection:
        known = {
            (receiver, identity): told for (receiver, identity), told in alerts.load_told(connection).items()
        }
        behind = sum(
            _is_behind(state, known.get((receiver, state.identity)))
            for state in alerts.list_states(connection)
            for receiver in ("steady", "moody", "grumpy", "slow", "vanishing", "impatient", "tls")
            # That it does not take events, a receiver itself is not told.
            if receiver != state.identity.model
        )
        return behind + sum(one.waiting for one in outbox.backlogs(connection))


def _is_behind(state: AlertState, told: Told | None) -> bool:
    """Whether a receiver does not know how an alert stands. Of what began and ended meanwhile it need not hear."""
    if state.phase is AlertPhase.FIRING:
        return told is None or not told.firing or told.sequence < state.sequence
    return told is not None and told.firing


def _last_of_each_group(taken: list[Taken]) -> list[Taken]:
    """What a receiver that keeps nothing in mind, such as PagerDuty, is left with."""
    last: dict[str, Taken] = {}
    for one in taken:
        last[json.loads(one.body)["data"]["group_id"]] = one
    return list(last.values())


def _examine(world: World, happened: Counter[str], can_fill: bool) -> str:
    database = Database.open(world.url)
    with database.read() as connection:
        kept = tables.alert_transitions.c
        made = {
            row.event_id: (row.registry, row.model, row.episode)
            for row in connection.execute(sa.select(kept.event_id, kept.registry, kept.model, kept.episode))
        }
        given_up = Counter(
            connection.execute(
                sa.select(tables.outbox.c.receiver).where(tables.outbox.c.dead_at.is_not(None))
            ).scalars()
        )
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    database.close()
    assert len(made) >= TRANSITIONS

    heads = (
        "receiver",
        "requests taken",
        "distinct ids",
        "duplicates",
        "transitions told",
        "lost",
        "out of order",
        "left open",
    )
    rows = []
    for name, server in world.servers.items():
        taken = server.taken()
        bodies: dict[str, set[str]] = defaultdict(set)
        first: dict[str, str] = {}
        for one in taken:
            assert one.event_id is not None
            bodies[one.event_id].add(one.sha256)
            first.setdefault(one.event_id, one.body)
        two_faced = [event_id for event_id, kinds in bodies.items() if len(kinds) > 1]
        assert two_faced == [], f"{name}: the same id with different content"
        told: set[str] = set()
        highest: dict[str, int] = {}
        late = 0
        for body in first.values():
            data = json.loads(body)["data"]
            told.update(data["transitions"])
            late += data["sequence"] < highest.get(data["group_id"], 0)
            highest[data["group_id"]] = max(highest.get(data["group_id"], 0), data["sequence"])
        due = {event_id for event_id, (_, model, _) in made.items() if model != name}
        # An alert that began and ended before anybody could be told is told to nobody.
        heard_of = {made[event_id] for event_id in told & due}
        lost = {event_id for event_id in due - told if made[event_id] in heard_of}
        still_open = {
            data["group_id"]
            for data in (json.loads(one.body)["data"] for one in _last_of_each_group(taken))
            if data["phase"] != "resolved"
        }
        rows.append(
            (
                name,
                len(taken),
                len(first),
                len(taken) - len(first),
                len(told & due),
                len(lost),
                late,
                len(still_open),
            )
        )
    widths = [max(len(str(row[place])) for row in (heads, *rows)) for place in range(len(heads))]
    lines = [
        f"{len(made)} transitions made; {dict(happened)}",
        f"disk full: {'tried' if can_fill else 'NOT TRIED, this user may mount nothing'}",
        f"given up for good: {dict(given_up)}",
    ]
    for row in (heads, *rows):
        lines.append("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)))
    table = "\n".join(lines)
    assert [row for row in rows if row[5]] == [], f"events were lost\n{table}"
    # At the end every model is well again.
    assert [row for row in rows if row[7]] == [], f"a receiver was left with an alert that is over\n{table}"
    # Where nothing was ever given up and sent again by hand, the order within an alert is kept.
    assert [row for row in rows if row[6] and row[0] in ("steady", "slow", "vanishing")] == [], table
    assert not given_up, table
    return table
