"""Measured versions in a store without a scan: what kinship is found by, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from layerwatch.daemon.lineage.weights import Kinship, find_in_weights, record
from layerwatch.daemon.registries.base import DeclaredLineage
from layerwatch.daemon.store import contents, lineage, measurements
from layerwatch.daemon.store.records import ContentRecord, VersionRecord
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import METRIC_SET, LayerKind
from layerwatch.metrics.sketch import sketch
from storetools import NOW, judged, measurement

Weights = Mapping[str, NDArray[np.float32]]


def matrices(seed: int, layers: int = 6, shape: tuple[int, int] = (48, 40)) -> dict[str, NDArray[np.float32]]:
    """Layers of random weights."""
    generator = np.random.default_rng(seed)
    return {f"l{place}": generator.standard_normal(shape).astype(np.float32) for place in range(layers)}


def moved(
    state: Weights, by: float, seed: int = 1, *, only: Sequence[str] = ()
) -> dict[str, NDArray[np.float32]]:
    """Every layer, or some, moved by this relative distance in a random direction."""
    generator = np.random.default_rng(seed)
    return {
        name: (values + by * float(values.std()) * generator.standard_normal(values.shape)).astype(np.float32)
        if not only or name in only
        else values
        for name, values in state.items()
    }


def measured(connection: sa.Connection, fingerprint: str, state: Weights) -> ContentRecord:
    """Contents and measurements as a scan leaves them."""
    layers = []
    for name, values in state.items():
        digest = hashlib.sha256(values.tobytes()).hexdigest()
        found = replace(
            measurement(digest),
            shape=values.shape,
            norm=float(np.linalg.norm(values)),
            max_abs=float(np.abs(values).max()),
            constant=bool((values == values.flat[0]).all()),
            sketch=sketch(values),
        )
        measurements.save(connection, found, NOW)
        layers.append(LayerEntry(name, LayerKind.LINEAR, values.shape, "F32", digest))
    content = ContentRecord(fingerprint, METRIC_SET, "safetensors", 1, tuple(layers), (), None, 0.1)
    contents.save(connection, content, NOW)
    return content


def published(
    connection: sa.Connection,
    version: str,
    state: Weights,
    *declared: DeclaredLineage,
    model: str = "m",
    registry: str = "r",
) -> tuple[VersionRecord, Kinship]:
    """A version that was registered, measured, looked into and judged."""
    found = judged(connection, version, model=model, registry=registry)
    content = measured(connection, found.fingerprint, state)
    lineage.save_declared(connection, found.id, declared, NOW)
    kin = find_in_weights(connection, found, content)
    record(connection, found, kin, NOW)
    return found, kin
