"""Numbers of the reference tool of the field, rebuilt from inputs that are given by formula.

Source: WeightWatcher 0.7.7 on float64; ``tests/_data/weightwatcher_vectors.json`` holds inputs and outputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.metrics.measurement import FitStatus, LayerKind, SpectralNumbers
from layerwatch.metrics.spectra import layer_eigenvalues, spectral_numbers
from layerwatch.metrics.tailfit import fit_tail
from layerwatch_testing.models import read_state
from layerwatch_testing.shared import shared_file

RELATIVE = 1e-6

EXPECTED = Path(__file__).parents[1] / "_data" / "weightwatcher_vectors.json"

Vector = NDArray[np.float64]


def pareto_quantiles(n: int, exponent: float) -> Vector:
    """x_i = (1 - (i - 1/2)/n)^(-1/(exponent - 1)), i = 1..n: the quantiles of a pure power law."""
    i = np.arange(1, n + 1)
    return np.asarray((1 - (i - 0.5) / n) ** (-1 / (exponent - 1)))


def two_scales() -> Vector:
    i = np.arange(1, 301.0)
    return np.sort(np.concatenate([1 + np.sin(i) ** 2, 10 + np.arange(1, 61.0) ** 1.5]))


VECTORS: dict[str, tuple[Callable[[], Vector], float, float, float, int]] = {
    # name: (values, alpha, D, sigma, tail)
    "pareto_quantiles n=100 a=2.5": (
        lambda: pareto_quantiles(100, 2.5),
        2.5128198030611886,
        0.006732818422068965,
        0.15128198030611886,
        100,
    ),
    "pareto_quantiles n=500 a=3.0": (
        lambda: pareto_quantiles(500, 3.0),
        3.003392707179662,
        0.0013453584361940996,
        0.08959444557762108,
        500,
    ),
    "pareto_quantiles n=1000 a=2.0": (
        lambda: pareto_quantiles(1000, 2.0),
        2.0008473744007365,
        0.0006726060434379955,
        0.03164957293305627,
        1000,
    ),
    "pareto_quantiles n=2000 a=4.5": (
        lambda: pareto_quantiles(2000, 4.5),
        4.5014822041462175,
        0.00033628449428668716,
        0.07829552230476738,
        2000,
    ),
    "1/k, k=1..300": (
        lambda: np.sort(1.0 / np.arange(1, 301)),
        2.0127303839844775,
        0.004653655606610241,
        0.058470015980995105,
        300,
    ),
    "ramp 1..200": (
        lambda: np.arange(1, 201.0),
        11.777261595569954,
        0.17367827223218363,
        1.8482851153509443,
        34,
    ),
    "exp ramp exp(i/50), i=0..399": (
        lambda: np.exp(np.arange(400) / 50),
        1.25062656641604,
        0.1542941104851872,
        0.012531328320802004,
        400,
    ),
    "two scales": (two_scales, 5.563438935675303, 0.19079974443305336, 1.1408597339188258, 16),
}


@pytest.mark.parametrize("name", VECTORS)
def test_the_tail_fit_gives_the_reference_tools_numbers(name: str) -> None:
    values, alpha, distance, sigma, tail = VECTORS[name]

    fit = fit_tail(values())

    assert fit is not None
    assert fit.alpha == pytest.approx(alpha, rel=RELATIVE)
    assert fit.ks_distance == pytest.approx(distance, rel=RELATIVE)
    assert fit.sigma == pytest.approx(sigma, rel=RELATIVE)
    assert fit.tail_size == tail


def vectors() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(EXPECTED.read_text())
    return read


def test_every_eigenvalue_vector_of_the_file_is_matched() -> None:
    expected = vectors()["eigenvalue_vectors"]
    assert len(expected) == len(VECTORS)

    for entry in expected:
        name = next(name for name in VECTORS if entry["input"].startswith(name))
        fit = fit_tail(VECTORS[name][0]())
        assert fit is not None
        assert fit.alpha == pytest.approx(entry["alpha"], rel=RELATIVE), name
        assert fit.ks_distance == pytest.approx(entry["D"], rel=RELATIVE), name
        assert fit.sigma == pytest.approx(entry["sigma"], rel=RELATIVE), name
        assert fit.xmin == pytest.approx(entry["xmin"], rel=RELATIVE), name
        assert fit.tail_size == entry["tail"], name


def dense_matrices() -> dict[str, NDArray[np.float32]]:
    """The three matrices of the file, by the beginning of their description; i, j count from 0."""
    i, j = np.indices((100, 60))
    toeplitz = np.exp(-np.abs(i - j) / 10).astype(np.float32)
    i, j = np.indices((120, 80))
    chirp = np.sin(0.001 * (80 * i + j) ** 2).astype(np.float32)
    i, j = np.indices((300, 200))
    banded = (np.cos(i * j / 7) / (1 + np.abs(i - j)) ** 0.7).astype(np.float32)
    return {"toeplitz": toeplitz, "sin": chirp, "cos": banded}


def numbers_of(values: NDArray[Any], kind: LayerKind) -> SpectralNumbers:
    sides = values.shape[:2]
    return spectral_numbers(layer_eigenvalues(values, kind), "F32", max(sides), min(sides))


def test_dense_matrices_give_the_reference_tools_numbers() -> None:
    matrices = dense_matrices()
    expected = vectors()["dense_matrices"]
    assert len(expected) == len(matrices)

    for entry in expected:
        name = next(name for name in matrices if entry["input"].startswith(name))
        found = numbers_of(matrices[name], LayerKind.LINEAR)
        assert found.alpha == pytest.approx(entry["alpha"], rel=RELATIVE), name
        assert found.ks_distance == pytest.approx(entry["D"], rel=RELATIVE), name
        assert found.alpha_sigma == pytest.approx(entry["sigma"], rel=RELATIVE), name
        assert found.xmin == pytest.approx(entry["xmin"], rel=RELATIVE), name
        assert found.tail_size == entry["num_pl_spikes"], name
        assert found.log_norm == pytest.approx(entry["log_norm"], rel=RELATIVE), name
        assert found.log_spectral_norm == pytest.approx(entry["log_spectral_norm"], rel=RELATIVE), name
        assert found.stable_rank == pytest.approx(entry["stable_rank"], rel=RELATIVE), name
        assert found.alpha_hat == pytest.approx(entry["alpha_weighted"], rel=RELATIVE), name
        assert found.log_alpha_norm == pytest.approx(entry["log_alpha_norm"], rel=RELATIVE), name
        # The reference adds 1e-10 to every probability before taking its logarithm.
        assert found.entropy == pytest.approx(entry["entropy"], abs=1e-7), name


def test_a_dense_matrix_gives_the_numbers_written_down_without_the_shared_file() -> None:
    found = numbers_of(dense_matrices()["toeplitz"], LayerKind.LINEAR)

    # WeightWatcher 0.7.7, W = exp(-|i-j|/10), 100 x 60, float32.
    assert found.alpha == pytest.approx(1.3153710162959797, rel=RELATIVE)
    assert found.ks_distance == pytest.approx(0.04290381541045263, rel=RELATIVE)
    assert found.tail_size == 44
    assert found.log_norm == pytest.approx(2.761231230004706, rel=RELATIVE)
    assert found.log_spectral_norm == pytest.approx(2.483878563827437, rel=RELATIVE)
    assert found.stable_rank == pytest.approx(1.8938809087932946, rel=RELATIVE)
    assert found.entropy == pytest.approx(0.32073997891258593, abs=1e-7)


def test_a_trained_resnet20_gives_the_reference_tools_numbers_layer_by_layer() -> None:
    expected = vectors()["resnet20"]
    state = read_state(shared_file("checkpoints/resnet20-12fca82f.th"))
    compared = 0

    for entry in expected:
        name = entry["layer"]
        values = state[f"{name}.weight"]
        is_conv = values.ndim == 4
        found = numbers_of(values, LayerKind.CONV if is_conv else LayerKind.LINEAR)
        # Below 20 eigenvalues the reference fits with a bias correction of its own (section 1.2 of its notes).
        if found.num_eigenvalues >= 20:
            assert found.alpha == pytest.approx(entry["alpha"], rel=RELATIVE), name
            assert found.ks_distance == pytest.approx(entry["D"], rel=RELATIVE), name
            assert found.alpha_sigma == pytest.approx(entry["sigma"], rel=RELATIVE), name
            assert found.tail_size == entry["num_pl_spikes"], name
            compared += 1
        else:
            assert found.fit_status is FitStatus.TOO_SMALL
        # The reference halves the pooled eigenvalues of convolutions, so its logarithms are lower by log10(2).
        halved = float(np.log10(2)) if is_conv else 0.0
        assert found.log_norm == pytest.approx(entry["log_norm"] + halved, rel=RELATIVE), name
        assert found.log_spectral_norm == pytest.approx(entry["log_spectral_norm"] + halved, rel=RELATIVE), (
            name
        )
        assert found.stable_rank == pytest.approx(entry["stable_rank"], rel=RELATIVE), name

    assert (len(expected), compared) == (20, 19)
