"""Runs the transcripts beside this file: each is a whole little world with commands and what they must answer.

A transcript begins with a sentence, then come ``===`` lines:

    === build FILE: BUILDER          a file made by a builder of tests/_lib/goldenworlds.py
    === file FILE                    a text file, given in the lines below; "<in 30 days>" is that day, here and in answers
    === run layerwatch ARGUMENTS     a command, as a process; then what it must print and answer:
    === stdout
    === stderr
    === exit CODE
    === call layerwatch ARGUMENTS    the same in this process, where another would add nothing but its start

``LAYERWATCH_UPDATE_GOLDEN=1 pytest tests/golden`` rewrites what follows each command.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from goldenworlds import BUILDERS
from layerwatch import __version__
from layerwatch.daemon.cli import app
from layerwatch_testing.processes import environment, layerwatch

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))
COMMANDS = ("run", "call")

# The matrices here are tiny: threads and standing back behind other processes only cost time.
QUICK = {"LAYERWATCH_SCAN__NICENESS": "0", "LAYERWATCH_SCAN__THREADS": "1"}

UPDATE = os.environ.get("LAYERWATCH_UPDATE_GOLDEN") == "1"

_NORMALISED = (
    (re.compile(rf"\b{re.escape(__version__)}\b"), "<version>"),
    (re.compile(r"\b\d+\.\d+ s\b"), "<seconds> s"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC"), "<time>"),
    (re.compile(r'("\w+_seconds": )[\d.e-]+'), r'\1"<seconds>"'),
    (re.compile(r'\btime="[\d.]+"'), 'time="<seconds>"'),
)
_SOON, _DAY = "<in 30 days>", (datetime.now(UTC).date() + timedelta(days=30)).isoformat()
_LONG_NUMBER = re.compile(r"-?\d+\.\d{5,}(e-?\d+)?")


@dataclass
class Step:
    """One ``===`` line with the lines below it."""

    title: str
    lines: list[str] = field(default_factory=list)

    @property
    def verb(self) -> str:
        return self.title.partition(" ")[0]

    @property
    def rest(self) -> str:
        return self.title.partition(" ")[2]


def parsed(text: str) -> tuple[list[str], list[Step]]:
    """The opening sentence and the steps of a transcript."""
    opening: list[str] = []
    steps: list[Step] = []
    for line in text.splitlines():
        if line.startswith("=== "):
            steps.append(Step(line.removeprefix("=== ")))
        else:
            (steps[-1].lines if steps else opening).append(line)
    return opening, steps


def written(opening: list[str], steps: list[Step]) -> str:
    """The text of a transcript."""
    lines = list(opening)
    for step in steps:
        lines += [f"=== {step.title}", *step.lines]
    return "\n".join(lines) + "\n"


def answered(command: Step, folder: Path) -> Iterator[Step]:
    """Run one command and yield what it printed, normalised, and its exit code."""
    program, *arguments = shlex.split(command.rest)
    assert program == "layerwatch"
    if command.verb == "call":
        inside = CliRunner().invoke(app, arguments, env=environment(), prog_name="layerwatch")
        out, err, code = inside.stdout, inside.stderr, inside.exit_code
    else:
        process = layerwatch(arguments, folder, QUICK)
        out, err, code = process.stdout, process.stderr, process.returncode
    for name, text in (("stdout", out), ("stderr", err)):
        if text:
            yield Step(name, [line.rstrip() for line in normalised(text, folder).splitlines()])
    yield Step(f"exit {code}")


def normalised(text: str, folder: Path) -> str:
    """Without what differs from run to run; long numbers rounded to what every machine agrees on."""
    text = (
        text.replace(_DAY, _SOON)
        .replace(str(folder), "<folder>")
        .replace("python -m layerwatch.daemon", "layerwatch")
    )
    for pattern, replacement in _NORMALISED:
        text = pattern.sub(replacement, text)
    return _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.4g}", text)


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_commands_answer_as_in_the_transcript(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LAYERWATCH_")]:
        monkeypatch.delenv(name)
    opening, steps = parsed(path.read_text(encoding="utf-8"))
    found: list[Step] = []
    for step in steps:
        if step.verb not in ("build", "file", *COMMANDS):
            continue
        found.append(step)
        if step.verb == "build":
            file, _, builder = step.rest.partition(": ")
            BUILDERS[builder](tmp_path / file)
        elif step.verb == "file":
            (tmp_path / step.rest).write_text(
                "\n".join([*step.lines, ""]).replace(_SOON, _DAY), encoding="utf-8"
            )
        else:
            found += answered(step, tmp_path)
    if UPDATE:
        path.write_text(written(opening, found), encoding="utf-8")
        return
    assert written(opening, found) == written(opening, steps)


def test_there_are_transcripts_and_each_runs_something() -> None:
    assert TRANSCRIPTS
    for path in TRANSCRIPTS:
        opening, steps = parsed(path.read_text(encoding="utf-8"))
        assert opening, path.name
        assert any(step.verb in COMMANDS for step in steps), path.name
        assert any(step.verb == "exit" for step in steps), path.name
