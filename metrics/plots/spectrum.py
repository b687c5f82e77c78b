"""Spectra as curves: the range of eigenvalues to show, densities on logarithmic bins, the bulk, the tail function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.layers import view_sides
from layerwatch.metrics.measurement import Measurement, SpectralNumbers
from layerwatch.metrics.plots.marchenkopastur import bulk_density, lower_edge

_LEAST_SHOWN = 0.05
"""The axis begins where this share of the eigenvalues lies left of it: a few tiny ones would halve the picture."""

_BELOW_MEDIAN = 300.0
"""Nor does it begin further than this below the median: the tail is at the other end."""

_LONE = 10.0
_WIDEST = 1e-12
_MARGIN = 1.25
_BULK_POINTS = 400
_SINGLE_RESOLUTION = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A measured layer with everything a panel draws.

    Attributes:
        values: eigenvalues, ascending, float64, shape (n,), n > 0, the largest positive.
        numbers: what was read off them.
        longer, shorter: sides of one matrix view.
        shuffled: eigenvalues of the shuffled elements, ascending, or None.
    """

    values: NDArray[np.float64]
    numbers: SpectralNumbers
    longer: int
    shorter: int
    shuffled: NDArray[np.float64] | None

    @property
    def resolved(self) -> NDArray[np.float64]:
        """The eigenvalues that are not zero up to rounding; never empty."""
        lost = min(self.numbers.rank_loss or 0, len(self.values) - 1)
        resolved = self.values[lost:]
        return resolved[resolved > 0.0]

    @property
    def tail_share(self) -> float | None:
        """Share of all eigenvalues that lies in the fitted tail, or None without a fit."""
        tail = self.numbers.tail_size
        return None if tail is None else tail / len(self.values)


def spectrum_of(measurement: Measurement) -> Spectrum | None:
    """The spectrum of a measurement; None when it has none, or none that float32 could hold."""
    values, numbers = measurement.spectrum, measurement.numbers
    if values is None or numbers is None or not _was_held(values):
        return None
    shuffled = measurement.shuffled_spectrum
    if shuffled is not None and not _was_held(shuffled):
        shuffled = None
    longer, shorter = view_sides(measurement.kind, measurement.shape)
    return Spectrum(
        values=values.astype(np.float64),
        numbers=numbers,
        longer=longer,
        shorter=shorter,
        shuffled=None if shuffled is None else shuffled.astype(np.float64),
    )


def _was_held(values: NDArray[np.float32]) -> bool:
    # Larger values were kept as the largest number, smaller ones as zero.
    return len(values) > 0 and 0.0 < float(values[-1]) < float(np.finfo(np.float32).max)


def shown_range(spectra: Sequence[Spectrum]) -> tuple[float, float]:
    """Ends of the eigenvalue axis, so that all that matters of every spectrum is inside.

    Eigenvalues that are zero up to rounding and a few tiny ones stay outside.
    """
    lows, highs = [], []
    for spectrum in spectra:
        lows.append(_low(spectrum.resolved))
        highs.append(float(spectrum.values[-1]))
        if spectrum.numbers.xmin is not None:
            lows.append(spectrum.numbers.xmin)
        if spectrum.numbers.mp_bulk_edge is not None:
            highs.append(spectrum.numbers.mp_bulk_edge)
        if spectrum.shuffled is not None:
            largest = float(spectrum.shuffled[-1])
            highs.append(largest)
            # Nobody counted how many of these are rounding errors.
            floor = largest * min(0.5, _SINGLE_RESOLUTION * spectrum.longer**0.5)
            lows.append(_low(spectrum.shuffled[spectrum.shuffled > floor]))
    high = max(highs)
    low = max(min(lows), high * _WIDEST)
    if high < 2.0 * low:
        low, high = low / 2.0, high * 2.0
    return low / _MARGIN, high * _MARGIN


def _low(values: NDArray[np.float64]) -> float:
    first = int(_LEAST_SHOWN * len(values))
    # Of few eigenvalues that share is none; the last layer of a small classifier has one tiny eigenvalue, because
    # adding the same to every class changes nothing.
    if first == 0 and len(values) > 2 and values[1] > _LONE * values[0]:
        first = 1
    return max(float(values[first]), float(np.median(values)) / _BELOW_MEDIAN)


def bins(low: float, high: float, count: int) -> NDArray[np.float64]:
    """Edges of equally wide bins in the logarithm, as many as this number of eigenvalues fills."""
    number = int(np.clip(2.0 * count**0.5, 16, 60))
    return np.geomspace(low, high, number + 1)


def density(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Histogram over the bins as a density of all values: those outside the bins count in the whole."""
    counts, _ = np.histogram(values, edges)
    return np.asarray(counts / (len(values) * np.diff(edges)), dtype=np.float64)


def tail_function(values: NDArray[np.float64], low: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The values above ``low``, ascending, after ``low`` itself, and the share of all that is at or above each."""
    inside = values[values > low]
    shares = np.arange(len(inside), 0, -1) / len(values)
    return np.append(low, inside), np.append(shares[:1], shares)


def bulk_curve(spectrum: Spectrum, low: float) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Points and density of the Marchenko-Pastur bulk above ``low``, scaled to the share that are no spikes.

    None where there is no bulk: not fitted, or half of the eigenvalues stand out of it.
    """
    edge, spikes = spectrum.numbers.mp_bulk_edge, spectrum.numbers.num_spikes
    if edge is None or edge <= low or spikes is None or 2 * spikes >= len(spectrum.values):
        return None
    begin = max(low, lower_edge(edge, spectrum.longer, spectrum.shorter))
    points = np.geomspace(begin, edge, _BULK_POINTS)
    share = 1.0 - spikes / len(spectrum.values)
    return points, share * bulk_density(points, edge, spectrum.longer, spectrum.shorter)


def fitted_density(spectrum: Spectrum, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The fitted power law as a density of all eigenvalues, at points x >= xmin; the layer has a fit."""
    alpha, xmin, share = _fit(spectrum)
    return np.asarray(share * (alpha - 1.0) / xmin * (x / xmin) ** -alpha, dtype=np.float64)


def fitted_tail_function(spectrum: Spectrum, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of all eigenvalues that the fitted power law puts at or above x >= xmin; the layer has a fit."""
    alpha, xmin, share = _fit(spectrum)
    return np.asarray(share * (x / xmin) ** (1.0 - alpha), dtype=np.float64)


def fitted_points(spectrum: Spectrum) -> NDArray[np.float64]:
    """Points from xmin to the largest eigenvalue, on which the fit is drawn."""
    _, xmin, _ = _fit(spectrum)
    return np.geomspace(xmin, max(float(spectrum.values[-1]), xmin * 1.001), 64)


def _fit(spectrum: Spectrum) -> tuple[float, float, float]:
    alpha, xmin, share = spectrum.numbers.alpha, spectrum.numbers.xmin, spectrum.tail_share
    if alpha is None or xmin is None or share is None:
        raise ValueError("a layer without a fit has no fitted curve")
    return alpha, xmin, share
