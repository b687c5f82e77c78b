"""What the rules of faults of quantised storage have in common: the same numbers, each with a sentence of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import EvidenceValue, Finding, RuleGroup, Severity
from layerwatch.metrics.storagefaults import StorageFault, StorageFaultKind


class FaultSettings(Protocol):
    """What every such rule is told."""

    @property
    def severity(self) -> str:
        """How bad it is."""

    @property
    def explained(self) -> float:
        """Share of the squared change that the fault must explain."""


def findings(
    kind: StorageFaultKind,
    rule: tuple[str, RuleGroup],
    settings: FaultSettings,
    examination: Examination,
    context: Context,
    sentence: Callable[[StorageFault], str],
) -> Iterator[Finding]:
    """One finding for each layer with a fault of a kind.

    Args:
        rule: name and group of the rule that asks.
        sentence: the fault in words.
    """
    if not context.regime.comparable:
        return
    name, group = rule
    for layer in examination.layers:
        aligned = layer.change.aligned if layer.change else None
        fault = aligned.fault if aligned else None
        if aligned is None or fault is None or fault.kind is not kind or fault.explained < settings.explained:
            continue
        evidence: dict[str, EvidenceValue] = {
            "explained": fault.explained,
            "limit": settings.explained,
            "group": fault.group,
            "axis": str(fault.axis),
            "relative_change": aligned.relative_change,
        }
        if kind is not StorageFaultKind.ZERO_POINT:
            evidence["spread"] = fault.spread
        yield Finding(
            name,
            group,
            Severity(settings.severity),
            layer.name,
            sentence(fault),
            evidence,
            strength=fault.explained / settings.explained,
        )
