"""Errors of the store."""

from __future__ import annotations

from enum import StrEnum


class StoreReason(StrEnum):
    """Why the store refused. The value may be a metric label: no free text.

    About the database as a whole: ``unsupported_url``; ``cannot_open``: missing rights, not a file, a file
    system without shared memory; ``corrupt``: damaged or not a database; ``foreign``: the database of another
    program; ``newer_schema``: written by a newer layerwatch; ``busy``: another writer held it too long;
    ``read_only``; ``disk_full``; ``io_error``; ``closed``. Of a server: ``unreachable``: it is not there, or the
    connection was lost; ``denied``: wrong password or missing rights; ``no_database``: it has none of this name;
    ``missing_package``: the client library is not installed; ``displaced``: another daemon works on it now.

    About one record: ``not_found``; ``wrong_state``: the record is not where this step may be taken;
    ``already_judged``; ``nothing_pinned``; ``damaged_record``: the stored value cannot be read back.
    """

    UNSUPPORTED_URL = "unsupported_url"
    CANNOT_OPEN = "cannot_open"
    CORRUPT = "corrupt"
    FOREIGN = "foreign"
    NEWER_SCHEMA = "newer_schema"
    BUSY = "busy"
    READ_ONLY = "read_only"
    DISK_FULL = "disk_full"
    IO_ERROR = "io_error"
    CLOSED = "closed"
    UNREACHABLE = "unreachable"
    DENIED = "denied"
    NO_DATABASE = "no_database"
    MISSING_PACKAGE = "missing_package"
    DISPLACED = "displaced"
    NOT_FOUND = "not_found"
    WRONG_STATE = "wrong_state"
    ALREADY_JUDGED = "already_judged"
    NOTHING_PINNED = "nothing_pinned"
    DAMAGED_RECORD = "damaged_record"


class StoreError(Exception):
    """The store cannot do what was asked.

    Attributes:
        reason: member of the closed list.
        detail: one sentence for the user: what was found and what to do about it.
    """

    def __init__(self, reason: StoreReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.value}: {detail}")


class AlreadyRunningError(Exception):
    """Another daemon uses the same store."""
