"""kill -9 of the daemon at ten moments of the story: nothing lost, nothing twice, nothing stuck."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from layerwatch.alerts.identity import event_id
from layerwatch.alerts.model import AlertIdentity
from layerwatch.daemon.demo.daemonprocess import new_secret, write_config
from layerwatch.daemon.demo.prepared import PreparedVersion
from layerwatch.daemon.demo.preparing import prepare
from layerwatch.daemon.demo.publishing import publish
from layerwatch.daemon.demo.story import STORIES
from layerwatch.metrics.findings import RuleGroup

pytestmark = pytest.mark.slow

MODEL = STORIES[0].model
LIMIT = 60.0


def wait_for(condition: Callable[[], bool], what: str, every: float = 0.002) -> None:
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(every)
    pytest.fail(f"not within {LIMIT:.0f} s: {what}")


class Hook:
    """A webhook whose behaviour the test sets; keeps every request that reached it, answered or not."""

    def __init__(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.status = 204
        self.on_receipt: Callable[[], None] = lambda: None
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.received.append((self.headers["webhook-id"], body))
                hook.on_receipt()
                try:
                    self.send_response(hook.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Daemon:
    """The installed daemon, started and killed as often as wanted."""

    def __init__(self, folder: Path, hook: Hook) -> None:
        self.folder = folder
        self.registry = folder / "models"
        self.registry.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.config = write_config(folder, self.registry, hook.url, new_secret(), self.port)
        self.process: subprocess.Popen[bytes] | None = None
        self.kills = 0

    def start(self) -> None:
        command = [str(Path(sys.executable).with_name("layerwatch")), "run", "--config", str(self.config)]
        with (self.folder / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.kills += 1

    def ready(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/-/ready", timeout=2).status_code == 200
        except requests.ConnectionError:
            return False

    def query(self, text: str, *values: object) -> list[tuple[object, ...]]:
        """Read the store from outside; an empty list while it does not exist or is being made."""
        try:
            connection = sqlite3.connect(f"file:{self.folder / 'layerwatch.db'}?mode=ro", uri=True, timeout=5)
            try:
                return connection.execute(text, values).fetchall()
            finally:
                connection.close()
        except sqlite3.OperationalError:
            return []

    def state(self, version: str) -> object:
        rows = self.query("SELECT state FROM versions WHERE version = ? ORDER BY id DESC", version)
        return rows[0][0] if rows else None


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


@pytest.fixture
def daemon(tmp_path: Path, hook: Hook) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, hook)
    yield daemon
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.process.kill()
        daemon.process.wait()


def test_after_ten_kills_every_version_has_one_verdict_and_every_alert_arrived_under_one_id(
    tmp_path_factory: pytest.TempPathFactory, daemon: Daemon, hook: Hook
) -> None:
    versions = prepare(tmp_path_factory.mktemp("staging"), stories=STORIES[:1])
    by_name: dict[str, PreparedVersion] = {one.version: one for one in versions}

    def measured() -> int:
        rows = daemon.query("SELECT count(*) FROM measurements")
        return int(str(rows[0][0])) if rows else 0

    def judged(version: str) -> None:
        wait_for(lambda: daemon.state(version) == "judged", f"{version} judged", every=0.02)

    daemon.start()
    wait_for(daemon.ready, "ready", every=0.05)

    # 1: a version has just appeared.
    publish(by_name["v1"], daemon.registry)
    daemon.kill()
    # 2: its scan has been claimed.
    daemon.start()
    wait_for(lambda: daemon.state("v1") == "scanning", "v1 claimed")
    daemon.kill()
    daemon.start()
    judged("v1")

    # 3: some layers are measured, others are not.
    before = measured()
    publish(by_name["v2"], daemon.registry)
    wait_for(lambda: measured() > before, "a first measurement of v2")
    daemon.kill()
    daemon.start()
    judged("v2")

    # 4: the verdict has just been recorded.
    publish(by_name["v3"], daemon.registry)
    wait_for(lambda: daemon.state("v3") == "judged", "v3 judged")
    daemon.kill()

    # 5: the daemon is starting; 6: it has just opened its port.
    publish(by_name["v4"], daemon.registry)
    daemon.start()
    time.sleep(0.4)
    daemon.kill()
    daemon.start()
    wait_for(daemon.ready, "ready")
    daemon.kill()
    daemon.start()
    judged("v4")

    # 7: the alert is in the outbox, and its receiver refuses it.
    hook.status = 503
    publish(by_name["v5"], daemon.registry)
    judged("v5")
    wait_for(lambda: bool(hook.received), "a refused delivery")
    daemon.kill()
    # 8: the alert arrives, and the daemon dies before it hears so.
    hook.status = 204
    hook.on_receipt = daemon.kill
    seen = len(hook.received)
    daemon.start()
    wait_for(lambda: len(hook.received) > seen and daemon.kills == 8, "the kill at receipt")
    hook.on_receipt = lambda: None

    # 9: the resolution is queued; 10: it arrives, and the daemon dies before it hears so.
    publish(by_name["v6"], daemon.registry)
    daemon.start()
    wait_for(lambda: daemon.state("v6") == "judged", "v6 judged")
    daemon.kill()
    delivered = any(b"alert.resolved" in body for _, body in hook.received)
    hook.on_receipt = daemon.kill
    daemon.start()
    if delivered:
        # It had arrived just before the ninth kill; the tenth hits the daemon while it settles.
        wait_for(daemon.ready, "ready")
        daemon.kill()
    wait_for(lambda: daemon.kills == 10, "the tenth kill")
    hook.on_receipt = lambda: None
    daemon.start()

    undelivered = "SELECT count(*) FROM outbox WHERE delivered_at IS NULL"
    wait_for(lambda: daemon.query(undelivered) == [(0,)], "an empty outbox", every=0.05)
    wait_for(daemon.ready, "ready", every=0.05)

    rows = daemon.query("SELECT version, state, verdict FROM versions ORDER BY id")
    assert rows == [(one.version, "judged", "fail" if one.version == "v5" else "pass") for one in versions]
    assert daemon.query("SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL") == [(0,)]

    identity = AlertIdentity("demo", MODEL, "latest", RuleGroup.WEIGHTS)
    fingerprints = {str(row[0]): row[1] for row in daemon.query("SELECT version, fingerprint FROM versions")}
    fired = event_id(identity, str(fingerprints["v5"]), "firing", 1)
    ended = event_id(identity, str(fingerprints["v6"]), "resolved", 1)
    assert daemon.query("SELECT event_id, phase FROM alert_transitions ORDER BY id") == [
        (fired, "firing"),
        (ended, "resolved"),
    ]
    # However often they were sent: two events, each under one id with one content, and nothing else.
    assert len(set(hook.received)) == 2
    bodies = {identifier: json.loads(body) for identifier, body in hook.received}
    assert {body["type"]: body["data"]["transitions"] for body in bodies.values()} == {
        "layerwatch.alert.firing": [fired],
        "layerwatch.alert.resolved": [ended],
    }
    assert list(bodies) == [str(row[0]) for row in daemon.query("SELECT event_id FROM outbox ORDER BY id")]

    assert daemon.process is not None
    daemon.process.terminate()
    assert daemon.process.wait(10) == 0
