"""``layerwatch scan --watch`` beside a real daemon: a line for each event in a pipe, a picture on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerwatch_testing import processes
from layerwatch_testing.daemons import DaemonProcess, directory, write_config
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

COMMAND = [sys.executable, "-P", "-m", "layerwatch.daemon", "scan", "--watch"]
LINEAGE = b'{"parent": "v1", "relation": "quantized"}'

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


@pytest.fixture
def world(tmp_path: Path) -> DirectoryWorld:
    return DirectoryWorld(tmp_path, marker=None)


@pytest.fixture
def config(tmp_path: Path, world: DirectoryWorld) -> Path:
    world.publish("m", "v1", network())
    return write_config(tmp_path / "layerwatch.yaml", directory("local", world.root))


@pytest.fixture
def daemon(config: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(config) as running:
        running.wait_until_listening()
        running.wait_for_verdict("local/m/v1")
        yield running


class Follower:
    """``layerwatch scan --watch`` as a process, and everything that it wrote so far."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self._written = bytearray()
        self._thread = threading.Thread(target=self._read, args=(descriptor,), daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """Without control sequences."""
        return _CONTROL.sub("", self.raw)

    @property
    def raw(self) -> str:
        return self._written.decode(errors="replace")

    def wait_for(self, words: str) -> None:
        until(lambda: words in self.text, f"{words!r} in what was written")

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Its exit code, and everything that it wrote read."""
        self.process.send_signal(number)
        code = self.process.wait(30)
        self._thread.join(30)
        return code

    def _read(self, descriptor: int) -> None:
        while True:
            try:
                block = os.read(descriptor, 65536)
            except OSError:
                # Of a terminal whose last process ended.
                return
            if not block:
                return
            self._written += block


@contextmanager
def following(*arguments: str, folder: Path, terminal: bool = False) -> Iterator[Follower]:
    """In a pipe, or on a terminal of 80 x 24."""
    own, theirs = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = processes.environment(TERM="xterm", COLUMNS="80", LINES="24")
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield Follower(process, own)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(own)


def test_a_pipe_gets_a_line_for_each_event(
    daemon: DaemonProcess, world: DirectoryWorld, tmp_path: Path
) -> None:
    with following("--daemon", daemon.address, "local/m", folder=tmp_path) as follower:
        follower.wait_for("0 alerts firing, 0 versions to be judged")
        world.publish("other", "v1", network(5))
        broken = with_wrong_scale(finetuned(network()))
        world.publish("m", "v2", broken, lineage=LINEAGE)
        follower.wait_for("local/m v2: fail; fc2: one layer multiplied by a wrong factor (alpha ")
        follower.wait_for("alert fires: critical weights in local/m latest v2: fc2")
        world.publish("m", "v3", finetuned(network(), 4), lineage=LINEAGE)
        follower.wait_for("local/m v3: pass; no layer stands out")
        follower.wait_for("alert over: critical weights in local/m latest v2: fc2")
        code = follower.end()

    assert code == 0
    lines = follower.text.splitlines()
    assert lines[0].endswith(f"following {daemon.address}, only local/m")
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [^ ]", line) for line in lines)
    assert "\x1b" not in follower.raw
    assert "other" not in follower.text


def test_a_terminal_gets_a_picture_that_ctrl_c_leaves_quietly(
    daemon: DaemonProcess, world: DirectoryWorld, tmp_path: Path
) -> None:
    with following(daemon.address, folder=tmp_path, terminal=True) as follower:
        follower.wait_for("pass  local/m v1  no layer stands out")
        world.publish("m", "v2", with_wrong_scale(finetuned(network())), lineage=LINEAGE)
        follower.wait_for("critical  local/m latest v2 (weights): fc2; since ")
        follower.wait_for("fail  local/m  latest at v2")
        code = follower.end()

    assert code == 0
    assert "Traceback" not in follower.text
    assert "Abort" not in follower.text
    # The cursor is back.
    assert follower.raw.rindex("\x1b[?25h") > follower.raw.rindex("\x1b[?25l")
    # NO_COLOR: bold and dim may be, colours not.
    assert not re.search(r"\x1b\[(\d+;)?3[0-7]m", follower.raw)


def test_a_daemon_that_ends_and_comes_back_is_followed_again(config: Path, tmp_path: Path) -> None:
    with DaemonProcess(config) as first:
        first.wait_until_listening()
        first.wait_for_verdict("local/m/v1")
        port = int(first.address.rpartition(":")[2])
        with following("--daemon", first.address, folder=tmp_path) as follower:
            follower.wait_for("1 model, 0 alerts firing")
            first.send(signal.SIGTERM)
            assert first.wait(30) == 0
            follower.wait_for("cannot be followed now: connection refused")
            again = write_config(config, directory("local", tmp_path / "models"), port=port)
            with DaemonProcess(again) as second:
                second.wait_until_listening()
                follower.wait_for(f"{first.address} answers again")
                assert follower.end(signal.SIGTERM) == 0


def test_the_address_comes_from_the_configuration_in_the_folder(daemon: DaemonProcess, config: Path) -> None:
    port = int(daemon.address.rpartition(":")[2])
    write_config(config, port=port)

    with following(folder=config.parent) as follower:
        follower.wait_for(f"following {daemon.address}")
        assert follower.end() == 0


def test_a_reader_that_goes_away_ends_it_without_a_word(
    daemon: DaemonProcess, world: DirectoryWorld, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [*COMMAND, daemon.address],
        cwd=tmp_path,
        env=processes.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"following" in process.stdout.readline()
        process.stdout.close()
        world.publish("m", "v2", finetuned(network()))

        assert process.stderr.read() == b""
        assert process.wait(30) == 0
