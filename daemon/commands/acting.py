"""What the commands share that change something in a person's name."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerwatch.alerts.people import EntryError
from layerwatch.daemon.commands.stores import usage_error
from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from layerwatch.daemon.store.auditlog import Actor


def user() -> str:
    """Who runs this command, as the system calls them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # Containers often run under a number that has no name.
        return f"uid {os.getuid()}"


def actor(author: str | None = None) -> Actor:
    """Who does what the audit log will tell of.

    Args:
        author: the name that was given instead of the system's; both are kept.
    """
    from layerwatch.daemon.store.auditlog import Actor, Authentication

    known_as = user()
    name = known_as if author in (None, known_as) else f"{author} (logged in as {known_as})"
    return Actor(name, Authentication.COMMAND_LINE)


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
