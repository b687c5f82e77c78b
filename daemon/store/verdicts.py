"""Verdicts and findings of versions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from layerwatch.daemon.store import modelsummaries, summaries, tables
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.daemon.store.records import VersionState
from layerwatch.daemon.store.summaries import LayerSummary
from layerwatch.daemon.store.versionrows import describe, fetch
from layerwatch.metrics.findings import EvidenceValue, Finding, RuleGroup, Severity, Verdict

_FINDINGS = tables.findings


def record_verdict(
    connection: sa.Connection,
    version_id: int,
    verdict: Verdict,
    report_json: str,
    findings: Sequence[Finding],
    now: datetime,
    layers: Sequence[LayerSummary] | None = None,
) -> None:
    """Close a scan: the version is judged, its report, findings and summary replace those of an earlier scan.

    Evidence that is not finite is kept as None.

    Args:
        layers: those of the report, where they are at hand; None to read them from its text, which takes longer.

    Raises:
        StoreError: ``not_found``; ``already_judged``.
    """
    version = fetch(connection, version_id)
    if version.state is VersionState.JUDGED:
        detail = f"{describe(version)} has its verdict already; reopen it before another scan"
        raise StoreError(StoreReason.ALREADY_JUDGED, detail)
    connection.execute(
        sa.update(tables.versions)
        .where(tables.versions.c.id == version_id)
        .values(
            state=VersionState.JUDGED.value,
            verdict=verdict.value,
            report=report_json,
            judged_at=now,
            not_before=None,
        )
    )
    found = summaries.layers_of_text(report_json) if layers is None else layers
    summaries.save(connection, version_id, verdict, found, findings)
    modelsummaries.touch(connection, version.key.registry, version.key.model)
    connection.execute(sa.delete(_FINDINGS).where(_FINDINGS.c.version_id == version_id))
    if findings:
        connection.execute(
            sa.insert(_FINDINGS),
            [
                {
                    "version_id": version_id,
                    "position": position,
                    "rule": finding.rule,
                    "rule_group": finding.group.value,
                    "severity": finding.severity.value,
                    "layer": finding.layer,
                    "message": finding.message,
                    "evidence": {name: _finite(value) for name, value in finding.evidence.items()},
                    "strength": finding.strength,
                }
                for position, finding in enumerate(findings)
            ],
        )


def findings(connection: sa.Connection, version_id: int) -> list[Finding]:
    """The findings of a version's last scan, in the order in which they were recorded."""
    query = sa.select(_FINDINGS).where(_FINDINGS.c.version_id == version_id).order_by(_FINDINGS.c.position)
    return [
        Finding(
            rule=row.rule,
            group=RuleGroup(row.rule_group),
            severity=Severity(row.severity),
            layer=row.layer,
            message=row.message,
            evidence=row.evidence,
            # SQLite keeps NaN as NULL.
            strength=math.nan if row.strength is None else row.strength,
        )
        for row in connection.execute(query)
    ]


def _finite(value: EvidenceValue) -> EvidenceValue:
    return None if isinstance(value, float) and not math.isfinite(value) else value
