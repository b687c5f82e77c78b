"""``config.json`` and ``adapter_config.json`` beside the weights, as far as they can be trusted to be that."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.readers.strictjson import parse_object

MAX_BYTES = 4 << 20
"""Largest file that is read; real ones stay below 100 KiB, with a rule for every layer."""

_NAME = "config.json"
ADAPTER = "adapter_config.json"


def reading_digest(model: Path) -> str:
    """sha256 in hex of what these files say, "" where there are none: the weights are read, and checked, by them."""
    said = [config_beside(model, name) for name in (_NAME, ADAPTER)]
    if said == [None, None]:
        return ""
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def config_beside(model: Path, name: str = _NAME) -> dict[str, Any] | None:
    """The content of the ``config.json`` in a model's directory, or beside its file; or of another file like it.

    None where there is none, where it is no JSON object of a sensible size, and where it is a link out of the
    directory (those of a Hugging Face cache lead to its ``blobs``): the weights are then read by what they show alone.
    """
    folder = model if model.is_dir() else model.parent
    try:
        real, within = (folder / name).resolve(strict=True), folder.resolve(strict=True)
        blobs = within.parent.parent / "blobs"
        if real.parent not in {within, blobs} or not real.is_file() or real.stat().st_size > MAX_BYTES:
            return None
        with real.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        return parse_object(raw, real, name) if len(raw) <= MAX_BYTES else None
    except (OSError, RuntimeError, UnreadableError, RecursionError):
        return None
