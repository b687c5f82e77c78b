"""``layerwatch convert REPORT``: a stored JSON report in another format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerwatch.daemon.commands.local import output_path
from layerwatch.daemon.commands.reports import deliver
from layerwatch.daemon.commands.stores import usage_error
from layerwatch.daemon.gate.formats.gateformat import GateFormat
from layerwatch.daemon.gate.printable import printable
from layerwatch.daemon.gate.stored import read_report

STANDARD_INPUT = "-"


def convert(
    report: Annotated[str, typer.Argument(help="Report that gate or scan --format json wrote; - for stdin.")],
    format_: Annotated[GateFormat, typer.Option("--format", help="How to print the report.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead.")] = None,
    show_suppressed: Annotated[
        bool, typer.Option("--show-suppressed", help="List what an ignore file suppresses; for text.")
    ] = False,
) -> None:
    """Print a stored report in another format, as gate would have: nothing is read or judged again.

    Exit codes: 0 printed, whatever the verdict is; 2 not a report that this version can read.
    """
    output = output_path(output)
    name = "standard input" if report == STANDARD_INPUT else report
    try:
        text = sys.stdin.buffer.read() if report == STANDARD_INPUT else Path(report).read_bytes()
        found = read_report(text)
    except OSError as error:
        usage_error(printable(f"{name}: cannot be read: {error.strerror or type(error).__name__}"))
    except ValueError as error:
        # Path() refuses a name with a NUL; StoredReportError says what is wrong with the report.
        usage_error(printable(f"{name}: {error}"))
    deliver(found, format_, output, show_suppressed)
