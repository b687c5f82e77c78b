"""What would happen if a ref pointed at another version: which alerts it would raise, and which resolve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from layerwatch.alerts.model import AlertPhase
from layerwatch.daemon.alerting import AlertPolicy, follow_refs
from layerwatch.daemon.store import alerts, refs, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionKey, VersionRecord, VersionState
from layerwatch.metrics.findings import Verdict


@dataclass(frozen=True, slots=True)
class AlertChange:
    """One alert that a move of the ref would raise or resolve.

    Attributes:
        group: rule group of the alert.
        severity: worst severity of what fires.
        layers: layers it is about; the empty name stands for the version as a whole.
    """

    group: str
    severity: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AsIf:
    """The answer.

    Attributes:
        ref, version: what was asked.
        before: version that the ref points at now; None where there is no such ref.
        verdict: of the asked version; None while it waits for its scan.
        raised, still_firing, resolved: alerts of the ref, held against what fires now.
    """

    registry: str
    model: str
    ref: str
    version: str
    before: str | None
    verdict: Verdict | None
    raised: tuple[AlertChange, ...]
    still_firing: tuple[AlertChange, ...]
    resolved: tuple[AlertChange, ...]

    def to_json(self) -> dict[str, Any]:
        """As data."""
        return asdict(self)


class UnknownVersionError(Exception):
    """The store holds no such version of the model; the message names those it holds."""


class _NothingHappened(Exception):  # noqa: N818 - ends a transaction that was only a question
    pass


def as_if(
    database: Database,
    registry: str,
    model: str,
    ref: str,
    version: str,
    policy: AlertPolicy,
    now: datetime,
) -> AsIf:
    """Move the ref in a transaction that is taken back.

    Args:
        policy: what fires; nobody is told, whatever its receivers.

    Raises:
        UnknownVersionError.
    """
    with database.read() as connection:
        target = versions.current(connection, VersionKey(registry, model, version))
        if target is None:
            known = {one.key.version for one in versions.of_model(connection, registry, model)}
            shown = ", ".join(sorted(known)[-10:]) or "none"
            raise UnknownVersionError(
                f"the store holds no version {version} of {registry}/{model}; it holds {shown}"
            )
        targets = refs.targets(connection, registry, model)
        before = _firing(connection, registry, model, ref)
    after = before
    silent = AlertPolicy(policy.fire_on, None, policy.for_scans)
    if target.state is VersionState.JUDGED:
        try:
            with database.write() as connection:
                follow_refs(connection, registry, model, {**targets, ref: version}, silent, now)
                after = _firing(connection, registry, model, ref)
                raise _NothingHappened
        except _NothingHappened:
            pass
    return AsIf(
        registry,
        model,
        ref,
        version,
        targets.get(ref),
        _verdict(target),
        tuple(change for group, change in after.items() if group not in before),
        tuple(change for group, change in after.items() if group in before),
        tuple(change for group, change in before.items() if group not in after),
    )


def _verdict(version: VersionRecord) -> Verdict | None:
    return version.verdict if version.state is VersionState.JUDGED else None


def _firing(connection: Connection, registry: str, model: str, ref: str) -> Mapping[str, AlertChange]:
    states = alerts.list_states(connection, phase=AlertPhase.FIRING, registry=registry, model=model)
    return {
        state.identity.group.value: AlertChange(state.identity.group.value, str(state.severity), state.layers)
        for state in states
        if state.identity.ref == ref
    }
