"""``layerwatch run``: the daemon."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from layerwatch.config.errors import ConfigError
from layerwatch.daemon.commands.logs import LogFormat, configure_logging

_LOGGER = logging.getLogger(__name__)

CONFIG_OPTION = typer.Option("--config", "-c", envvar="LAYERWATCH_CONFIG", help="Configuration file.")


def run(
    config: Annotated[Path | None, CONFIG_OPTION] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every look and delivery.")] = False,
    log_format: Annotated[LogFormat, typer.Option(help="Lines for people, or one JSON object per event.")] = (
        LogFormat.TEXT
    ),
) -> None:
    """Watch the configured registries until SIGTERM; SIGHUP reloads the configuration.

    Without --config, layerwatch.yaml in the current folder is used when it is there.
    """
    # The first process of a container has no default for it: sent while the libraries load, it would be lost. Nothing
    # is open yet, and nothing any more when the daemon has given its own handlers back.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    configure_logging(verbose, log_format)
    # Imported here so that the other commands start without the daemon's libraries.
    from layerwatch.daemon.app import App
    from layerwatch.daemon.store.errors import AlreadyRunningError, StoreError

    try:
        App(found_config(config)).run()
    except ConfigError as error:
        _tell(str(error), log_format)
        raise typer.Exit(2) from None
    except (StoreError, AlreadyRunningError, OSError) as error:
        _tell(f"layerwatch: {error}", log_format)
        raise typer.Exit(1) from None
    _end_hanging_threads()


def _tell(text: str, log_format: LogFormat) -> None:
    """Why it does not start: as it is for people, as events where every line has to be one."""
    if log_format is LogFormat.TEXT:
        typer.echo(text, err=True)
        return
    for line in text.splitlines():
        _LOGGER.error("%s", line)


def _end_hanging_threads() -> None:
    """End the process although a thread is still hashing a huge file or waiting for a slow receiver.

    The interpreter would wait for it. Nothing is lost by not waiting: the store is closed, and what was not
    recorded is done again after the next start.
    """
    if threading.active_count() > 1:
        logging.shutdown()
        os._exit(0)


def found_config(config: Path | None) -> Path | None:
    """The file named, or layerwatch.yaml of the current folder, or None for the defaults."""
    default = Path("layerwatch.yaml")
    return config if config is not None else (default if default.exists() else None)
