"""``layerwatch scan --watch``: follows a running daemon until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from layerwatch.config.secrets import redact_url
from layerwatch.daemon.commands.local import console_for, settings_of, write_output
from layerwatch.daemon.commands.stores import split_model, usage_error
from layerwatch.daemon.gate.printable import printable


def watch_daemon(model: str | None, address: str | None, config: Path | None) -> None:
    """Show what a daemon does; returns at Ctrl-C or SIGTERM, and when nobody reads any more.

    Args:
        model: ``REGISTRY/MODEL`` to look at only that, or an address as below.
        address: of the daemon; None for the one of the configuration.
    """
    from layerwatch.daemon.following.address import (
        AddressError,
        checked_address,
        configured_address,
        is_address,
    )
    from layerwatch.daemon.following.asking import Daemon
    from layerwatch.daemon.following.lines import Lines
    from layerwatch.daemon.following.live import LivePicture
    from layerwatch.daemon.following.loop import follow

    if model is not None and is_address(model):
        if address is not None:
            usage_error("the address of the daemon is given twice")
        model, address = None, model
    only = split_model(model) if model is not None else None
    try:
        if address is not None:
            address = checked_address(address)
        else:
            address = configured_address(settings_of(config).server)
    except AddressError as error:
        usage_error(printable(str(error)))
    daemon = Daemon(address, only)
    shown = redact_url(address) + (f", only {model}" if model is not None else "")
    console = console_for(None)
    # A terminal must not be left without its cursor.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            with LivePicture(shown, console, _now) as live:
                follow(daemon, live, time.sleep)
        follow(daemon, Lines(shown, _print, _now), time.sleep)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # The interpreter would complain when it flushes what nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def refuse_other_options(**given: bool) -> None:
    """A usage error when an option about one scan stands beside ``--watch``; by name whether it was given."""
    others = ", ".join(f"--{name}" for name, is_given in given.items() if is_given)
    if others:
        usage_error(f"--watch follows a daemon and examines nothing itself: it does not go with {others}")


def _print(line: str) -> None:
    write_output(f"{line}\n", None)
    sys.stdout.flush()


def _now() -> datetime:
    return datetime.now(UTC)
