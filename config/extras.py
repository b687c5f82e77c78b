"""How what is optional is installed."""

from __future__ import annotations


def how_to_install(extra: str) -> str:
    """What to type for an extra; from layerwatch's own folder, because no package index is known to hold it."""
    return f"in the folder of layerwatch's sources, pip install -c constraints.txt '.[{extra}]'"
