"""Putting a prepared version into a directory registry so that no reader ever sees half of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from layerwatch.daemon.demo.errors import DemoError, DemoReason
from layerwatch.daemon.demo.prepared import PreparedVersion


def publish(prepared: PreparedVersion, registry_root: Path) -> Path:
    """Copy a version to ``<registry_root>/<model>/<version>``: written under ``.<version>.tmp``, then renamed.

    What an interrupted attempt left under the temporary name is replaced.

    Returns:
        The version's folder in the registry.

    Raises:
        DemoError: ``already_published`` when the name is taken (nothing is changed then), ``cannot_write``.
    """
    folder = registry_root / prepared.model
    final = folder / prepared.version
    temporary = folder / f".{prepared.version}.tmp"
    if os.path.lexists(final):
        raise DemoError(
            DemoReason.ALREADY_PUBLISHED,
            f"{final} exists, and a published version never changes: start with an empty registry",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir()
        for source in sorted(prepared.folder.iterdir()):
            shutil.copyfile(source, temporary / source.name)
            _flush(temporary / source.name)
        _flush(temporary)
        temporary.rename(final)
        _flush(folder)
    except OSError as error:
        raise DemoError(
            DemoReason.CANNOT_WRITE,
            f"{final} cannot be written: {error.strerror or error}; choose a folder with room that may be written",
        ) from error
    return final


def _flush(path: Path) -> None:
    # A rename that survives a power cut while the contents do not would be half a version after all.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
