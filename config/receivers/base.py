"""What the settings of all receivers, and of all that post over HTTP, have in common."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, ValidationInfo, field_validator

from layerwatch.config.base import Name, SettingsModel
from layerwatch.config.networks import network
from layerwatch.config.quantities import PositiveDuration
from layerwatch.config.secrets import Secret, resolve_path


def check_webhook_url(url: str) -> None:
    """Raise ValueError, without repeating ``url``, unless it is an http or https URL with a host."""
    # Readers of URLs understand these in different ways, or drop them.
    if any(
        character.isspace() or not character.isprintable() or character == "\\" for character in url.strip()
    ):
        raise ValueError("must be a URL without white space, control characters and backslashes")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an http:// or https:// URL with a host")


def _checked_when_plain(url: Secret) -> Secret:
    if url.is_plain:
        check_webhook_url(url.reveal())
    return url


def _checked_network(text: str) -> str:
    return str(network(text))


SecretUrl = Annotated[Secret, AfterValidator(_checked_when_plain)]
"""An http or https URL that is a secret as a whole."""

PrivateNetworks = tuple[Annotated[str, AfterValidator(_checked_network)], ...]
"""Networks, each written with its network address."""


class BaseReceiverSettings(SettingsModel):
    """Settings that every kind of receiver has."""

    name: Name
    """Name of the receiver: routes refer to it, and it is a metric label."""

    kind: str
    """What the receiver is."""


class AlertReceiverSettings(BaseReceiverSettings):
    """Settings that every receiver of alerts has."""

    send_resolved: bool = True
    """Whether the end of an alert is told too."""


class RemoteReceiverSettings(AlertReceiverSettings):
    """Settings that every receiver of alerts behind a network has."""

    timeout: PositiveDuration = timedelta(seconds=15)
    """Time that one delivery may take."""

    max_age: PositiveDuration = timedelta(days=3)
    """After this time an event that could not be delivered is given up."""


class GuardedSettings(SettingsModel):
    """Settings of whatever connects to addresses that are checked."""

    allow_private_cidrs: PrivateNetworks = ()
    """Private networks that its URLs may lead to; none by default."""

    ca_file: Path | None = None
    """PEM file of the certificate authorities that sign the server's certificate; null for the usual ones."""

    @field_validator("ca_file")
    @classmethod
    def _from_the_configuration_folder(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else resolve_path(path, info)


class HttpReceiverSettings(GuardedSettings, RemoteReceiverSettings):
    """Settings that every receiver of alerts has whose addresses are checked."""
