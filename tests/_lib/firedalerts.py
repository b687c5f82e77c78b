"""Alerts in a store, as the daemon leaves them there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from layerwatch.alerts.lifecycle import advance
from layerwatch.alerts.model import AlertIdentity, AlertState, Observation
from layerwatch.alerts.payload import AlertContext, describe
from layerwatch.daemon.store import alerts
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from storetools import NOW


def fired(
    connection: sa.Connection,
    name: str = "prod/fraud",
    ref: str = "latest",
    version: str = "v3",
    layers: Sequence[str | None] = ("fc1",),
    severity: Severity = Severity.CRITICAL,
    rule: str = "nan",
    group: RuleGroup = RuleGroup.WEIGHTS,
    numbers: str = "alpha 5.3 -> 22.6, 24 sigma",
    now: datetime = NOW,
) -> AlertState:
    """An alert about REGISTRY/MODEL that begins, or goes on with further layers or a worse severity."""
    registry, _, model = name.partition("/")
    identity = AlertIdentity(registry, model, ref, group)
    findings = tuple(
        Finding(rule, group, severity, layer, "3 weights are NaN", {"nan": 3}) for layer in layers
    )
    return _seen(connection, identity, version, findings, now, numbers)


def ended(
    connection: sa.Connection, state: AlertState, version: str = "v4", now: datetime = NOW
) -> AlertState:
    """The same alert after a version that passed."""
    return _seen(connection, state.identity, version, (), now, "")


def _seen(
    connection: sa.Connection,
    identity: AlertIdentity,
    version: str,
    findings: tuple[Finding, ...],
    now: datetime,
    numbers: str,
) -> AlertState:
    verdict = Verdict.FAIL if findings else Verdict.PASS
    observation = Observation(identity, version, f"bytes-of-{version}", verdict, findings, scan=version)
    state, transitions = advance(alerts.load_state(connection, identity), observation, now)
    assert state is not None
    alerts.save_state(connection, state)
    for transition in transitions:
        context = AlertContext(numbers={one.layer: numbers for one in findings if one.layer})
        alerts.record_transition(connection, transition)
        alerts.save_told(connection, identity, json.dumps(describe(transition, context)))
    return state
