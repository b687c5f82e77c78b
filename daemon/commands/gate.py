"""``layerwatch gate MODEL``: measure, judge, and answer with the exit code."""

from __future__ import annotations

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from layerwatch.daemon.commands.local import (
    console_for,
    layer_progress,
    output_path,
    settings_of,
    write_output,
)
from layerwatch.daemon.commands.models import CANNOT_EXAMINE, given_model, named
from layerwatch.daemon.commands.run import CONFIG_OPTION
from layerwatch.daemon.commands.stores import usage_error
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
    model: Annotated[str, typer.Argument(help="File, directory or address (mlflow:/name@alias) of weights.")],
    baseline: Annotated[str | None, typer.Option(help="The same, to compare with.")] = None,
    fail_on: Annotated[FailOn, typer.Option(help="Severity from which a finding fails.")] = FailOn.CRITICAL,
    relation: Annotated[Relation | None, typer.Option(help="How MODEL came from the baseline.")] = None,
    allow_undecided: Annotated[
        bool, typer.Option("--allow-undecided", help="Exit 0 although something could not be examined.")
    ] = False,
    format_: Annotated[
        GateFormat, typer.Option("--format", help="How to print the report.")
    ] = GateFormat.TEXT,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead.")] = None,
    as_if: Annotated[
        str | None,
        typer.Option(
            "--as-if",
            metavar="REF=VERSION",
            help="Read nothing; say by the daemon's store which alerts this promotion of REGISTRY/MODEL would raise.",
        ),
    ] = None,
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
    if as_if is not None:
        from layerwatch.daemon.commands.asif import ask

        if baseline is not None or relation is not None:
            usage_error("--as-if asks the daemon's store: --baseline and --relation have no place beside it")
        answer, code = ask(model, as_if, Severity(fail_on), settings, config, format_ is GateFormat.JSON)
        write_output(answer, output)
        raise typer.Exit(0 if code == CANNOT_EXAMINE and allow_undecided else code)
    with ExitStack() as stack:
        given = stack.enter_context(given_model(model, settings))
        before = stack.enter_context(given_model(baseline, settings)) if baseline is not None else None
        if before is None:
            typer.echo(
                "warning: without --baseline only missing numbers and empty layers can be seen", err=True
            )
        progress = stack.enter_context(layer_progress())
        paths = given.path, before.path if before else None
        report = examine_files(*paths, str(relation) if relation else None, settings, progress)
    report = named(report, given, before)
    if format_ is GateFormat.JSON:
        write_output(report.to_json(indent=2) + "\n", output)
    else:
        console = console_for(output)
        with console.capture() as capture:
            print_findings(report, console)
        write_output(capture.get(), output)
    raise typer.Exit(exit_code(report, Severity(fail_on), allow_undecided))
