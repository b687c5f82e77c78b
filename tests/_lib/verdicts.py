"""Versions with verdicts, as the scan leaves them in the store, and their findings."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from layerwatch.daemon.store import versions
from layerwatch.daemon.store.records import Lineage, VersionRecord
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from storetools import NOW, registered


def critical(
    layer: str | None = "fc2", group: RuleGroup = RuleGroup.WEIGHTS, rule: str = "scaled"
) -> Finding:
    """Something that fires whatever the policy."""
    return Finding(rule, group, Severity.CRITICAL, layer, "norm ratio 8.0", {"norm_ratio": 8.0}, 2.0)


def warning(layer: str | None = "fc2") -> Finding:
    """Something that fires where warnings do."""
    return Finding(
        "zero_rows", RuleGroup.WEIGHTS, Severity.WARNING, layer, "3 rows are zero", {"rows": 3}, 1.0
    )


def unread(layer: str | None = None) -> Finding:
    """A layer that could not be examined, or the version as a whole."""
    return Finding(
        "unreadable",
        RuleGroup.EXAMINATION,
        Severity.WARNING,
        layer,
        "truncated",
        {"reason": "truncated"},
        1.0,
    )


def judge(
    connection: sa.Connection,
    name: str,
    *findings: Finding,
    verdict: Verdict | None = None,
    model: str = "m",
    lineage: Lineage | None = None,
    **report: Any,
) -> VersionRecord:
    """A judged version; its verdict follows from its findings unless given. ``report`` is part of its report."""
    severities = {finding.severity for finding in findings if finding.group is not RuleGroup.EXAMINATION}
    if verdict is None:
        verdict = Verdict.FAIL if Severity.CRITICAL in severities else Verdict.PASS
    record = registered(connection, name, model=model, lineage=lineage)
    baseline = {"version": "v0", "relation": None, "chosen_by": "history"}
    written = json.dumps({"baseline": baseline, "layers": [], **report})
    versions.record_verdict(connection, record.id, verdict, written, list(findings), NOW)
    return record
