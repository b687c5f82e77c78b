"""File names for layers, whose own names come from untrusted files."""

from __future__ import annotations

import re

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80


def layer_file_name(position: int, total: int, name: str, file_format: str) -> str:
    """Such as ``layer_007_model.layers.6.fc1.png``: sorted by depth, unique whatever the names are.

    The position alone makes it unique, on file systems that ignore case as well; of the name only plain ASCII
    letters, digits and ``._-`` are kept, at most 80 of them.

    Args:
        position: of the layer, from 1.
        total: number of layers; decides the width of the position.
    """
    digits = max(3, len(str(total)))
    plain = _UNSAFE.sub("_", name)[:_LONGEST].strip("._")
    return f"layer_{position:0{digits}d}_{plain or 'unnamed'}.{file_format}"
