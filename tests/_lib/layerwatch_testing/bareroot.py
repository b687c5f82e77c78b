"""A process as a container has it: first of its process ids, a root that cannot be written to, volumes, its own network.

Made of Linux namespaces by `unshare`, without a container engine. The root is a folder, or this machine's own root under
an overlay that takes the folders for the volumes and is gone with the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from layerwatch_testing import processes
from layerwatch_testing.waiting import until

_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Volume:
    """A mount.

    Attributes:
        target: where, inside.
        source: a folder of this machine; None for an empty one in memory.
    """

    target: str
    source: Path | None
    read_only: bool = False


def require_namespaces() -> None:
    """Skip the test where no such process can be made."""
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    for program in ("unshare", "nsenter", "setpriv", "mount", "ip"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    tried = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip("this machine allows no namespaces")


class ContainedProcess:
    """The process; a context manager that kills what is left."""

    def __init__(
        self,
        argv: Sequence[str],
        scratch: Path,
        *,
        uid: int,
        gid: int,
        groups: Sequence[int] = (),
        environment: Mapping[str, str],
        folder: str = "/",
        volumes: Sequence[Volume] = (),
        root: Path | None = None,
    ) -> None:
        """Start ``argv``.

        Args:
            scratch: an empty folder for the log and for mounts.
            root: the folder that is its root; None for this machine's, with its Python made readable for everybody.
        """
        self.log_file = scratch / "log"
        self._place = scratch / "root"
        self._place.mkdir()
        script = [
            "mount --make-rprivate /",
            "ip link set lo up",
            f"root={shlex.quote(str(self._place))}",
            *(_overlay(scratch) if root is None else (f'mount --bind {shlex.quote(str(root))} "$root"',)),
            *(f'mkdir -p "$root"{shlex.quote(one.target)}' for one in volumes if root is None),
            'mount -o remount,ro,bind "$root"',
            'mount -t proc proc "$root/proc"',
            'mount --rbind /dev "$root/dev"',
            *(line for one in volumes for line in _mounted(one)),
            *(line for line in _shown_again(volumes) if root is None),
        ]
        command = [
            *("chroot", str(self._place), "setpriv", f"--reuid={uid}", f"--regid={gid}"),
            f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups",
            *("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"),
            *("env", "-i", f"--chdir={folder}", *(f"{name}={value}" for name, value in environment.items())),
            *argv,
        ]
        script.append(f"exec {shlex.join(command)}")
        with self.log_file.open("wb") as log:
            self._outer = subprocess.Popen(
                [
                    *("unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child"),
                    *("sh", "-euc", "\n".join(script)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        (self.pid,) = until(lambda: processes.children(self._outer.pid), "the contained process", 20)
        until(self._runs_as(str(uid)), "the user of the process", 20)
        # Sockets belong to the network of the thread that makes them.
        self._inside = ThreadPoolExecutor(1, initializer=_enter_network, initargs=(self.pid,))

    def _runs_as(self, uid: str) -> Callable[[], bool]:
        def runs() -> bool:
            assert self._outer.poll() is None, f"it ended with {self._outer.returncode}:\n{self.log}"
            with contextlib.suppress(OSError):
                return self._status("Uid") == uid
            return False

        return runs

    def _status(self, key: str) -> str:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return value.split()[0]
        raise AssertionError(f"/proc/PID/status has no {key}")

    @property
    def log(self) -> str:
        """Everything it wrote so far."""
        return self.log_file.read_text(errors="replace")

    def credentials(self) -> dict[str, str]:
        """What the kernel says it may do: Uid, Gid, CapEff, NoNewPrivs."""
        return {key: self._status(key) for key in ("Uid", "Gid", "CapEff", "NoNewPrivs")}

    def root_options(self) -> set[str]:
        """The options of the mount that is its root."""
        for line in Path(f"/proc/{self.pid}/mounts").read_text().splitlines():
            _, target, _, options, *_ = line.split()
            if target == "/":
                return set(options.split(","))
        raise AssertionError("no root is mounted")

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Status and body that it answers with; status 0 while nothing listens."""
        assert self._outer.poll() is None, f"it ended with {self._outer.returncode}:\n{self.log}"
        return self._inside.submit(_get, port, path).result(30)

    def mount(self, volume: Volume) -> None:
        """Mount a folder while it runs."""
        lines = [f"root={shlex.quote(str(self._place))}", *_mounted(volume)]
        subprocess.run(
            [
                "nsenter",
                "--target",
                str(self.pid),
                "--mount=" + f"/proc/{self.pid}/ns/mnt",
                "sh",
                "-euc",
                "\n".join(lines),
            ],
            check=True,
        )

    def relay(self, port: int) -> None:
        """Let it reach a server of this machine, on 127.0.0.1, under the same port of its own."""
        listener: socket.socket = self._inside.submit(_listening, port).result(30)
        threading.Thread(target=_relay, args=(listener, port), daemon=True).start()

    def execute(
        self, argv: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command beside it, as `kubectl exec` does: same user, root, mounts, process ids and network."""
        uid, gid = self._status("Uid"), self._status("Gid")
        return subprocess.run(
            [
                *("nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", "--root", "--wd"),
                *("--setuid", uid, "--setgid", gid),
                *("env", "-i", *(f"{name}={value}" for name, value in environment.items()), *argv),
            ],
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )

    def terminate(self) -> None:
        """Ask the process itself to end, as the kubelet does."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, seconds: float) -> int:
        """Its exit code; fails when it does not end in time."""
        try:
            return self._outer.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still alive after {seconds} s:\n{self.log}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._inside.shutdown(cancel_futures=True)
        if self._outer.poll() is None:
            self._outer.kill()
        self._outer.wait()


def python_folder() -> str:
    """Where the commands of the running Python's environment are."""
    return str(Path(sys.executable).parent)


def _overlay(scratch: Path) -> list[str]:
    """This machine's root, with what Python is started from open to everybody."""
    layers = scratch / "layers"
    layers.mkdir()
    lines = [
        f"mount -t tmpfs -o mode=0755 tmpfs {shlex.quote(str(layers))}",
        f"mkdir {shlex.quote(str(layers))}/upper {shlex.quote(str(layers))}/work",
        f'mount -t overlay overlay -o lowerdir=/,upperdir={layers}/upper,workdir={layers}/work "$root"',
    ]
    needed = {
        Path(sys.prefix),
        Path(sys.base_prefix).resolve(),
        *(Path(one).resolve() for one in sys.path if one),
    }
    folders = {parent for one in needed for parent in (one, *one.parents)} - {Path("/")}
    lines.extend(
        f'test ! -d "$root"{shlex.quote(str(folder))} || chmod o+x "$root"{shlex.quote(str(folder))}'
        for folder in sorted(folders)
        if not folder.is_dir() or not folder.stat().st_mode & 0o001
    )
    return lines


def _python() -> set[Path]:
    """The folders that the running Python is started from and imports from."""
    found = {
        Path(sys.prefix),
        Path(sys.base_prefix).resolve(),
        *(Path(one).resolve() for one in sys.path if one),
    }
    # The code's folders are links to the top of the repository.
    return {one for one in (*found, Path(__file__).parents[3]) if one.is_dir()}


def _shown_again(volumes: Sequence[Volume]) -> Iterator[str]:
    """Mounts of Python's folders that lie below a volume and are hidden by it, as those below /tmp are."""
    for one in sorted(_python()):
        if any(one.is_relative_to(volume.target) for volume in volumes):
            place = f'"$root"{shlex.quote(str(one))}'
            yield f"mkdir -p {place}"
            yield f"mount --bind {shlex.quote(str(one))} {place}"
            yield f"mount -o remount,ro,bind {place}"


def _mounted(volume: Volume) -> list[str]:
    place = f'"$root"{shlex.quote(volume.target)}'
    if volume.source is None:
        return [f"mount -t tmpfs -o mode=1777 tmpfs {place}"]
    lines = [f"mount --bind {shlex.quote(str(volume.source))} {place}"]
    if volume.read_only:
        lines.append(f"mount -o remount,ro,bind {place}")
    return lines


def _enter_network(pid: int) -> None:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)


def _listening(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def _relay(listener: socket.socket, port: int) -> None:
    while True:
        inner, _ = listener.accept()
        try:
            outer = socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            inner.close()
            continue
        for source, target in ((inner, outer), (outer, inner)):
            threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except ConnectionRefusedError:
        return 0, ""
    finally:
        connection.close()
