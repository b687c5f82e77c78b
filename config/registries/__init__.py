"""Where models come from: one file of settings per kind of registry."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from layerwatch.config.registries.base import BaseRegistrySettings, RemoteRegistrySettings
from layerwatch.config.registries.directory import DirectoryRegistrySettings
from layerwatch.config.registries.huggingface import HuggingFaceRegistrySettings
from layerwatch.config.registries.mlflow import MlflowRegistrySettings
from layerwatch.config.registries.objectstore import ObjectStoreRegistrySettings
from layerwatch.config.registries.oci import OciRegistrySettings

__all__ = [
    "BaseRegistrySettings",
    "DirectoryRegistrySettings",
    "HuggingFaceRegistrySettings",
    "MlflowRegistrySettings",
    "ObjectStoreRegistrySettings",
    "OciRegistrySettings",
    "RegistrySettings",
    "RemoteRegistrySettings",
]

RegistrySettings = Annotated[
    DirectoryRegistrySettings
    | MlflowRegistrySettings
    | HuggingFaceRegistrySettings
    | OciRegistrySettings
    | ObjectStoreRegistrySettings,
    Field(discriminator="kind"),
]
"""Settings of one registry, told apart by ``kind``."""
