"""Whether the last retrains moved alpha towards the range of well-trained layers.

Martin, Peng & Mahoney (2021) see alpha come down towards 2 to 4 while a layer learns. One layer proves nothing: noise of
one percent moved some alpha by 28.8 in the detection study. So the slopes of all layers over the versions are weighted by
their uncertainty and held together against it. Under noise that is the same in every version the result is as likely to
point one way as the other, because turning the order of the versions round only turns its sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

from layerwatch.metrics.advice.layers import SIGMAS, TRAINED
from layerwatch.metrics.advice.model import Advice, AdviceKind
from layerwatch.metrics.tailfit import MINIMUM_TAIL

LAST_VERSIONS = 6
"""So many versions are looked at, the newest of them last: five retrains, of which older ones say little about the next."""

FEWEST_LAYERS = 3
"""Fewer layers outside the range say nothing about a model, however clear each of them is."""

LEAST_SIGMA = 0.2
"""Standard errors count as at least so much: the floor of the detection study for alpha's scatter between versions (its
section 5). Without it one layer with a small alpha, hence a tiny error, would decide alone."""

AlphaAndSigma = tuple[float, float | None]
_RANGE = f"{TRAINED[0]:.0f}..{TRAINED[1]:.0f}"
_MEASURED = (
    "Along one measured training of 26 saved epochs mean alpha rose while accuracy rose, mostly as a clock does: hold this "
    "against the accuracy before acting on it."
)


@dataclass(frozen=True, slots=True)
class _Slope:
    """How one layer moved: ``towards`` the range per version, negative away from it; ``variance`` of that."""

    layer: str
    towards: float
    variance: float

    @property
    def sigmas(self) -> float:
        return self.towards / sqrt(self.variance)


@dataclass(frozen=True, slots=True)
class _Mean:
    """Weighted mean of slopes.

    Attributes:
        error: its standard error: from the uncertainties, or from the scatter between layers where that is larger.
        limit: so far from zero it is no chance: two standard errors, more where few layers tell their scatter.
    """

    towards: float
    error: float
    limit: float


def advice_on_history(history: Sequence[Mapping[str, AlphaAndSigma]]) -> tuple[Advice, ...]:
    """Whether alpha moves in the right direction; empty for fewer than two versions.

    Args:
        history: per version, oldest first, layer -> (alpha, standard error). Layers whose fit is not ok should be left
            out (``readable_alphas``); a standard error of None, or a tail of fewer than 10 eigenvalues, counts as such.
    """
    last = history[-LAST_VERSIONS:]
    if len(last) < 2:
        return ()
    followed = {name: points for name in last[-1] if (points := _points(last, name)) is not None}
    outside = {
        name: points
        for name, points in followed.items()
        if any(_distance(alpha) > 0.0 for _, alpha, _ in points)
    }
    slopes = [_slope(name, points) for name, points in outside.items()]
    retrains = "last retrain" if len(last) == 2 else f"last {len(last) - 1} retrains"
    read = f"{len(followed)} of {len(last[-1])} layers can be followed"
    if len(slopes) >= FEWEST_LAYERS:
        return (_moved(slopes, retrains, f"{read}, {len(slopes)} of them outside {_RANGE} at some time"),)
    if len(followed) - len(slopes) >= FEWEST_LAYERS:
        return (_stayed(len(slopes), retrains, read),)
    return (
        Advice(
            AdviceKind.DIRECTION,
            f"Whether the {retrains} moved alpha in the right direction cannot be told",
            f"Too few layers have a tail that can be read: {FEWEST_LAYERS} are needed.",
            (),
            f"{read}.",
        ),
    )


def _moved(slopes: Sequence[_Slope], retrains: str, read: str) -> Advice:
    mean = _weighted_mean(slopes)
    found = f"{abs(mean.towards):.2f} ± {mean.error:.2f} per version"
    if abs(mean.towards) <= mean.limit:
        return Advice(
            AdviceKind.DIRECTION,
            f"Whether the {retrains} moved alpha in the right direction cannot be told",
            "Alpha's change lies within its uncertainty: whether more data or tuning of the same kind still helps does not "
            "follow from it.",
            (),
            f"{'towards' if mean.towards >= 0.0 else 'away from'} {_RANGE} by {found}, less than the {mean.limit:.2f} that "
            f"chance may bring; {read}.",
        )
    sign = 1.0 if mean.towards > 0.0 else -1.0
    clear = sorted((one for one in slopes if sign * one.sigmas > SIGMAS), key=lambda one: -sign * one.sigmas)
    if sign > 0.0:
        title = f"The {retrains} moved alpha towards {_RANGE}"
        words = "The layers still learn: more data or training of the same kind should still help, says the theory."
    else:
        title = f"The {retrains} moved alpha away from {_RANGE}"
        words = (
            "By the theory retraining like this does not help these layers any more: look at the learning rate, the "
            "regularisation and the new data before training longer."
        )
    sure = f"by {found}; {read}, {len(clear)} of them clearly by themselves. {_MEASURED}"
    return Advice(AdviceKind.DIRECTION, title, words, tuple(one.layer for one in clear), sure)


def _stayed(outside: int, retrains: str, read: str) -> Advice:
    but = f", {outside} not" if outside else ""
    return Advice(
        AdviceKind.DIRECTION,
        f"Alpha stayed in {_RANGE} over the {retrains}",
        "The layers lie where well-trained ones do. Alpha gives no reason to expect more from training of the same kind.",
        (),
        f"{read}, all of them in {_RANGE} all the time{but}. {_MEASURED}",
    )


_Point = tuple[int, float, float]


def _points(history: Sequence[Mapping[str, AlphaAndSigma]], layer: str) -> list[_Point] | None:
    """(version, alpha, floored sigma) where the layer can be read; None unless the newest version and one more are there."""
    points: list[_Point] = []
    for version, alphas in enumerate(history):
        alpha, sigma = alphas.get(layer, (0.0, None))
        if sigma is not None and isfinite(alpha) and isfinite(sigma) and sigma > 0.0 and alpha > 1.0:
            # A hair of room for the rounding of a square root and of whoever stored it.
            tail = ((alpha - 1.0) / sigma) ** 2
            if tail > MINIMUM_TAIL - 0.5:
                points.append((version, alpha, max(sigma, LEAST_SIGMA)))
    return points if len(points) > 1 and points[-1][0] == len(history) - 1 else None


def _distance(alpha: float) -> float:
    """From the range of trained layers, 0 inside."""
    return max(TRAINED[0] - alpha, alpha - TRAINED[1], 0.0)


def _slope(layer: str, points: Sequence[_Point]) -> _Slope:
    """Weighted least squares of the distance to the range over the versions."""
    weights = [1.0 / sigma**2 for _, _, sigma in points]
    middle = sum(w * version for w, (version, _, _) in zip(weights, points, strict=True)) / sum(weights)
    spread = sum(w * (version - middle) ** 2 for w, (version, _, _) in zip(weights, points, strict=True))
    away = sum(
        w * (version - middle) * _distance(alpha)
        for w, (version, alpha, _) in zip(weights, points, strict=True)
    )
    return _Slope(layer, -away / spread, 1.0 / spread)


def _weighted_mean(slopes: Sequence[_Slope]) -> _Mean:
    weights = [1.0 / slope.variance for slope in slopes]
    mean = sum(w * slope.towards for w, slope in zip(weights, slopes, strict=True)) / sum(weights)
    expected = 1.0 / sqrt(sum(weights))
    squares = sum(w * (slope.towards - mean) ** 2 for w, slope in zip(weights, slopes, strict=True))
    freedom = len(slopes) - 1
    scattered = expected * sqrt(squares / freedom)
    return _Mean(
        mean, max(expected, scattered), max(SIGMAS * expected, max(SIGMAS, _student(freedom)) * scattered)
    )


def _student(freedom: int) -> float:
    """Student's t that 5 % of samples exceed in size, to 4 % from two degrees of freedom on.

    Fisher & Cornish, Technometrics 2(2), 1960, to the third order.
    """
    z = 1.959964
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
