"""Part g: what scrapes of 100,000 series cost the daemon, and one model's change among them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

from layerwatch.daemon.snapshot import Snapshot
from layerwatch.daemon.store import refs, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.queue import claim_next
from layerwatch.daemon.store.records import Lineage, VersionKey
from layerwatch.metrics.findings import LayerStatus, Verdict
from layerwatch.metrics.report import (
    BaselinePart,
    ChangePart,
    LayerMetrics,
    LayerPart,
    ModelPart,
    Report,
    ToolPart,
)
from layerwatch_bench.plan import Plan
from layerwatch_bench.table import Row
from layerwatch_testing.daemons import DaemonProcess, directory, write_config

SERIES = 100_000
SCRAPE_TARGET = 0.050
MEMORY_TARGET = 300e6
CHANGE_TARGET = 2.0

_LAYERS = 140
"""Of one model; about as many as a language model of 2 billion weights has."""

_REGISTRY = "prod"
_SCRAPES = 31
_PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}


def exposition(plan: Plan) -> Iterator[Row]:
    """The rows of this part."""
    folder = plan.folder / "exposition"
    folder.mkdir()
    models = (SERIES // 10 if plan.quick else SERIES) // (_LAYERS * 7)
    config = write_config(folder / "layerwatch.yaml", directory(_REGISTRY, folder / "not-mounted"))
    yield _change(folder, models, plan)
    with DaemonProcess(config) as daemon:
        daemon.wait_until_listening()
        yield from _scrapes(daemon, plan)


def _change(folder: Path, models: int, plan: Plan) -> Row:
    database = Database.open(f"sqlite:///{folder / 'layerwatch.db'}")
    try:
        for number in range(models):
            _judge(database, f"model-{number:04}", "1")
        snapshot = Snapshot(database, 10_000, "https://layerwatch.example.org")
        began = time.perf_counter()
        snapshot.refresh()
        first = time.perf_counter() - began
        _judge(database, "model-0000", "2")
        began = time.perf_counter()
        snapshot.refresh()
        change = time.perf_counter() - began
        series = snapshot.exposition.series
    finally:
        database.close()
    return Row(
        "g",
        f"one model of {models} changes, {series:,} series",
        f"all at start {first:.2f} s",
        f"{change:.2f} s",
        f"below {CHANGE_TARGET:.0f} s",
        plan.judged(change < CHANGE_TARGET),
        {"models": models, "series": series, "first_seconds": first, "change_seconds": change},
    )


def _scrapes(daemon: DaemonProcess, plan: Plan) -> Iterator[Row]:
    for name, headers in (
        ("as Prometheus asks", _PROMETHEUS),
        ("not compressed", {"Accept-Encoding": "identity"}),
    ):
        times, sizes = [], []
        with requests.Session() as session:
            for _ in range(_SCRAPES):
                began = time.perf_counter()
                with session.get(
                    f"{daemon.address}/metrics", headers=headers, stream=True, timeout=60
                ) as answer:
                    # Without unpacking: that is the scraper's work.
                    sizes.append(len(answer.raw.read(decode_content=False)))
                times.append(time.perf_counter() - began)
        median = statistics.median(times)
        yield Row(
            "g",
            f"a scrape, {name}",
            f"{sizes[-1] / 1e6:.2f} MB, slowest {max(times) * 1e3:.0f} ms",
            f"{median * 1e3:.0f} ms",
            f"below {SCRAPE_TARGET * 1e3:.0f} ms",
            plan.judged(median < SCRAPE_TARGET),
            {"seconds": times, "bytes": sizes[-1]},
        )
    status = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    memory = {
        key: int(value.split()[0]) * 1024
        for key, value in (line.split(":", 1) for line in status if line.startswith(("VmRSS", "VmHWM")))
    }
    yield Row(
        "g",
        "memory of the daemon after these scrapes",
        f"peak {memory['VmHWM'] / 1e6:.0f} MB",
        f"{memory['VmRSS'] / 1e6:.0f} MB",
        f"below {MEMORY_TARGET / 1e6:.0f} MB",
        plan.judged(memory["VmHWM"] < MEMORY_TARGET),
        dict(memory),
    )


def _judge(database: Database, model: str, version: str) -> None:
    """A version that passed, and the ref ``latest`` on it."""
    now = datetime.now(UTC)
    key = VersionKey(_REGISTRY, model, version)
    with database.write() as connection:
        record = versions.register(
            connection, key, f"{model}-{version}", f"/{model}/{version}", version, Lineage(), now
        )
        claim_next(connection, now)
        report = _report(model, version)
        versions.record_verdict(connection, record.id, Verdict.PASS, report.to_json(), (), now)
        refs.point(connection, _REGISTRY, model, "latest", record.id, now)


def _report(model: str, version: str) -> Report:
    part = ModelPart(
        source=f"/{model}/{version}", name=model, version=version, fingerprint="ab" * 32, format="safetensors",
        size_bytes=10**9,
    )  # fmt: skip
    return Report(
        model=part,
        baseline=BaselinePart(
            **(part.model_dump() | {"version": "0"}), relation="finetuned", chosen_by="parent"
        ),
        verdict=Verdict.PASS,
        regime="aligned",
        findings=(),
        layers=tuple(_layer(number) for number in range(_LAYERS)),
        skipped=(),
        blind_spots=(),
        timings={},
        tool=ToolPart(version="0", metric_set="0", rule_set="0"),
    )


def _layer(number: int) -> LayerPart:
    value = 3.0 + number / 1000
    return LayerPart(
        name=f"model.layers.{number // 7}.mlp.part_{number % 7}_projection",
        kind="linear",
        shape=(4096, 4096),
        dtype="BF16",
        status=LayerStatus.OK,
        metrics=LayerMetrics(**_numbers(LayerMetrics, value)),
        change=ChangePart(
            **(
                {name: None for name in ChangePart.model_fields}
                | {"new_zero_rows": 0, "new_zero_columns": 0}
                | _numbers(ChangePart, value)
            )
        ),
    )


def _numbers(part: type[LayerMetrics | ChangePart], value: float) -> dict[str, Any]:
    """Every number of a part of the report, as in a report of a real layer."""
    return {name: value for name, field in part.model_fields.items() if field.annotation == float | None}
