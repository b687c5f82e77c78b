"""Delta spectra: what changed between a layer and its parent, as a spectrum of its own (task vector).

Every number of a layer's spectrum is taken of ``W - W_parent``; beside it stand the share of the change in its
largest direction ("Watch the Weights", arXiv:2508.00161: the leading singular vectors of a change carry the newly
trained behaviour) and the intruder dimensions (``intruders.py``). An adapter is measured from its factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from layerwatch.metrics.aligned import aligned
from layerwatch.metrics.elements import as_float32, element_numbers
from layerwatch.metrics.intruders import DIRECTIONS, THRESHOLD, Intruders, check_arguments, find_intruders
from layerwatch.metrics.measurement import LayerKind, SpectralNumbers
from layerwatch.metrics.options import DEFAULT, MeasureOptions, Precision
from layerwatch.metrics.spectra import eigenvalues, layer_eigenvalues, spectral_numbers, unfolded, view_stack
from layerwatch.metrics.tensors import Array


class DeltaStatus(StrEnum):
    """What a comparison came to.

    ``ok``; ``unchanged``: the difference is zero everywhere, so it has no spectrum: ``relative_change`` is 0,
    ``intruders`` 0 of 0, every other number None; ``non_finite``: one side holds NaN or infinity, or their
    difference exceeds float64: every number is None and the spectrum empty.
    """

    OK = "ok"
    UNCHANGED = "unchanged"
    NON_FINITE = "non_finite"


@dataclass(frozen=True, slots=True)
class DeltaNumbers:
    """Numbers of the change ``W - W_parent`` of one layer, raw (no BatchNorm folded).

    Attributes:
        status: whether there is anything to read.
        numbers: spectral numbers of the change, pooled like the layer's own.
        spectrum: its eigenvalues, ascending, float32; those of an adapter without the zeros beyond its rank.
            ``numbers`` are taken before rounding, so they hold where eigenvalues leave float32's range.
        relative_change: ||W - W_parent|| / ||W_parent|| (Frobenius), >= 0; None without a parent or where it is
            zero.
        leading_share: share of ||W - W_parent||^2 in its largest singular direction, on the unfolded matrix,
            1/M..1; 1 for a change of rank one.
        intruders: intruder dimensions of the unfolded matrix; None where they were not examined (no parent, a
            parent of zeros, or a layer too large: ``intruders.py``).
        intruder_directions: leading directions examined; 0 where ``intruders`` is None.
        intruder_threshold: largest absolute cosine below which a direction counts, 0..1.
    """

    status: DeltaStatus
    numbers: SpectralNumbers
    spectrum: NDArray[np.float32]
    relative_change: float | None
    leading_share: float | None
    intruders: int | None
    intruder_directions: int
    intruder_threshold: float


def delta_numbers(
    new: Array,
    old: Array,
    kind: LayerKind,
    dtype: str,
    *,
    directions: int = DIRECTIONS,
    threshold: float = THRESHOLD,
    options: MeasureOptions = DEFAULT,
) -> DeltaNumbers:
    """Measure the change of one layer.

    Besides the eigenvalues of the change this costs two eigenproblems with vectors (``intruders.py``), several
    times as much as measuring the layer.

    Args:
        new, old: values of the layer and of its parent, at least 1-D, float32 or float64, of equal shape; NaN
            and infinity are told by the status.
        kind: what the layer is; decides how its spectrum is pooled.
        dtype: stored type of the layer, for the rank loss.
        directions, threshold: k and epsilon of the intruder dimensions.
        options: precision and device of the eigenvalues.

    Raises:
        ValueError: the shapes differ, or ``directions`` or ``threshold`` is out of its range.
    """
    check_arguments(directions, threshold)
    if new.shape != old.shape:
        raise ValueError(f"a change needs equal shapes, not {new.shape} and {old.shape}")
    change = _difference(new, old)
    if change.size == 0:
        return _unchanged(0, dtype, 0, 0, threshold)
    stack = view_stack(change, kind)
    longer, shorter = max(stack.shape[1:]), min(stack.shape[1:])
    count = len(stack) * shorter
    elements = element_numbers(change)
    if elements.non_finite:
        return _non_finite(count, dtype, longer, shorter, threshold)
    if elements.max_abs == 0.0:
        return _unchanged(count, dtype, longer, shorter, threshold)
    spectrum = layer_eigenvalues(change, kind, None, options)
    single = spectrum if len(stack) == 1 else eigenvalues(unfolded(change), options)
    found = find_intruders(unfolded(new), unfolded(old), directions, threshold)
    return _numbers(
        spectral_numbers(spectrum, dtype, longer, shorter, options.precision),
        spectrum,
        _ratio(elements.norm, element_numbers(old).norm),
        _leading_share(single),
        found,
        threshold,
    )


def low_rank_delta_numbers(
    b: Array,
    a: Array,
    scale: float,
    dtype: str,
    parent: Array | None = None,
    *,
    directions: int = DIRECTIONS,
    threshold: float = THRESHOLD,
) -> DeltaNumbers:
    """Measure the change ``scale * B A`` that an adapter makes, from its factors.

    With ``B = Q_b R_b`` and ``A^T = Q_a R_a`` the singular values of the product are those of the small matrix
    ``scale * R_b R_a^T``; the product itself, rows x columns, is formed only where there is a parent to look for
    intruders in. The numbers are those of the whole product, zero eigenvalues counted: the same change gives the
    same numbers as factors and as matrices.

    Args:
        b: shape (rows, r), float32 or float64.
        a: shape (r, columns); the r of ``b``. For a convolution, columns are those of the unfolded matrix.
        scale: what the product is multiplied with (alpha / r).
        dtype: stored type of the factors, for the rank loss.
        parent: the matrix that the adapter is added to, shape (rows, columns) once unfolded, or None.
        directions, threshold: k and epsilon of the intruder dimensions.

    Raises:
        ValueError: the shapes do not fit, or ``directions`` or ``threshold`` is out of its range.
    """
    check_arguments(directions, threshold)
    if b.ndim != 2 or a.ndim != 2 or b.shape[1] != a.shape[0]:
        raise ValueError(f"factors must be (rows, r) and (r, columns), not {b.shape} and {a.shape}")
    rows, columns = b.shape[0], a.shape[1]
    base = None if parent is None else unfolded(parent)
    if base is not None and base.shape != (rows, columns):
        raise ValueError(f"the parent is {base.shape}, the adapter {(rows, columns)}")
    longer, shorter = max(rows, columns), min(rows, columns)
    parts = [np.asarray(b, np.float64), np.asarray(a, np.float64).T, np.full((1, 1), scale, np.float64)]
    base_norm = None
    if base is not None:
        elements = element_numbers(base)
        base_norm = elements.norm
        if elements.non_finite:
            return _non_finite(shorter, dtype, longer, shorter, threshold)
    if not all(np.isfinite(part).all() for part in parts):
        return _non_finite(shorter, dtype, longer, shorter, threshold)
    exponents = [int(np.frexp(np.abs(part).max(initial=0.0))[1]) for part in parts]
    left, right, factor = (np.ldexp(part, -exponent) for part, exponent in zip(parts, exponents, strict=True))
    core = float(factor[0, 0]) * _triangle(left) @ _triangle(right).T
    singular = torch.linalg.svdvals(core).numpy()[::-1]
    if not singular.any():
        return _unchanged(shorter, dtype, longer, shorter, threshold)
    with np.errstate(over="ignore"):
        spectrum = np.square(np.ldexp(singular, sum(exponents)))
        norm = float(np.ldexp(np.linalg.norm(singular), sum(exponents)))
    padded = np.concatenate((np.zeros(shorter - len(spectrum)), spectrum))
    found = None
    if base is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            new = base + scale * (parts[0] @ parts[1].T)
        if not np.isfinite(new).all():
            return _non_finite(shorter, dtype, longer, shorter, threshold)
        found = find_intruders(new, base, directions, threshold)
    return _numbers(
        spectral_numbers(padded, dtype, longer, shorter, Precision.FLOAT64),
        spectrum,
        None if base_norm is None else _ratio(norm, base_norm),
        _leading_share(np.square(singular)),
        found,
        threshold,
    )


def _triangle(factor: NDArray[np.float64]) -> torch.Tensor:
    """R of the factor's QR decomposition, shape (min(rows, r), r)."""
    _, triangle = torch.linalg.qr(aligned(factor), mode="r")
    return cast(torch.Tensor, triangle)


def _difference(new: Array, old: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        change = new - old
        if change.dtype != np.float64 and not np.isfinite(change).all():
            # Two finite float32 values may lie further apart than float32 reaches.
            change = new.astype(np.float64) - old.astype(np.float64)
    return np.asarray(change)


def _numbers(
    numbers: SpectralNumbers,
    spectrum: NDArray[np.float64],
    relative_change: float | None,
    leading_share: float | None,
    found: Intruders | None,
    threshold: float,
) -> DeltaNumbers:
    return DeltaNumbers(
        status=DeltaStatus.OK,
        numbers=numbers,
        spectrum=as_float32(spectrum),
        relative_change=relative_change,
        leading_share=leading_share,
        intruders=None if found is None else found.count,
        intruder_directions=0 if found is None else found.directions,
        intruder_threshold=threshold,
    )


def _unchanged(count: int, dtype: str, longer: int, shorter: int, threshold: float) -> DeltaNumbers:
    zeros = np.zeros(count)
    return DeltaNumbers(
        status=DeltaStatus.UNCHANGED,
        numbers=spectral_numbers(zeros, dtype, longer, shorter),
        spectrum=as_float32(zeros),
        relative_change=0.0,
        leading_share=None,
        intruders=0,
        intruder_directions=0,
        intruder_threshold=threshold,
    )


def _non_finite(count: int, dtype: str, longer: int, shorter: int, threshold: float) -> DeltaNumbers:
    return DeltaNumbers(
        status=DeltaStatus.NON_FINITE,
        numbers=spectral_numbers(np.full(count, np.inf), dtype, longer, shorter),
        spectrum=np.zeros(0, dtype=np.float32),
        relative_change=None,
        leading_share=None,
        intruders=None,
        intruder_directions=0,
        intruder_threshold=threshold,
    )


def _leading_share(spectrum: NDArray[np.float64]) -> float | None:
    largest = float(spectrum[-1])
    if not 0.0 < largest < np.inf:
        return None
    return float(1.0 / (spectrum / largest).sum())


def _ratio(norm: float, base: float) -> float | None:
    if base <= 0.0:
        return None
    ratio = norm / base
    return ratio if np.isfinite(ratio) else None
