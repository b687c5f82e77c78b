"""What changed in one layer between the baseline and the new version, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.estimate import estimated_change
from layerwatch.metrics.measurement import Measurement, SpectralNumbers
from layerwatch.metrics.tensors import Array

LIVE_ROW_SHARE = 0.2
"""A row (column) of the baseline counts as live above this share of the median row (column) norm."""

_ZERO = 1e-30


class Method(StrEnum):
    """How aligned numbers were obtained: the layer is byte-identical, from both weights, or from sketches."""

    IDENTICAL = "identical"
    EXACT = "exact"
    SKETCH = "sketch"


@dataclass(frozen=True, slots=True)
class AlignedChange:
    """Numbers that compare weights element by element, on the BatchNorm-folded matrices.

    Attributes:
        relative_change: ||W - W0|| / ||W0|| (Frobenius), >= 0; None for an empty baseline layer.
        cosine: <W, W0> / (||W|| ||W0||), -1..1; None where either is empty.
        error: relative standard error of ``relative_change``, 0 unless estimated from sketches.
        method: how they were obtained.
        cosine_error: standard error of ``cosine``, 0 unless estimated from sketches.
    """

    relative_change: float | None
    cosine: float | None
    error: float
    method: Method
    cosine_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """Everything the rules may know about a layer's change. Ratios are new over baseline.

    Attributes:
        aligned: element-wise numbers; None when shapes differ.
        norm_ratio: of the folded Frobenius norm.
        max_abs_ratio: of the raw largest element, times the change of what the batch norm multiplies the layer
            with (root mean square), so that a rescaling which the batch norm divides out is none.
        spectral_ratio: of the largest singular value (folded).
        stable_rank_ratio, effective_rank_ratio, kurtosis_ratio: folded.
        rank_loss_shift: change of the rank loss as a share of the eigenvalues, -1..1; None between different
            stored types, whose rounding sets the limit of the rank.
        esd_distance: KS distance of the two folded spectra, each divided by its mean, 0..1.
        num_eigenvalues: size of the smaller spectrum.
        alpha_shift: alpha minus the baseline's (raw spectra).
        alpha_shift_sigmas: the same over sqrt(sigma^2 + sigma0^2).
        new_zero_rows, new_zero_columns: rows (columns) that are exactly zero now and were live in the
            baseline; ``rows`` and ``columns`` are their total counts.
        emptied: all elements are zero now and were not in the baseline.
    """

    aligned: AlignedChange | None
    norm_ratio: float | None
    max_abs_ratio: float | None
    spectral_ratio: float | None
    stable_rank_ratio: float | None
    effective_rank_ratio: float | None
    kurtosis_ratio: float | None
    rank_loss_shift: float | None
    esd_distance: float | None
    num_eigenvalues: int
    alpha_shift: float | None
    alpha_shift_sigmas: float | None
    new_zero_rows: int
    new_zero_columns: int
    rows: int
    columns: int
    emptied: bool


def compare_layer(new: Measurement, old: Measurement, exact: AlignedChange | None = None) -> Change:
    """Compare two measurements of one layer.

    Args:
        new, old: finite or not; with arrays loaded.
        exact: element-wise numbers computed from both weights, when they were at hand.
    """
    folded, folded0 = new.folded, old.folded
    spectrum, spectrum0 = new.folded_spectrum, old.folded_spectrum
    same_shape = new.shape == old.shape
    aligned: AlignedChange | None = None
    if same_shape and new.digest == old.digest:
        aligned = AlignedChange(0.0, 1.0 if new.norm > 0 else None, 0.0, Method.IDENTICAL)
    elif same_shape:
        aligned = exact or _from_sketches(new, old)
    alpha_shift, alpha_sigmas = _alpha_shift(new.numbers, old.numbers)
    return Change(
        aligned=aligned,
        norm_ratio=_ratio(_frobenius(folded), _frobenius(folded0)),
        max_abs_ratio=_max_abs_ratio(new, old),
        spectral_ratio=_ratio(_largest_singular(folded), _largest_singular(folded0)),
        stable_rank_ratio=_ratio(_stable_rank(folded), _stable_rank(folded0)),
        effective_rank_ratio=_ratio(_effective_rank(folded), _effective_rank(folded0)),
        kurtosis_ratio=_ratio(new.kurtosis, old.kurtosis),
        rank_loss_shift=_rank_loss_shift(folded, folded0) if new.dtype == old.dtype else None,
        esd_distance=(
            esd_distance(spectrum, spectrum0) if spectrum is not None and spectrum0 is not None else None
        ),
        num_eigenvalues=min(len(spectrum), len(spectrum0))
        if spectrum is not None and spectrum0 is not None
        else 0,
        alpha_shift=alpha_shift,
        alpha_shift_sigmas=alpha_sigmas,
        new_zero_rows=_newly_zero(new.row_norms, old.row_norms),
        new_zero_columns=_newly_zero(new.column_norms, old.column_norms),
        rows=len(new.row_norms) if new.row_norms is not None else 0,
        columns=len(new.column_norms) if new.column_norms is not None else 0,
        emptied=new.non_finite == 0 and new.max_abs == 0.0 and old.max_abs > 0.0,
    )


def exact_change(
    new: Array,
    old: Array,
    factors: NDArray[np.float64] | None,
    factors0: NDArray[np.float64] | None,
) -> AlignedChange | None:
    """Element-wise comparison of two weights of equal shape, row block by row block.

    Args:
        new, old: shape (rows, ...), float32 or float64.
        factors, factors0: BatchNorm factors of each version, shape (rows,), or None.

    Returns:
        None when either holds a non-finite value.
    """
    rows = new.shape[0]
    step = max(1, (1 << 20) * rows // max(1, new.size))
    change = square = square0 = product = 0.0
    # Squares beyond float64's range end as "no comparison" below.
    with np.errstate(over="ignore", invalid="ignore"):
        for begin in range(0, rows, step):
            a = np.asarray(new[begin : begin + step], dtype=np.float64).reshape(min(step, rows - begin), -1)
            b = np.asarray(old[begin : begin + step], dtype=np.float64).reshape(a.shape)
            if factors is not None:
                a = a * factors[begin : begin + step, None]
            if factors0 is not None:
                b = b * factors0[begin : begin + step, None]
            square += float(np.vdot(a, a))
            square0 += float(np.vdot(b, b))
            product += float(np.vdot(a, b))
            change += float(np.square(a - b).sum())
    if not np.isfinite(square + square0 + change):
        return None
    norm, norm0 = square**0.5, square0**0.5
    return AlignedChange(
        relative_change=change**0.5 / norm0 if norm0 > _ZERO else None,
        cosine=max(-1.0, min(1.0, product / norm / norm0)) if min(norm, norm0) > _ZERO else None,
        error=0.0,
        method=Method.EXACT,
    )


def _from_sketches(new: Measurement, old: Measurement) -> AlignedChange | None:
    if new.sketch is None or old.sketch is None:
        return None
    norm, norm0 = _frobenius(new.folded) or 0.0, _frobenius(old.folded) or 0.0
    found = estimated_change(new.sketch, old.sketch, norm, norm0)
    change, cosine = found.relative_change, found.cosine
    return AlignedChange(
        relative_change=change.value if change else None,
        cosine=cosine.value if cosine else None,
        error=change.error / change.value if change and change.value > 0.0 else 0.0,
        method=Method.SKETCH,
        cosine_error=cosine.error if cosine else 0.0,
    )


def esd_distance(new: NDArray[np.float32], old: NDArray[np.float32]) -> float | None:
    """Two-sample KS distance of the spectra, each divided by its mean, 0..1; None for an empty one."""
    normalised = []
    for spectrum in (new, old):
        values = spectrum.astype(np.float64)
        mean = float(values.mean()) if len(values) else 0.0
        if mean <= 0.0:
            return None
        normalised.append(values / mean)
    joined = np.concatenate(normalised)
    shares = [np.searchsorted(one, joined, side="right") / len(one) for one in normalised]
    return float(np.abs(shares[0] - shares[1]).max())


def _alpha_shift(
    new: SpectralNumbers | None, old: SpectralNumbers | None
) -> tuple[float | None, float | None]:
    if new is None or old is None or new.alpha is None or old.alpha is None:
        return None, None
    shift = new.alpha - old.alpha
    sigma = ((new.alpha_sigma or 0.0) ** 2 + (old.alpha_sigma or 0.0) ** 2) ** 0.5
    return shift, shift / sigma if sigma > 0 else None


def _rank_loss_shift(new: SpectralNumbers | None, old: SpectralNumbers | None) -> float | None:
    if new is None or old is None or new.rank_loss is None or old.rank_loss is None:
        return None
    return new.rank_loss / max(1, new.num_eigenvalues) - old.rank_loss / max(1, old.num_eigenvalues)


def _newly_zero(new: NDArray[np.float32] | None, old: NDArray[np.float32] | None) -> int:
    if new is None or old is None or len(new) != len(old) or len(old) == 0:
        return 0
    live = old > LIVE_ROW_SHARE * np.median(old.astype(np.float64))
    return int(np.count_nonzero((new == 0.0) & live & (old > 0.0)))


def _frobenius(numbers: SpectralNumbers | None) -> float | None:
    if numbers is None or numbers.log_norm is None:
        return None
    return float(10.0 ** (numbers.log_norm / 2))


def _largest_singular(numbers: SpectralNumbers | None) -> float | None:
    if numbers is None or numbers.log_spectral_norm is None:
        return None
    return float(10.0 ** (numbers.log_spectral_norm / 2))


def _max_abs_ratio(new: Measurement, old: Measurement) -> float | None:
    ratio = _ratio(new.max_abs, old.max_abs)
    factor, factor0 = _fold_factor(new), _fold_factor(old)
    return ratio * factor / factor0 if ratio is not None and factor and factor0 else ratio


def _fold_factor(measurement: Measurement) -> float | None:
    """Folded over raw Frobenius norm; 1 where nothing is folded."""
    if measurement.folded_by is None:
        return 1.0
    return _ratio(_frobenius(measurement.folded), measurement.norm)


def _stable_rank(numbers: SpectralNumbers | None) -> float | None:
    return None if numbers is None else numbers.stable_rank


def _effective_rank(numbers: SpectralNumbers | None) -> float | None:
    return None if numbers is None else numbers.effective_rank


def _ratio(new: float | None, old: float | None) -> float | None:
    if new is None or old is None or old <= _ZERO:
        return None
    return new / old
