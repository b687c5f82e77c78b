"""Part f: what looks at a registry cost: an MLflow server with many models and versions of which few are new."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from layerwatch.config.registries import MlflowRegistrySettings
from layerwatch.daemon.registries.base import Listing, Registry
from layerwatch.daemon.registries.downloads import Downloads
from layerwatch.daemon.registries.mlflow.registry import build
from layerwatch_bench.plan import Plan
from layerwatch_bench.table import Row
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.servers import ServerMissing
from layerwatch_testing.servers.mlflow import MlflowServerProcess
from layerwatch_testing.unreliable import UnreliableServer

_NEW = 10
_GROWTH = 5
_AGE_MILLISECONDS = 90 * 24 * 3600 * 1000
"""So long ago the first version was made; the last of them a day ago."""


@dataclass(frozen=True, slots=True)
class _Cost:
    """One look.

    Attributes:
        seconds: without the counting in between.
        requests, sent: requests, and bytes of answers, as counted by what stands between.
    """

    seconds: float
    requests: int
    sent: int
    listing: Listing

    def __str__(self) -> str:
        return f"{self.requests} requests, {self.seconds:.2f} s, {self.sent / 1e6:.2f} MB"

    @property
    def figures(self) -> dict[str, object]:
        return {
            "requests": self.requests,
            "seconds": self.seconds,
            "bytes": self.sent,
            "versions": len(self.listing.versions),
            "refs": len(self.listing.refs),
        }


class _Watched:
    """Two registries over one server: one to take the time, one to count."""

    def __init__(self, server: MlflowServerProcess, folder: Path) -> None:
        self._front = UnreliableServer(server.url)
        downloads = Downloads(folder / "downloads", 2**30)
        self._timed, self._counted = (
            build(_settings(url), downloads) for url in (server.url, self._front.url)
        )

    def look(self, everything: bool) -> _Cost:
        """One look of each."""
        began = time.perf_counter()
        listing = _list(self._timed, everything)
        seconds = time.perf_counter() - began
        self._front.forget()
        counted = _list(self._counted, everything)
        assert counted.versions == listing.versions
        return _Cost(seconds, len(self._front.requests), self._front.bytes_sent, listing)

    def close(self) -> None:
        """Stop what stands between."""
        self._front.close()


def registries(plan: Plan) -> Iterator[Row]:
    """The first full look, an idle look, one with new versions, and an idle look at five times as many versions."""
    models, versions = (100, 10) if plan.quick else (2000, 10)
    folder = plan.folder / "mlflow"
    folder.mkdir()
    try:
        server = MlflowServerProcess(folder)
    except ServerMissing as missing:
        yield Row("f", "looks at an MLflow server", "not measured", str(missing))
        return
    watched = _Watched(server, folder)
    try:
        yield from _rows(plan, server, watched, models, versions)
    finally:
        watched.close()
        server.stop()


def _rows(
    plan: Plan, server: MlflowServerProcess, watched: _Watched, models: int, versions: int
) -> Iterator[Row]:
    weights = {"layer.weight": np.eye(2, dtype=np.float32)}
    target = server.folder / "artifacts" / "shared"
    target.mkdir(parents=True)
    write_safetensors(target / "model.safetensors", weights)
    _fill(server, models, 0, versions)
    many = f"MLflow, {models:,} models, {models * versions:,} versions"
    first = watched.look(everything=True)
    found = len(first.listing.versions)
    yield _row(
        f"{many}: first look, at all",
        first,
        f"{found:,} versions",
        f"{models * versions:,}",
        plan,
        found == models * versions,
    )
    idle = watched.look(everything=False)
    yield _row(
        f"{many}: idle look",
        idle,
        f"{len(idle.listing.versions)} versions",
        "0 versions",
        plan,
        not idle.listing.versions and len(idle.listing.refs) == models,
    )
    wanted = set()
    run = server.new_run()
    server.upload(run, "model/model.safetensors", (target / "model.safetensors").read_bytes())
    for number in range(_NEW):
        name = _name(number * models // _NEW)
        wanted.add((name, server.register(name, f"runs:/{run}/model", run)))
    fresh = watched.look(everything=False)
    seen = {(one.model, one.version) for one in fresh.listing.versions}
    refs = {(one.model, one.version) for one in fresh.listing.refs}
    yield _row(
        f"{many}: look with {_NEW} new ones",
        fresh,
        f"{len(seen & wanted)} found, {len(seen - wanted)} others",
        "exactly these",
        plan,
        seen == wanted and wanted <= refs,
    )
    _fill(server, models, versions + 1, _GROWTH * versions)
    watched.look(everything=True)
    larger = watched.look(everything=False)
    yield _row(
        f"MLflow, {models:,} models, {models * versions * _GROWTH:,} versions: idle look",
        larger,
        f"{larger.requests / idle.requests:.2f} x the requests, {larger.sent / idle.sent:.2f} x the bytes "
        "(the time is that of the server's own queries)",
        "no more",
        plan,
        larger.requests <= idle.requests and larger.sent < 1.1 * idle.sent,
    )
    again = watched.look(everything=True)
    yield _row(f"MLflow, {models * versions * _GROWTH:,} versions: full reconcile", again, "", "", plan, None)


def _row(case: str, cost: _Cost, result: str, target: str, plan: Plan, met: bool | None) -> Row:
    judged = None if met is None else plan.judged(met)
    return Row("f", case, str(cost), result, target, judged, cost.figures)


def _list(registry: Registry, everything: bool) -> Listing:
    return registry.listing(datetime.now(UTC), everything)


def _settings(url: str) -> MlflowRegistrySettings:
    return MlflowRegistrySettings.model_validate({"name": "reg", "kind": "mlflow", "url": url})


def _name(number: int) -> str:
    return f"model-{number:05d}"


def _fill(server: MlflowServerProcess, models: int, first: int, last: int) -> None:
    """Write versions ``first`` + 1 to ``last`` of every model straight into the server's database."""
    now = int(time.time() * 1000)
    step = (_AGE_MILLISECONDS - 24 * 3600 * 1000) // (models * last)
    with closing(sqlite3.connect(server.folder / "mlflow.db", timeout=60)) as connection, connection:
        if not first:
            connection.executemany(
                "INSERT INTO registered_models (name, creation_time, last_updated_time) VALUES (?, ?, ?)",
                ((_name(number), now - _AGE_MILLISECONDS, now) for number in range(models)),
            )
        connection.executemany(
            "INSERT INTO model_versions (name, version, creation_time, last_updated_time, current_stage, source, "
            "run_id, status) VALUES (?, ?, ?, ?, 'None', 'mlflow-artifacts:/shared', '', 'READY')",
            (
                (
                    _name(number),
                    version + 1,
                    made := now - _AGE_MILLISECONDS + (version * models + number) * step,
                    made,
                )
                for version in range(first, last)
                for number in range(models)
            ),
        )
