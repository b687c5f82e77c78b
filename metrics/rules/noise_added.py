"""Layers of another training, one or all, that are larger and less in step than they should be: noise on top of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import hypot, log10
from statistics import median

from layerwatch.config.rules import NoiseAddedSettings, RulesSettings
from layerwatch.metrics.coupling import CouplingKind
from layerwatch.metrics.examination import Context, Examination, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.noisethroughout import NoiseThroughout, noise_throughout
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
    everything = compared_couplings(examination.couplings, examination.baseline_couplings)
    throughout = noise_throughout(examination, everything)
    if throughout is not None and throughout.evidence >= settings.version_evidence:
        yield _of_the_version(throughout, settings)
    compared = [one for one in everything if one.coupling.kind in _BLURRED and one.before >= WATCHED_FROM]
    for layer, ratio in context.log_norm_ratios.items():
        grown = 2.0 * (ratio - context.usual_log_norm_ratio)
        kept = _kept(layer, compared)
        if not kept or grown <= 0.0:
            continue
        least = min(one.share for one in kept)
        evidence, size = max((_evidence(grown, kept, one), one) for one in _SIZES)
        if evidence < settings.warning_evidence:
            continue
        unsure = evidence < settings.evidence or context.regime is Regime.UNALIGNED_WIDE
        severity = _unsure(settings) if unsure else Severity(settings.severity)
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


def _unsure(settings: NoiseAddedSettings) -> Severity:
    severity = Severity(settings.severity)
    return Severity.WARNING if severity is Severity.CRITICAL else severity


def _of_the_version(found: NoiseThroughout, settings: NoiseAddedSettings) -> Finding:
    said = [f"the floor of the spectra lies {found.floor:.2f} times as high"]
    if found.kept is not None:
        said.append(f"couplings along the residual stream are at {found.kept:.0%} of what they were")
    if found.unexplained is not None:
        said.append(
            f"the weights leave {found.unexplained:.1f} times as much of the stored means unexplained"
        )
    return Finding(
        RULE.name,
        RULE.group,
        _unsure(settings),
        None,
        f"noise in all layers seems to lie on top of another training: {', '.join(said)}",
        {
            "evidence": found.evidence,
            "limit": settings.version_evidence,
            "floor_ratio": found.floor,
            "couplings_kept": found.kept,
            "unexplained_ratio": found.unexplained,
        },
        strength=found.evidence / settings.version_evidence,
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
    title="layers larger and less in step than in other trainings",
    explanation="""\
Noise on top of a layer makes it larger, squared norms add up, and blurs what it shares with its neighbours. After a
retrain from another seed neither shows by comparison of weights, and each alone is within what recipes do; both
together, in one layer, are not.

Held against the baseline, which may be of another seed: the layer's squared norm beside the model's median, and
how much of their strength its couplings have kept beside those of the other layers. Both are evidence for noise
of 60 to 125 % of the layer's norm (a log likelihood ratio; the norm at most 5, a coupling at most 4 for or
against). Critical from 8, a warning from 4 (two of 124 healthy trainings reached 4, one of them 6.4), and at
most a warning where every spectrum shifted. In 18,700 layers of healthy trainings the squared norm grew by more
than 0.17 decades beside the median in 1 of 1,000; noise of the layer's own size gives 0.30, and leaves 0.5 to
0.75 of the couplings.

Noise in all layers leaves none that stands out. It fills every spectrum from below (the edge of the random bulk
rises by a sixth at 30 % of the norms), blurs what all layers along a residual stream share (a tenth), and leaves
three times as much of the means that batch norms stored unexplained. A warning for the version where these together
say so by 1.25: 82 of 85 networks broken by noise of 30 % did, and none of 1,687 healthy versions, of which three
that were rounded to four bits reached 1.

Likely cause: a quantisation with far too few levels, a wrong sum of two checkpoints, a partly failed load.

What to do: load the layer again from its source; with a parent at hand compare with that one.

Cannot see: noise below 60 % of one layer's norm, or below 30 % in all, layers without a strong coupling, and noise
throughout networks with neither a residual stream nor batch norms.""",
    needs_baseline=True,
    check=check,
    is_statistical=True,
)
