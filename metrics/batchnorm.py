"""Batch norms: which one follows which layer, and what it multiplies the layer's rows with.

Raw convolution norms in front of a batch norm move by large factors with no functional meaning, because the
batch norm divides them out; comparisons therefore look at the folded matrix ``W * |gamma| / sqrt(var + eps)``
per output row (detection study, section 10).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.tensors import Array, TensorInfo

EPSILON = 1e-5
"""The default ``eps`` of every common framework; files of weights do not record it."""

_NUMBER = re.compile(r"^(.*?)(\d+)$")


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """A batch norm as tensor names.

    Attributes:
        name: module path, for example ``layer1.0.bn1``.
        gain: name of the gamma tensor, or None for a batch norm without affine parameters.
        mean, variance: names of the running statistics.
    """

    name: str
    gain: str | None
    mean: str
    variance: str


def find_batchnorms(tensors: Sequence[TensorInfo]) -> dict[str, BatchNorm]:
    """Pair weight tensors with the batch norm that follows them, by name and by the number of channels.

    Three naming habits are known: ``conv1``/``bn1`` (and ``conv``/``norm``) in one module, position ``n`` and
    ``n+1`` in a sequential container, and ``X.conv``/``X.bn``. Where none fits the layer stays unfolded.

    Returns:
        weight tensor name -> batch norm.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    batchnorms: dict[str, BatchNorm] = {}
    for tensor in tensors:
        if not tensor.name.endswith(".running_var") or len(tensor.shape) != 1:
            continue
        module = tensor.name.removesuffix(".running_var")
        mean, weight = by_name.get(f"{module}.running_mean"), by_name.get(f"{module}.weight")
        if mean is None or mean.shape != tensor.shape or (weight and weight.shape != tensor.shape):
            continue
        gain = weight.name if weight else None
        batchnorms[module] = BatchNorm(module, gain, f"{module}.running_mean", tensor.name)
    pairs: dict[str, BatchNorm] = {}
    taken: set[str] = set()
    for tensor in tensors:
        if len(tensor.shape) < 2 or not tensor.name.endswith(".weight"):
            continue
        for candidate in _names_after(tensor.name.removesuffix(".weight")):
            batchnorm = batchnorms.get(candidate)
            if batchnorm is None or candidate in taken:
                continue
            if by_name[batchnorm.variance].shape == (tensor.shape[0],):
                pairs[tensor.name] = batchnorm
                taken.add(candidate)
                break
    return pairs


def _names_after(module: str) -> list[str]:
    parent, _, last = module.rpartition(".")
    prefix = f"{parent}." if parent else ""
    candidates = []
    for word in ("conv", "fc", "linear"):
        if word in last:
            candidates += [prefix + last.replace(word, norm) for norm in ("bn", "norm")]
    candidates += [f"{prefix}bn_{last}", f"{prefix}{last}_bn"]
    number = _NUMBER.match(last)
    if number:
        candidates.append(f"{prefix}{number[1]}{int(number[2]) + 1}")
    return candidates


def fold_factors(vectors: Mapping[str, Array], batchnorm: BatchNorm) -> NDArray[np.float64]:
    """Per-output-row factors ``|gamma| / sqrt(var + eps)``, shape (channels,).

    A non-finite or negative variance gives a factor of ``|gamma|`` alone: the damage is reported where it is,
    in the statistic itself, and must not spread to the convolution.
    """
    variance = np.asarray(vectors[batchnorm.variance], dtype=np.float64)
    usable = np.isfinite(variance) & (variance >= 0)
    factors: NDArray[np.float64] = 1.0 / np.sqrt(np.where(usable, variance, 1.0 - EPSILON) + EPSILON)
    if batchnorm.gain is not None:
        gain = np.abs(np.asarray(vectors[batchnorm.gain], dtype=np.float64))
        factors = factors * np.where(np.isfinite(gain), gain, 1.0)
    return factors


def statistics_are_empty(vectors: Mapping[str, Array], batchnorm: BatchNorm) -> bool:
    """True when running mean and variance are zero throughout: the input was zero during training too."""
    mean = np.abs(np.asarray(vectors[batchnorm.mean], dtype=np.float64))
    variance = np.abs(np.asarray(vectors[batchnorm.variance], dtype=np.float64))
    return bool(mean.max(initial=0.0) < 1e-12 and variance.max(initial=0.0) < 1e-12)
