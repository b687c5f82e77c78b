"""kill -9 at the worst moments: every transaction is there whole or not at all."""

from __future__ import annotations

import signal
import subprocess

from layerwatch.daemon.store import alerts, contents, measurements, outbox, versions
from layerwatch.daemon.store.database import Database
from layerwatch.metrics.measurement import METRIC_SET
from storetools import damage, measurement, python

_PROGRAM = """
import sys
from storetools import NOW, content, firing, judged, measurement
from layerwatch.daemon.store import alerts, contents, measurements, outbox
from layerwatch.daemon.store.database import Database

def record(connection, number):
    measurements.save(connection, measurement(f"digest-{number}", number), NOW)
    contents.save(connection, content(f"bytes-of-r-m-{number}", f"digest-{number}"), NOW)
    version = judged(connection, str(number))
    alerts.save_state(connection, firing(version, ref=str(number)))
    if sys.argv[2] == "stay" and number == 1:
        print("inside", flush=True)
        sys.stdin.readline()
    outbox.enqueue(connection, f"event-{number}", "oncall", "{}", NOW)

database = Database.open(sys.argv[1])
number = 0
while True:
    with database.write() as connection:
        record(connection, number)
    print(number, flush=True)
    number += 1
"""


def _kill(process: subprocess.Popen[str]) -> str:
    """Kill -9, and whatever was printed until then."""
    process.kill()
    rest, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    return rest


def _whole_transactions(database: Database) -> int:
    """How many there are, after checking that each is complete and the file is sound."""
    with database.read() as connection:
        assert damage(connection) == []
        numbers = [int(record.key.version) for record in versions.list_versions(connection, limit=100_000)]
        assert sorted(numbers) == list(range(len(numbers)))
        for number in numbers:
            stored = measurements.load(connection, f"digest-{number}")
            assert stored is not None
            assert stored.norm == measurement("any").norm
            assert contents.load(connection, f"bytes-of-r-m-{number}", METRIC_SET) is not None
        assert {int(state.identity.ref) for state in alerts.list_states(connection)} == set(numbers)
        events = {record.entry.event_id for record in outbox.list_outbox(connection, limit=100_000)}
        assert events == {f"event-{number}" for number in numbers}
    return len(numbers)


def test_a_process_killed_inside_a_transaction_leaves_only_what_it_committed(url: str) -> None:
    process = python(_PROGRAM, url, "stay")
    assert process.stdout is not None
    assert [process.stdout.readline(), process.stdout.readline()] == ["0\n", "inside\n"]
    _kill(process)
    database = Database.open(url)
    assert _whole_transactions(database) == 1
    with database.write() as connection:
        # The dead process holds no lock.
        assert versions.reset_interrupted(connection) == 0
    database.close()


def test_a_process_killed_at_any_moment_loses_nothing_that_it_acknowledged(url: str) -> None:
    process = python(_PROGRAM, url, "run")
    assert process.stdout is not None
    for _ in range(25):
        acknowledged = int(process.stdout.readline())
    acknowledged = int(([str(acknowledged), *_kill(process).split()])[-1])
    database = Database.open(url)
    # One more may have been committed before its number was printed.
    assert _whole_transactions(database) in (acknowledged + 1, acknowledged + 2)
    database.close()
