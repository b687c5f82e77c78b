"""Errors of the demonstration."""

from __future__ import annotations

from enum import StrEnum


class DemoReason(StrEnum):
    """Why the demonstration cannot go on.

    ``missing_package``: scikit-learn is not installed; ``already_published``: the registry holds a version of
    this name; ``cannot_write``: the file system refused; ``daemon``: the daemon did not do its part.
    """

    MISSING_PACKAGE = "missing_package"
    ALREADY_PUBLISHED = "already_published"
    CANNOT_WRITE = "cannot_write"
    DAEMON = "daemon"


class DemoError(Exception):
    """The demonstration cannot go on.

    Attributes:
        reason: member of the closed list.
        detail: one sentence for the user: what was found and what to do about it.
    """

    def __init__(self, reason: DemoReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.value}: {detail}")
