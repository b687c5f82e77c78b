"""Batch norms as witnesses: their running statistics are a fingerprint of the training data inside the file.

For a convolution whose input is ``ReLU(BN(.))`` the mean of each input channel follows from that norm's gain and
bias, ``m_j = E ReLU(N(beta_j, gamma_j^2)) = beta Phi(beta/gamma) + gamma phi(beta/gamma)``, and the mean of each
output channel from those, ``p_i = sum_j (sum over the kernel W_ij) m_j``. The batch norm behind it has stored the
mean ``r_i`` that training saw: correlation and slope ``<p, r> / <r, r>`` are near 1 (detection study, section 8).

Two additions. What is left of the correlation when the sums of the rows are taken out depends on *which* input channel
is which: it sees permuted input channels, which the correlation hardly does. And along a residual stream the moments
can be carried on from block to block (``ReLU(BN + shortcut)``), so that the first convolution of a block has a
prediction, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import pi, sqrt

import numpy as np

from layerwatch.metrics.association import (
    FEWEST,
    Floats,
    correlation,
    fisher_score,
    lengths,
    partial_correlation,
    rank_score,
)
from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.couplings.weights import NotUsableError, Weights
from layerwatch.metrics.layers import Layer
from layerwatch.metrics.wiring import Wiring

DIRECT, ESTIMATED, STEM = "", "estimated", "stem"
"""How the moments of a layer's inputs are known, as the part of its couplings: from the batch norm in front of it,
carried along a residual stream, or not at all but for one factor."""


_MOST_COLOURS = 4


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of each channel, shape (channels,) each."""

    mean: Floats
    variance: Floats


def after_relu(before: Moments) -> Moments:
    """Moments of ``ReLU(x)`` for Gaussian x."""
    deviation = np.sqrt(before.variance) + 1e-12
    ratio = before.mean / deviation
    below = _normal_cdf(ratio)
    density = np.exp(-0.5 * ratio**2) / sqrt(2.0 * pi)
    mean = before.mean * below + deviation * density
    square = (before.mean**2 + before.variance) * below + before.mean * deviation * density
    return Moments(mean, np.maximum(square - mean**2, 0.0))


def _normal_cdf(values: Floats) -> Floats:
    # Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
    x = np.abs(values) / sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * x)
    polynomial = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    tail = 0.5 * polynomial * np.exp(-(x**2))
    return np.where(values < 0.0, tail, 1.0 - tail)


def batchnorm_couplings(weights: Weights, layers: Mapping[str, Layer], wiring: Wiring) -> Iterator[Coupling]:
    """Of every convolution or linear layer with a batch norm behind it whose input's moments are known."""
    for name, moments, how in _inputs(weights, layers, wiring):
        try:
            yield from _consistency(weights, layers[name], moments, how)
        except NotUsableError:
            continue
        finally:
            weights.release()


def norm_against_reader(weights: Weights, layers: Mapping[str, Layer], wiring: Wiring) -> Iterator[Coupling]:
    """Channels that a batch norm makes vary much are read with large weights, or with small ones."""
    for interface in wiring.interfaces:
        try:
            norm = _output_moments(weights, layers[interface.producer])
            if norm is None or interface.units < FEWEST:
                continue
            units = np.arange(interface.units)
            columns = weights.columns(weights.part(interface.consumer), units, interface.units)
            score = rank_score(np.sqrt(after_relu(norm).variance), lengths(columns))
        except NotUsableError:
            continue
        batchnorm = layers[interface.producer].batchnorm
        assert batchnorm is not None and batchnorm.gain is not None
        yield Coupling(
            CouplingKind.GAIN_TO_READER,
            (interface.consumer, batchnorm.gain),
            score,
            None,
            interface.units,
            (Side.INPUTS, Side.VECTOR),
        )


def _inputs(
    weights: Weights, layers: Mapping[str, Layer], wiring: Wiring
) -> Iterator[tuple[str, Moments | None, str]]:
    """Layers with a batch norm, the moments of their input channels, and how those are known."""
    direct = set()
    for interface in wiring.interfaces:
        consumer = layers[interface.consumer]
        if consumer.batchnorm is None or consumer.shape[1] != interface.units:
            continue
        moments = _output_moments(weights, layers[interface.producer])
        if moments is not None:
            direct.add(interface.consumer)
            yield interface.consumer, after_relu(moments), DIRECT
    for name, layer in layers.items():
        if (
            layer.batchnorm is not None
            and len(layer.shape) > 2
            and layer.shape[1] == 1
            and layer.shape[0] > 1
        ):
            # One input channel: its mean is one unknown factor, which a correlation does not need.
            is_first = wiring.producer_of(name) is None and name not in direct
            if is_first and next(one for one in layers if len(layers[one].shape) > 2) == name:
                yield name, None, STEM
    yield from _along_residual_stream(weights, layers, wiring, direct)


def stem_couplings(weights: Weights, layers: Mapping[str, Layer]) -> Iterator[Coupling]:
    """Of the first convolution: what its filters pass of an image whose neighbouring pixels are alike.

    The prediction is ``W_i C W_i^T`` with correlations that fall by 0.7 per pixel and 0.95 between colours; its
    logarithm is held against that of the stored variance. On networks for CIFAR-10 and for digits the two correlated
    by 0.87 to 0.99.
    """
    first = next((layer for layer in layers.values() if len(layer.shape) == 4), None)
    if first is None or first.batchnorm is None or first.shape[1] > _MOST_COLOURS:
        return
    rows, colours, height, width = first.shape
    if rows < FEWEST or height * width < FEWEST:
        return
    try:
        filters = weights.whole(first.name).reshape(rows, -1)
        stored = weights.vector(first.batchnorm.variance)
    except NotUsableError:
        return
    finally:
        weights.release()
    places, others = (
        0.7 ** np.abs(np.subtract.outer(np.arange(side), np.arange(side))) for side in (height, width)
    )
    between = 0.95 * np.ones((colours, colours)) + 0.05 * np.eye(colours)
    passed = ((filters @ np.kron(between, np.kron(places, others))) * filters).sum(axis=1)
    if stored is None or stored.min() <= 0.0 or passed.min() <= 0.0:
        return
    value = correlation(np.log(passed), np.log(stored))
    names, sides = (first.name, first.batchnorm.variance), (Side.OUTPUTS, Side.VECTOR)
    yield Coupling(CouplingKind.BATCHNORM_STATISTICS, names, value, None, rows, sides, STEM)


def _along_residual_stream(
    weights: Weights, layers: Mapping[str, Layer], wiring: Wiring, direct: set[str]
) -> Iterator[tuple[str, Moments, str]]:
    stream: Moments | None = None
    if wiring.residual_blocks:
        root = wiring.residual_blocks[0].rpartition("layer")[0]
        stem = layers.get(f"{root}conv1")
        if stem is not None:
            before = _output_moments(weights, stem)
            stream = None if before is None else after_relu(before)
    for block in wiring.residual_blocks:
        first = layers[f"{block}.conv1"]
        shortcut = next(
            (layers[name] for name in (f"{block}.downsample.0", f"{block}.shortcut.0") if name in layers),
            None,
        )
        if stream is not None:
            for reader in filter(None, (first, shortcut)):
                if (
                    reader.batchnorm is not None
                    and reader.shape[1] == len(stream.mean)
                    and reader.name not in direct
                ):
                    yield reader.name, stream, ESTIMATED
        last = next(layers[name] for name in (f"{block}.conv3", f"{block}.conv2") if name in layers)
        added = _output_moments(weights, last)
        carried = stream if shortcut is None else _output_moments(weights, shortcut)
        if carried is not None and added is not None:
            carried = _widened(carried, len(added.mean))
        if added is None or carried is None or carried.mean.shape != added.mean.shape:
            stream = None
            continue
        stream = after_relu(Moments(added.mean + carried.mean, added.variance + carried.variance))


def _widened(moments: Moments, channels: int) -> Moments:
    """A shortcut without weights puts channels of zeros on both sides where a stage has more of them (He et al. 2015, option A)."""
    missing = channels - len(moments.mean)
    if missing <= 0 or missing % 2:
        return moments
    sides = (missing // 2, missing // 2)
    return Moments(np.pad(moments.mean, sides), np.pad(moments.variance, sides))


def _output_moments(weights: Weights, layer: Layer) -> Moments | None:
    """Of what the batch norm behind a layer hands out, before any ReLU; None where there is none, or no gain."""
    batchnorm = layer.batchnorm
    if batchnorm is None or batchnorm.gain is None:
        return None
    try:
        gain, bias = weights.vector(batchnorm.gain), weights.vector(f"{batchnorm.name}.bias")
    except NotUsableError:
        return None
    if gain is None or bias is None or gain.shape != bias.shape:
        return None
    return Moments(bias, gain**2)


def _consistency(weights: Weights, layer: Layer, moments: Moments | None, how: str) -> Iterator[Coupling]:
    batchnorm = layer.batchnorm
    assert batchnorm is not None
    stored = weights.vector(batchnorm.mean)
    if stored is None or len(stored) < FEWEST:
        return
    sums = weights.whole(layer.name).reshape(layer.shape[0], layer.shape[1], -1).sum(axis=2)
    bias = weights.bias(layer.name)
    if bias is not None:
        stored = stored - bias
    square = float(stored @ stored)
    predicted = sums[:, 0] if moments is None else sums @ moments.mean
    if float(predicted @ predicted) < 1e-20:
        # A branch that was removed while training went on, or a layer that was emptied afterwards: other rules tell.
        return
    names, sides = (layer.name, batchnorm.mean), (Side.OUTPUTS, Side.VECTOR)
    value = correlation(predicted, stored)
    slope = float(predicted @ stored) / square if moments is not None and square > 1e-20 else None
    yield Coupling(CouplingKind.BATCHNORM_STATISTICS, names, value, slope, len(stored), sides, how)
    if moments is None or layer.shape[1] < FEWEST:
        return
    differences = sums @ (moments.mean - moments.mean.mean())
    left = partial_correlation(differences, stored, sums.sum(axis=1))
    yield Coupling(
        CouplingKind.BATCHNORM_INPUTS,
        (layer.name, batchnorm.mean),
        fisher_score(left, len(stored), given=1),
        None,
        len(stored),
        (Side.INPUTS, Side.VECTOR),
    )
