"""``layerwatch demo``: the whole product on two real networks in a few minutes."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer


def demo(
    directory: Annotated[
        Path | None, typer.Option(help="Where to work; must be new or empty. Default: a temporary folder.")
    ] = None,
    between: Annotated[float, typer.Option(min=0.0, help="Seconds between two published versions.")] = 3.0,
    keep_running: Annotated[
        bool | None,
        typer.Option(
            "--keep-running/--exit", help="Leave the daemon running at the end. Default: on a terminal."
        ),
    ] = None,
) -> None:
    """Train two small networks, publish six versions of each, break a layer, and watch the daemon notice.

    Exit code 0 when every verdict agrees with the networks' real test accuracy.
    """
    from rich.console import Console

    from layerwatch.daemon.demo.errors import DemoError
    from layerwatch.daemon.demo.narration import summary, table
    from layerwatch.daemon.demo.running import Demonstration, event_line

    folder = directory if directory is not None else Path(tempfile.mkdtemp(prefix="layerwatch-demo-"))
    stay = sys.stdout.isatty() if keep_running is None else keep_running
    demonstration = Demonstration(folder, lambda line: print(line, flush=True), between)
    try:
        demonstration.start()
        demonstration.tell()
        outcome = demonstration.outcome()
        console = Console() if sys.stdout.isatty() else Console(width=140, no_color=True)
        console.print()
        console.print(table(outcome))
        print(summary(outcome))
        print("\nreceived at the demonstration's own webhook:")
        for event in demonstration.listener.events():
            print(event_line(event))
        base = demonstration.daemon.base
        model = demonstration.prepared[-1].model
        command = Path(sys.executable).with_name("layerwatch")
        models = demonstration.registry / model
        print("\nto try on the same files:")
        print(f"  {command} scan {models / 'v1'}")
        print(f"  {command} gate {models / 'v5'} --baseline {models / 'v2'}")
        print("\nto open:" if stay else "\nto start the daemon again and open:")
        if not stay:
            print(f"  {command} run --config {demonstration.config}")
        print(f"  {base}/metrics                 the gauges, for Prometheus")
        print(f"  {base}/api/v1/versions         every version and its verdict")
        print(f"  {base}/report?registry=demo&model={model}&ref=latest   the report of the newest version")
        print(f"  {base}/explain/scaled          what the rule that named the layer means")
        print(f"\neverything is in {folder}: delete it when you are done")
        succeeded = demonstration.succeeded()
        if stay:
            print("\nthe daemon keeps watching; Ctrl-C ends it", flush=True)
            while demonstration.daemon.process.poll() is None:
                time.sleep(0.5)
    except DemoError as error:
        typer.echo(f"layerwatch demo: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        demonstration.stop()
    raise typer.Exit(0 if succeeded else 1)
