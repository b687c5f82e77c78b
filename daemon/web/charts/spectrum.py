"""The spectrum of one layer over its baseline's: where its eigenvalues lie, and what noise or a power law would give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from layerwatch.daemon.web.charts import paths
from layerwatch.daemon.web.charts.axes import Scale, frame
from layerwatch.daemon.web.charts.drawing import Key, figure, picture, tag, units
from layerwatch.daemon.web.charts.norms import column_norm_profile, row_norm_profile
from layerwatch.metrics.measurement import FitStatus, Measurement
from layerwatch.metrics.plots import spectrum as curves
from layerwatch.metrics.plots.spectrum import Spectrum, spectrum_of
from layerwatch.metrics.plots.wording import FIT_WORDS, counted, number

__all__ = [
    "column_norm_profile",
    "randomised",
    "row_norm_profile",
    "spectrum_density",
    "spectrum_tail",
]

_LEFT, _RIGHT, _TOP, _BOTTOM = 78.0, 546.0, 36.0, 296.0
_WIDTH, _HEIGHT = 560.0, 342.0
_EIGENVALUE = "eigenvalue λ of WᵀW"

_FILL = tag("path", class_="layer-fill", d="M1 2H17V11H1Z") + tag("path", class_="layer", d="M1 11V2H17V11")
_SAMPLE = "M0 6H18"


def spectrum_density(measurement: Measurement, baseline: Measurement | None) -> Markup:
    """Density of the eigenvalues on logarithmic axes, with the fitted tail, xmin, the bulk and what is randomised.

    Args:
        measurement: of the layer; without a spectrum the answer is empty.
        baseline: of the same layer in the baseline, drawn as an outline unless it is of the same bytes.
    """
    pair = _pair(measurement, baseline)
    if pair is None:
        return Markup("")
    spectrum, before = pair.spectrum, pair.before
    low, high = pair.shown
    edges = curves.bins(low, high, len(spectrum.resolved))
    heights = curves.density(spectrum.values, edges)
    older = None if before is None else curves.density(before.values, edges)
    shuffled = None if spectrum.shuffled is None else curves.density(spectrum.shuffled, edges)
    points, fitted = _fit(spectrum, curves.fitted_density)
    seen = np.concatenate([one for one in (heights, older, shuffled, fitted) if one is not None])
    seen = seen[seen > 0.0]
    x = Scale(low, high, _LEFT, _RIGHT, logarithmic=True)
    y = Scale(float(seen.min()) / 2.5, float(seen.max()) * 2.5, _BOTTOM, _TOP, logarithmic=True)
    at, floor = x.along(edges), np.full(len(heights), y.start)

    drawn = frame(x, y, _EIGENVALUE, "density")
    filled = y.along(_gaps(heights))
    drawn.append(tag("path", class_="layer-fill", d=paths.filled_steps(at, floor, filled)))
    drawn.append(tag("path", class_="layer", d=paths.steps(at, filled)))
    if older is not None:
        drawn.append(tag("path", class_="baseline", d=paths.steps(at, y.along(_gaps(older)))))
    if shuffled is not None:
        drawn.append(tag("path", class_="shuffled", d=paths.steps(at, y.along(_gaps(shuffled)))))
    bulk = curves.bulk_curve(spectrum, low)
    if bulk is not None:
        drawn.append(tag("path", class_="bulk", d=_above(*bulk, x, y)))
    if len(points):
        drawn.append(tag("path", class_="fit", d=paths.line(x.along(points), y.along(fitted))))
    drawn += _xmin(spectrum, x)
    drawn += _bulk_edge(spectrum, x)
    title = "Spectral density"
    image = picture(_WIDTH, _HEIGHT, title, _description(pair), drawn, css="half")
    return figure(image, _keys(pair, measurement, has_density=True), caption=title)


def spectrum_tail(measurement: Measurement, baseline: Measurement | None) -> Markup:
    """Share of eigenvalues at or above each of them (CCDF) on logarithmic axes, with the fitted power law and xmin.

    Args:
        measurement, baseline: as in :func:`spectrum_density`.
    """
    pair = _pair(measurement, baseline)
    if pair is None:
        return Markup("")
    low, high = pair.shown
    most = max(len(one.values) for one in (pair.spectrum, pair.before) if one is not None)
    x = Scale(low, high, _LEFT, _RIGHT, logarithmic=True)
    y = Scale(0.6 / most, 1.6, _BOTTOM, _TOP, logarithmic=True)
    drawn = frame(x, y, _EIGENVALUE, "share of eigenvalues ≥ λ")
    if pair.before is not None:
        drawn.append(tag("path", class_="baseline", d=_falling(pair.before, low, x, y)))
    drawn.append(tag("path", class_="layer", d=_falling(pair.spectrum, low, x, y)))
    points, fitted = _fit(pair.spectrum, curves.fitted_tail_function)
    if len(points):
        drawn.append(tag("path", class_="fit", d=_above(points, fitted, x, y)))
    drawn += _xmin(pair.spectrum, x)
    title = "Cumulative from above (CCDF)"
    image = picture(_WIDTH, _HEIGHT, title, _description(pair), drawn, css="half")
    return figure(image, _keys(pair, measurement, has_density=False), caption=title)


def randomised(measurement: Measurement) -> str:
    """Words for what shows the layer without its structure; "" where nothing does.

    The spectrum of the shuffled elements is known only where it was asked for while the weights were at hand. Else the
    Marchenko-Pastur bulk stands for it, which is what independent elements would give.
    """
    spectrum = spectrum_of(measurement)
    if spectrum is None:
        return ""
    if spectrum.shuffled is not None:
        return "randomised (elements shuffled)"
    return "" if spectrum.numbers.mp_bulk_edge is None else "randomised: Marchenko-Pastur"


@dataclass(frozen=True, slots=True)
class _Pair:
    """A layer's spectrum and its baseline's.

    Attributes:
        before: None where there is none, or where it is the same.
        note: why there is no outline of a baseline, where there is one; else "".
    """

    spectrum: Spectrum
    before: Spectrum | None
    note: str

    @property
    def shown(self) -> tuple[float, float]:
        return curves.shown_range([self.spectrum, *([] if self.before is None else [self.before])])


def _pair(measurement: Measurement, baseline: Measurement | None) -> _Pair | None:
    spectrum = spectrum_of(measurement)
    if spectrum is None:
        return None
    if baseline is None:
        return _Pair(spectrum, None, "")
    if baseline.digest == measurement.digest:
        return _Pair(spectrum, None, "baseline: the same bytes")
    before = spectrum_of(baseline)
    return _Pair(spectrum, before, "baseline: no spectrum" if before is None else "")


def _fit(
    spectrum: Spectrum, law: Callable[[Spectrum, paths.Places], paths.Places]
) -> tuple[paths.Places, paths.Places]:
    """Points of the fitted law; none without a fit."""
    if spectrum.tail_share is None or spectrum.numbers.alpha is None or spectrum.numbers.xmin is None:
        return np.array([]), np.array([])
    points = curves.fitted_points(spectrum)
    return points, law(spectrum, points)


def _gaps(heights: paths.Places) -> paths.Places:
    """Empty bins are left out: lines down to them and up again would hide the shape."""
    return np.where(heights > 0.0, heights, np.nan)


def _above(points: paths.Places, heights: paths.Places, x: Scale, y: Scale) -> str:
    """A curve as far as it is above the axis."""
    return paths.line(x.along(points), y.along(np.where(heights >= y.low, heights, np.nan)))


def _falling(spectrum: Spectrum, low: float, x: Scale, y: Scale) -> str:
    values, shares = curves.tail_function(spectrum.values, low)
    # Between two eigenvalues the share is that of the larger one.
    stairs = np.append(shares[1:], shares[-1])
    return paths.falling_steps(x.along(values), y.along(stairs)) if len(values) > 1 else ""


def _xmin(spectrum: Spectrum, x: Scale) -> Iterator[Markup]:
    if spectrum.numbers.xmin is not None:
        yield from _upright(x.at(spectrum.numbers.xmin), "xmin", "xmin", _TOP - 6)


def _bulk_edge(spectrum: Spectrum, x: Scale) -> Iterator[Markup]:
    if spectrum.numbers.mp_bulk_edge is not None:
        yield from _upright(x.at(spectrum.numbers.mp_bulk_edge), "edge", "bulk edge", _TOP - 20)


def _upright(at: float, css: str, words: str, y: float) -> Iterator[Markup]:
    """A line across the plot with its name above it, which stays within the picture."""
    yield tag("path", class_=css, d=f"M{units(at)} {units(_BOTTOM)}V{units(y + 3)}")
    side = "end" if at > _RIGHT - 30 else "middle"
    yield tag("text", words, class_=f"note {side}", x=min(at, _RIGHT), y=y)


def _keys(pair: _Pair, measurement: Measurement, has_density: bool) -> list[Key]:
    numbers = pair.spectrum.numbers
    layer = _FILL if has_density else tag("path", class_="layer", d=_SAMPLE)
    keys = [Key(layer, "eigenvalues")]
    if pair.before is not None:
        keys.append(Key(tag("path", class_="baseline", d=_SAMPLE), "baseline"))
    elif pair.note:
        keys.append(Key(Markup(""), pair.note))
    if (fit := _fit_words(pair.spectrum)) is not None:
        keys.append(Key(tag("path", class_="fit", d=_SAMPLE), fit))
    if not has_density:
        return keys
    has_bulk = curves.bulk_curve(pair.spectrum, pair.shown[0]) is not None
    bulk = tag("path", class_="bulk" if has_bulk else "edge", d=_SAMPLE)
    if pair.spectrum.shuffled is not None:
        keys.append(Key(tag("path", class_="shuffled", d=_SAMPLE), randomised(measurement)))
        if has_bulk:
            keys.append(Key(bulk, "Marchenko-Pastur bulk"))
    elif numbers.mp_bulk_edge is not None:
        # Where most eigenvalues stand out there is no bulk to draw.
        keys.append(Key(bulk, randomised(measurement) + ("" if has_bulk else ", its edge alone")))
    return keys


def _fit_words(spectrum: Spectrum) -> str | None:
    """Such as "power law, alpha 3.21 ± 0.14 (poor fit)"; None without a fit."""
    numbers = spectrum.numbers
    if spectrum.tail_share is None or numbers.alpha is None:
        return None
    error = "" if numbers.alpha_sigma is None else f" ± {number(numbers.alpha_sigma, 2)}"
    care = "" if numbers.fit_status is FitStatus.OK else f" ({FIT_WORDS[FitStatus(numbers.fit_status)]})"
    return f"power law, alpha {number(numbers.alpha, 2)}{error}{care}"


def _description(pair: _Pair) -> str:
    spectrum = pair.spectrum
    numbers = spectrum.numbers
    facts = [
        f"{counted(len(spectrum.values), 'eigenvalue')} from {spectrum.resolved[0]:.3g} to {spectrum.values[-1]:.3g}"
    ]
    if (fit := _fit_words(spectrum)) is not None:
        facts.append(f"{fit} from xmin {numbers.xmin:.3g} on")
    if numbers.mp_bulk_edge is not None and numbers.num_spikes is not None:
        facts.append(
            f"{counted(numbers.num_spikes, 'spike')} above a bulk that ends at {numbers.mp_bulk_edge:.3g}"
        )
    if pair.before is not None:
        facts.append(f"baseline: {_fit_words(pair.before) or 'no fit'}")
    elif pair.note:
        facts.append(pair.note)
    return "; ".join(facts) + "."
