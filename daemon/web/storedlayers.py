"""Versions and layers as links name them: long and unprintable names of layers stand there as people read them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from fastapi import HTTPException
from sqlalchemy import Connection

from layerwatch.alerts.payload import name
from layerwatch.daemon.store import contents, versions
from layerwatch.daemon.store.records import VersionKey, VersionRecord, VersionState
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import METRIC_SET

FINGERPRINT = "^([0-9a-f]{8,64})?$"
"""A fingerprint in a link, or its first digits; empty for the bytes that are there now."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A layer as it is asked for: names as in a link of an alert.

    Attributes:
        fingerprint: of the bytes under the version's name, or the beginning of it; empty for the present ones.
    """

    registry: str
    model: str
    version: str
    layer: str
    fingerprint: str = ""


def find_version(
    connection: Connection, registry: str, model: str, version: str, fingerprint: str = ""
) -> VersionRecord:
    """The bytes under the version's name that are meant, with their report; raises HTTPException 404."""
    found = versions.current(connection, VersionKey(registry, model, version))
    while found is not None and not found.fingerprint.startswith(fingerprint):
        found = versions.previous_revision(connection, found)
    if found is not None and found.report is None:
        found = versions.get(connection, found.id)
    if found is not None:
        return found
    told = f"{name(registry)}/{name(model)} has no version {name(version)!r}"
    raise HTTPException(404, told + (f" with the fingerprint {fingerprint}" if fingerprint else ""))


def find_layer(connection: Connection, version: VersionRecord, wanted: str) -> LayerEntry:
    """A layer or vector of a version by its name, or by what a link makes of it; raises HTTPException 404."""
    for layer in contents.load_layers(connection, version.fingerprint, METRIC_SET, [wanted]):
        return layer
    content = contents.load(connection, version.fingerprint, METRIC_SET)
    shown = f"{name(version.key.model)} {name(version.key.version)}"
    if content is None:
        waits = version.state is not VersionState.JUDGED and version.judged_at is None
        told = "was not measured yet" if waits else "is not kept any more: only its verdict is"
        raise HTTPException(404, f"{shown} {told}")
    if not content.layers and content.file_problem is not None:
        raise HTTPException(404, f"{shown} could not be examined, so there is no spectrum of it")
    # Links have long and unprintable names as people read them.
    for layer in content.layers:
        if name(layer.name) == wanted:
            return layer
    raise HTTPException(404, f"{shown} has no layer {name(wanted)!r}")


def baseline_layer(
    connection: Connection, version: VersionRecord, layer: str
) -> tuple[str, LayerEntry] | None:
    """The layer of this name in what the version was judged against, and that version's name; None without one."""
    report = json.loads(version.report) if version.report else {}
    baseline = report.get("baseline")
    if baseline is None or baseline["fingerprint"] is None:
        return None
    for same in contents.load_layers(connection, baseline["fingerprint"], METRIC_SET, [layer]):
        return baseline["version"], same
    return None
