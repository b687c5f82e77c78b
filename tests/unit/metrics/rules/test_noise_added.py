"""Noise on top of a layer of another training: larger, and less in step than the baseline's."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.findings import Finding, Severity
from layerwatch_testing.examinations import aligned, change, coupling, examination, findings_of, layer

NAMES = [f"fc{number}" for number in range(1, 7)]


def interfaces(kept: float) -> tuple[Coupling, ...]:
    """A chain in which the couplings of ``fc3`` have kept this share of their strength."""
    return tuple(
        coupling(
            CouplingKind.INTERFACE_UNITS,
            30.0 * (kept if "fc3" in names else 1.0),
            *names,
            sides=(Side.OUTPUTS, Side.INPUTS),
        )
        for names in pairwise(NAMES)
    )


def found(growth: float, kept: float) -> list[Finding]:
    """What is said when the norm of ``fc3`` grew by a factor and its couplings kept this share."""
    layers = [
        layer(
            name,
            change=change(aligned=aligned(1.4, 0.0), norm_ratio=growth if name == "fc3" else 1.0),
        )
        for name in NAMES
    ]
    version = examination(*layers, couplings=interfaces(kept), baseline_couplings=interfaces(1.0))
    return findings_of("noise_added", version)


def test_noise_as_large_as_the_layer_is_critical() -> None:
    # Squared norms add up; of a coupling 2^-0.75 is left.
    (finding,) = found(sqrt(2.0), 2.0**-0.75)
    assert (finding.layer, finding.severity) == ("fc3", Severity.CRITICAL)
    assert finding.evidence["limit"] == 8.0


def test_evidence_beyond_what_healthy_trainings_gave_is_a_warning_below_the_limit() -> None:
    (finding,) = found(1.25, 0.78)
    evidence = finding.evidence["evidence"]
    assert isinstance(evidence, float)
    assert 6.4 < evidence < 8.0
    assert finding.severity is Severity.WARNING


def test_a_larger_layer_in_step_and_a_layer_out_of_step_of_the_same_size_are_none() -> None:
    assert found(sqrt(2.0), 1.0) == []
    assert found(1.0, 0.5) == []
