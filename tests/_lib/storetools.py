"""Short ways to fill a store in tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

import numpy as np
import sqlalchemy as sa

from layerwatch.alerts.model import AlertIdentity, AlertPhase, AlertState
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import ContentRecord, Lineage, VersionKey, VersionRecord
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import METRIC_SET, FitStatus, LayerKind, Measurement, SpectralNumbers

NOW = datetime(2025, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


NewDatabase = Callable[[], AbstractContextManager[Database]]
"""Makes a new database for one example of a property test, where fixtures are shared between examples."""


def damage(connection: sa.Connection) -> list[str]:
    """What is wrong with the file and with references between its rows; a server sees to both by itself."""
    if connection.dialect.name != "sqlite":
        return []
    pages = connection.exec_driver_sql("PRAGMA integrity_check").scalars()
    rows = connection.exec_driver_sql("PRAGMA foreign_key_check")
    return [*(page for page in pages if page != "ok"), *map(str, rows)]


def later(seconds: float) -> datetime:
    """That many seconds after `NOW`."""
    return NOW + timedelta(seconds=seconds)


def registered(
    connection: sa.Connection,
    version: str,
    model: str = "m",
    registry: str = "r",
    fingerprint: str | None = None,
    lineage: Lineage | None = None,
    now: datetime = NOW,
) -> VersionRecord:
    """A version whose order key is its name and whose fingerprint is made from its names."""
    return versions.register(
        connection,
        VersionKey(registry, model, version),
        fingerprint or f"bytes-of-{registry}-{model}-{version}",
        f"/models/{model}/{version}",
        version,
        lineage or Lineage(),
        now,
    )


def judged(
    connection: sa.Connection,
    version: str,
    verdict: Verdict = Verdict.PASS,
    model: str = "m",
    registry: str = "r",
    fingerprint: str | None = None,
    lineage: Lineage | None = None,
    now: datetime = NOW,
) -> VersionRecord:
    """The same, with a verdict, the report ``{}`` and one finding."""
    record = registered(connection, version, model, registry, fingerprint, lineage, now)
    versions.record_verdict(connection, record.id, verdict, "{}", [finding()], now)
    found = versions.get(connection, record.id)
    assert found is not None
    return found


def finding(rule: str = "dead_rows", layer: str | None = "fc.weight") -> Finding:
    """A warning about one layer."""
    return Finding(
        rule=rule,
        group=RuleGroup.WEIGHTS,
        severity=Severity.WARNING,
        layer=layer,
        message="3 of 10 rows are zero (baseline 0)",
        evidence={"dead": 3, "baseline": 0, "share": 0.3, "exact": True, "note": None},
        strength=1.5,
    )


def content(fingerprint: str, *digests: str, metric_set: str = METRIC_SET) -> ContentRecord:
    """A content with one linear layer for each digest."""
    layers = tuple(
        LayerEntry(f"layer{index}.weight", LayerKind.LINEAR, (4, 3), "F32", digest)
        for index, digest in enumerate(digests)
    )
    return ContentRecord(fingerprint, metric_set, "safetensors", 2**40, layers, (), None, 1.25)


def measurement(digest: str, seed: int = 0) -> Measurement:
    """A measurement of a layer without BatchNorm, with arrays of random numbers."""
    generator = np.random.default_rng(seed)
    spectrum = np.sort(generator.random(3, dtype=np.float32))
    numbers = SpectralNumbers(
        num_eigenvalues=3,
        fit_status=FitStatus.TOO_SMALL,
        alpha=None,
        alpha_sigma=None,
        ks_distance=None,
        xmin=None,
        tail_size=None,
        alpha_hat=None,
        log_norm=0.1,
        log_spectral_norm=-0.2,
        log_alpha_norm=None,
        stable_rank=1.7,
        entropy=0.9,
        effective_rank=2.1,
        rank_loss=0,
    )
    return Measurement(
        digest=digest,
        kind=LayerKind.LINEAR,
        shape=(4, 3),
        dtype="F32",
        non_finite=0,
        max_abs=0.7,
        norm=1.1,
        zero_share=0.0,
        kurtosis=2.9,
        numbers=numbers,
        folded=numbers,
        spectrum=spectrum,
        folded_spectrum=spectrum,
        row_norms=generator.random(4, dtype=np.float32),
        column_norms=generator.random(3, dtype=np.float32),
        sketch=generator.random((64, 64), dtype=np.float32),
    )


def firing(version: VersionRecord, ref: str = "latest") -> AlertState:
    """A weights alert about a version."""
    return AlertState(
        identity=AlertIdentity(version.key.registry, version.key.model, ref, RuleGroup.WEIGHTS),
        phase=AlertPhase.FIRING,
        episode=1,
        version=version.key.version,
        fingerprint=version.fingerprint,
        severity=Severity.CRITICAL,
        layers=("", "fc.weight"),
        started_at=NOW,
        changed_at=NOW,
        sequence=1,
        event_id="evt_1",
        rules=("dead_rows",),
    )


def python(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Another Python that can import what this one can, running a program, with text pipes to its streams."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
