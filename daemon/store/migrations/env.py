"""Alembic's entry point: migrate over the connection that the store hands in, inside its transaction."""

from __future__ import annotations

from alembic import context

from layerwatch.daemon.store.schema import VERSION_TABLE
from layerwatch.daemon.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite cannot alter most things in place; batch mode rebuilds the table.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
