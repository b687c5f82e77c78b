"""Where the weights of remote versions are put while they are measured."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationInfo, field_validator

from layerwatch.config.base import SettingsModel
from layerwatch.config.quantities import PositiveByteSize
from layerwatch.config.secrets import resolve_path


class DownloadsSettings(SettingsModel):
    """Files of remote registries on the local disk."""

    path: Path | None = None
    """Folder for them; null for `layerwatch-downloads` beside the database file, or among the user's caches."""

    size_limit: PositiveByteSize = 20 * 2**30
    """Room that they may take. Those that were not used for the longest time are deleted first."""

    @field_validator("path")
    @classmethod
    def _from_the_configuration_folder(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else resolve_path(path, info)
