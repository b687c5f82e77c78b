"""The API and the pages about alerts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from layerwatch.config.loading import load_settings
from layerwatch.daemon.store.database import Database
from layerwatch_testing.daemons import write_config
from sites import Site


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Iterator[Site]:
    """With a token, and an owner of the models that are called fraud."""
    owners = [{"models": ["*/fraud*"], "labels": {"team": "risk"}}]
    config = write_config(tmp_path / "layerwatch.yaml", alerts={"owners": owners})
    with Site(database, load_settings(config, {})) as running:
        yield running
