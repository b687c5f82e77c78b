"""A folder tree that holds models."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import ValidationInfo, field_validator

from layerwatch.config.base import NonBlank
from layerwatch.config.quantities import Duration, PositiveDuration
from layerwatch.config.registries.base import BaseRegistrySettings
from layerwatch.config.secrets import resolve_path


class DirectoryRegistrySettings(BaseRegistrySettings):
    """A folder tree that holds models. At each reconcile every file is hashed again."""

    kind: Literal["directory"]
    """What the registry is."""

    path: Path
    """The folder; relative to the folder of the configuration file."""

    poll: PositiveDuration = timedelta(seconds=30)
    """How often to look for new versions."""

    settle: Duration = timedelta(seconds=5)
    """How long all files of a version must be unchanged before it is believed complete."""

    complete_marker: NonBlank | None = None
    """Name of a file whose presence says that a version is complete; then `settle` is not waited for."""

    order: Literal["name", "time"] = "name"
    """What makes a version newer than another: its name (v2 before v10), or the time of its newest file."""

    @field_validator("path")
    @classmethod
    def _path_from_the_configuration_folder(cls, path: Path, info: ValidationInfo) -> Path:
        return resolve_path(path, info)

    @field_validator("complete_marker")
    @classmethod
    def _a_plain_file_name(cls, name: str | None) -> str | None:
        if name is not None and (name in (".", "..") or "/" in name or "\0" in name):
            raise ValueError("must be the name of a file inside the version's folder, without /")
        return name
