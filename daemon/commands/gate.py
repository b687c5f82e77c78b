"""``layerwatch gate MODEL``: measure, judge, and answer with the exit code."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from layerwatch.daemon.commands.local import (
    console_for,
    layer_progress,
    model_path,
    output_path,
    settings_of,
    write_output,
)
from layerwatch.daemon.commands.run import CONFIG_OPTION
from layerwatch.metrics.findings import Severity
from layerwatch.metrics.relation import Relation


class GateFormat(StrEnum):
    """How a report is printed."""

    TEXT = "text"
    JSON = "json"


class FailOn(StrEnum):
    """From which severity on a finding fails the gate."""

    WARNING = "warning"
    CRITICAL = "critical"


def gate(
    model: Annotated[str, typer.Argument(help="File or directory of weights.")],
    baseline: Annotated[str | None, typer.Option(help="File or directory to compare with.")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="Severity from which a finding fails.")] = FailOn.CRITICAL,
    relation: Annotated[Relation | None, typer.Option(help="How MODEL came from the baseline.")] = None,
    allow_undecided: Annotated[
        bool, typer.Option("--allow-undecided", help="Exit 0 although something could not be examined.")
    ] = False,
    format_: Annotated[
        GateFormat, typer.Option("--format", help="How to print the report.")
    ] = GateFormat.TEXT,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead.")] = None,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Judge MODEL for a pipeline.

    Exit codes: 0 nothing at or above the threshold; 1 findings at or above it; 2 usage or configuration error;
    3 something could not be examined.
    """
    from layerwatch.daemon.gate.engine import examine_files
    from layerwatch.daemon.gate.outcome import exit_code
    from layerwatch.daemon.gate.text import print_findings

    output = output_path(output)
    settings = settings_of(config)
    paths = model_path(model), model_path(baseline) if baseline is not None else None
    if baseline is None:
        typer.echo("warning: without --baseline only missing numbers and empty layers can be seen", err=True)
    with layer_progress() as progress:
        report = examine_files(*paths, str(relation) if relation else None, settings, progress)
    if format_ is GateFormat.JSON:
        write_output(report.to_json(indent=2) + "\n", output)
    else:
        console = console_for(output)
        with console.capture() as capture:
            print_findings(report, console)
        write_output(capture.get(), output)
    raise typer.Exit(exit_code(report, Severity(fail_on), allow_undecided))
