"""The stored history of models judged anew with other settings: what would have fired, beside what did.

Only the store is read. Each version is held against the baseline that its report names, by the element-wise comparison
that was made then where it is kept, else by sketches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from layerwatch.config.rules import RulesSettings
from layerwatch.daemon.alerting import fires
from layerwatch.daemon.baselines import known_relation
from layerwatch.daemon.examining import examine_stored, in_place_change
from layerwatch.daemon.history import load_history
from layerwatch.daemon.measuring import is_complete
from layerwatch.daemon.store import comparisons, contents, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import ContentRecord, VersionRecord
from layerwatch.metrics.change import AlignedChange
from layerwatch.metrics.examination import Examination, Problem
from layerwatch.metrics.findings import Finding, Severity, Verdict
from layerwatch.metrics.judge import judge
from layerwatch.metrics.measurement import METRIC_SET
from layerwatch.metrics.rules import RULE_SET


@dataclass(frozen=True, slots=True)
class Replay:
    """One version, then and with the other settings.

    Attributes:
        revision: 1 for the first bytes under this name.
        baseline: name of the version that it was and is held against, or None.
        verdict, alarms: as recorded; alarms are the findings that fire.
        new_verdict, new_alarms: with the other settings; None and empty where ``not_replayed`` says why.
        rule_set: of the recorded verdict; where it is another than today's, so may be the difference. None if unknown.
    """

    registry: str
    model: str
    version: str
    revision: int
    baseline: str | None
    verdict: Verdict
    alarms: tuple[Finding, ...]
    new_verdict: Verdict | None = None
    new_alarms: tuple[Finding, ...] = ()
    not_replayed: str | None = None
    rule_set: str | None = None

    @property
    def appeared(self) -> tuple[Finding, ...]:
        """Alarms that did not fire then, and would."""
        before = {_identity(alarm) for alarm in self.alarms}
        return tuple(alarm for alarm in self.new_alarms if _identity(alarm) not in before)

    @property
    def vanished(self) -> tuple[Finding, ...]:
        """Alarms that fired then, and would not."""
        if self.not_replayed is not None:
            return ()
        now = {_identity(alarm) for alarm in self.new_alarms}
        return tuple(alarm for alarm in self.alarms if _identity(alarm) not in now)

    @property
    def is_unchanged(self) -> bool:
        """The same alarms and the same verdict; also where nothing could be replayed."""
        if self.not_replayed is not None:
            return True
        return not self.appeared and not self.vanished and self.verdict is self.new_verdict

    @property
    def was_judged_by_other_rules(self) -> bool:
        """Whether today's rules are others than those of the recorded verdict."""
        return self.not_replayed is None and self.rule_set not in (None, RULE_SET)


def replay_model(
    database: Database, registry: str, model: str, rules: RulesSettings, fire_on: Severity
) -> Iterator[Replay]:
    """Every judged version of a model in natural order, all its revisions.

    Args:
        fire_on: severity from which on a finding fires.
    """
    with database.read() as connection:
        records = versions.of_model(connection, registry, model)
    for record in records:
        if record.verdict is not None:
            yield _replayed(database, record, record.verdict, rules, fire_on)


@dataclass(frozen=True, slots=True)
class _Then:
    """What the recorded report says about how the version was judged."""

    baseline: str | None
    baseline_fingerprint: str | None
    relation: str | None
    rule_set: str | None


class _LostError(Exception):
    """The store no longer holds what the replay of a version needs; says what."""


def _replayed(
    database: Database, record: VersionRecord, verdict: Verdict, rules: RulesSettings, fire_on: Severity
) -> Replay:
    with database.read() as connection:
        full = versions.get(connection, record.id)
        found = versions.findings(connection, record.id)
    then = _then(full.report if full is not None else None)
    recorded = Replay(
        record.key.registry,
        record.key.model,
        record.key.version,
        record.revision,
        then.baseline if then is not None else None,
        verdict,
        tuple(finding for finding in found if fires(finding, fire_on)),
        rule_set=then.rule_set if then is not None else None,
    )
    try:
        judgement = judge(_examination(database, record, then), rules)
    except _LostError as lost:
        return replace(recorded, not_replayed=str(lost))
    alarms = tuple(finding for finding in judgement.findings if fires(finding, fire_on))
    return replace(recorded, new_verdict=judgement.verdict, new_alarms=alarms)


def _then(report: str | None) -> _Then | None:
    if report is None:
        return None
    read = json.loads(report)
    baseline = read.get("baseline") or {}
    return _Then(
        baseline.get("version"),
        baseline.get("fingerprint"),
        baseline.get("relation"),
        (read.get("tool") or {}).get("rule_set"),
    )


def _examination(database: Database, record: VersionRecord, then: _Then | None) -> Examination:
    """What the rules saw of a version; raises _LostError."""
    if then is None:
        raise _LostError("its report, which names its baseline, is no longer kept")
    baseline: ContentRecord | None = None
    exact: Mapping[str, AlignedChange] = {}
    problem = None
    with database.read() as connection:
        content = _content(connection, record.fingerprint, "its measurements")
        if then.baseline_fingerprint is not None:
            whose = f"the measurements of its baseline {then.baseline}"
            baseline = _content(connection, then.baseline_fingerprint, whose)
            exact = comparisons.load(connection, record.fingerprint, then.baseline_fingerprint) or {}
            if baseline.file_problem is not None:
                problem = Problem(*baseline.file_problem)
        in_place = in_place_change(connection, record)
        history = load_history(connection, record) if baseline is not None else None
    if problem is not None:
        baseline = None
    return examine_stored(
        database,
        content,
        baseline,
        exact,
        in_place=in_place,
        baseline_problem=problem,
        relation=known_relation(then.relation),
        history=history,
        version=record,
    )


def _content(connection: Connection, fingerprint: str, whose: str) -> ContentRecord:
    content = contents.load(connection, fingerprint, METRIC_SET)
    if content is None or not is_complete(connection, content):
        raise _LostError(f"{whose} are not in the store, or were taken by an older metric set")
    return content


def _identity(alarm: Finding) -> tuple[str, str | None]:
    return alarm.rule, alarm.layer
