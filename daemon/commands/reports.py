"""What ``gate`` and ``convert`` do with a finished report: print it in a format, and fill GitHub's job summary."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from layerwatch.daemon.commands.local import console_for, write_output
from layerwatch.daemon.gate.formats.gateformat import GateFormat

if TYPE_CHECKING:
    from layerwatch.daemon.gate.formats.rendering import Spectra
    from layerwatch.metrics.report import Report

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"


def deliver(
    report: Report,
    format_: GateFormat,
    output: Path | None,
    show_suppressed: bool,
    spectra: Spectra | None = None,
) -> None:
    """Print the report, or write it to a file; for ``github`` also append the job summary where there is one.

    Exits with a usage error when the file cannot be written.

    Args:
        spectra: what was measured, for pictures; None where only the report is at hand.
    """
    from layerwatch.daemon.gate.formats.rendering import Rendering
    from layerwatch.daemon.gate.formats.table import FORMATS

    rendering = Rendering(show_suppressed, console_for(output), spectra)
    write_output(FORMATS[format_](report, rendering), output)
    summary = os.environ.get(SUMMARY_VARIABLE)
    if format_ is GateFormat.GITHUB and summary:
        _append_summary(report, Path(summary))


def _append_summary(report: Report, path: Path) -> None:
    """What other commands of the same step wrote counts against the limit, too. A job is not lost over its summary."""
    from layerwatch.daemon.gate.formats.markdown import SUMMARY_LIMIT, markdown_within

    try:
        taken = path.stat().st_size if path.exists() else 0
        text = markdown_within(report, SUMMARY_LIMIT - taken - 1)
        if not text:
            typer.echo(f"warning: {path}: there is no room left for a job summary", err=True)
            return
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" + text)
    except OSError as error:
        typer.echo(f"warning: {path}: the job summary cannot be written: {error.strerror}", err=True)
