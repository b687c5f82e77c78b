"""What changed in one layer between the baseline and the new version, as numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.estimate import estimated_change
from layerwatch.metrics.measurement import Measurement, SpectralNumbers
from layerwatch.metrics.outline import OutlineChange, outline_change
from layerwatch.metrics.rescaling import Rescaling, find_rescaling, vector_rescaling
from layerwatch.metrics.rowchange import LIVE_SHARE, Comparison, RowChange, compare_elements
from layerwatch.metrics.sketchnoise import sketched_noise_ratio
from layerwatch.metrics.storagefaults import LEAST_CHANGE, StorageFault, find_storage_fault
from layerwatch.metrics.tensors import Array
from layerwatch.metrics.zeros import newly_zero, zero_sides, zero_tail_energy

_ZERO = 1e-30
_FEWEST_ROWS = 8


class Method(StrEnum):
    """How aligned numbers were obtained.

    The layer is byte-identical; from both weights; from sketches; or it holds the baseline's units in another order
    (``carried.py``), or multiplied by factors that other layers take back (``rescaled.py``), and is compared as if that
    were undone.
    """

    IDENTICAL = "identical"
    EXACT = "exact"
    SKETCH = "sketch"
    PERMUTED = "permuted"
    RESCALED = "rescaled"


@dataclass(frozen=True, slots=True)
class AlignedChange:
    """Numbers that compare weights element by element, on the BatchNorm-folded matrices.

    Attributes:
        relative_change: ||W - W0|| / ||W0|| (Frobenius), >= 0; None for an empty baseline layer.
        cosine: <W, W0> / (||W|| ||W0||), -1..1; None where either is empty.
        error: relative standard error of ``relative_change``, 0 unless estimated from sketches.
        method: how they were obtained.
        cosine_error: standard error of ``cosine``, 0 unless estimated from sketches.
        rows: what else both weights tell, row by row; None unless ``method`` is exact.
        fault: a fault of quantised storage that was recognised, or None; only where ``method`` is exact.
        sketched_noise_ratio: about 1 where the change is noise, more where it has structure (``sketchnoise.py``).
        rescaling: factors per row and column that explain a part of the change; None where none do, and unless
            ``method`` is exact.
        unscaled: the same comparison after those were undone; None without them, and for vectors.
    """

    relative_change: float | None
    cosine: float | None
    error: float
    method: Method
    cosine_error: float = 0.0
    rows: RowChange | None = None
    fault: StorageFault | None = None
    sketched_noise_ratio: float | None = None
    rescaling: Rescaling | None = None
    unscaled: AlignedChange | None = None


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
        newly_zero_rows, newly_zero_columns: positions of those counted in ``new_zero_rows`` and
            ``new_zero_columns``.
        zero_rows, zero_columns: positions of all that are exactly zero now, those that were zero before among them.
        zero_tail_energy: of the baseline, where the new layer ends in zeros (``zeros.py``).
        row_norm_scatter: standard deviation, from the median absolute one, of the natural logarithm of the row norms'
            ratios over the live rows; 0 for a layer that was scaled as a whole. None for fewer than 8 live rows.
        outline: how far norms of rows and columns and the spectrum moved, from what is stored; None when shapes
            differ or an array is missing.
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
    newly_zero_rows: tuple[int, ...] = ()
    newly_zero_columns: tuple[int, ...] = ()
    zero_rows: tuple[int, ...] = ()
    zero_columns: tuple[int, ...] = ()
    zero_tail_energy: float | None = None
    row_norm_scatter: float | None = None
    outline: OutlineChange | None = None


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
        aligned = _from_sketches(new, old) if exact is None else _with_noise_ratio(exact, new, old)
    alpha_shift, alpha_sigmas = _alpha_shift(new.numbers, old.numbers)
    newly_zero_rows = newly_zero(new.row_norms, old.row_norms)
    newly_zero_columns = newly_zero(new.column_norms, old.column_norms)
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
        new_zero_rows=len(newly_zero_rows),
        new_zero_columns=len(newly_zero_columns),
        rows=len(new.row_norms) if new.row_norms is not None else 0,
        columns=len(new.column_norms) if new.column_norms is not None else 0,
        emptied=new.non_finite == 0 and new.max_abs == 0.0 and old.max_abs > 0.0,
        newly_zero_rows=newly_zero_rows,
        newly_zero_columns=newly_zero_columns,
        zero_rows=zero_sides(new.row_norms),
        zero_columns=zero_sides(new.column_norms),
        zero_tail_energy=zero_tail_energy(new, old),
        outline=outline_change(new, old) if same_shape else None,
        row_norm_scatter=scatter_of_norms(new.row_norms, old.row_norms) if same_shape else None,
    )


def exact_change(
    new: Array,
    old: Array,
    factors: NDArray[np.float64] | None,
    factors0: NDArray[np.float64] | None,
) -> AlignedChange | None:
    """Element-wise comparison of two weights of equal shape.

    Args:
        new, old: shape (rows, ...), float32 or float64.
        factors, factors0: BatchNorm factors of each version, shape (rows,), or None.

    Returns:
        None when either holds a non-finite value.
    """
    found = compare_elements(new, old, factors, factors0)
    if found is None:
        return None
    exact = _exact(found, new, old, folded=factors is not None or factors0 is not None)
    # Where a batch norm is folded in, it takes any factor back by itself.
    if found.column_factors is None or factors is not None or factors0 is not None:
        return exact
    return _with_rescaling(exact, new, old, found.column_factors)


def exact_vector_change(new: Array, old: Array) -> AlignedChange | None:
    """The same for two vectors: the size of the change, and the factors between their elements.

    Args:
        new, old: shape (elements,), float32 or float64.
    """
    rescaling = vector_rescaling(new, old)
    if rescaling is None:
        return None
    x, y = new.astype(np.float64).reshape(-1), old.astype(np.float64).reshape(-1)
    norm, norm0 = float(np.linalg.norm(x)), float(np.linalg.norm(y))
    if not np.isfinite(norm + norm0):
        return None
    return AlignedChange(
        relative_change=float(np.linalg.norm(x - y)) / norm0 if norm0 > _ZERO else None,
        cosine=_cosine(float(x @ y), norm, norm0),
        error=0.0,
        method=Method.EXACT,
        rescaling=rescaling,
    )


def _exact(
    found: Comparison, new: Array, old: Array, *, folded: bool, method: Method = Method.EXACT
) -> AlignedChange:
    relative = found.change / found.norm0 if found.norm0 > _ZERO else None
    return AlignedChange(
        relative_change=relative,
        cosine=_cosine(found.product, found.norm, found.norm0),
        error=0.0,
        method=method,
        rows=found.rows,
        # A fault of storage is one of the stored tensor, whatever is folded into it for comparisons; folding changes
        # how much each row counts.
        fault=find_storage_fault(new.reshape(len(new), -1), old.reshape(len(old), -1))
        if relative is not None and relative > LEAST_CHANGE * (0.25 if folded else 1.0)
        else None,
    )


def _cosine(product: float, norm: float, norm0: float) -> float | None:
    return max(-1.0, min(1.0, product / norm / norm0)) if min(norm, norm0) > _ZERO else None


def _with_rescaling(
    exact: AlignedChange, new: Array, old: Array, column_factors: NDArray[np.float64]
) -> AlignedChange:
    found = find_rescaling(new.reshape(len(new), -1), old.reshape(len(old), -1), column_factors)
    if found is None:
        return exact
    rescaling, rescaled = found
    again = compare_elements(new, rescaled.reshape(old.shape), None, None)
    if again is None:
        return exact
    unscaled = _exact(again, new, rescaled, folded=False, method=Method.RESCALED)
    return replace(exact, rescaling=rescaling, unscaled=unscaled)


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
        sketched_noise_ratio=_noise_ratio(new, old) if change else None,
    )


def _with_noise_ratio(exact: AlignedChange, new: Measurement, old: Measurement) -> AlignedChange:
    # Read off the sketches here too: rules that ask for noise must answer alike whether both files are at hand or not.
    return replace(exact, sketched_noise_ratio=_noise_ratio(new, old))


def _noise_ratio(new: Measurement, old: Measurement) -> float | None:
    if new.sketch is None or old.sketch is None:
        return None
    return sketched_noise_ratio(new.sketch, old.sketch, new.shape[0], prod(new.shape[1:]))


def scatter_of_norms(new: NDArray[np.float32] | None, old: NDArray[np.float32] | None) -> float | None:
    """Scatter of the logarithm of norm ratios over live rows; None where fewer than 8 are live in both."""
    if new is None or old is None or len(new) != len(old):
        return None
    live = (old > LIVE_SHARE * np.median(old.astype(np.float64))) & (old > 0.0) & (new > 0.0)
    if np.count_nonzero(live) < _FEWEST_ROWS:
        return None
    ratios = np.log(new[live].astype(np.float64)) - np.log(old[live].astype(np.float64))
    # Of a Gaussian, the standard deviation is 1.4826 median absolute deviations; a few odd rows have rules of their own.
    return float(1.4826 * np.median(np.abs(ratios - np.median(ratios))))


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
