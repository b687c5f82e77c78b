"""Eigenvalue spectra of layers and the numbers that need nothing but the eigenvalues.

Eigenvalues are those of W^T W (sigma^2), not divided by the matrix' longer side; those of a convolution are
pooled over its kernel positions (Martin & Mahoney, JMLR 22(165), 2021, section 3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.alternatives import compare_laws
from layerwatch.metrics.eigenvalues import solver_epsilon, stack_eigenvalues
from layerwatch.metrics.erg import erg_tail
from layerwatch.metrics.hill import hill_alpha
from layerwatch.metrics.measurement import FitStatus, LayerKind, SpectralNumbers
from layerwatch.metrics.options import DEFAULT, MeasureOptions, Precision
from layerwatch.metrics.randommatrix import fit_bulk
from layerwatch.metrics.rounding import unit_roundoff
from layerwatch.metrics.tailfit import fit_tail
from layerwatch.metrics.tensors import Array


def unfolded(values: Array) -> Array:
    """The tensor as one matrix, rows = first axis: a linear layer as it is, a convolution o x (i*k)."""
    return values.reshape(values.shape[0], -1)


def view_stack(values: Array, kind: LayerKind) -> Array:
    """The matrices whose eigenvalues make up the layer's spectrum, as a view of shape (matrices, rows, columns).

    A convolution gives one o x i slice per kernel position; one with a single input channel per group
    (depthwise) has no such slices worth a spectrum and is unfolded, like everything else.

    Args:
        values: the tensor, at least 2-D.
        kind: what it is.
    """
    if kind is LayerKind.CONV and values.ndim > 2 and values.shape[1] > 1:
        return values.reshape(values.shape[0], values.shape[1], -1).transpose(2, 0, 1)
    return unfolded(values)[None]


def layer_eigenvalues(
    values: Array,
    kind: LayerKind,
    factors: NDArray[np.float64] | None = None,
    options: MeasureOptions = DEFAULT,
) -> NDArray[np.float64]:
    """The pooled spectrum of a layer, ascending (see :func:`view_stack` and ``eigenvalues.py``).

    Args:
        values: the tensor, at least 2-D, finite.
        kind: what it is.
        factors: BatchNorm factors per output row, shape (o,), or None.
        options: precision and device.
    """
    return stack_eigenvalues(view_stack(values, kind), factors, options)


def eigenvalues(matrix: Array, options: MeasureOptions = DEFAULT) -> NDArray[np.float64]:
    """The spectrum of one matrix, shape (rows, columns): ascending, shape (min(rows, columns),)."""
    return stack_eigenvalues(matrix[None], None, options)


def spectral_numbers(
    spectrum: NDArray[np.float64],
    dtype: str,
    longer: int,
    shorter: int,
    precision: Precision = Precision.AUTO,
) -> SpectralNumbers:
    """Everything that follows from the eigenvalues.

    Eigenvalues that the solver cannot tell from zero (lambda <= eps * sqrt(N) * lambda_max with eps of float64
    or float32, whichever was computed in: the accuracy of a Gram matrix) are left out of tail fit and entropy
    and counted in the rank loss.

    Rank loss counts singular values that rounding to the stored type could have produced by itself: the
    largest singular value of such rounding noise is about ``u * rms(W) * (sqrt(N) + sqrt(M))`` with the unit
    roundoff ``u`` of the stored type (Bai-Yin law), and never below what the solver resolves. The textbook
    bound ``sigma_max * N * eps`` is larger than sigma_max itself for bfloat16 from N = 256 on.

    Args:
        spectrum: ascending eigenvalues, shape (n,), not negative.
        dtype: the layer's stored type.
        longer, shorter: sides of one matrix view.
        precision: as the eigenvalues were computed.
    """
    count = len(spectrum)
    largest = float(spectrum[-1]) if count else 0.0
    with np.errstate(over="ignore"):
        total = float(spectrum.sum())
    if largest <= 0.0 or not np.isfinite(total):
        return _empty_numbers(count, rank_loss=count if largest <= 0.0 else None)
    resolution = solver_epsilon(shorter, precision) * longer**0.5 * largest
    positive = spectrum[spectrum > resolution]
    shares = positive / total
    entropy = min(max(0.0, float(-(shares * np.log(shares)).sum())), float(np.log(count)))
    log_largest = float(np.log10(largest))
    stable_rank = total / largest
    mean_square = total / (count * longer)
    rounding = unit_roundoff(dtype) ** 2 * mean_square * (longer**0.5 + shorter**0.5) ** 2
    rank_loss = int(np.count_nonzero(spectrum <= max(rounding, resolution)))
    fit = fit_tail(positive)
    # Rounding errors of the solver would be taken for a bulk of their own where most eigenvalues are zero.
    resolved = np.where(spectrum > resolution, spectrum, 0.0)
    bulk = fit_bulk(resolved, longer, shorter)
    laws = compare_laws(positive[-fit.tail_size :], fit.alpha) if fit else None
    erg = erg_tail(resolved)
    return SpectralNumbers(
        num_eigenvalues=count,
        fit_status=fit.status if fit else FitStatus.DEGENERATE,
        alpha=fit.alpha if fit else None,
        alpha_sigma=fit.sigma if fit else None,
        ks_distance=fit.ks_distance if fit else None,
        xmin=fit.xmin if fit else None,
        tail_size=fit.tail_size if fit else None,
        alpha_hat=fit.alpha * log_largest if fit else None,
        log_norm=float(np.log10(total)),
        log_spectral_norm=log_largest,
        log_alpha_norm=_log_alpha_norm(positive, fit.alpha) if fit else None,
        stable_rank=stable_rank,
        entropy=entropy / float(np.log(count)) if count > 1 else 0.0,
        effective_rank=float(np.exp(entropy)),
        rank_loss=rank_loss,
        mp_bulk_edge=bulk.upper_edge if bulk else None,
        mp_softrank=bulk.softrank if bulk else None,
        num_spikes=bulk.num_spikes if bulk else None,
        small_end_share=bulk.below_share if bulk else None,
        erg_tail=erg,
        erg_gap=erg - fit.tail_size if fit else None,
        hill_alpha=hill_alpha(positive),
        exponential_ratio=laws.exponential_ratio if laws else None,
        exponential_p=laws.exponential_p if laws else None,
        truncated_ratio=laws.truncated_ratio if laws else None,
        truncated_p=laws.truncated_p if laws else None,
    )


def _log_alpha_norm(positive: NDArray[np.float64], alpha: float) -> float:
    """log10 of the sum of lambda^alpha, by log-sum-exp so that no power overflows."""
    exponents = alpha * np.log10(positive)
    peak = float(exponents.max())
    return peak + float(np.log10(np.power(10.0, exponents - peak).sum()))


def _empty_numbers(count: int, rank_loss: int | None) -> SpectralNumbers:
    return SpectralNumbers(
        num_eigenvalues=count,
        fit_status=FitStatus.DEGENERATE,
        alpha=None,
        alpha_sigma=None,
        ks_distance=None,
        xmin=None,
        tail_size=None,
        alpha_hat=None,
        log_norm=None,
        log_spectral_norm=None,
        log_alpha_norm=None,
        stable_rank=None,
        entropy=None,
        effective_rank=None,
        rank_loss=rank_loss,
    )
