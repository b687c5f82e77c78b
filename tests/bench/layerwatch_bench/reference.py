"""The environment that weightwatcher runs in: its own, with every version pinned."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[1] / "weightwatcher-requirements.txt"

_LAST_LINES = 5


class NoReferenceError(Exception):
    """The environment cannot be made here; says why."""


def reference_python(folder: Path) -> Path:
    """The interpreter of the environment, which is made first when it is missing or has other versions.

    Raises:
        NoReferenceError: the packages cannot be installed.
    """
    python = folder / "bin" / "python"
    installed = folder / REQUIREMENTS.name
    wanted = REQUIREMENTS.read_text()
    if python.exists() and installed.exists() and installed.read_text() == wanted:
        return python
    print(f"installing weightwatcher into {folder}", file=sys.stderr)
    venv.create(folder, clear=True, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        last = "\n".join(ended.stderr.strip().splitlines()[-_LAST_LINES:])
        raise NoReferenceError(f"weightwatcher cannot be installed into {folder}:\n{last}")
    installed.write_text(wanted)
    return python
