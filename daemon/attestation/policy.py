"""What is asked of a signed verdict that is genuine."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from layerwatch.metrics.findings import Verdict

if TYPE_CHECKING:
    from layerwatch.daemon.attestation.statement import Predicate

_AHEAD = timedelta(minutes=5)
"""So far may the clock of who signed be ahead."""


class Requirement(StrEnum):
    """What a verdict must be. GATE asks for the outcome of the gate, whatever it was told to let through."""

    PASS = "pass"
    WARN = "warn"
    GATE = "gate"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Policy:
    """What is asked of a verdict that is genuine.

    Attributes:
        require: how good it must be; WARN takes pass and warn.
        max_age: how old it may be; None for any age.
        baseline_fingerprint: what the model must have been held against; None for anything, nothing included.
    """

    require: Requirement = Requirement.PASS
    max_age: timedelta | None = None
    baseline_fingerprint: str | None = None


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
    wanted = policy.baseline_fingerprint
    if wanted is not None:
        against = predicate.baseline.fingerprint if predicate.baseline is not None else None
        if against is None:
            found.append("the model was held against no baseline")
        elif not hmac.compare_digest(against, wanted):
            found.append(f"the model was held against another baseline ({against})")
    return found


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
