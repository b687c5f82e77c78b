"""The commented configuration file with every default."""

from __future__ import annotations

from importlib.resources import files


def default_yaml() -> str:
    """Text of ``default.yaml``: every key with its default and an explanation, ready to be edited."""
    return files("layerwatch.config").joinpath("default.yaml").read_text(encoding="utf-8")
