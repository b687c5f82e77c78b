"""The exported snapshot: each ref rendered once per change, all of them served from memory."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import urlencode

from pydantic import ValidationError
from sqlalchemy import Connection

from layerwatch.daemon.exposition import Exposition
from layerwatch.daemon.store import versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.exporting import JudgedRef, judged_refs
from layerwatch.metrics.export import RenderedRef, join, render_ref
from layerwatch.metrics.exported import LayerSample, RefSample
from layerwatch.metrics.report import Report

_LOGGER = logging.getLogger(__name__)


class _Stamp(NamedTuple):
    """What a rendered ref follows from; equal stamps give equal gauges."""

    version_id: int
    judged_at: str
    accepted: bool
    max_series: int
    external_url: str | None


class Snapshot:
    """Holds the rendered gauges about models. ``refresh`` is cheap when little changed.

    Attributes:
        max_series_per_model: the cap; takes effect at the next ``refresh``.
        external_url: where people reach the daemon; takes effect at the next ``refresh``.
        render_seconds: time that the last ``refresh`` took.
    """

    def __init__(
        self, database: Database, max_series_per_model: int, external_url: str | None = None
    ) -> None:
        self._database = database
        self.max_series_per_model = max_series_per_model
        self.external_url = external_url
        self.render_seconds = 0.0
        self._lock = threading.Lock()
        self._rendered: dict[tuple[str, str, str], tuple[_Stamp, RenderedRef]] = {}
        self._exposition = _joined([])
        self._stale = True

    @property
    def exposition(self) -> Exposition:
        """The gauges in text format 0.0.4, which are OpenMetrics 1.0 as well but for the last line."""
        return self._exposition

    @property
    def text(self) -> bytes:
        """The gauges in text format 0.0.4."""
        return self._exposition.text

    def refresh(self) -> None:
        """Render anew what changed of what the refs point at, and publish it by one assignment."""
        with self._lock:
            self._refresh()

    def refresh_if_stale(self) -> None:
        """Make good a refresh that failed, so that gauges never stay behind until the next change."""
        with self._lock:
            if self._stale:
                self._refresh()

    def _refresh(self) -> None:
        self._stale = True
        began = time.monotonic()
        kept: dict[tuple[str, str, str], tuple[_Stamp, RenderedRef]] = {}
        with self._database.read() as connection:
            sampled: tuple[int, RefSample] | None = None
            for ref in judged_refs(connection):
                key = (ref.registry, ref.model, ref.ref)
                stamp = _Stamp(
                    ref.version_id,
                    ref.judged_at.isoformat(),
                    ref.accepted,
                    self.max_series_per_model,
                    self.external_url,
                )
                known = self._rendered.get(key)
                if known is None or known[0] != stamp:
                    # Refs of one model come one after the other, and often point at one version.
                    if sampled is None or sampled[0] != ref.version_id:
                        sampled = ref.version_id, _sample(connection, ref)
                    sample = replace(
                        sampled[1], ref=ref.ref, accepted=ref.accepted, report_url=self._report_url(ref)
                    )
                    known = stamp, render_ref(sample, self.max_series_per_model)
                kept[key] = known
        if kept != self._rendered:
            self._rendered = kept
            self._exposition = _joined([one for _, one in kept.values()])
        self.render_seconds = time.monotonic() - began
        self._stale = False

    def _report_url(self, ref: JudgedRef) -> str | None:
        if self.external_url is None:
            return None
        query = urlencode({"registry": ref.registry, "model": ref.model, "ref": ref.ref})
        return f"{self.external_url}/report?{query}"


def _joined(rendered: Sequence[RenderedRef]) -> Exposition:
    return Exposition.of(join(rendered), sum(one.series for one in rendered))


def duplicate_series(text: bytes) -> list[str]:
    """Series that occur twice in an exposition, and families that do: Prometheus refuses all of such a scrape.

    Args:
        text: in text format 0.0.4 as this project renders it: without timestamps.
    """
    # Not splitlines: labels may hold what Python takes for the end of a line.
    lines = text.decode("utf-8", "replace").split("\n")
    return [*_repeated(_series(lines)), *_repeated(_family_names(lines))]


def _series(lines: Iterable[str]) -> Iterable[str]:
    return (line.rpartition(" ")[0] for line in lines if line and not line.startswith("#"))


def _family_names(lines: Iterable[str]) -> Iterable[str]:
    return (line.split(" ")[2] for line in lines if line.startswith("# TYPE "))


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    repeated = []
    for name in names:
        if name in seen:
            repeated.append(name)
        seen.add(name)
    return repeated


def _sample(connection: Connection, ref: JudgedRef) -> RefSample:
    """What is exported of a version; the verdict alone where its report cannot be read."""
    judged_at = ref.judged_at.timestamp()
    stored = versions.get(connection, ref.version_id)
    try:
        report = Report.model_validate_json((stored.report if stored else None) or "")
    except ValidationError:
        _LOGGER.warning(
            "the report of %s/%s/%s is missing or of another release: no layer gauges",
            ref.registry, ref.model, ref.version,
        )  # fmt: skip
        return RefSample(
            ref.registry, ref.model, ref.ref, ref.version, ref.fingerprint, ref.verdict, "", "", (), judged_at
        )
    return RefSample(
        registry=ref.registry,
        model=ref.model,
        ref=ref.ref,
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
        judged_at=judged_at,
    )
