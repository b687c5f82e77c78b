"""The README's list of commands is that of the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from typer.main import get_command

from layerwatch.daemon.cli import app

README = Path(__file__).parents[3] / "README.md"


def test_the_readme_lists_every_command_and_no_other() -> None:
    found = re.search(
        r"(?m)^\| for \| `layerwatch`.*\n\|[-|]*\n((?:\|.*\n)+)", README.read_text(encoding="utf-8")
    )
    assert found is not None
    commands: Any = get_command(app)
    listed = re.findall(r"`(\w+)`", found[1])
    assert sorted(listed) == sorted(commands.commands)
