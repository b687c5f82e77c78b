"""Registries, one file each behind one protocol. A new one is a file here and a line in the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layerwatch.config.registries import RegistrySettings
from layerwatch.daemon.registries.base import Registry
from layerwatch.daemon.registries.directory import DirectoryRegistry

REGISTRIES: dict[str, Callable[[Any], Registry]] = {
    "directory": DirectoryRegistry,
}


def build_registry(settings: RegistrySettings) -> Registry:
    """The registry that the settings describe. Nothing is contacted yet."""
    return REGISTRIES[settings.kind](settings)
