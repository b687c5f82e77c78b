"""The whole story, prepared once for all tests."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from layerwatch.daemon.demo.prepared import PreparedVersion
from layerwatch.daemon.demo.preparing import prepare

Versions = Mapping[tuple[str, str], PreparedVersion]


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """(model, version) -> prepared version."""
    prepared = prepare(tmp_path_factory.mktemp("staging"))
    return {(one.model, one.version): one for one in prepared}
