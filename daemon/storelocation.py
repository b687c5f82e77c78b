"""Where the store of a configuration is."""

from __future__ import annotations

from pathlib import Path

from layerwatch.config.settings import Settings

_PREFIX = "sqlite:///"


def store_url(settings: Settings, config: Path | None) -> str:
    """The store's URL; a relative file is taken from the configuration file's folder, as all paths in it are.

    Without a configuration file it is taken from the current folder.
    """
    url = settings.store.url.reveal()
    path = Path(url.removeprefix(_PREFIX))
    if config is None or path.is_absolute() or not url.startswith(_PREFIX):
        return url
    return f"{_PREFIX}{config.absolute().parent / path}"


def store_exists(url: str) -> bool:
    """Whether a daemon ever made the store."""
    return not url.startswith(_PREFIX) or Path(url.removeprefix(_PREFIX)).exists()
