"""Where the store of a configuration is, and its downloads."""

from __future__ import annotations

import tempfile
from pathlib import Path

from layerwatch.config.settings import Settings
from layerwatch.daemon.registries.downloads import Downloads

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


def downloads_of(settings: Settings, config: Path | None) -> Downloads:
    """The downloads of a configuration: beside the database file, unless another folder is configured."""
    folder = settings.downloads.path
    if folder is None:
        url = store_url(settings, config)
        place = Path(url.removeprefix(_PREFIX)).parent if url.startswith(_PREFIX) else tempfile.gettempdir()
        folder = Path(place) / "layerwatch-downloads"
    return Downloads(folder, settings.downloads.size_limit)
