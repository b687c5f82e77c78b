"""A daemon as a process of its own with its store on a PostgreSQL server, and the commands beside it."""

from __future__ import annotations

import compileall
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import layerwatch
from layerwatch_testing import processes
from layerwatch_testing.daemons import DaemonProcess, directory, write_config
from layerwatch_testing.networks import finetuned, network, with_nan
from layerwatch_testing.servers import ServerMissing
from layerwatch_testing.servers.postgresql import PostgresqlServer
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

pytestmark = pytest.mark.server

DRAIN_SECONDS = 10
IDLE_LIMIT_MB = 120
SECRET = "s3cr3t"
"""How the server's password begins, written in whichever way."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    # Not below pytest's own folder, which only its user may pass: the server is another one.
    with TemporaryDirectory() as folder:
        try:
            running = PostgresqlServer(Path(folder))
        except ServerMissing as missing:
            pytest.skip(str(missing))
        yield running
        running.stop()


@pytest.fixture
def world(tmp_path: Path) -> DirectoryWorld:
    return DirectoryWorld(tmp_path, marker=None)


@pytest.fixture
def database(server: PostgresqlServer) -> Iterator[str]:
    name = server.create_database()
    yield name
    server.drop_database(name)


@pytest.fixture
def config(tmp_path: Path, world: DirectoryWorld, server: PostgresqlServer, database: str) -> Path:
    secret = tmp_path / "store-url"
    secret.write_text(server.url(database))
    return write_config(
        tmp_path / "layerwatch.yaml", directory("local", world.root), store={"url": {"file": str(secret)}}
    )


@pytest.fixture
def daemon(config: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(config) as running:
        running.wait_until_listening()
        yield running
        assert SECRET not in running.log


def publish_three(world: DirectoryWorld, daemon: DaemonProcess) -> dict[str, str | None]:
    world.publish("m", "v1", network())
    assert daemon.wait_for_verdict("local/m/v1") == "pass"
    world.publish("m", "v2", with_nan(finetuned(network())))
    assert daemon.wait_for_verdict("local/m/v2") == "fail"
    world.publish("m", "v3", finetuned(network()))
    assert daemon.wait_for_verdict("local/m/v3") == "pass"
    return daemon.verdicts()


def proportional_mb(pid: int) -> float:
    """Memory of a process; pages of libraries that others map too count by its share of them."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(kilobytes) * 1024 / 1e6


def test_verdicts_outlive_a_kill_of_the_daemon(
    daemon: DaemonProcess, world: DirectoryWorld, config: Path
) -> None:
    verdicts = publish_three(world, daemon)
    daemon.send(signal.SIGKILL)
    daemon.wait(DRAIN_SECONDS)
    with DaemonProcess(config) as again:
        again.wait_until_listening()
        assert again.verdicts() == verdicts
        world.publish("m", "v4", finetuned(network(), 4))
        assert again.wait_for_verdict("local/m/v4") == "pass"
        again.send(signal.SIGTERM)
        assert again.wait(DRAIN_SECONDS) == 0
        assert "Traceback" not in again.log
        assert SECRET not in again.log


@pytest.mark.parametrize("end", ["stop", "crash"])
def test_a_daemon_rides_out_a_server_that_is_away_and_loses_no_verdict(
    daemon: DaemonProcess, world: DirectoryWorld, server: PostgresqlServer, end: str
) -> None:
    verdicts = publish_three(world, daemon)
    exported = _models(daemon)
    assert exported
    getattr(server, end)()
    try:
        until(lambda: "the hold on the store is lost" in daemon.log, "the loss")
        world.publish("m", "v4", with_nan(finetuned(network(), 4)))
        until(lambda: "waits for the store: unreachable" in daemon.log, "a loop that waits")
        # What was known is still exported, and the daemon is not to be restarted for the server's sake.
        assert _models(daemon) == exported
        assert daemon.get("/-/healthy").status_code == 200
        refused = daemon.get("/api/v1/versions")
        assert (refused.status_code, "unreachable" in refused.text) == (503, True)
        assert "127.0.0.1" not in refused.text
    finally:
        server.start()
    assert daemon.wait_for_verdict("local/m/v4") == "fail"
    until(lambda: "the store is held again" in daemon.log, "the hold")
    assert {**daemon.verdicts(), "local/m/v4": None} == {**verdicts, "local/m/v4": None}
    assert daemon.process.poll() is None
    assert "please report it" not in daemon.log
    assert "Traceback" not in daemon.log


def _models(daemon: DaemonProcess) -> set[str]:
    """The series that tell of models."""
    lines = daemon.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if line.startswith("layerwatch_model_")}


def test_a_server_that_goes_in_the_middle_of_a_scan_costs_no_verdict(
    daemon: DaemonProcess, world: DirectoryWorld, server: PostgresqlServer
) -> None:
    world.publish("m", "v1")
    daemon.wait_for_verdict("local/m/v1")
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGSTOP)
    world.publish("m", "v2", finetuned(network()))
    until(lambda: daemon.states().get("local/m/v2") == "scanning", "the scan of v2")
    server.stop()
    os.kill(worker, signal.SIGCONT)
    until(lambda: "the scan loop waits for the store" in daemon.log, "the end of the scan")
    server.start()
    assert daemon.wait_for_verdict("local/m/v2") == "pass"


def test_a_second_daemon_is_refused_and_the_first_goes_on(
    daemon: DaemonProcess, world: DirectoryWorld, config: Path
) -> None:
    with DaemonProcess(config) as second:
        assert second.wait(60) == 1
        assert "another layerwatch daemon uses this store (postgresql://127.0.0.1" in second.log
        assert f"by process {daemon.pid} on " in second.log
        assert SECRET not in second.log
        assert "Traceback" not in second.log
    world.publish("m", "v1")
    assert daemon.wait_for_verdict("local/m/v1") == "pass"


def test_a_daemon_whose_store_another_took_over_ends_with_an_error(
    daemon: DaemonProcess, config: Path, server: PostgresqlServer, database: str
) -> None:
    # As if it were cut off from the server, which gives its connection up.
    os.kill(daemon.pid, signal.SIGSTOP)
    server.end_connections(database)
    with DaemonProcess(config) as other:
        other.wait_until_listening()
        os.kill(daemon.pid, signal.SIGCONT)
        assert daemon.wait(30) == 1
        assert "another layerwatch daemon took this store over" in daemon.log
        assert "Traceback" not in daemon.log
        assert other.get("/-/healthy").status_code == 200


def test_the_commands_read_and_write_the_same_store(
    daemon: DaemonProcess, world: DirectoryWorld, config: Path
) -> None:
    publish_three(world, daemon)

    def ask(*arguments: str, code: int = 0) -> str:
        done = processes.layerwatch([*arguments, "--config", str(config)], config.parent)
        assert done.returncode == code, done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
        return done.stdout + done.stderr

    listed = ask("baseline", "versions", "local/m")
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        ["v3", "pass"],
        ["v2", "fail"],
        ["v1", "pass"],
    ]
    ask("baseline", "accept", "local/m", "v3", "--reason", "looks right")
    assert ask("baseline", "show", "local/m").startswith("v3 accepted by ")
    assert "v3" in ask("lineage", "local/m")
    assert "v2" in ask("backtest", "local/m")
    assert "no problem found" in ask("config", "check")
    assert "<secret>" in ask("config", "print")
    world.publish("m", "v4", finetuned(network(), 4))
    assert daemon.wait_for_verdict("local/m/v4") == "pass"


def test_the_commands_say_what_is_wrong_with_the_store(
    tmp_path: Path, world: DirectoryWorld, server: PostgresqlServer, database: str
) -> None:
    def ask(url: str) -> tuple[int, str]:
        config = write_config(
            tmp_path / "layerwatch.yaml", directory("local", world.root), store={"url": url}
        )
        done = processes.layerwatch(["baseline", "list", "--config", str(config)], tmp_path)
        assert SECRET not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    code, said = ask(server.url(database))
    assert (code, "run the daemon first" in said) == (2, True)
    assert server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database) == []
    code, said = ask(server.url(database, password="s3cr3t-no"))
    assert (code, "denied: " in said) == (1, True)
    code, said = ask(server.url("lost"))
    assert (code, "no_database: " in said) == (1, True)
    code, said = ask("postgresql://watch:s3cr3t@127.0.0.1:1/lw")
    assert (code, "unreachable: " in said) == (1, True)


@pytest.mark.slow
def test_an_idle_daemon_is_as_small_as_with_a_file(config: Path, world: DirectoryWorld) -> None:
    for folder in ("config", "metrics", "alerts", "daemon"):
        compileall.compile_dir(Path(layerwatch.__file__).with_name(folder).resolve(), quiet=1)
    world.publish("a", "v1", network(1))
    world.publish("b", "v1", network(2))
    with DaemonProcess(config) as daemon:
        daemon.wait_until_listening()
        for version in ("local/a/v1", "local/b/v1"):
            assert daemon.wait_for_verdict(version) == "pass"
        for path in ("/metrics", "/api/v1/models", "/api/v1/alerts", "/api/v1/config", "/api/openapi.json"):
            assert daemon.get(path).status_code == 200
        assert proportional_mb(daemon.pid) < IDLE_LIMIT_MB
        until(lambda: daemon.workers() == [], "the end of the idle scan process", seconds=120)
        assert proportional_mb(daemon.pid) < IDLE_LIMIT_MB
