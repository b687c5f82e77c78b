"""Where measurements, verdicts and alert states are kept, and for how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from layerwatch.config.base import NO_SWITCH, SettingsModel
from layerwatch.config.quantities import PositiveDuration
from layerwatch.config.secrets import SecretUrl

_SQLITE = "sqlite:///"
_POSTGRESQL = ("postgresql", "postgresql+psycopg")
_SHAPE = "postgresql://USER:PASSWORD@HOST/DATABASE"


def check_database_url(url: str) -> None:
    """Raise ValueError, without repeating ``url``, unless it names a SQLite file or a PostgreSQL database."""
    scheme, _, rest = url.partition("://")
    if scheme in _POSTGRESQL:
        _check_server(rest)
    elif scheme.partition("+")[0].lower() in ("postgres", "postgresql"):
        raise ValueError(f"PostgreSQL is reached through psycopg: write {_SHAPE}")
    elif not url.startswith(_SQLITE) or url == _SQLITE:
        raise ValueError(
            "must be a SQLite file (sqlite:///FILE, or sqlite:////FOLDER/FILE for a full path) or a PostgreSQL "
            f"database ({_SHAPE})"
        )


def _check_server(rest: str) -> None:
    """The part behind ``://``: the password ends at the first @, the host before the next slash."""
    credentials, at, location = rest.partition("@")
    host, _, database = (location if at else credentials).partition("/")
    # The end of such a password would be taken for the host, and shown wherever this is.
    if "@" in host:
        raise ValueError("an @ inside of user or password must be written %40")
    if not database.partition("?")[0]:
        raise ValueError(f"names no database: {_SHAPE}")


def _checked_when_plain(url: SecretUrl) -> SecretUrl:
    if url.is_plain:
        check_database_url(url.reveal())
    return url


class StoreSettings(SettingsModel):
    """The daemon's database."""

    url: Annotated[SecretUrl, AfterValidator(_checked_when_plain)] = SecretUrl("sqlite:///layerwatch.db")
    """Where it is: sqlite:///FILE, relative to the folder of the configuration file, or
    postgresql://USER:PASSWORD@HOST/DATABASE, which needs the extra postgresql."""

    keep_versions: Annotated[int, Field(ge=1), NO_SWITCH] = 200
    """How many versions of each model keep their measurements; accepted and pinned baselines always do."""

    keep_events: PositiveDuration = timedelta(days=30)
    """How long delivered and given-up alert events are kept."""

    keep_audit: PositiveDuration = timedelta(days=730)
    """How long it is kept who changed what."""
