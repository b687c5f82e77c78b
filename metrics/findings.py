"""Severity, finding, layer status and verdict: the words in which every judgement is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is. Ordered: info < warning < critical."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for critical."""
        return _SEVERITY_ORDER.index(self)

    def at_least(self, other: Severity) -> bool:
        """True when this severity is as bad as ``other`` or worse."""
        return self.rank >= other.rank


_SEVERITY_ORDER = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)


class Verdict(StrEnum):
    """The judgement of one version.

    ``undecided`` says that something that had to be examined could not be. It is never a pass; a critical
    finding outweighs it (``fail``), because what was seen is bad whatever was not seen.
    """

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    UNDECIDED = "undecided"


class LayerStatus(StrEnum):
    """The state of one layer in a report."""

    OK = "ok"
    INFO = "info"
    SUSPECT = "suspect"
    BROKEN = "broken"
    UNDECIDED = "undecided"


class RuleGroup(StrEnum):
    """What a rule looks after. One alert per (registry, model, ref, rule group)."""

    WEIGHTS = "weights"
    INTEGRITY = "integrity"
    EXAMINATION = "examination"
    DELIVERY = "delivery"
    """No rule's: events that a receiver never took. Its alerts are about the daemon's own work, not about a model."""


EvidenceValue = float | int | str | bool | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation of one rule.

    Attributes:
        rule: name of the rule (= file name, config key, metric label, ``layerwatch explain`` argument).
        group: what the rule looks after; decides which alert the finding belongs to.
        severity: info, warning or critical.
        layer: name of the layer or vector, or None when the finding concerns the whole version.
        message: one plain sentence with the decisive numbers.
        evidence: the numbers, each beside the reference it was compared with; finite or None.
        strength: signal divided by threshold (>= 1 for a violation), for ranking; not a probability.
    """

    rule: str
    group: RuleGroup
    severity: Severity
    layer: str | None
    message: str
    evidence: Mapping[str, EvidenceValue] = field(default_factory=dict)
    strength: float = 1.0
