"""What ``scan`` and ``gate`` share: arguments to paths, progress, output files."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings
from layerwatch.config.settings import Settings
from layerwatch.daemon.commands.run import found_config
from layerwatch.daemon.gate.text import printable
from layerwatch.daemon.scan.content import Progress
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.manifest import weight_files

_PLAIN_WIDTH = 200
_PLAIN_STEPS = 4

_DESCRIPTIONS = ("model_index.json", "config.json")


def model_path(argument: str) -> Path:
    """The local path of a MODEL argument; exits with a usage error for anything else."""
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
    versions = _versions_inside(path)
    if versions:
        names = ", ".join(printable(name) for name in versions[:5])
        typer.echo(f"{printable(argument)} holds several models or versions ({names}): name one", err=True)
        raise typer.Exit(2)
    return path


def _versions_inside(path: Path) -> list[str]:
    """Names of the subfolders that look like versions of one model; empty when the folder is one model itself.

    Versions hold files of the same names, numbers aside; the parts of one model do not, or are described by a
    ``model_index.json`` or ``config.json`` above them (a diffusion pipeline's ``unet/`` and ``vae/``).
    """
    if not path.is_dir():
        return []
    try:
        inside = [file.relative_to(path) for file in weight_files(path)]
        described = any((path / name).exists() for name in _DESCRIPTIONS)
    except (OSError, UnreadableError, ValueError):
        # Told with its reason when the model is opened.
        return []
    if described or any(len(file.parts) == 1 for file in inside):
        return []
    held: dict[str, set[str]] = {}
    for file in inside:
        held.setdefault(file.parts[0], set()).add(re.sub(r"\d+", "0", "/".join(file.parts[1:])))
    alike = Counter(frozenset(names) for names in held.values())
    return sorted(folder for folder, names in held.items() if alike[frozenset(names)] > 1)


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
    """A bar over the layers on a terminal, a line per quarter elsewhere; both on standard error."""
    if not sys.stderr.isatty():
        yield _plain_progress
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with ProgressBar(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(name: str, progress: Progress) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=progress.total)
            description = escape(printable(f"{name}  {progress.layer}"))
            bar.update(tasks[name], completed=progress.done, description=description)

        yield show


def _plain_progress(name: str, progress: Progress) -> None:
    step = -(-progress.total // _PLAIN_STEPS)
    if progress.done % step == 0 or progress.done == progress.total:
        print(f"{name}: {progress.done} of {progress.total} tensors", file=sys.stderr)
