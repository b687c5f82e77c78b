"""Texts that are compared with a file; ``UPDATE_EXPECTED=1`` writes it."""

from __future__ import annotations

import os
from pathlib import Path


def assert_as_in(path: Path, text: str) -> None:
    """Fail unless the file holds this text."""
    if os.environ.get("UPDATE_EXPECTED") == "1":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
