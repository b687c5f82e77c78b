"""A store as large as a fleet: thousands of models with their versions, layers, findings and alerts. Nothing is scanned.

    python tests/bench/pages/generate.py sqlite:////tmp/fleet.db --models 5000 --versions 50

What the pages read is there in the size it has in practice. Left out are arrays of measurements, and reports of all but
the last versions, which no page about many versions reads.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "_lib")]

import sqlalchemy as sa

from layerwatch.alerts.model import AlertPhase
from layerwatch.daemon.store import measurements, modelsummaries, summaries, tables
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.ordering import sort_key
from layerwatch.daemon.store.summaries import LayerSummary
from layerwatch.metrics.findings import LayerStatus, RuleGroup, Severity, Verdict
from layerwatch.metrics.measurement import METRIC_SET
from layerwatch.metrics.report import (
    BaselinePart,
    ChangePart,
    DiagnosisPart,
    FindingPart,
    LayerMetrics,
    LayerPart,
    ModelPart,
    Report,
    ToolPart,
)
from storetools import measurement

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
END = BEGIN + timedelta(days=200)
REGISTRIES = ("prod", "staging", "hub")

_FAMILIES = ("fraud", "churn", "ranking", "search", "vision", "speech", "pricing", "demand")
_VERDICTS = (Verdict.PASS, Verdict.WARN, Verdict.FAIL, Verdict.UNDECIDED)
_WEIGHTS = (90, 6, 3, 1)
_MODELS_AT_A_TIME = 100
_REPORTS = 5
"""The newest versions of each model that have one."""

_STATUS = {
    Verdict.PASS: LayerStatus.OK,
    Verdict.WARN: LayerStatus.SUSPECT,
    Verdict.FAIL: LayerStatus.BROKEN,
    Verdict.UNDECIDED: LayerStatus.UNDECIDED,
}
_WORDS = "same direction as the baseline (cosine 0.990) but 125 times smaller: a wrong scale"


@dataclass(frozen=True, slots=True)
class Size:
    """How much to generate."""

    models: int = 5000
    versions: int = 50
    layers: int = 10


def name_of(place: int) -> tuple[str, str]:
    """Registry and name of a model by its place."""
    return REGISTRIES[place % len(REGISTRIES)], f"{_FAMILIES[place % len(_FAMILIES)]}-model-{place:05}"


def generate(database: Database, size: Size) -> None:
    """Fill an empty store; always with the same."""
    chance = random.Random(0)
    with database.write() as connection:
        measurements.save(connection, measurement("template"), BEGIN)
        template = dict(connection.execute(sa.select(tables.measurements)).mappings().one())
        connection.execute(sa.delete(tables.measurements))
    for first in range(0, size.models, _MODELS_AT_A_TIME):
        last = min(first + _MODELS_AT_A_TIME, size.models)
        with database.write() as connection:
            rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in _TABLES}
            for place in range(first, last):
                for table, row in _model(place, size, template, chance):
                    rows[table.name].append(row)
                modelsummaries.touch(connection, *name_of(place))
            for table in _TABLES:
                if rows[table.name]:
                    connection.execute(sa.insert(table), rows[table.name])
            # Most rows of all: past SQLAlchemy, which takes several times as long.
            layers = [one for place in range(first, last) for one in _content_layers(place, size)]
            mark = "%s" if connection.dialect.name == "postgresql" else "?"
            connection.exec_driver_sql(_INSERT_LAYER.replace("?", mark), layers)


_TABLES = (
    tables.versions,
    tables.version_summaries,
    tables.findings,
    tables.contents,
    tables.measurements,
    tables.lineage_edges,
    tables.refs,
    tables.baseline_events,
    tables.alert_states,
)
Row = tuple[sa.Table, dict[str, Any]]
_INSERT_LAYER = (
    "INSERT INTO content_layers (content_id, position, name, kind, shape, dtype, digest) "
    "VALUES (?, ?, ?, 'linear', '[768,768]', 'F32', ?)"
)


def _names(size: Size) -> list[str]:
    return [f"blocks.{number // 2}.{'attention' if number % 2 else 'mlp'}" for number in range(size.layers)]


def _content_layers(place: int, size: Size) -> Iterator[tuple[int, int, str, str]]:
    names = _names(size)
    for version in range(size.versions):
        for number, name in enumerate(names):
            state = int(number == version % len(names))
            yield place * size.versions + version + 1, number, name, _digest(place, number, state)


def _model(place: int, size: Size, template: dict[str, Any], chance: random.Random) -> Iterator[Row]:
    registry, model = name_of(place)
    names = _names(size)
    alphas = [chance.uniform(2.0, 6.0) for _ in names]
    # Two states of every layer: most versions leave most layers as they were.
    for number, alpha in enumerate(alphas):
        for state in range(2):
            yield (
                tables.measurements,
                _measurement(template, _digest(place, number, state), alpha + state / 4),
            )
    for version in range(size.versions):
        row = place * size.versions + version + 1
        verdict = chance.choices(_VERDICTS, _WEIGHTS)[0]
        hit = chance.randrange(len(names)) if verdict is not Verdict.PASS else None
        layers = [
            LayerSummary(
                name,
                _STATUS[verdict] if number == hit else LayerStatus.OK,
                round(alphas[number] + chance.gauss(0.0, 0.1), 4),
                0.12,
                round(abs(chance.gauss(0.1, 0.05)), 4),
                True,
            )
            for number, name in enumerate(names)
        ]
        at = BEGIN + timedelta(hours=version * 90, seconds=place)
        is_last = version == size.versions - 1
        yield tables.versions, _version(place, version, row, verdict, layers, at, size)
        yield from _summary_and_findings(row, verdict, layers, hit)
        yield tables.contents, _content(row, at)
        if version:
            yield tables.lineage_edges, _edge(row, version, at)
        if is_last and chance.random() < 0.8:
            yield tables.refs, {
                "registry": registry, "model": model, "ref": "latest", "version_id": row, "moved_at": at,
            }  # fmt: skip
        if is_last and verdict is Verdict.FAIL:
            yield tables.alert_states, _alert(registry, model, version, row, at)
            if place % 4 == 0:
                yield tables.baseline_events, {
                    "registry": registry, "model": model, "version": f"v{version + 1}",
                    "fingerprint": _fingerprint(row), "kind": "accepted", "actor": "ann",
                    "reason": "meant to be so", "at": at,
                }  # fmt: skip


def _version(
    place: int,
    version: int,
    row: int,
    verdict: Verdict,
    layers: list[LayerSummary],
    at: datetime,
    size: Size,
) -> dict[str, Any]:
    registry, model = name_of(place)
    has_report = version >= size.versions - _REPORTS
    return {
        "id": row,
        "registry": registry,
        "model": model,
        "version": f"v{version + 1}",
        "revision": 1,
        "is_current": True,
        "fingerprint": _fingerprint(row),
        "source_path": f"/models/{model}/v{version + 1}",
        "order_key": f"v{version + 1}",
        "sort_key": sort_key(f"v{version + 1}"),
        "parent": f"v{version}" if version else None,
        "relation": "finetuned" if version else None,
        "lineage_source": "card" if version else None,
        "lineage_confidence": 0.9 if version else None,
        "state": "judged",
        "attempts": 1,
        "discovered_at": at,
        "judged_at": at + timedelta(minutes=1),
        "verdict": verdict.value,
        "report": _report(registry, model, version, row, verdict, layers) if has_report else None,
    }


def _summary_and_findings(
    row: int, verdict: Verdict, layers: list[LayerSummary], hit: int | None
) -> Iterator[Row]:
    layer = layers[hit].name if hit is not None else None
    yield (
        tables.version_summaries,
        {
            "version_id": row,
            **summaries.numbers_of(layers),
            "worst_layer": layer,
            "worst_words": _WORDS if layer is not None else None,
        },
    )
    if layer is not None:
        yield tables.findings, {
            "version_id": row, "position": 0, "rule": "scaled", "rule_group": "weights",
            "severity": "critical" if verdict is Verdict.FAIL else "warning", "layer": layer,
            "message": _WORDS, "evidence": {"cosine": 0.99, "ratio": 0.008}, "strength": 3.0,
        }  # fmt: skip


def _content(row: int, at: datetime) -> dict[str, Any]:
    return {
        "id": row, "fingerprint": _fingerprint(row), "metric_set": METRIC_SET, "format": "safetensors",
        "size_bytes": 10**8, "skipped": [], "measure_seconds": 1.5, "saved_at": at,
    }  # fmt: skip


def _measurement(template: dict[str, Any], digest: str, alpha: float) -> dict[str, Any]:
    numbers = {**template["scalars"]["numbers"], "alpha": alpha, "alpha_sigma": 0.12, "fit_status": "ok"}
    scalars = {**template["scalars"], "numbers": numbers, "folded": numbers}
    return {**template, "digest": digest, "scalars": scalars, "shape": [768, 768], **dict.fromkeys(_ARRAYS)}


_ARRAYS = ("spectrum", "folded_spectrum", "row_norms", "column_norms", "sketch", "raw_sketch")


def _edge(row: int, version: int, at: datetime) -> dict[str, Any]:
    return {
        "version_id": row, "position": 0, "parent": f"v{version}", "parent_name": f"v{version}",
        "parent_version_id": row - 1, "relation": "finetuned", "source": "card", "confidence": 0.9,
        "found_at": at,
    }  # fmt: skip


def _alert(registry: str, model: str, version: int, row: int, at: datetime) -> dict[str, Any]:
    return {
        "registry": registry, "model": model, "ref": "latest", "rule_group": RuleGroup.WEIGHTS.value,
        "phase": AlertPhase.FIRING.value, "episode": 1, "version": f"v{version + 1}",
        "fingerprint": _fingerprint(row), "severity": Severity.CRITICAL.value, "layers": ["blocks.0.mlp"],
        "started_at": at, "sequence": 1, "changed_at": at, "reason": "first", "event_id": f"evt_{row}",
        "rules": ["scaled"], "pending": {"scan": "", "counts": {}},
    }  # fmt: skip


def _report(
    registry: str, model: str, version: int, row: int, verdict: Verdict, layers: list[LayerSummary]
) -> str:
    source = f"{registry}:/models/{model}/v{version + 1}"
    part = {"name": model, "format": "safetensors", "size_bytes": 10**8}
    worst = next((one for one in layers if one.status is not LayerStatus.OK), None)
    severity = "critical" if verdict is Verdict.FAIL else "warning"
    return Report(
        model=ModelPart(source=source, version=f"v{version + 1}", fingerprint=_fingerprint(row), **part),
        baseline=BaselinePart(
            source=source, version=f"v{version}", fingerprint=_fingerprint(row - 1), relation="finetuned",
            chosen_by="parent", **part,
        ),
        verdict=verdict,
        regime="aligned",
        diagnoses=() if worst is None else (
            DiagnosisPart(
                layer=worst.name, severity=severity, defect="scaled",
                title="one layer multiplied by a wrong factor", likely_cause="a conversion",
                what_to_do="convert again", confirmed_by=(), layers=1,
            ),
        ),
        findings=() if worst is None else (
            FindingPart(rule="scaled", severity=severity, layer=worst.name, message=_WORDS, evidence={"cosine": 0.99}),
        ),
        layers=tuple(_layer(one) for one in layers),
        skipped=(),
        blind_spots=("Nothing was run.",),
        timings={"measure_seconds": 1.5},
        tool=ToolPart(version="0.1.0", metric_set=METRIC_SET, rule_set="1"),
        complete=True,
    ).to_json()  # fmt: skip


def _layer(layer: LayerSummary) -> LayerPart:
    change = dict.fromkeys(ChangePart.model_fields)
    change |= {"relative_change": layer.relative_change, "alpha_baseline": layer.alpha, "method": "exact"}
    return LayerPart(
        name=layer.name,
        kind="linear",
        shape=(768, 768),
        dtype="F32",
        status=layer.status,
        metrics=LayerMetrics(alpha=layer.alpha, alpha_sigma=layer.sigma, fit_status="ok", stable_rank=12.5),
        change=ChangePart.model_validate({**change, "new_zero_rows": 0, "new_zero_columns": 0}),
    )


def _digest(place: int, number: int, state: int) -> str:
    return f"{place:08x}{number:04x}{state:04x}".ljust(64, "0")


def _fingerprint(row: int) -> str:
    return f"{row:08x}".ljust(64, "f")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", help="of the database, as store.url has it; must hold no versions yet")
    for field, default in (("models", 5000), ("versions", 50), ("layers", 10)):
        parser.add_argument(f"--{field}", type=int, default=default)
    arguments = parser.parse_args()
    began = time.monotonic()
    database = Database.open(arguments.url)
    with database.read() as connection:
        if connection.execute(sa.select(tables.versions.c.id).limit(1)).first() is not None:
            parser.error("there are versions in it already")
    generate(database, Size(arguments.models, arguments.versions, arguments.layers))
    database.close()
    print(f"{arguments.models} models x {arguments.versions} versions in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
