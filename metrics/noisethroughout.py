"""Whether a training from another seed looks as if noise lay on top of all its layers.

No layer stands out of the others then, and each number of a layer is within what trainings differ by. Three numbers of
the whole version are not, because single layers scatter around them and all of them move: noise fills the spectra from
below, blurs what the layers along a residual stream share, and leaves output means that batch norms did not store.
Each is a logarithm of a likelihood ratio, of noise of 30 % of every layer's norm against none; they add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log, log10

from layerwatch.metrics.coupling import CouplingKind
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.outofstep import STRONG, Compared

_FEWEST = 3
"""A number of the whole version is taken over so many layers or couplings at least."""

_SET_ASIDE = 5
"""One value in so many is left out at either end: one broken layer must not look like noise in all."""

_LEAST_KEPT = 0.05
_LEAST_UNEXPLAINED = 1e-3
_LEAST_CORRELATION = 0.75
"""Batch norms whose means the weights explain less well than this show no noise."""

_MOST = 6.0
"""One sign alone never says more than this."""


@dataclass(frozen=True, slots=True)
class _Sign:
    """A number of the whole version: its mean in healthy trainings, under noise, and its standard deviation."""

    usual: float
    noisy: float
    spread: float

    def evidence(self, value: float | None) -> float:
        if value is None:
            return 0.0
        middle = (self.usual + self.noisy) / 2.0
        ratio = (self.noisy - self.usual) * (value - middle) / self.spread**2
        return max(-_MOST, min(_MOST, ratio))


_FLOOR = _Sign(0.02, 0.08, 0.03)
"""Decades that the edge of the random bulk rose by, the middle layers; 74 trainings: -0.09 to 0.07."""

_KEPT = _Sign(0.03, -0.06, 0.05)
"""Natural logarithm of what couplings along the residual stream kept; 30 trainings of transformers: -0.05 to 0.12."""

_UNEXPLAINED = _Sign(0.0, 1.06, 0.3)
"""Natural logarithm of how much more of the stored means the weights leave unexplained; 44 trainings of networks with
batch norms: -0.6 to 0.5, and 0.8 with 30 % of the weights pruned."""


@dataclass(frozen=True, slots=True)
class NoiseThroughout:
    """The signs of noise in all layers.

    Attributes:
        evidence: natural logarithm of the likelihood ratio, at most 18 either way.
        floor: how many times as high the edge of the random bulk of the eigenvalues lies, > 0; this and the others are means
            over the middle three fifths of layers or couplings.
        kept: share of their strength that couplings along the residual stream have, > 0; None where there are few.
        unexplained: how many times more of the means in batch norms (1 - correlation) is left unexplained, > 0; None
            where there are few.
    """

    evidence: float
    floor: float
    kept: float | None
    unexplained: float | None


def noise_throughout(examination: Examination, compared: Sequence[Compared]) -> NoiseThroughout | None:
    """The signs of a version; None where too few layers, or too few couplings of either kind, are there to tell.

    Args:
        examination: beside a baseline of another seed.
        compared: its couplings beside the baseline's.
    """
    floor = _middle(_floors(examination))
    kept, unexplained = _middle(_kept(compared)), _middle(_unexplained(examination))
    if floor is None or (kept is None and unexplained is None):
        return None
    return NoiseThroughout(
        evidence=_FLOOR.evidence(floor) + _KEPT.evidence(kept) + _UNEXPLAINED.evidence(unexplained),
        floor=10.0**floor,
        kept=None if kept is None else exp(kept),
        unexplained=None if unexplained is None else exp(unexplained),
    )


def _floors(examination: Examination) -> Iterable[float]:
    for layer in examination.layers:
        if layer.change is None or layer.change.aligned is None:
            continue
        assert layer.measurement is not None
        assert layer.baseline is not None
        new, old = layer.measurement.folded, layer.baseline.folded
        if new is not None and old is not None and new.mp_bulk_edge and old.mp_bulk_edge:
            yield log10(new.mp_bulk_edge / old.mp_bulk_edge)


def _kept(compared: Sequence[Compared]) -> Iterable[float]:
    for one in compared:
        if one.coupling.kind is CouplingKind.STREAM_PARTNERS and one.before >= STRONG:
            yield log(max(_LEAST_KEPT, one.now / one.before))


def _unexplained(examination: Examination) -> Iterable[float]:
    before = {one.key: one.value for one in examination.baseline_couplings}
    for one in examination.couplings:
        old = before.get(one.key)
        if one.kind is CouplingKind.BATCHNORM_STATISTICS and old is not None and old > _LEAST_CORRELATION:
            yield log(max(_LEAST_UNEXPLAINED, 1.0 - one.value) / max(_LEAST_UNEXPLAINED, 1.0 - old))


def _middle(values: Iterable[float]) -> float | None:
    """Mean of what is left when a fifth is set aside at either end; None of few."""
    ordered = sorted(values)
    if len(ordered) < _FEWEST:
        return None
    aside = max(1, len(ordered) // _SET_ASIDE)
    left = ordered[aside : len(ordered) - aside]
    return sum(left) / len(left)
