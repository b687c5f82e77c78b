"""Real SQLite files, one for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwatch.daemon.store.database import Database


@pytest.fixture
def url(tmp_path: Path) -> str:
    """URL of a database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'data' / 'layerwatch.db'}"


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A new, empty database."""
    opened = Database.open(url)
    yield opened
    opened.close()
