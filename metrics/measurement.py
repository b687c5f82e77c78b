"""The measurement of one layer: everything that is kept about it, as frozen values.

A measurement depends only on the bytes of the layer's tensor, on the BatchNorm vectors folded into it and on
the metric set, so it is stored under :attr:`Measurement.digest` and never taken twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

METRIC_SET = "4"
"""Version of the definitions below and of the sketch's seeds. Measurements of different sets never mix."""


class LayerKind(StrEnum):
    """What a tensor is, as far as its name and shape tell."""

    LINEAR = "linear"
    EMBEDDING = "embedding"
    CONV = "conv"
    STACK = "stack"
    NORM = "norm"
    BIAS = "bias"
    STATISTIC = "statistic"
    VECTOR = "vector"


class FitStatus(StrEnum):
    """Whether the power-law fit deserves to be read.

    ``ok``; ``too_small``: fewer than 50 eigenvalues; ``short_tail``: fewer than 10 of them in the tail;
    ``poor_fit``: KS distance above 1.63/sqrt(tail size); ``degenerate``: no fit exists (empty, constant or
    non-finite matrix) and alpha is None.
    """

    OK = "ok"
    TOO_SMALL = "too_small"
    SHORT_TAIL = "short_tail"
    POOR_FIT = "poor_fit"
    DEGENERATE = "degenerate"


@dataclass(frozen=True, slots=True)
class SpectralNumbers:
    """Numbers read off one eigenvalue spectrum (eigenvalues of W^T W, not divided by N).

    Definitions and sources: ``spectra.py``, ``tailfit.py``, ``randommatrix.py`` (mp_*, num_spikes,
    small_end_share), ``erg.py``, ``hill.py`` and ``alternatives.py`` (exponential_*, truncated_*). None means
    undefined for this matrix, never zero and never a sentinel.
    """

    num_eigenvalues: int
    fit_status: FitStatus
    alpha: float | None
    alpha_sigma: float | None
    ks_distance: float | None
    xmin: float | None
    tail_size: int | None
    alpha_hat: float | None
    log_norm: float | None
    log_spectral_norm: float | None
    log_alpha_norm: float | None
    stable_rank: float | None
    entropy: float | None
    effective_rank: float | None
    rank_loss: int | None
    mp_bulk_edge: float | None = None
    mp_softrank: float | None = None
    num_spikes: int | None = None
    small_end_share: float | None = None
    erg_tail: int | None = None
    erg_gap: int | None = None
    hill_alpha: float | None = None
    exponential_ratio: float | None = None
    exponential_p: float | None = None
    truncated_ratio: float | None = None
    truncated_p: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything kept about one layer (or, for a 1-D tensor, its hygiene numbers alone).

    Attributes:
        digest: sha256 over tensor bytes, shape, stored type, folded BatchNorm vectors and matrix view.
        kind: what the tensor is.
        shape: dimensions as stored.
        dtype: type as stored.
        non_finite: number of NaN and infinite elements. When above zero nothing else is computed.
        max_abs: largest absolute value of the raw tensor, 0 for an empty one.
        min_value: smallest value of the raw tensor, 0 for an empty one.
        norm: Frobenius norm of the raw tensor.
        zero_share: share of elements that are exactly zero, 0..1.
        zero_tail: number of elements at the end, in storage order, that are exactly zero.
        constant: True where there are two elements or more and all are equal.
        duplicate_rows: number of rows with ``|cos| > 0.9999`` to another row, zero rows left out; None for rows of
            fewer than 8 elements and where nothing was computed (``duplicates.py``).
        levels_per_row: how many different values a row of the raw matrix holds, the median; None for rows shorter
            than 32, nearly empty ones, and where nothing was computed (``elements.py``).
        kurtosis: fourth standardised moment of the folded matrix's elements (3 for a Gaussian), or None.
        farms_alpha: Hill's alpha on square windows of the raw matrix, or None below 128 x 128 (``hill.py``).
        traps: eigenvalues that leave the bulk after the elements were shuffled; the shuffle is seeded by the
            digest. None where nothing was computed (``traps.py``).
        largest_trap: the largest of them over the bulk's threshold, above 1, or None.
        numbers: spectral numbers of the raw matrix, None for 1-D tensors and non-finite layers.
        folded: spectral numbers of the BatchNorm-folded matrix; equal to ``numbers`` where nothing is folded.
        folded_by: name of the BatchNorm folded into the layer, or None.
        row_concentration, channel_concentration: of the raw rows and input channels, sum of the fourth powers of their
            norms over the squared sum of squares, 0..1: the same for any order of them. Only for folded layers, whose
            row and column norms below are not the raw ones (``outline.py``).
        fold_statistics_empty: True when that BatchNorm's running variance and mean are zero throughout, which
            says that the layer's output was already zero during training.
        spectrum: raw eigenvalues, ascending, float32.
        folded_spectrum: folded eigenvalues, ascending, float32; the same array as ``spectrum`` without a fold.
        shuffled_spectrum: eigenvalues of the raw matrix after its elements were shuffled, ascending, float32; only
            where it was asked for, and not kept with the rest.
        row_norms, column_norms: norms of the folded, unfolded-to-2-D matrix, float32.
        sketch: linear sketch of that matrix, float32, 64 x 64 (``metrics/sketch.py``).
        raw_sketch: that of the raw matrix, for folded layers only: a merge mixes raw matrices, and a fold of a mixture
            is no mixture of folds. None as well where the measurement is older than this sketch.
    """

    digest: str
    kind: LayerKind
    shape: tuple[int, ...]
    dtype: str
    non_finite: int
    max_abs: float
    norm: float
    zero_share: float
    min_value: float = 0.0
    zero_tail: int = 0
    constant: bool = False
    duplicate_rows: int | None = None
    levels_per_row: float | None = None
    kurtosis: float | None = None
    farms_alpha: float | None = None
    traps: int | None = None
    largest_trap: float | None = None
    numbers: SpectralNumbers | None = None
    folded: SpectralNumbers | None = None
    folded_by: str | None = None
    row_concentration: float | None = None
    channel_concentration: float | None = None
    fold_statistics_empty: bool = False
    spectrum: NDArray[np.float32] | None = None
    folded_spectrum: NDArray[np.float32] | None = None
    shuffled_spectrum: NDArray[np.float32] | None = None
    row_norms: NDArray[np.float32] | None = None
    column_norms: NDArray[np.float32] | None = None
    sketch: NDArray[np.float32] | None = None
    raw_sketch: NDArray[np.float32] | None = None


ARRAYS = (
    "spectrum",
    "folded_spectrum",
    "shuffled_spectrum",
    "row_norms",
    "column_norms",
    "sketch",
    "raw_sketch",
)
"""Names of the attributes of a :class:`Measurement` that are arrays."""
