"""What several of the configuration tests need."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from layerwatch.config.defaults import default_yaml

Writer = Callable[[str], Path]


@pytest.fixture
def write_config(tmp_path: Path) -> Writer:
    """Writes text to a configuration file and gives its path."""

    def write(text: str) -> Path:
        path = tmp_path / "layerwatch.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def example_yaml() -> str:
    """default.yaml with its examples put in force: ``#key`` and ``#  key`` lines lose their ``#``."""
    text = default_yaml().replace("  route: null\n", "")
    return re.sub(r"^(\s*)#(?=\S|  )", r"\1", text, flags=re.MULTILINE)
