"""Results with the column names and conventions of WeightWatcher 0.7.7, for those who come from it.

``measure_model(model).weightwatcher_frame()`` takes the place of ``WeightWatcher(model).analyze(mp_fit=True,
randomize=True, ERG=True)``. Columns stand in that tool's order. Its conventions are kept where they change what
numbers mean: eigenvalues of a 4-D convolution are halved (it scales the kernel by sqrt(1/2)), ``norm`` is the squared
Frobenius norm, ``warning`` follows alpha alone (below 2 ``over-trained``, above 6 ``under-trained``), and nothing is
folded. On float64 spectra every number agrees to 1e-6 relative, except as listed in :data:`DIFFERENCES`, one entry
per difference::

    for one in DIFFERENCES:
        print(f"{one.column}: {one.theirs}; here {one.ours} ({one.why})")

Four columns need the spectrum of the shuffled elements, ``measure_model(model, options=MeasureOptions(shuffled=True))``:
``max_rand_eval``, ``rand_distance``, ``ww_softrank`` and ``ww_maxdist``; else they are NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log10, prod, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.frames import Columns, to_frame
from layerwatch.metrics.layers import view_sides
from layerwatch.metrics.measurement import LayerKind, Measurement, SpectralNumbers
from layerwatch.metrics.results import LayerMeasurement, ModelMeasurement

if TYPE_CHECKING:
    import pandas as pd

OVER_TRAINED = 2.0
UNDER_TRAINED = 6.0

WEAK_RANK = 1e-6
"""Eigenvalues below this count in ``weak_rank_loss``: absolute, whatever the size of the weights."""

_LARGEST_KEPT = float(np.finfo(np.float32).max)
"""Spectra are kept in float32; eigenvalues beyond stand at this value."""

COLUMNS: Columns = {
    "layer_id": "int64",
    "name": "object",
    "D": "float64",
    "ERG_gap": "Int64",
    "M": "int64",
    "N": "int64",
    "Q": "float64",
    "W_scale": "float64",
    "alpha": "float64",
    "alpha_weighted": "float64",
    "bulk_max": "float64",
    "bulk_min": "float64",
    "detX_num": "Int64",
    "detX_val": "float64",
    "detX_val_unrescaled": "float64",
    "entropy": "float64",
    "has_esd": "bool",
    "lambda_max": "float64",
    "layer_type": "object",
    "log_alpha_norm": "float64",
    "log_norm": "float64",
    "log_spectral_norm": "float64",
    "longname": "object",
    "matrix_rank": "Int64",
    "max_rand_eval": "float64",
    "mp_softrank": "float64",
    "norm": "float64",
    "num_ERG_spikes": "Int64",
    "num_evals": "int64",
    "num_pl_spikes": "Int64",
    "num_spikes": "Int64",
    "num_traps": "Int64",
    "rand_distance": "float64",
    "rand_num_spikes": "Int64",
    "rank_loss": "Int64",
    "rf": "int64",
    "sigma": "float64",
    "sigma_mp": "float64",
    "spectral_norm": "float64",
    "stable_rank": "float64",
    "status": "object",
    "sv_max": "float64",
    "sv_min": "float64",
    "warning": "object",
    "weak_rank_loss": "Int64",
    "ww_maxdist": "float64",
    "ww_softrank": "float64",
    "xmax": "float64",
    "xmin": "float64",
    "problem": "string",
}
"""Column name -> pandas type, in that tool's order (ids first, then by name); ``problem`` is ours."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a value differs from WeightWatcher 0.7.7.

    Attributes:
        column: the column (or several, separated by commas); "rows" for which layers have a row at all.
        theirs: what that tool does.
        ours: what is done here.
        why: the reason.
    """

    column: str
    theirs: str
    ours: str
    why: str


DIFFERENCES = (
    Difference(
        "rows",
        "layers with fewer than 8 or more than 15000 eigenvalues, or a side above 50000, are left out",
        "every layer has a row",
        "a layer that nobody looked at must not look healthy",
    ),
    Difference(
        "rows",
        "only 2-D and 4-D tensors called .weight; in_proj_weight, recurrent and 3-D tensors are absent",
        "every tensor of two or more dimensions; 3-D ones that are no convolution have layer_type unknown",
        "the same",
    ),
    Difference(
        "rows",
        "one NaN or infinite weight ends the analysis of all layers with a ValueError",
        "that layer's row has no numbers and status failed; the others are unharmed",
        "one damaged layer is when numbers of the others are needed most",
    ),
    Difference(
        "rows",
        "integers are analysed as they are stored, FP8 without its scales",
        "multiplied with their scales; without scales no numbers, and problem says so",
        "stored integers are not what the layer multiplies with",
    ),
    Difference(
        "layer_id",
        "depends on the source: modules, keys and files are counted differently",
        "1, 2, 3 ... over the rows",
        "their numbering cannot be known from the weights; longname is the key",
    ),
    Difference(
        "name",
        "last part of the dotted path for a module, the whole key for a state dict",
        "last part of the dotted path",
        "a result must not depend on how the model was passed",
    ),
    Difference(
        "layer_type",
        "embeddings are dense when they come from a state dict",
        "embedding where the tensor's name says so; conv3d for 5-D kernels",
        "a module and its state dict give the same rows",
    ),
    Difference(
        "alpha, D, sigma, xmin, xmax, num_pl_spikes",
        "-1 when no fit exists",
        "NaN (NA), with status failed",
        "a number must not stand in for a failure: -1 drags every mean",
    ),
    Difference(
        "alpha, D, sigma, xmin, num_pl_spikes",
        "below 20 eigenvalues another estimator, whose choice of xmin is overridden afterwards",
        "the same estimator for every size",
        "alpha from so few eigenvalues means nothing either way; frame() says too_small",
    ),
    Difference(
        "alpha, D, sigma, xmin, num_pl_spikes",
        "eigenvalues below 1e-5 are left out of the fit, whatever the scale of the weights",
        "those that the solver cannot tell from zero, relative to the largest",
        "healthy weights times 0.001 would lose their fit",
    ),
    Difference(
        "warning",
        "over-trained for every failed fit, because -1 is below 2",
        "empty for a failed fit",
        "a dead or constant layer is not over-trained",
    ),
    Difference(
        "status",
        "success for equal eigenvalues, with alpha infinite or about 1e8",
        "failed",
        "values without spread have no exponent",
    ),
    Difference(
        "N, M, Q",
        "swapped for convolutions with fewer outputs than inputs and an even number of kernel positions",
        "N is the longer side",
        "the swap corrupts everything that uses Q",
    ),
    Difference(
        "num_evals, rf",
        "a depthwise convolution is cut into one-column matrices, one per kernel position",
        "it is one matrix, outputs x kernel positions (rf 1), and not halved",
        "the spectrum of a column is its length",
    ),
    Difference(
        "sv_min",
        "of a convolution, the largest of the smallest singular values of its slices",
        "the smallest of all; below about 1e-8 of sv_max it is rounding error of the solver",
        "the name says minimum; eigenvalues come from a Gram matrix",
    ),
    Difference(
        "rank_loss, matrix_rank",
        "singular values above sv_max * N * eps of float64 count, whatever the weights are stored in",
        "those count that rounding to the stored type could not have made",
        "float32 noise always exceeds the float64 limit: true rank loss is never seen",
    ),
    Difference(
        "entropy",
        "1e-10 (6e-5 on a GPU) is added to each probability; divided by ln(matrix_rank)",
        "nothing is added; divided by ln(num_evals), 0..1",
        "with rank 1 they divide by about 1e-10; on full rank the two agree to 1e-7",
    ),
    Difference(
        "log_norm, log_spectral_norm, alpha_weighted, log_alpha_norm, stable_rank",
        "infinite or NaN for a layer of zeros, alpha_weighted even +inf",
        "NaN",
        "undefined is undefined",
    ),
    Difference(
        "norm, lambda_max, spectral_norm, sv_max, sv_min, W_scale",
        "0 for a layer of zeros (W_scale infinite)",
        "norm, lambda_max, spectral_norm, sv_max and sv_min 0, W_scale NaN",
        "0 is right; infinity is no scale",
    ),
    Difference(
        "sigma_mp, bulk_min, bulk_max, mp_softrank",
        "least squares between a density estimate and the Marchenko-Pastur density, on a grid",
        "noise level from the median, then the mean of what is no spike; mp_softrank is at most 1",
        "theirs moves with bandwidth and grid, and can exceed lambda_max",
    ),
    Difference(
        "num_spikes",
        "above bulk_max + sqrt(Q^-0.5 * b^(2/3) * M^(-2/3)) in rescaled units",
        "above the 99.9 % point of the Tracy-Widom law for the fitted bulk",
        "one false spike in a thousand random matrices, for every shape",
    ),
    Difference(
        "num_traps, rand_num_spikes",
        "from an unseeded shuffle, 5 pooled below 100 components, against a bulk fitted to it",
        "one shuffle per matrix, seeded by the layer's bytes, against the edge that theory gives",
        "unseeded numbers change from run to run",
    ),
    Difference(
        "max_rand_eval, rand_distance, ww_softrank, ww_maxdist",
        "from further unseeded shuffles",
        "from one seeded shuffle; NaN unless it was asked for (MeasureOptions.shuffled)",
        "the same bytes give the same numbers; the full spectrum costs as much as the layer",
    ),
    Difference(
        "rand_W_scale, rand_sigma_mp, rand_mp_softrank, rand_bulk_max, rand_bulk_min",
        "a bulk fitted to the shuffled spectrum",
        "no such columns",
        "shuffled elements have the bulk of their variance, which needs no fit",
    ),
    Difference(
        "detX_num, num_ERG_spikes, ERG_gap, detX_val, detX_val_unrescaled",
        "from a product of eigenvalues, which overflows from about 3000 on (15 % off at 15000)",
        "from a sum of logarithms",
        "the sum does not overflow",
    ),
    Difference(
        "detX_num, num_ERG_spikes, ERG_gap",
        "0 for equal eigenvalues",
        "all of them, because their product never falls below one; ERG_gap NA",
        "the product is one at every length",
    ),
    Difference(
        "detX_val, detX_val_unrescaled",
        "the second smallest eigenvalue where all of them count; otherwise the eigenvalue at the gap",
        "always the eigenvalue at the gap",
        "their search ends one eigenvalue early",
    ),
    Difference(
        "Lambda, num_fingers, raw_alpha",
        "of truncated fits and of fits without the largest eigenvalues, when asked for",
        "no such columns; frame() has the likelihood ratio against the truncated power law",
        "a test says whether the other law fits better, which its parameter does not",
    ),
    Difference(
        "slice_id, Xflag, peft",
        "markers of the modes pool=False, intra=True and peft",
        "no such columns",
        "there are no such modes",
    ),
    Difference(
        "bulk_mean_*, bulk_var_*, tail_mean_*, tail_var_*",
        "statistics of singular vectors, with vectors=True",
        "no such columns",
        "vectors cost several times what eigenvalues do and are not taken",
    ),
    Difference(
        "alpha, log_alpha_norm, entropy",
        "float64 on a processor; on a GPU the weights go through float16 first",
        "float64 up to M = 1024, float32 above unless MeasureOptions(precision=float64)",
        "twice as fast there, and alpha moves by less than its standard error",
    ),
    Difference(
        "problem",
        "no such column",
        "why a layer could not be examined, or how many of its weights are NaN or infinite",
        "a row without numbers must say why",
    ),
)
"""Every difference to the columns of WeightWatcher 0.7.7."""


def weightwatcher_frame(model: ModelMeasurement) -> pd.DataFrame:
    """One row per layer with a spectrum, in the order of the model; see the module for conventions.

    Raises:
        FrameError: pandas is not installed.
    """
    return to_frame([_row(i, layer) for i, layer in enumerate(model.layers, start=1)], COLUMNS)


@dataclass(frozen=True, slots=True)
class _View:
    """How that tool cuts a layer into matrices.

    Attributes:
        matrices: their number (``rf``).
        longer, shorter: their sides (``N``, ``M``).
        factor: what it multiplies eigenvalues with.
    """

    matrices: int
    longer: int
    shorter: int
    factor: float


def _view(layer: LayerMeasurement) -> _View:
    matrices, factor = 1, 1.0
    if layer.kind is LayerKind.CONV and len(layer.shape) > 2 and layer.shape[1] > 1:
        matrices = prod(layer.shape[2:])
        factor = 0.5 if len(layer.shape) == 4 else 1.0
    return _View(matrices, *view_sides(layer.kind, layer.shape), factor)


def _row(layer_id: int, layer: LayerMeasurement) -> dict[str, Any]:
    view = _view(layer)
    row: dict[str, Any] = {
        "layer_id": layer_id,
        "name": layer.name.rpartition(".")[2],
        "longname": layer.name,
        "layer_type": _layer_type(layer),
        "N": view.longer,
        "M": view.shorter,
        "Q": view.longer / view.shorter,
        "rf": view.matrices,
        "num_evals": view.matrices * view.shorter,
        "has_esd": False,
        "status": "failed",
        "warning": "",
        "problem": None if layer.problem is None else str(layer.problem),
    }
    measured = layer.measurement
    if measured is None:
        return row
    if measured.numbers is None or measured.spectrum is None:
        return row | {"problem": f"{measured.non_finite} of its weights are NaN or infinite"}
    spectrum = measured.spectrum.astype(np.float64) * view.factor
    row |= {"has_esd": True} | _spectrum_values(measured.numbers, spectrum, view)
    row |= _fit_values(measured.numbers, view) | _bulk_values(measured.numbers, view)
    if measured.numbers.alpha is None:
        row |= {
            "problem": "there is no tail to fit: the eigenvalues are zero, all equal, or out of float64's range"
        }
    return row | _shuffled_values(measured, spectrum, view)


def _layer_type(layer: LayerMeasurement) -> str:
    if layer.kind is LayerKind.CONV:
        return f"conv{len(layer.shape) - 2}d"
    return {LayerKind.LINEAR: "dense", LayerKind.EMBEDDING: "embedding"}.get(layer.kind, "unknown")


def _spectrum_values(numbers: SpectralNumbers, spectrum: NDArray[np.float64], view: _View) -> dict[str, Any]:
    lost = numbers.rank_loss
    values = {
        "norm": 0.0,
        "lambda_max": 0.0,
        "spectral_norm": 0.0,
        "sv_max": 0.0,
        "sv_min": sqrt(spectrum[0]),
        "stable_rank": numbers.stable_rank,
        "entropy": numbers.entropy,
        "rank_loss": lost,
        "matrix_rank": None if lost is None else numbers.num_eigenvalues - lost,
        "weak_rank_loss": int(np.count_nonzero(spectrum < WEAK_RANK)),
    }
    if numbers.log_norm is None or numbers.log_spectral_norm is None:
        return values
    norm, largest = _power(numbers.log_norm, view.factor), _power(numbers.log_spectral_norm, view.factor)
    values |= {
        "norm": norm,
        "log_norm": numbers.log_norm + log10(view.factor),
        "lambda_max": largest,
        "spectral_norm": largest,
        "log_spectral_norm": numbers.log_spectral_norm + log10(view.factor),
        "sv_max": sqrt(largest),
        # By logarithms: the quotient of the smallest or largest weights leaves the range of float64.
        "W_scale": _power((log10(len(spectrum)) - numbers.log_norm) / 2, view.factor**-0.5),
    }
    if numbers.erg_tail is not None:
        values |= {
            "detX_num": numbers.erg_tail,
            "num_ERG_spikes": numbers.erg_tail,
            "ERG_gap": numbers.erg_gap,
        }
        at_gap = float(spectrum[-numbers.erg_tail])
        if 0.0 < at_gap < _LARGEST_KEPT * view.factor and norm > 0.0:
            values |= {"detX_val": at_gap, "detX_val_unrescaled": at_gap / norm * len(spectrum)}
    return values


def _fit_values(numbers: SpectralNumbers, view: _View) -> dict[str, Any]:
    alpha, largest, weighted = numbers.alpha, numbers.log_spectral_norm, numbers.log_alpha_norm
    if alpha is None or largest is None or weighted is None or numbers.xmin is None:
        return {}
    shift = log10(view.factor)
    return {
        "status": "success",
        "warning": _warning(alpha),
        "alpha": alpha,
        "D": numbers.ks_distance,
        "sigma": numbers.alpha_sigma,
        "xmin": numbers.xmin * view.factor,
        "xmax": _power(largest, view.factor),
        "num_pl_spikes": numbers.tail_size,
        "alpha_weighted": alpha * (largest + shift),
        "log_alpha_norm": weighted + alpha * shift,
    }


def _warning(alpha: float) -> str:
    if alpha < OVER_TRAINED:
        return "over-trained"
    return "under-trained" if alpha > UNDER_TRAINED else ""


def _bulk_values(numbers: SpectralNumbers, view: _View) -> dict[str, Any]:
    if not numbers.mp_bulk_edge or numbers.log_norm is None:
        return {}
    upper, ratio = numbers.mp_bulk_edge * view.factor, sqrt(view.shorter / view.longer)
    log_mean = numbers.log_norm - log10(numbers.num_eigenvalues)
    return {
        "bulk_max": upper,
        "bulk_min": upper * ((1 - ratio) / (1 + ratio)) ** 2,
        # In units in which the mean eigenvalue is one, as they fit it.
        "sigma_mp": 10.0 ** ((log10(numbers.mp_bulk_edge) - log_mean) / 2) / (1 + ratio),
        "mp_softrank": numbers.mp_softrank,
        "num_spikes": numbers.num_spikes,
    }


def _shuffled_values(measured: Measurement, spectrum: NDArray[np.float64], view: _View) -> dict[str, Any]:
    values: dict[str, Any] = {"num_traps": measured.traps, "rand_num_spikes": measured.traps}
    if measured.shuffled_spectrum is None or not 0.0 < spectrum[-1] < _LARGEST_KEPT * view.factor:
        return values
    shuffled = measured.shuffled_spectrum.astype(np.float64) * view.factor
    return values | {
        "max_rand_eval": float(shuffled[-1]),
        "rand_distance": jensen_shannon_distance(spectrum, shuffled),
        "ww_softrank": float(shuffled[-1] / spectrum[-1]),
        "ww_maxdist": float(spectrum[-1] - shuffled[-1]),
    }


def jensen_shannon_distance(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Root of the Jensen-Shannon divergence (natural logarithm) of two sorted spectra taken for probabilities."""
    middle = (p + q) / 2
    middle = middle / middle.sum()

    def divergence(values: NDArray[np.float64]) -> float:
        shares = values / values.sum()
        there = shares > 0
        return float((shares[there] * np.log(shares[there] / middle[there])).sum())

    return sqrt(max(0.0, (divergence(p) + divergence(q)) / 2))


def _power(logarithm: float, factor: float) -> float:
    """``factor * 10**logarithm``; infinite where float64 cannot hold it."""
    with np.errstate(over="ignore"):
        return float(np.float64(10.0) ** logarithm * factor)
