"""One small world per kind of registry: what a publisher can do to it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from layerwatch_testing.worlds.base import RegistryWorld

WORLDS = {
    "directory": ("layerwatch_testing.worlds.directory", "DirectoryWorld"),
    "mlflow": ("layerwatch_testing.worlds.mlflow", "MlflowWorld"),
    "huggingface": ("layerwatch_testing.worlds.huggingface", "HuggingFaceWorld"),
    "oci": ("layerwatch_testing.worlds.oci", "OciWorld"),
    "objectstore": ("layerwatch_testing.worlds.objectstore", "ObjectStoreWorld"),
}
"""Module and class of each kind's world; imported when it is needed, as the clients of registries are."""


def world_of(kind: str, folder: Path, auth: bool = False) -> RegistryWorld:
    """A world of its own for one test.

    Raises:
        ServerMissing: its server is not installed here.
    """
    module, name = WORLDS[kind]
    build: Callable[[Path, bool], RegistryWorld] = getattr(import_module(module), name)
    return build(folder, auth)
