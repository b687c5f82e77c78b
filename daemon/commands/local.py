"""What ``scan`` and ``gate`` share: arguments to paths, progress, output files."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings
from layerwatch.config.settings import Settings
from layerwatch.daemon.commands.run import found_config
from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from layerwatch.daemon.scan.content import Progress

CANNOT_EXAMINE = 3
"""Exit code when something could not be examined, for a reason that may pass."""

_PLAIN_WIDTH = 200
_PLAIN_INTERVAL = 30.0
"""Seconds between two lines of progress where nobody watches."""


@contextmanager
def scanning() -> Iterator[None]:
    """Where scans run: exits with code 3 when this machine can begin none, whichever the model."""
    from layerwatch.daemon.scan.executor import WorkerStartError

    try:
        yield
    except WorkerStartError as error:
        typer.echo(printable(str(error)), err=True)
        raise typer.Exit(CANNOT_EXAMINE) from None


def model_path(argument: str) -> Path:
    """The local path of a MODEL argument; exits with a usage error for anything else."""
    from layerwatch.daemon.gate.severalmodels import SeveralModelsError, require_one_model

    scheme, separator, rest = argument.partition(":")
    if separator and scheme == "file":
        argument = rest.removeprefix("//")
    elif separator and scheme in ("mlflow", "hf", "oci", "s3", "gs", "az"):
        typer.echo(f"{argument}: {scheme}: models cannot be read yet; give a file or a directory", err=True)
        raise typer.Exit(2)
    if not argument:
        # Path("") would be the current folder; an empty argument is most likely a variable that is not set.
        typer.echo("the name of a model is empty; give a file or a directory", err=True)
        raise typer.Exit(2)
    path = Path(argument)
    try:
        path.stat()
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        why = "there is no such file or directory" if missing else getattr(error, "strerror", None) or error
        typer.echo(f"{printable(argument)}: {why}", err=True)
        raise typer.Exit(2) from None
    try:
        require_one_model(path)
    except SeveralModelsError as error:
        typer.echo(printable(str(error)), err=True)
        raise typer.Exit(2) from None
    return path


def settings_of(config: Path | None) -> Settings:
    """The settings in force; exits with a usage error when they are wrong."""
    try:
        return load_settings(found_config(config), os.environ)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None


def output_path(output: Path | None) -> Path | None:
    """The same path; exits with a usage error, before any work, when nothing can be written there."""
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        why = "is a directory" if output.is_dir() else "its folder does not exist"
        typer.echo(f"{output}: {why}", err=True)
        raise typer.Exit(2)
    return output


def console_for(output: Path | None) -> Console:
    """A console on standard output; wide and without colours when nobody watches."""
    from rich.console import Console

    if output is None and sys.stdout.isatty():
        return Console(emoji=False)
    return Console(width=_PLAIN_WIDTH, force_terminal=False, no_color=True, highlight=False, emoji=False)


def write_output(text: str, output: Path | None) -> None:
    """Print, or replace a file whole, so that a reader never sees half a report.

    Exits with a usage error when the file cannot be written.
    """
    if output is None:
        # A name that the terminal's encoding lacks must not cost the report.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        sys.stdout.write(text)
        return
    try:
        if output.exists() and not output.is_file():
            # A device or a pipe must be written to, not replaced.
            output.write_text(text, encoding="utf-8")
        else:
            _replace(output.resolve(), text)
    except OSError as error:
        typer.echo(f"{output}: cannot be written: {error.strerror}", err=True)
        raise typer.Exit(2) from None


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def layer_progress() -> Iterator[Callable[[str, Progress], None]]:
    """A bar over the layers on a terminal, a line every 30 s elsewhere; both on standard error."""
    if not sys.stderr.isatty():
        yield PlainProgress(time.monotonic, lambda line: print(line, file=sys.stderr))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as ProgressBar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with ProgressBar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(name: str, progress: Progress) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=progress.total)
            description = escape(printable(f"{name}  {progress.layer}"))
            bar.update(tasks[name], completed=progress.done, description=description)

        yield show


class PlainProgress:
    """A line now and then, for logs: what is done within the first 30 s is not worth one.

    Args:
        clock: seconds, from any beginning.
        tell: takes a line.
    """

    def __init__(self, clock: Callable[[], float], tell: Callable[[str], None]) -> None:
        self._clock = clock
        self._tell = tell
        self._told_at = clock()

    def __call__(self, name: str, progress: Progress) -> None:
        """Hear that another layer is done."""
        now = self._clock()
        if now - self._told_at >= _PLAIN_INTERVAL:
            self._told_at = now
            self._tell(printable(f"{name}: {progress.done} of {progress.total} tensors"))
