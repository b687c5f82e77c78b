"""Real servers for tests: started once, on a free port of this machine, and stopped when the session ends."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import requests

FOLDER_VARIABLE = "TEST_SERVERS_BIN"
"""Names a folder of executables that is looked into first."""

_VENV = Path(__file__).resolve().parents[4] / ".venv-servers" / "bin"
_PAUSE_SECONDS = 0.05
_STOP_SECONDS = 10


class ServerMissing(Exception):  # noqa: N818 - named after the state
    """A server is not installed here; the text says which, and how to install it. Tests skip with it."""


class Server(Protocol):
    """A server that runs."""

    def stop(self) -> None:
        """Stop it and all its processes."""


AnyServer = TypeVar("AnyServer", bound=Server)


def executable(name: str, variable: str | None = None) -> Path:
    """Where a program is: as an environment variable says, in ``.venv-servers``, or on the PATH.

    Args:
        variable: an environment variable with the program's own path.

    Raises:
        ServerMissing: it is nowhere.
    """
    if variable is not None and os.environ.get(variable):
        return Path(os.environ[variable])
    folder = os.environ.get(FOLDER_VARIABLE)
    for place in (Path(folder) if folder else None, _VENV):
        if place is not None and (place / name).is_file():
            return place / name
    on_path = shutil.which(name)
    if on_path is None:
        raise ServerMissing(f"{name} is not installed: run tests/install-servers.sh")
    return Path(on_path)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now, for programs that cannot take port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """A program that serves.

    Args:
        command: what is run.
        folder: its working folder; its output goes to ``output.txt`` there.
        environment: in place of this process's own.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._name = Path(command[0]).name
        self.output = folder / "output.txt"
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                _ending_with_parent(command),
                cwd=folder,
                env=dict(os.environ if environment is None else environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self, url: str, seconds: float = 90) -> None:
        """Ask until the server answers at an address with less than 500.

        Raises:
            AssertionError: it ended, or does not answer in time; with the end of its output.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                with requests.Session() as session:
                    session.trust_env = False
                    if session.get(url, timeout=5).status_code < 500:
                        return
            except requests.RequestException:
                pass
            ended = self._process.poll()
            if ended is not None or time.monotonic() > deadline:
                said = self.output.read_text(errors="replace")[-3000:]
                self.stop()
                state = f"ended with {ended}" if ended is not None else f"gave no answer in {seconds:.0f} s"
                raise AssertionError(f"{self._name} {state}:\n{said}")
            time.sleep(_PAUSE_SECONDS)

    def stop(self) -> None:
        """End it with all processes that it started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        self._process.wait(_STOP_SECONDS)


def _ending_with_parent(command: Sequence[str]) -> list[str]:
    """The command, ended by the kernel when the tests are killed and cannot end it themselves (see setpriv(1))."""
    setpriv = shutil.which("setpriv")
    return [*([setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []), *command]


_lock = threading.RLock()
_running: dict[str, Server] = {}
_missing: dict[str, str] = {}
_folders: list[Path] = []


def shared(key: str, start: Callable[[Path], AnyServer]) -> AnyServer:
    """The server of that key, started at its first use and shared by all tests until the session ends.

    Args:
        start: starts it in an empty folder that is deleted when it stopped.

    Raises:
        ServerMissing: as ``start`` said, also when asked again.
    """
    with _lock:
        if key in _missing:
            raise ServerMissing(_missing[key])
        if key not in _running:
            folder = temporary_folder()
            try:
                _running[key] = start(folder)
            except ServerMissing as error:
                _missing[key] = str(error)
                raise
        return _running[key]  # type: ignore[return-value] # one key stands for one kind of server


def temporary_folder(below: Path | None = None) -> Path:
    """An empty folder that is deleted at the end of the session, after the shared servers were stopped.

    Args:
        below: where it is made; by default where all temporary files are.
    """
    with _lock:
        _folders.append(Path(tempfile.mkdtemp(prefix="layerwatch-server-", dir=below)))
        return _folders[-1]


def stop_all() -> None:
    """Stop every shared server and delete its files."""
    with _lock:
        while _running:
            _running.popitem()[1].stop()
        while _folders:
            shutil.rmtree(_folders.pop(), ignore_errors=True)


atexit.register(stop_all)
