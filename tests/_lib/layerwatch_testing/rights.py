"""Doing without rights that the user who runs the tests may have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NOBODY = 65534


@contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """Inside, this process may not read ``path``, not even when it runs as root.

    The folders above ``path`` become passable for everybody, which is why it must lie in a temporary folder.
    """
    mode = path.stat().st_mode
    root = os.geteuid() == 0
    if root:
        for folder in path.parents:
            if not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o055)
    path.chmod(0)
    if root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode)
