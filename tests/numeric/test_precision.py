"""float32 against float64: how far the numbers of the same layer may differ.

The bound is the metric specification's (section 3): alpha to 1e-3, and where another xmin was chosen, its KS distance
to 1e-3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.measurement import LayerKind, SpectralNumbers
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.options import MeasureOptions, Precision
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.spectra import layer_eigenvalues, spectral_numbers
from layerwatch_testing.shared import shared_file

NETWORKS = (
    "resnet20-12fca82f.th",
    "resnet32-d509ac18.th",
    "distiller/checkpoint_trained_dense.pth.tar",
    "distiller/checkpoint_trained_channel_regularized_resnet20.pth.tar",
    "distiller/checkpoint_trained_channel_regularized_resnet20_finetuned.pth.tar",
    "distiller/resnet20_cifar10_checkpoint.pth.tar",
)


def numbers_by_layer(path: Path, precision: Precision) -> dict[str, tuple[SpectralNumbers, SpectralNumbers]]:
    """Raw and folded numbers of every layer with a spectrum."""
    model = OpenModel(open_model(path), str(path))
    try:
        return {
            one.layer.name: (one.measurement.numbers, one.measurement.folded)
            for one in measure_layers(model, lambda digest: False, None, MeasureOptions(precision=precision))
            if one.measurement is not None and one.measurement.numbers and one.measurement.folded
        }
    finally:
        model.close()


def agree(one: SpectralNumbers, other: SpectralNumbers) -> bool:
    assert one.alpha is not None and other.alpha is not None
    assert one.ks_distance is not None and other.ks_distance is not None
    return abs(one.alpha - other.alpha) < 1e-3 or abs(one.ks_distance - other.ks_distance) < 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_a_real_network_has_the_same_tail_in_float32(name: str) -> None:
    path = shared_file(f"checkpoints/{name}")
    single, double = (
        numbers_by_layer(path, precision) for precision in (Precision.FLOAT32, Precision.FLOAT64)
    )
    assert len(single) >= 20 and single.keys() == double.keys()
    for layer, pair in single.items():
        for one, other in zip(pair, double[layer], strict=True):
            assert agree(one, other), layer
            assert one.stable_rank == pytest.approx(other.stable_rank, rel=1e-4), layer
            assert one.log_norm == pytest.approx(other.log_norm, abs=1e-5), layer


def heavy_tailed(side: int, exponent: float, seed: int) -> NDArray[Any]:
    """Gaussian rows mixed by Pareto scales: a spectrum with a power-law tail."""
    random = np.random.default_rng(seed)
    scales = random.pareto(exponent, side) + 1.0
    return (0.02 * random.standard_normal((side, side)) * scales).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [1.5, 4.0])
def test_a_4096_wide_heavy_tailed_layer_has_the_same_tail_in_float32(exponent: float) -> None:
    weights = heavy_tailed(4096, exponent, seed=3)
    found = []
    for precision in (Precision.AUTO, Precision.FLOAT64):
        spectrum = layer_eigenvalues(weights, LayerKind.LINEAR, None, MeasureOptions(precision=precision))
        found.append(spectral_numbers(spectrum, "F32", 4096, 4096, precision))
    assert agree(*found)
    assert found[0].stable_rank == pytest.approx(found[1].stable_rank, rel=1e-4)
    # The bulk of the heavier one lies below what float32 resolves beside its largest eigenvalue.
    assert found[0].num_spikes == pytest.approx(found[1].num_spikes, rel=0.05)
