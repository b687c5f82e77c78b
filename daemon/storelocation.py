"""Where the store of a configuration is, and its downloads."""

from __future__ import annotations

import hashlib
import os
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
    """Whether a daemon ever made the store. True where a server does not say: whoever opens it learns why."""
    if url.startswith(_PREFIX):
        return Path(url.removeprefix(_PREFIX)).exists()
    # Imported here because the store's libraries are.
    from layerwatch.daemon.store.errors import StoreError
    from layerwatch.daemon.store.schema import exists

    try:
        return exists(url)
    except StoreError:
        return True


def downloads_of(settings: Settings, config: Path | None) -> Downloads:
    """The downloads of a configuration: beside the database file, unless another folder is configured.

    With a database server they lie among the user's caches, apart for each database: two daemons never share them.
    """
    folder = settings.downloads.path
    if folder is None:
        url = store_url(settings, config)
        if url.startswith(_PREFIX):
            folder = Path(url.removeprefix(_PREFIX)).parent / "layerwatch-downloads"
        else:
            place = url.rpartition("@")[2].partition("?")[0]
            folder = _caches() / "layerwatch" / hashlib.sha256(place.encode()).hexdigest()[:12] / "downloads"
    return Downloads(folder, settings.downloads.size_limit)


def _caches() -> Path:
    """As the XDG base directory specification says; the folder for temporary files where nobody is at home."""
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return Path(tempfile.gettempdir())
    above = next(folder for folder in (caches, *caches.parents) if folder.exists())
    usable = above.is_dir() and os.access(above, os.W_OK)
    return caches if usable else Path(tempfile.gettempdir())
