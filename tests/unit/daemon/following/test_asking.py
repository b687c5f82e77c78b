"""Asking a daemon, and whatever else may answer in its place."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hookserver import Answer, HookServer, raw_server
from layerwatch.daemon.following.asking import DESCRIBED, Daemon, DaemonUnreachableError
from layerwatch_testing.daemons import RunningApp, directory, write_config
from layerwatch_testing.networks import finetuned, network, with_nan
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """A daemon that judged a healthy and a broken model."""
    folder = tmp_path_factory.mktemp("daemon")
    world = DirectoryWorld(folder, marker=None)
    world.publish("good", "v1", finetuned(network()))
    world.publish("bad", "v1", with_nan(network(3)))
    config = write_config(folder / "layerwatch.yaml", directory("local", world.root))
    with RunningApp(config) as app:
        app.wait_for_verdict("local/good/v1")
        app.wait_for_verdict("local/bad/v1")
        until(lambda: app.get("/api/v1/alerts", phase="firing").json(), "the alert")
        yield app


def why(address: str) -> str:
    with pytest.raises(DaemonUnreachableError) as caught:
        Daemon(address).look()
    return str(caught.value)


def test_a_look_finds_models_versions_alerts_and_the_worst_layer_of_each_verdict(running: RunningApp) -> None:
    look = Daemon(running.address).look()

    assert [(one.name, one.refs[0].verdict) for one in look.models] == [
        ("local/bad", "fail"),
        ("local/good", "pass"),
    ]
    assert {one.name: one.verdict for one in look.versions} == {
        "local/bad v1": "fail",
        "local/good v1": "pass",
    }
    assert [(one.model, one.severity, one.layers) for one in look.alerts] == [("bad", "critical", ("fc1",))]
    words = {one.name: look.verdicts[one.judgement] for one in look.versions if one.judgement}
    assert words["local/bad v1"].startswith("fc1: ")
    assert words["local/good v1"].startswith("no layer stands out")


def test_only_one_model_is_looked_at_where_one_is_named(running: RunningApp) -> None:
    look = Daemon(running.address, ("local", "good")).look()

    assert [one.name for one in look.models] == ["local/good"]
    assert [one.name for one in look.versions] == ["local/good v1"]
    assert look.alerts == ()
    assert Daemon(running.address, ("local", "unknown")).look().models == ()


def test_the_report_of_a_judgement_is_read_once() -> None:
    row = {"registry": "r", "model": "m", "state": "judged", "verdict": "pass"}
    times = {"discovered_at": "2026-03-02T12:00:00Z", "judged_at": "2026-03-02T12:00:00Z"}
    versions = [{"id": number, "version": f"v{number}", **row, **times} for number in range(30, 0, -1)]
    asked: list[str] = []

    def answer(connection: socket.socket) -> None:
        path = connection.recv(65536).split()[1].decode()
        asked.append(path)
        body = json.dumps(versions if path.startswith("/api/v1/versions?") else []).encode()
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with raw_server(answer) as port:
        daemon = Daemon(f"http://127.0.0.1:{port}")
        look = daemon.look()
        assert daemon.look() == look

    reports = [path for path in asked if path.endswith("/report")]
    assert len(reports) == len(set(reports)) == DESCRIBED
    # The newest; what they were answered is no report.
    assert reports[-1] == "/api/v1/versions/30/report"
    assert set(look.verdicts.values()) == {"the report is of another version of layerwatch"}


def test_nobody_there_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    assert why(f"http://127.0.0.1:{port}") == "connection refused"
    assert why("http://no-such-host.invalid") == "its host name is not known"


def test_another_program_is_told_from_a_daemon() -> None:
    with HookServer() as server:
        server.answer = Answer(404)
        assert why(server.url) == "/api/v1/versions is answered with HTTP status 404"
        server.answer = Answer(200, body=b"<html>")
        assert "not answered as a layerwatch daemon does" in why(server.url)
        server.answer = Answer(200, body=b"[" * 100_000)
        assert "not answered as a layerwatch daemon does" in why(server.url)
        server.answer = Answer(200, body=b'[{"id": "x"}]')
        assert "not answered as a layerwatch daemon does" in why(server.url)


def test_a_redirect_is_not_followed() -> None:
    with HookServer() as elsewhere, HookServer() as server:
        server.answer = Answer(302, {"Location": elsewhere.url})
        assert "redirect (302), which is not followed" in why(server.url)
        assert elsewhere.received == []


def test_an_answer_that_breaks_off_or_never_ends_is_told() -> None:
    def cut(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[")

    def endless(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            connection.sendall(b" " * 2**20)

    with raw_server(cut) as port:
        assert "broke off" in why(f"http://127.0.0.1:{port}")
    with raw_server(endless) as port:
        assert "has more than" in why(f"http://127.0.0.1:{port}")


def test_credentials_in_the_address_are_sent_and_never_told(tmp_path: Path) -> None:
    with HookServer() as server:
        server.answer = Answer(401)
        address = server.url.replace("http://", "http://someone:hunter2@")
        assert "hunter2" not in why(address)
        assert "authorization" in server.received[0].headers
