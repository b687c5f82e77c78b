"""``layerwatch scan MODEL``: measure and judge, whatever the verdict; ``--watch`` looks on while a daemon does."""

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
from layerwatch.daemon.commands.stores import usage_error
from layerwatch.daemon.commands.watching import refuse_other_options, watch_daemon
from layerwatch.metrics.relation import Relation


class ScanFormat(StrEnum):
    """How a report is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    HTML = "html"


def scan(
    model: Annotated[
        str | None,
        typer.Argument(
            help="File, directory or address (mlflow:/name@alias) of weights. With --watch: REGISTRY/MODEL, or all."
        ),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="The same, to compare with.")] = None,
    relation: Annotated[Relation | None, typer.Option(help="How MODEL came from the baseline.")] = None,
    format_: Annotated[
        ScanFormat, typer.Option("--format", help="How to print the report.")
    ] = ScanFormat.TABLE,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead.")] = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Write plots of spectra and alphas into this folder.")
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Table, findings and verdict only: no picture, no advice.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow what a running daemon scans and finds, until Ctrl-C.")
    ] = False,
    daemon: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The daemon to follow. Default: server.listen of the configuration."
        ),
    ] = None,
    config: Annotated[Path | None, CONFIG_OPTION] = None,
) -> None:
    """Measure every layer of MODEL and judge it. Exit code 0 unless the command could not run."""
    if watch:
        refuse_other_options(
            baseline=baseline is not None,
            relation=relation is not None,
            format=format_ is not ScanFormat.TABLE,
            output=output is not None,
            plots=plots is not None,
            quiet=quiet,
        )
        watch_daemon(model, daemon, config)
        return
    if daemon is not None:
        usage_error("--daemon goes with --watch")
    if model is None:
        usage_error("give a MODEL to examine, or --watch to follow a running daemon")
    from layerwatch.daemon.gate.engine import examine_files
    from layerwatch.daemon.gate.formats.html import to_html
    from layerwatch.daemon.gate.formats.rendering import Rendering
    from layerwatch.daemon.gate.tables import to_csv
    from layerwatch.daemon.gate.text import print_table
    from layerwatch.daemon.terminal.closing import closing_lines

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
        keep = kept.keep if plots or format_ is ScanFormat.HTML else None
        with scanning():
            report = examine_files(
                *paths, declared, settings, progress, keep=keep, shuffled=plots is not None
            )
        report = named(report, given, before)
    match format_:
        case ScanFormat.JSON:
            write_output(report.to_json(indent=2) + "\n", output)
        case ScanFormat.CSV:
            write_output(to_csv(report), output)
        case ScanFormat.HTML:
            write_output(to_html(report, Rendering(spectra=kept.spectra)), output)
        case ScanFormat.TABLE:
            console = console_for(output)
            with console.capture() as capture:
                print_table(report, console, () if quiet else closing_lines(report, console))
            write_output(capture.get(), output)
    if plots is not None:
        write_scan_plots(plots, kept.layers, kept.baseline, title_of(paths[0]))
