"""A layer of another training that is larger and less in step than it should be: noise on top of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import hypot, log10
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.coupling import CouplingKind
from layerwatch.metrics.examination import Context, Examination, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.outofstep import HEALTHY_NOISE, WATCHED_FROM, Compared, compared_couplings
from layerwatch.metrics.rules.base import Rule

_BLURRED = frozenset(
    {
        CouplingKind.INTERFACE_UNITS,
        CouplingKind.STREAM_PARTNERS,
        CouplingKind.STAGE_PARTNERS,
        CouplingKind.QUERY_KEY_UNITS,
        CouplingKind.VALUE_OUTPUT_UNITS,
        CouplingKind.VOCABULARY,
    }
)
"""Couplings whose strength is steady from training to training: 0.7 to 1.2 of the baseline's in 99 of 100."""

_SIZES = (0.6, 0.8, 1.0, 1.25)
"""Noise that is looked for, as a share of the layer's own norm."""

_WEAKENED = -0.75
"""A coupling keeps ``(1 + s^2)`` to this power of its strength under noise of size s: 0.79 at 0.6, 0.59 at 1."""

_NORM_SPREAD, _KEPT_SPREAD = 0.055, 0.12
"""Standard deviations in healthy trainings: of the decades of squared norm beside the model's median (18,700 layers of the
benchmark: 0.12 in 1 of 100, 0.17 in 1 of 1,000), and of what a very strong coupling keeps."""

_MOST_BY_NORM, _MOST_BY_COUPLING = 5.0, 4.0
"""Neither the norm nor a coupling pages alone: another recipe moves both."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.noise_added
    if context.regime not in (Regime.UNALIGNED, Regime.UNALIGNED_WIDE):
        return
    compared = [
        one
        for one in compared_couplings(examination.couplings, examination.baseline_couplings)
        if one.coupling.kind in _BLURRED and one.before >= WATCHED_FROM
    ]
    for layer, ratio in context.log_norm_ratios.items():
        grown = 2.0 * (ratio - context.usual_log_norm_ratio)
        kept = _kept(layer, compared)
        if not kept or grown <= 0.0:
            continue
        least = min(one.share for one in kept)
        evidence, size = max((_evidence(grown, kept, one), one) for one in _SIZES)
        if evidence < settings.warning_evidence:
            continue
        severity = Severity(settings.severity)
        unsure = evidence < settings.evidence or context.regime is Regime.UNALIGNED_WIDE
        if unsure and severity is Severity.CRITICAL:
            severity = Severity.WARNING
        yield Finding(
            RULE.name,
            RULE.group,
            severity,
            layer,
            f"its squared norm grew by {10.0**grown:.2f} beside the other layers, and it is less in step with them "
            f"({least:.0%} of what it was): as noise of {size:.0%} of its size does",
            {
                "evidence": evidence,
                "limit": settings.evidence,
                "squared_norm_ratio": 10.0**grown,
                "coupling_kept": least,
                "couplings": len(kept),
                "size_of_noise": size,
            },
            strength=evidence / settings.evidence,
        )


@dataclass(frozen=True, slots=True)
class _Kept:
    """Share of its strength that a coupling has kept, at most 1, and the standard deviation of that when healthy."""

    share: float
    spread: float


def _kept(layer: str, compared: Sequence[Compared]) -> list[_Kept]:
    """Of a layer's couplings, beside what those of the others have kept."""
    others = [one.now / one.before for one in compared if layer not in one.coupling.layers]
    usual = min(1.0, max(0.5, median(others))) if others else 1.0
    # Below zero nothing is left that noise could have weakened.
    return [
        _Kept(min(1.0, one.now / one.before / usual), hypot(_KEPT_SPREAD, HEALTHY_NOISE / one.before))
        for one in compared
        if layer in one.coupling.layers and one.now > 0.0
    ]


def _evidence(grown: float, kept: Sequence[_Kept], size: float) -> float:
    """Logarithm of the likelihood ratio of noise of this size against none."""
    added = 1.0 + size * size
    by_norm = _ratio(grown, log10(added), 0.0, _NORM_SPREAD)
    by_coupling = (_ratio(one.share, added**_WEAKENED, 1.0, one.spread) for one in kept)
    return min(_MOST_BY_NORM, by_norm) + sum(
        max(-_MOST_BY_COUPLING, min(_MOST_BY_COUPLING, one)) for one in by_coupling
    )


def _ratio(value: float, expected: float, usual: float, spread: float) -> float:
    return 0.5 * (((value - usual) / spread) ** 2 - ((value - expected) / spread) ** 2)


RULE = Rule(
    name="noise_added",
    group=RuleGroup.WEIGHTS,
    title="a layer larger and less in step than in other trainings",
    explanation="""\
Noise on top of a layer makes it larger, squared norms add up, and blurs what it shares with its neighbours. After a
retrain from another seed neither shows by comparison of weights, and each alone is within what recipes do; both
together, in one layer, are not.

Held against the baseline, which may be of another seed: the layer's squared norm beside the model's median, and
how much of their strength its couplings have kept beside those of the other layers. Both are evidence for noise
of 60 to 125 % of the layer's norm (a log likelihood ratio; the norm at most 5, a coupling at most 4 for or
against). Critical from 9, a warning from 4 (one of the calibration's healthy trainings reached 6.1), and at
most a warning where every spectrum shifted. In 18,700 layers of healthy trainings the squared norm grew by more
than 0.17 decades beside the median in 1 of 1,000; noise of the layer's own size gives 0.30, and leaves 0.5 to
0.75 of the couplings.

Likely cause: a quantisation with far too few levels, a wrong sum of two checkpoints, a partly failed load.

What to do: load the layer again from its source; with a parent at hand compare with that one.

Cannot see: noise below 60 % of the layer's norm, and layers without a strong coupling.""",
    needs_baseline=True,
    check=check,
    is_statistical=True,
)
