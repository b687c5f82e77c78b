"""Registries, a folder each behind one protocol. A new one is a folder here and a name in the table."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from layerwatch.config.extras import how_to_install
from layerwatch.daemon.registries.base import Registry, RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.downloads import Downloads

if TYPE_CHECKING:
    from layerwatch.config.registries import RegistrySettings

KINDS = ("directory", "mlflow", "huggingface", "oci", "objectstore")
"""Every kind has a folder of its name: ``registry.py`` builds it, ``hook.py`` checks its events.

Each is imported when it is configured, so that nobody pays for a client that is not used.
"""


def build_registry(settings: RegistrySettings, downloads: Downloads) -> Registry:
    """The registry that the settings describe. Nothing is contacted yet.

    Raises:
        RegistryUnavailable: NOT_INSTALLED, with the command that installs what is missing.
    """
    try:
        build: Callable[[Any, Downloads], Registry] = import_module(
            f"{__name__}.{settings.kind}.registry"
        ).build
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("layerwatch"):
            raise
        raise RegistryUnavailable(
            RegistryReason.NOT_INSTALLED,
            f"registry {settings.name} needs the package {error.name}: {how_to_install(settings.kind)}",
        ) from error
    return build(settings, downloads)
