"""How SQLite answers the questions that some code asks: by an index, or by reading a whole table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from layerwatch.daemon.store.database import Database


class Asked(list[tuple[str, Any]]):
    """The statements that read, with their parameters."""

    def steps(self, database: Database) -> list[tuple[str, str]]:
        """(step of the plan, statement) of all of them."""
        with database.read() as connection:
            return [
                (step[3], statement)
                for statement, parameters in self
                for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]

    def scans(self, database: Database) -> list[tuple[str, str]]:
        """The steps that go through all rows of a table or of an index."""
        return [one for one in self.steps(database) if one[0].startswith("SCAN ")]


@contextmanager
def asked() -> Iterator[Asked]:
    """What any engine is asked meanwhile, in whichever thread."""
    found = Asked()

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "WITH")):
            found.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
