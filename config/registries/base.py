"""What the settings of all registries, and of all remote ones, have in common."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ValidationInfo, WithJsonSchema, field_validator

from layerwatch.config.base import Name, NonBlankList, SettingsModel
from layerwatch.config.quantities import PositiveDuration
from layerwatch.config.secrets import Secret, resolve_path


def _server(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError("must be a URL such as http://host:5000") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("must be a URL such as http://host:5000")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("must not hold a user, a password or a query; these have keys of their own")
    return text.rstrip("/")


ServerUrl = Annotated[
    str, AfterValidator(_server), WithJsonSchema({"type": "string", "pattern": "^https?://[^@?#]+$"})
]
"""Address of a server, without credentials in it."""


class BaseRegistrySettings(SettingsModel):
    """Settings that every kind of registry has."""

    name: Name
    """Name of the registry: a metric label, and a part of the hook's URL."""

    poll: PositiveDuration = timedelta(minutes=2)
    """How often to look for new versions."""

    models: NonBlankList = ("*",)
    """Glob patterns of the models to watch."""

    refs: NonBlankList = ("latest",)
    """Glob patterns of the names of versions to watch."""

    reconcile: PositiveDuration = timedelta(hours=6)
    """How often everything is listed anew, whatever was missed before."""

    hook_secret: Secret | None = None
    """What events sent to `/hooks/NAME` are checked with; without it they need the server's token."""


class RemoteRegistrySettings(BaseRegistrySettings):
    """Settings that every registry behind a network has."""

    rehash: PositiveDuration = timedelta(days=30)
    """Within which time every version is downloaded and hashed again, a part of them at each reconcile."""

    ca_file: Path | None = None
    """PEM file of the certificate authorities that sign the server's certificate; null for the usual ones."""

    timeout: PositiveDuration = timedelta(seconds=30)
    """How long to wait for an answer, and for each piece of a download."""

    @field_validator("ca_file")
    @classmethod
    def _from_the_configuration_folder(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else resolve_path(path, info)
