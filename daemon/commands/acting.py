"""What the commands share that change something in a person's name."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager

from layerwatch.alerts.people import EntryError
from layerwatch.daemon.commands.stores import usage_error
from layerwatch.daemon.gate.printable import printable


def user() -> str:
    """Who runs this command, as the system calls them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # Containers often run under a number that has no name.
        return f"uid {os.getuid()}"


@contextmanager
def checked_entries(**options: str) -> Iterator[None]:
    """Where what a person entered is checked: what cannot be taken, or not any more, ends the command with code 2.

    Args:
        options: field of an EntryError -> the option that it was entered with.
    """
    from layerwatch.daemon.store.errors import StoreError, StoreReason

    try:
        yield
    except EntryError as error:
        usage_error(f"{options.get(error.field, error.field)}: {printable(error.detail)}")
    except StoreError as error:
        if error.reason is not StoreReason.WRONG_STATE:
            raise
        usage_error(printable(error.detail))
