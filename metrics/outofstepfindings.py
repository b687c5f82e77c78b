"""Findings about layers that are out of step: shared by the rules on plain networks and on transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from layerwatch.config.rules import OutOfStepSettings
from layerwatch.metrics.coupling import Coupling, CouplingKind
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import EvidenceValue, Finding, RuleGroup, Severity
from layerwatch.metrics.outofstep import Suspect, Suspicion, compared_couplings, suspects

PLAIN = frozenset(
    {
        CouplingKind.INTERFACE_UNITS,
        CouplingKind.INTERFACE_NORMS,
        CouplingKind.BATCHNORM_STATISTICS,
        CouplingKind.BATCHNORM_INPUTS,
        CouplingKind.STAGE_CHANNELS,
        CouplingKind.STAGE_PARTNERS,
        CouplingKind.END_TO_END,
        CouplingKind.HEAD_ENTRIES,
    }
)
"""Couplings that only plain and convolutional networks have."""

_SHARE_OF_MODEL = 0.4
_FEW = 3
_SHOWN = 4

_SUSPICIONS: Mapping[Suspicion, str] = {
    Suspicion.OUTPUTS: "its outputs are out of step",
    Suspicion.INPUTS: "its inputs are out of step",
    Suspicion.BOTH: "its inputs and its outputs are out of step",
    Suspicion.SIGN: "its sign is turned",
    Suspicion.VECTOR: "it is out of step",
}

_KINDS: Mapping[CouplingKind, str] = {
    CouplingKind.BATCHNORM_STATISTICS: "stored and predicted means",
    CouplingKind.BATCHNORM_INPUTS: "stored means and single input channels",
    CouplingKind.INTERFACE_UNITS: "units",
    CouplingKind.INTERFACE_NORMS: "sizes of units",
    CouplingKind.FEED_FORWARD_UNITS: "hidden units",
    CouplingKind.FEED_FORWARD_NORMS: "sizes of hidden units",
    CouplingKind.FEED_FORWARD_SIGNS: "signs of hidden units",
    CouplingKind.QUERY_KEY_UNITS: "units of queries and keys",
    CouplingKind.QUERY_KEY_NORMS: "sizes of queries and keys",
    CouplingKind.QUERY_KEY_SIGNS: "signs of queries and keys",
    CouplingKind.VALUE_OUTPUT_UNITS: "units of values and output",
    CouplingKind.VALUE_OUTPUT_NORMS: "sizes of values and output",
    CouplingKind.VALUE_OUTPUT_SIGNS: "signs of values and output",
    CouplingKind.STREAM_CHANNELS: "channels of the residual stream",
    CouplingKind.STREAM_PARTNERS: "channels of the residual stream, with the layers it goes with",
    CouplingKind.STAGE_CHANNELS: "channels of the residual stage",
    CouplingKind.STAGE_PARTNERS: "channels of the residual stage, with the layers it goes with",
    CouplingKind.GAIN_TO_READER: "gains of the norm and sizes of what reads them",
    CouplingKind.BIAS: "weights and bias",
    CouplingKind.VOCABULARY: "tokens at input and output",
    CouplingKind.POSITIONS: "neighbouring positions",
    CouplingKind.NEARNESS: "attention to near positions",
    CouplingKind.INPUT_MEANING: "relations between inputs",
    CouplingKind.OUTPUT_MEANING: "relations between outputs",
    CouplingKind.HEAD_ENTRIES: "weights for and against classes",
    CouplingKind.END_TO_END: "the way from input to output",
    CouplingKind.LOGIT_EFFECT: "effect on the scores of tokens",
    CouplingKind.TOKEN_EFFECT: "effect of tokens on the scores of tokens",
}


@dataclass(frozen=True, slots=True)
class RuleName:
    """Of the rule that asks."""

    name: str
    group: RuleGroup
    plain: bool


def findings(examination: Examination, settings: OutOfStepSettings, rule: RuleName) -> Iterator[Finding]:
    """What a rule says: one finding per layer; a single warning where a large part of the model is out of step."""
    compared = compared_couplings(examination.couplings, examination.baseline_couplings)
    suspected = [one for one in suspects(compared) if _is_plain(one) is rule.plain and _is_told_here(one)]
    suspected = [one for one in suspected if one.evidence >= settings.warning_evidence]
    beyond = [one for one in suspected if one.evidence >= settings.evidence]
    covered = {layer for one in compared for layer in one.coupling.layers}
    if len(beyond) > max(_FEW, _SHARE_OF_MODEL * len(covered)):
        yield _of_the_model(beyond, covered, settings, rule)
        return
    severity = Severity(settings.severity)
    unsure = Severity.WARNING if severity is Severity.CRITICAL else severity
    for one in suspected:
        yield _of_a_layer(one, severity if one in beyond else unsure, settings, rule)


def _is_plain(suspect: Suspect) -> bool:
    kinds = {one.coupling.kind for one in suspect.against}
    shared = {CouplingKind.BIAS, CouplingKind.OUTPUT_MEANING, CouplingKind.INPUT_MEANING}
    if kinds & PLAIN:
        return True
    if CouplingKind.GAIN_TO_READER in kinds and not kinds - shared - {CouplingKind.GAIN_TO_READER}:
        return not any(one.coupling.part for one in suspect.against)
    return not kinds - shared and not any(_from_a_transformer(one.coupling) for one in suspect.against)


def _from_a_transformer(coupling: Coupling) -> bool:
    # Relations of tokens are taken between the rows of an embedding; a plain network's inputs are columns.
    return bool(coupling.part) or (
        coupling.kind is CouplingKind.INPUT_MEANING and coupling.sides[0].value == "outputs"
    )


def _is_told_here(suspect: Suspect) -> bool:
    """Batch norm statistics alone are the business of their own rule."""
    return any(one.coupling.kind is not CouplingKind.BATCHNORM_STATISTICS for one in suspect.against)


def _of_a_layer(suspect: Suspect, severity: Severity, settings: OutOfStepSettings, rule: RuleName) -> Finding:
    evidence: dict[str, EvidenceValue] = {
        "suspicion": str(suspect.suspicion),
        "evidence": suspect.evidence,
        "limit": settings.evidence,
    }
    said = []
    for number, one in enumerate(suspect.against[:_SHOWN], 1):
        others = [layer for layer in one.coupling.layers if layer != suspect.layer]
        part = f" ({one.coupling.part})" if one.coupling.part else ""
        words = f"{_KINDS[one.coupling.kind]}{part}" + (f" with {', '.join(others)}" if others else "")
        evidence |= {
            f"coupling_{number}": words,
            f"coupling_{number}_now": one.now,
            f"coupling_{number}_baseline": one.before,
        }
        if number <= 2:
            said.append(f"{words} {one.now:.1f} (baseline {one.before:.1f})")
    either = (
        f" (or {', '.join(suspect.partners)}: the couplings do not say which)" if suspect.partners else ""
    )
    evidence["or"] = ", ".join(suspect.partners) or None
    return Finding(
        rule.name,
        rule.group,
        severity,
        suspect.layer,
        f"{_SUSPICIONS[suspect.suspicion]}{either}; strength of the coupling in standard deviations from chance: "
        f"{'; '.join(said)}",
        evidence,
        strength=suspect.evidence / settings.evidence,
    )


def _of_the_model(
    beyond: list[Suspect], covered: set[str], settings: OutOfStepSettings, rule: RuleName
) -> Finding:
    return Finding(
        rule.name,
        rule.group,
        Severity.WARNING if settings.severity == "critical" else Severity(settings.severity),
        None,
        f"{len(beyond)} of {len(covered)} layers are less in step with each other than in the baseline: trained much "
        "shorter or by another recipe, or damaged as a whole",
        {
            "layers": len(beyond),
            "covered": len(covered),
            "limit": max(_FEW, _SHARE_OF_MODEL * len(covered)),
            "first": beyond[0].layer,
        },
        strength=len(beyond) / max(_FEW, _SHARE_OF_MODEL * len(covered)),
    )
