"""Alembic's migrations, applied by ``layerwatch.daemon.store.schema.upgrade``."""
