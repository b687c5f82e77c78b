"""What each kind of database does in its own way; everything else is SQL that all of them understand."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import sqlalchemy as sa


class Backend(Protocol):
    """One kind of database, at one address.

    Attributes:
        place: how messages name it; holds no secret.
        read_options, write_options: execution options of the engines of both kinds of transaction.
    """

    @property
    def place(self) -> str: ...

    @property
    def read_options(self) -> Mapping[str, Any]: ...

    @property
    def write_options(self) -> Mapping[str, Any]: ...

    def make_room(self) -> None:
        """Make what must be there before the first connection.

        Raises:
            StoreError: ``cannot_open``.
        """

    def create_engine(self) -> sa.Engine:
        """An engine for use from several threads; nothing is connected yet.

        Raises:
            StoreError: ``missing_package``.
        """

    def settle(self) -> None:
        """Bring a database that is ours, or empty, into the mode that all its users count on.

        Raises:
            StoreError: it cannot be.
        """

    def migrating(self, writer: sa.Engine) -> AbstractContextManager[sa.Connection]:
        """A write transaction in which tables may be rebuilt; what it leaves is sound, or it is undone."""

    def typed_errors(self) -> AbstractContextManager[None]:
        """Turns errors about the database as a whole into `StoreError`; a violated constraint passes through."""
