"""What is asked of a signed verdict that is genuine."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from layerwatch.metrics.findings import Verdict

if TYPE_CHECKING:
    from layerwatch.daemon.attestation.statement import JudgingRules, Predicate

_AHEAD = timedelta(minutes=5)
"""So far may the clock of who signed be ahead."""


class Requirement(StrEnum):
    """What a verdict must be. GATE asks for the outcome of the gate, whatever it was told to let through."""

    PASS = "pass"
    WARN = "warn"
    GATE = "gate"
    ANY = "any"


_ABOUT_WEIGHTS = (Requirement.PASS, Requirement.WARN)
"""What says something about the weights, and so needs a baseline and the rules; the others take what the gate took."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is asked of a verdict that is genuine.

    Attributes:
        require: how good it must be; WARN takes pass and warn.
        max_age: how old it may be; None for any age.
        baseline_fingerprint: what the model must have been held against; None for any baseline.
        allow_no_baseline: take a pass or a warn without a baseline, by which hardly anything can be seen.
        rules_digest: of the rule settings by which it must have been judged; None for those of the defaults.
        allow_other_rules: take a pass or a warn by any rule settings, rules that were switched off included.
    """

    require: Requirement = Requirement.PASS
    max_age: timedelta | None = None
    baseline_fingerprint: str | None = None
    allow_no_baseline: bool = False
    rules_digest: str | None = None
    allow_other_rules: bool = False


def shortcomings(predicate: Predicate, policy: Policy, now: datetime) -> list[str]:
    """Why a genuine verdict is not good enough: a sentence each, none where it is."""
    found = []
    if not _is_good(predicate, policy.require):
        said, asked = f"the verdict is {predicate.verdict}", f"{policy.require}"
        if policy.require is Requirement.WARN:
            asked = "pass or warn"
        elif policy.require is Requirement.GATE:
            said, asked = f"the gate's exit code was {predicate.gate.exit_code}", "0"
        found.append(f"{said}; {asked} is asked for")
    if policy.max_age is not None:
        age = now - predicate.time
        if age > policy.max_age:
            found.append(f"it is of {predicate.time.isoformat()}, longer ago than --max-age allows")
        elif age < -_AHEAD:
            found.append(f"it is of {predicate.time.isoformat()}, which is not yet: a clock is wrong")
    return found + _of_baseline(predicate, policy) + _of_rules(predicate, policy)


def _of_baseline(predicate: Predicate, policy: Policy) -> list[str]:
    wanted = policy.baseline_fingerprint
    against = predicate.baseline.fingerprint if predicate.baseline is not None else None
    if against is None:
        if wanted is None and (policy.allow_no_baseline or policy.require not in _ABOUT_WEIGHTS):
            return []
        return ["the model was held against no baseline (--allow-no-baseline takes that)"]
    if wanted is not None and not hmac.compare_digest(against, wanted):
        return [f"the model was held against another baseline ({against})"]
    return []


def _of_rules(predicate: Predicate, policy: Policy) -> list[str]:
    rules, wanted = predicate.rules, policy.rules_digest
    if wanted is not None:
        if rules is None or not hmac.compare_digest(rules.sha256, wanted):
            return [f"the model was judged by other rule settings ({rules.sha256 if rules else 'not told'})"]
        return []
    if policy.allow_other_rules or policy.require not in _ABOUT_WEIGHTS:
        return []
    if rules is None:
        return [
            "it does not say by which rule settings the model was judged (--allow-other-rules takes that)"
        ]
    if rules.are_default:
        return []
    options = f"--rules-digest {rules.sha256} takes exactly these, --allow-other-rules any"
    return [f"the model was judged by other rule settings than the defaults: {told_rules(rules)} ({options})"]


def told_rules(rules: JudgingRules) -> str:
    """Which rules were not checked as they are by default, in words; empty where there is none."""
    parts = (("switched off", rules.switched_off), ("altered", rules.altered))
    return "; ".join(f"{what} {', '.join(names)}" for what, names in parts if names)


def _is_good(predicate: Predicate, require: Requirement) -> bool:
    match require:
        case Requirement.PASS:
            return predicate.verdict is Verdict.PASS
        case Requirement.WARN:
            return predicate.verdict in (Verdict.PASS, Verdict.WARN)
        case Requirement.GATE:
            return predicate.gate.exit_code == 0
        case Requirement.ANY:
            return True
