"""``layerwatch scan MODEL``: measure and judge, whatever the verdict."""

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
    scanning,
    settings_of,
    write_output,
)
from layerwatch.daemon.commands.models import given_model, named
from layerwatch.daemon.commands.plots import KeptLayers, plots_directory, title_of, write_scan_plots
from layerwatch.daemon.commands.run import CONFIG_OPTION
from layerwatch.metrics.relation import Relation


class ScanFormat(StrEnum):
    """How a report is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def scan(
    model: Annotated[str, typer.Argument(help="File, directory or address (mlflow:/name@alias) of weights.")],
    baseline: Annotated[str | None, typer.Option(help="The same, to compare with.")] = None,
    relation: Annotated[Relation | None, typer.Option(help="How MODEL came from the baseline.")] = None,
    format_: Annotated[
        ScanFormat, typer.Option("--format", help="How to print the report.")
    ] = ScanFormat.TABLE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead.")] = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Write plots of spectra and alphas into this folder.")
    ] = None,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Measure every layer of MODEL and judge it. Exit code 0 unless the command could not run."""
    from layerwatch.daemon.gate.engine import examine_files
    from layerwatch.daemon.gate.tables import to_csv
    from layerwatch.daemon.gate.text import print_table

    output = output_path(output)
    settings = settings_of(config)
    kept = KeptLayers()
    with ExitStack() as stack:
        given = stack.enter_context(given_model(model, settings))
        before = stack.enter_context(given_model(baseline, settings)) if baseline is not None else None
        plots = plots_directory(plots)
        progress = stack.enter_context(layer_progress())
        paths = given.path, before.path if before else None
        declared = str(relation) if relation else None
        keep = kept.keep if plots else None
        with scanning():
            report = examine_files(*paths, declared, settings, progress, keep=keep)
        report = named(report, given, before)
    match format_:
        case ScanFormat.JSON:
            write_output(report.to_json(indent=2) + "\n", output)
        case ScanFormat.CSV:
            write_output(to_csv(report), output)
        case ScanFormat.TABLE:
            console = console_for(output)
            with console.capture() as capture:
                print_table(report, console)
            write_output(capture.get(), output)
    if plots is not None:
        write_scan_plots(plots, kept.layers, kept.baseline, title_of(paths[0]))
