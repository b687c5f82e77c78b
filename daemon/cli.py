"""The command line: ``layerwatch COMMAND``. One file per command in ``commands/``."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from layerwatch import __version__
from layerwatch.daemon.commands import (
    alert,
    backtest,
    baseline,
    bisect,
    config,
    convert,
    delivery,
    demo,
    explain,
    gate,
    lineage,
    run,
    scan,
    silence,
    verify,
)

app = typer.Typer(
    name="layerwatch",
    help="Watches model registries and checks the weight spectrum of every layer of every version.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"layerwatch {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    pass


app.command("run")(run.run)
app.command("scan")(scan.scan)
app.command("gate")(gate.gate)
app.command("convert")(convert.convert)
app.command("verify")(verify.verify)
app.command("backtest")(backtest.backtest)
app.command("bisect")(bisect.bisect)
app.command("lineage")(lineage.lineage)
app.command("explain")(explain.explain)
app.command("demo")(demo.demo)
app.add_typer(alert.app, name="alert")
app.add_typer(baseline.app, name="baseline")
app.add_typer(config.app, name="config")
app.add_typer(delivery.app, name="delivery")
app.add_typer(silence.app, name="silence")


INTERNAL_ERROR = 70
"""Exit code of a defect of the program (EX_SOFTWARE of sysexits.h). Python's own, 1, would be the gate's word for
findings."""


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except Exception:  # noqa: BLE001 - the last handler there is
        traceback.print_exc()
        sys.exit(INTERNAL_ERROR)
