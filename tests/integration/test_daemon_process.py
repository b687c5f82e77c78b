"""The daemon as a process of its own: signals, refusals, memory, and what is left after it ends."""

from __future__ import annotations

import compileall
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import layerwatch
from hookserver import HookServer, raw_server
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionKey, VersionRecord, VersionState
from layerwatch_testing import processes
from layerwatch_testing.daemons import DaemonProcess, directory, write_config
from layerwatch_testing.networks import finetuned, network, with_nan
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

DRAIN_SECONDS = 10
IDLE_LIMIT_MB = 120


def proportional_mb(pid: int) -> float:
    """Memory of a process; pages of libraries that others map too count by its share of them.

    How much of a library file is resident besides depends on how the page cache holds it (5 MB from one installation to
    another of the same packages).
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(kilobytes) * 1024 / 1e6


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """As pip leaves an installed package: a process that compiles it on the fly is 7 MB larger."""
    for folder in ("config", "metrics", "alerts", "daemon"):
        compileall.compile_dir(Path(layerwatch.__file__).with_name(folder).resolve(), quiet=1)


@pytest.fixture
def world(tmp_path: Path) -> DirectoryWorld:
    return DirectoryWorld(tmp_path, marker=None)


@pytest.fixture
def config(tmp_path: Path, world: DirectoryWorld) -> Path:
    return write_config(tmp_path / "layerwatch.yaml", directory("local", world.root))


@pytest.fixture
def daemon(config: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(config) as running:
        running.wait_until_listening()
        yield running


def stored(config: Path, version: str) -> VersionRecord:
    """A version as the store has it, read after the daemon ended."""
    database = Database.open(f"sqlite:///{config.parent / 'layerwatch.db'}")
    try:
        with database.read() as connection:
            record = versions.current(connection, VersionKey("local", "m", version))
    finally:
        database.close()
    assert record is not None
    return record


def hold_a_scan(daemon: DaemonProcess, world: DirectoryWorld) -> None:
    """Bring the daemon into the middle of the scan of m/v2, where it stays."""
    world.publish("m", "v1")
    daemon.wait_for_verdict("local/m/v1")
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGSTOP)
    world.publish("m", "v2", finetuned(network()))
    until(lambda: daemon.states().get("local/m/v2") == "scanning", "the scan of v2")


def cpu_seconds(pid: int) -> float:
    """Time that a process spent computing (user time, ``proc_pid_stat(5)``)."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


# Ending


def test_sigterm_ends_an_idle_daemon_with_code_0(daemon: DaemonProcess) -> None:
    daemon.send(signal.SIGTERM)
    assert daemon.wait(DRAIN_SECONDS) == 0
    assert daemon.log.rstrip().endswith("stopped")
    assert "Traceback" not in daemon.log


def test_sigterm_in_the_middle_of_a_scan_ends_in_time_and_the_version_waits_again(
    daemon: DaemonProcess, world: DirectoryWorld, config: Path
) -> None:
    hold_a_scan(daemon, world)
    workers = daemon.workers()
    for _ in range(3):  # asking again changes nothing
        daemon.send(signal.SIGTERM)
    assert daemon.wait(DRAIN_SECONDS) == 0
    assert "Traceback" not in daemon.log
    assert not any(map(processes.is_alive, workers))
    record = stored(config, "v2")
    assert (record.state, record.verdict, record.not_before) == (VersionState.PENDING, None, None)
    with DaemonProcess(config) as again:
        again.wait_until_listening()
        assert again.wait_for_verdict("local/m/v2") == "pass"


def test_kill_in_the_middle_of_a_scan_loses_nothing(
    daemon: DaemonProcess, world: DirectoryWorld, config: Path
) -> None:
    hold_a_scan(daemon, world)
    workers = daemon.workers()
    daemon.send(signal.SIGKILL)
    daemon.wait(DRAIN_SECONDS)
    assert stored(config, "v2").state is VersionState.SCANNING
    # Held by this test, so that only the kernel can have ended it.
    until(lambda: not any(map(processes.is_alive, workers)), "the end of the orphaned scan process")
    with DaemonProcess(config) as again:
        again.wait_until_listening()
        assert again.wait_for_verdict("local/m/v2") == "pass"
        assert "1 scans were interrupted and wait again" in again.log


@pytest.mark.slow
def test_a_scan_process_busy_with_a_big_layer_does_not_outlive_a_killed_daemon(
    daemon: DaemonProcess, world: DirectoryWorld
) -> None:
    # The spectrum of such a matrix takes one thread most of a minute; nothing is read or written meanwhile.
    big = np.random.default_rng(0).standard_normal((8000, 8000), dtype=np.float32)
    world.publish("m", "v1", {"fc.weight": big})
    until(lambda: daemon.states().get("local/m/v1") == "scanning", "the scan")

    def mapping() -> int | None:
        for worker in daemon.workers():
            if "model.safetensors" in Path(f"/proc/{worker}/maps").read_text():
                return worker
        return None

    worker = until(mapping, "the opening of the file")
    opened = cpu_seconds(worker)
    # Taking the digest of the layer costs far less; after that the worker is busy with the spectrum alone.
    until(lambda: cpu_seconds(worker) > opened + 4, "the measuring of the layer")
    assert daemon.states() == {"local/m/v1": "scanning"}
    daemon.send(signal.SIGKILL)
    daemon.wait(DRAIN_SECONDS)
    until(lambda: not processes.is_alive(worker), "the end of the scan process", seconds=2)


def test_sigterm_while_a_receiver_does_not_answer_ends_in_time_and_the_event_is_sent_again(
    tmp_path: Path, world: DirectoryWorld
) -> None:
    asked, over = threading.Event(), threading.Event()

    def never_answer(connection: socket.socket) -> None:
        connection.recv(65536)
        asked.set()
        over.wait(60)

    def config_for(port: int) -> Path:
        receiver = {
            "name": "oncall",
            "kind": "webhook",
            "url": f"http://127.0.0.1:{port}/",
            "allow_private_cidrs": ["127.0.0.0/8"],
            "timeout": "60s",
        }
        return write_config(
            tmp_path / "layerwatch.yaml", directory("local", world.root), receivers=[receiver]
        )

    world.publish("m", "v1", with_nan(network()))
    with raw_server(never_answer) as port, DaemonProcess(config_for(port)) as daemon:
        assert asked.wait(60), daemon.log
        daemon.send(signal.SIGTERM)
        assert daemon.wait(DRAIN_SECONDS) == 0
        assert "Traceback" not in daemon.log
        over.set()
    with HookServer() as server, DaemonProcess(config_for(server.port)):
        until(lambda: server.received, "the event")
        assert server.received[0].headers["webhook-id"].startswith("evt_")


def test_sigterm_while_a_huge_file_is_hashed_ends_in_time(
    daemon: DaemonProcess, world: DirectoryWorld
) -> None:
    folder = world.folder("m", "huge.tmp")
    folder.mkdir(parents=True)
    weights = folder / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no space, but reading it takes many minutes
    folder.rename(world.folder("m", "huge"))

    def is_read() -> bool:
        for descriptor in Path(f"/proc/{daemon.pid}/fd").iterdir():
            # Another one may be closed while this looks at it.
            with contextlib.suppress(FileNotFoundError):
                if descriptor.readlink().name == "model.safetensors":
                    return True
        return False

    until(is_read, "the hashing of the file")
    assert daemon.get("/-/healthy").status_code == 200
    daemon.send(signal.SIGTERM)
    assert daemon.wait(DRAIN_SECONDS) == 0


def test_sigterm_ends_a_daemon_at_once_that_waits_for_a_silent_database_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://watch:word@127.0.0.1:{silent.getsockname()[1]}/layerwatch"
        config = write_config(tmp_path / "layerwatch.yaml", store={"url": url})
        with DaemonProcess(config) as waiting:
            connection, _ = silent.accept()
            with connection:
                waiting.send(signal.SIGTERM)
                assert waiting.wait(DRAIN_SECONDS) == 0
                # It was the signal that ended it, not the server's silence.
                assert "postgresql" not in waiting.log


# Reloading


def test_sighup_loads_the_configuration_again(
    daemon: DaemonProcess, config: Path, world: DirectoryWorld, tmp_path: Path
) -> None:
    (tmp_path / "more").mkdir()
    more = DirectoryWorld(tmp_path / "more", marker=None)
    more.publish("n", "v1")
    write_config(config, directory("local", world.root), directory("more", more.root))
    daemon.send(signal.SIGHUP)
    assert daemon.wait_for_verdict("more/n/v1") == "pass"
    assert daemon.sample("layerwatch_config_last_reload_successful") == 1


def test_sighup_with_a_bad_file_keeps_the_old_configuration_and_logs_every_problem(
    daemon: DaemonProcess, config: Path, world: DirectoryWorld
) -> None:
    config.write_text("nonsense: 1\nserver: {listen: nowhere}\n")
    daemon.send(signal.SIGHUP)
    until(lambda: daemon.sample("layerwatch_config_last_reload_successful") == 0, "the gauge")
    until(lambda: "nonsense" in daemon.log and "server.listen" in daemon.log, "the problems in the log")
    world.publish("m", "v1")
    assert daemon.wait_for_verdict("local/m/v1") == "pass"


def test_signals_at_any_moment_neither_hang_the_daemon_nor_are_lost(
    daemon: DaemonProcess, config: Path, world: DirectoryWorld
) -> None:
    for pause in np.random.default_rng(7).exponential(0.002, size=1000):
        daemon.send(signal.SIGHUP)
        time.sleep(pause)
    config.write_text("nonsense: 1\n")
    daemon.send(signal.SIGHUP)
    until(lambda: daemon.sample("layerwatch_config_last_reload_successful") == 0, "the gauge")
    daemon.send(signal.SIGTERM)
    assert daemon.wait(DRAIN_SECONDS) == 0


# Refusals


def test_a_second_daemon_on_the_same_store_refuses_to_start_with_a_sentence(
    daemon: DaemonProcess, config: Path
) -> None:
    with DaemonProcess(config) as second:
        assert second.wait(30) == 1
        assert second.log.startswith("layerwatch: another layerwatch daemon uses this store (")
        assert len(second.log.splitlines()) == 1
    assert daemon.get("/-/healthy").status_code == 200


def test_a_taken_port_is_a_clear_error(daemon: DaemonProcess, tmp_path: Path) -> None:
    port = int(daemon.address.rpartition(":")[2])
    (tmp_path / "second").mkdir()
    config = write_config(tmp_path / "second" / "layerwatch.yaml", port=port)
    with DaemonProcess(config) as second:
        assert second.wait(30) == 1
        last = second.log.splitlines()[-1]
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in last
        assert "Traceback" not in second.log


def test_a_bad_configuration_is_told_whole_with_code_2(tmp_path: Path) -> None:
    config = tmp_path / "layerwatch.yaml"
    config.write_text("nonsense: 1\nserver: {listen: nowhere}\n")
    with DaemonProcess(config) as refused:
        assert refused.wait(30) == 2
        assert "nonsense" in refused.log
        assert "server.listen" in refused.log
        assert "Traceback" not in refused.log


def test_a_database_that_is_none_is_told_with_code_1_and_left_alone(tmp_path: Path, config: Path) -> None:
    database = tmp_path / "layerwatch.db"
    database.write_bytes(b"no database" * 1000)
    with DaemonProcess(config) as refused:
        assert refused.wait(30) == 1
        assert "layerwatch: corrupt: " in refused.log
        assert "Traceback" not in refused.log
    assert database.read_bytes() == b"no database" * 1000


# Size


@pytest.mark.slow
def test_an_idle_daemon_is_small_knows_no_torch_and_keeps_no_scan_process(
    daemon: DaemonProcess, world: DirectoryWorld
) -> None:
    world.publish("a", "v1", network(1))
    world.publish("b", "v1", network(2))
    for version in ("local/a/v1", "local/b/v1"):
        assert daemon.wait_for_verdict(version) == "pass"
    for path in ("/metrics", "/api/v1/models", "/api/v1/alerts", "/api/v1/config", "/api/openapi.json"):
        assert daemon.get(path).status_code == 200
    (worker,) = daemon.workers()
    assert "libtorch" in Path(f"/proc/{worker}/maps").read_text()
    maps = Path(f"/proc/{daemon.pid}/maps").read_text()
    for library in ("libtorch", "/scipy/", "/sklearn/"):
        assert library not in maps
    assert proportional_mb(daemon.pid) < IDLE_LIMIT_MB
    until(lambda: daemon.workers() == [], "the end of the idle scan process", seconds=120)
    assert daemon.get("/-/healthy").status_code == 200
    world.publish("a", "v2", finetuned(network(1)))
    assert daemon.wait_for_verdict("local/a/v2") == "pass"
