"""The exported snapshot: rendered once per change, served from memory."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from pydantic import ValidationError

from layerwatch.daemon.store import refs, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import RefRecord, VersionRecord
from layerwatch.metrics.export import LayerSample, RefSample, render
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.report import Report

_LOGGER = logging.getLogger(__name__)


class Snapshot:
    """Holds the rendered gauges about models. ``refresh`` is cheap when little changed.

    Attributes:
        max_series_per_model: the cap; takes effect at the next ``refresh``.
    """

    def __init__(self, database: Database, max_series_per_model: int) -> None:
        self._database = database
        self.max_series_per_model = max_series_per_model
        self._lock = threading.Lock()
        self._layers: dict[int, tuple[str, RefSample]] = {}
        self._text = b""
        self._stale = True

    @property
    def text(self) -> bytes:
        """The gauges in text format 0.0.4."""
        return self._text

    def refresh(self) -> None:
        """Render anew what the refs point at now and publish it by one assignment."""
        self._stale = True
        with self._lock:
            samples: list[RefSample] = []
            kept: dict[int, tuple[str, RefSample]] = {}
            with self._database.read() as connection:
                for ref in refs.list_refs(connection):
                    version = versions.get_without_report(connection, ref.version_id)
                    if version is None or version.judged_at is None or version.verdict is None:
                        continue
                    known = self._layers.get(ref.version_id)
                    stamp = version.judged_at.isoformat()
                    if known is None or known[0] != stamp:
                        full = versions.get(connection, ref.version_id)
                        report = full.report if full else None
                        known = (stamp, _sample(ref, version, version.verdict, report))
                    kept[ref.version_id] = known
                    samples.append(replace(known[1], ref=ref.ref))
            self._layers = kept
            self._text = render(samples, self.max_series_per_model)
            self._stale = False

    def refresh_if_stale(self) -> None:
        """Make good a refresh that failed, so that gauges never stay behind until the next change."""
        if self._stale:
            self.refresh()


def _sample(ref: RefRecord, version: VersionRecord, verdict: Verdict, stored: str | None) -> RefSample:
    """What is exported of a version; the verdict alone where its report cannot be read."""
    try:
        report = Report.model_validate_json(stored or "")
    except ValidationError:
        _LOGGER.warning("the report of %s is missing or of another release: no layer gauges", version.key)
        return RefSample(
            ref.registry, ref.model, "", version.key.version, version.fingerprint, verdict, "", "", ()
        )
    return RefSample(
        registry=ref.registry,
        model=ref.model,
        ref="",
        version=report.model.version,
        fingerprint=report.model.fingerprint or "",
        verdict=report.verdict,
        baseline=report.baseline.version if report.baseline else "",
        relation=(report.baseline.relation or "") if report.baseline else "",
        layers=tuple(
            LayerSample(
                name=layer.name,
                status=layer.status,
                alpha=layer.metrics.alpha,
                alpha_sigma=layer.metrics.alpha_sigma,
                alpha_baseline=layer.change.alpha_baseline if layer.change else None,
                log_norm=layer.metrics.log_norm,
                log_spectral_norm=layer.metrics.log_spectral_norm,
                stable_rank=layer.metrics.stable_rank,
            )
            for layer in report.layers
        ),
    )
