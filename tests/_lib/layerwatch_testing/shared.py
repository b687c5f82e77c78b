"""Trained networks and reference numbers that lie beside the repository, not in it."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[4] / "shared"


def shared_file(relative: str) -> Path:
    """A file below ``../shared``; skips the test, with the reason, where it is not there."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"needs {path}, which does not lie beside this checkout")
    return path
