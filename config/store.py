"""Where measurements, verdicts and alert states are kept, and for how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from layerwatch.config.base import NO_SWITCH, SettingsModel
from layerwatch.config.quantities import PositiveDuration
from layerwatch.config.secrets import SecretUrl

_SQLITE = "sqlite:///"


def check_database_url(url: str) -> None:
    """Raise ValueError, without repeating ``url``, unless it names a SQLite file (``sqlite:///FILE``)."""
    scheme = url.partition(":")[0].partition("+")[0].lower()
    if scheme in ("postgres", "postgresql"):
        raise ValueError("PostgreSQL is not supported yet; use a SQLite file: sqlite:///FILE")
    if not url.startswith(_SQLITE) or url == _SQLITE:
        raise ValueError("must be a SQLite file: sqlite:///FILE, or sqlite:////FOLDER/FILE for a full path")


def _checked_when_plain(url: SecretUrl) -> SecretUrl:
    if url.is_plain:
        check_database_url(url.reveal())
    return url


class StoreSettings(SettingsModel):
    """The daemon's database."""

    url: Annotated[SecretUrl, AfterValidator(_checked_when_plain)] = SecretUrl("sqlite:///layerwatch.db")
    """Database URL; only sqlite:///FILE for now, relative to the folder of the configuration file."""

    keep_versions: Annotated[int, Field(ge=1), NO_SWITCH] = 200
    """How many versions of each model keep their measurements; accepted and pinned baselines always do."""

    keep_events: PositiveDuration = timedelta(days=30)
    """How long delivered and given-up alert events are kept."""
