"""The spectral engine as a whole: exact search, planted answers, values of pure noise, and what must not matter.

Randomness is seeded; where a test counts misses, the allowed number is stated with its source.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.metrics.alternatives import compare_laws
from layerwatch.metrics.erg import erg_tail
from layerwatch.metrics.hill import farms_alpha, hill_alpha
from layerwatch.metrics.measurement import LayerKind, SpectralNumbers
from layerwatch.metrics.spectra import eigenvalues, layer_eigenvalues, spectral_numbers
from layerwatch.metrics.tailfit import _least_distance, fit_tail
from layerwatch.metrics.traps import find_traps
from layerwatch_testing.models import read_state
from layerwatch_testing.shared import shared_file

VECTORS = Path(__file__).parents[1] / "_data" / "weightwatcher_vectors.json"

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

SHAPES = (
    (128, 128),
    (128, 129),
    (160, 128),
    (192, 192),
    (256, 128),
    (300, 200),
    (384, 384),
    (128, 512),
    (512, 256),
    (1024, 128),
    (768, 768),
    (2048, 160),
)


def noise(shape: tuple[int, int], seed: int = 0) -> Matrix:
    return np.random.default_rng(seed).standard_normal(shape)


def numbers_of(matrix: NDArray[Any], kind: LayerKind = LayerKind.LINEAR) -> SpectralNumbers:
    sides = matrix.shape[:2]
    return spectral_numbers(layer_eigenvalues(matrix, kind), "F32", max(sides), min(sides))


def every_candidate(values: Vector) -> list[tuple[float, int]]:
    """KS distance and place of every candidate, each computed by itself from the definition."""
    found = []
    for start in range(len(values) - 1):
        tail = np.log(values[start:]) - np.log(values[start])
        # The fit leaves out candidates whose sum of logarithms is zero: all values equal.
        if values[-1] > values[start] * (1 + 1e-9):
            alpha = 1 + len(tail) / tail.sum()
            fitted = -np.expm1(tail * (1 - alpha))
            found.append((float(np.abs(fitted - np.arange(len(tail)) / len(tail)).max()), start))
    return found


def adversarial_vectors() -> list[Vector]:
    random = np.random.default_rng(11)
    vectors = []
    for _ in range(40):
        n = int(random.integers(2, 400))
        vectors += [
            random.random(n),
            random.pareto(random.uniform(0.3, 4.0), n) + 1,
            random.lognormal(0.0, random.uniform(0.1, 4.0), n),
            np.square(random.standard_normal(n)) + 1e-12,
            # Ties, few and many.
            random.integers(1, 9, n).astype(np.float64),
            np.round(random.pareto(1.5, n) + 1, 1),
            # Values that lie between the probes: one step, one far value, two clusters.
            np.concatenate([np.full(n, 1.0), [1.5]]),
            np.concatenate([random.uniform(1.0, 1.01, n), [1e12]]),
            np.concatenate([random.uniform(1.0, 1.1, n), random.uniform(1e3, 1.1e3, 1 + n // 7)]),
            np.geomspace(1e-15, 1.0, n),
            np.arange(1.0, n + 1.0),
        ]
    return [np.sort(vector) for vector in vectors]


def test_the_tail_search_finds_what_trying_every_candidate_finds() -> None:
    compared = 0
    for values in adversarial_vectors():
        candidates = every_candidate(values)
        fit = fit_tail(values)
        if not candidates:
            assert fit is None
            continue
        assert fit is not None
        least = min(distance for distance, _ in candidates)
        # Cumulated sums and plain sums differ in the last digits: candidates that close are equally good.
        best = {start for distance, start in candidates if distance <= least + 1e-10}
        assert fit.ks_distance == pytest.approx(least, abs=1e-10)
        assert len(values) - fit.tail_size in best
        compared += 1
    assert compared > 400


def test_of_equally_good_candidates_the_first_is_taken() -> None:
    # With a steep fit from the first value: fitted 0, 0, 1, 1 against 0, 1/4, 1/2, 3/4, so 1/2. From the third:
    # 0, 0 against 0, 1/2, so 1/2 again. From the second: 0, 1, 1 against 0, 1/3, 2/3.
    logs, steep = np.array([0.0, 0.0, 1.0, 1.0]), np.full(4, 1e9)

    assert _least_distance(logs, steep, np.array([0, 1, 2])) == (0, 0.5)
    assert _least_distance(logs, steep, np.array([1, 2])) == (2, 0.5)


@pytest.mark.parametrize("alpha", [1.8, 2.5, 4.0])
def test_planted_power_laws_are_recovered_within_three_standard_errors(alpha: float) -> None:
    # The estimate is asymptotically normal: 0.27 % miss three standard errors, 0.54 expected of 200, and more than 4
    # with a probability of 0.00024 (binomial).
    misses = 0
    for seed in range(200):
        fit = fit_tail(np.sort(1 + np.random.default_rng(seed).pareto(alpha - 1, 1000)))
        assert fit is not None
        misses += abs(fit.alpha - alpha) > 3 * fit.sigma
    assert misses <= 4


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_has_one_farms_alpha_whatever_its_shape(shape: tuple[int, int]) -> None:
    found = [farms_alpha([noise(shape, seed)]) or 0.0 for seed in range(24)]

    assert np.mean(found) == pytest.approx(2.11, abs=0.05)
    # A single matrix scatters by 0.03 (standard deviation) where only one or two windows fit, so one of 24 may
    # miss by 0.08; by 0.02 and less where four or more do.
    allowed = 0.1 if max(shape) < 192 else 0.05
    assert found == pytest.approx([2.11] * 24, abs=allowed)


@pytest.mark.parametrize(("ratio", "expected"), [(1, 2.13), (4, 3.47), (16, 5.93)])
def test_noise_has_the_hill_alpha_of_its_aspect_ratio(ratio: int, expected: float) -> None:
    found = numbers_of(noise((256 * ratio, 256))).hill_alpha

    assert found == pytest.approx(expected, rel=0.05)


def test_noise_has_no_spikes_in_ninety_nine_of_a_hundred_matrices() -> None:
    with_spikes = 0
    for seed in range(200):
        shape = [(60, 60), (200, 100), (400, 50), (128, 128)][seed % 4]
        with_spikes += numbers_of(noise(shape, seed)).num_spikes != 0
    # The threshold is the 99.9 % point of the Tracy-Widom law: 0.2 expected of 200.
    assert with_spikes <= 2


@pytest.mark.parametrize("shape", [(200, 200), (400, 100), (300, 600)])
@pytest.mark.parametrize("planted", [1, 3, 8])
def test_spikes_above_the_phase_transition_are_counted_exactly(shape: tuple[int, int], planted: int) -> None:
    # Benaych-Georges & Nadakuditi 2012: a direction of strength s leaves the bulk when s > (N M)^(1/4).
    strength = 2.0 * (shape[0] * shape[1]) ** 0.25
    for seed in range(5):
        random = np.random.default_rng(seed)
        left = np.linalg.qr(random.standard_normal((shape[0], planted)))[0]
        right = np.linalg.qr(random.standard_normal((shape[1], planted)))[0]
        matrix = 0.02 * (noise(shape, seed + 100) + strength * left @ right.T)
        found = numbers_of(matrix)
        assert found.num_spikes == planted
        assert found.mp_softrank is not None
        assert found.mp_softrank < 1.0


def test_planted_traps_are_counted_exactly_and_noise_has_none() -> None:
    for seed in range(25):
        shape = [(100, 80), (300, 200), (700, 300), (350, 350), (128, 1000)][seed % 5]
        matrix = noise(shape, seed).astype(np.float32)
        assert find_traps([matrix], seed).count == 0
        places = np.random.default_rng(seed).choice(matrix.size, seed % 4, replace=False)
        matrix.reshape(-1)[places] = 3.0 * matrix.size**0.25
        assert find_traps([matrix], seed).count == seed % 4


def test_a_mean_shift_adds_one_trap() -> None:
    matrix = noise((300, 200))
    shift = 3.0 / matrix.size**0.25

    assert find_traps([matrix], 1).count == 0
    assert find_traps([matrix + shift], 1).count == 1


def dense_matrices() -> dict[str, NDArray[np.float32]]:
    i, j = np.indices((100, 60))
    toeplitz = np.exp(-np.abs(i - j) / 10).astype(np.float32)
    i, j = np.indices((120, 80))
    chirp = np.sin(0.001 * (80 * i + j) ** 2).astype(np.float32)
    i, j = np.indices((300, 200))
    banded = (np.cos(i * j / 7) / (1 + np.abs(i - j)) ** 0.7).astype(np.float32)
    return {"toeplitz": toeplitz, "sin": chirp, "cos": banded}


def test_trace_log_tails_of_dense_matrices_are_the_reference_tools() -> None:
    expected = json.loads(VECTORS.read_text())["dense_matrices"]
    matrices = dense_matrices()
    assert len(expected) == len(matrices)

    for entry in expected:
        name = next(name for name in matrices if entry["input"].startswith(name))
        found = numbers_of(matrices[name])
        assert found.erg_tail == entry["num_ERG_spikes"], name
        assert found.erg_gap == entry["num_ERG_spikes"] - entry["num_pl_spikes"], name


def test_the_trace_log_tail_of_a_matrix_given_by_formula() -> None:
    # WeightWatcher 0.7.7, W = exp(-|i-j|/10), 100 x 60, float32.
    assert numbers_of(dense_matrices()["toeplitz"]).erg_tail == 11


def test_trace_log_tails_of_a_trained_resnet20_are_the_reference_tools() -> None:
    expected = json.loads(VECTORS.read_text())["resnet20"]
    state = read_state(shared_file("checkpoints/resnet20-12fca82f.th"))

    for entry in expected:
        values = state[f"{entry['layer']}.weight"]
        kind = LayerKind.CONV if values.ndim == 4 else LayerKind.LINEAR
        assert numbers_of(values, kind).erg_tail == entry["num_ERG_spikes"], entry["layer"]


def test_the_trace_log_sum_survives_ten_thousand_eigenvalues() -> None:
    spectrum = np.sort(np.random.default_rng(0).pareto(1.2, 10_000) + 1)
    shares = spectrum[::-1] / spectrum.mean()
    count = int(np.flatnonzero(np.cumsum(np.log(shares)) < 0)[0]) + 1

    assert erg_tail(spectrum) == erg_tail(spectrum * 1e-290) == erg_tail(spectrum * 1e280) == count


def test_exponential_tails_prefer_the_exponential() -> None:
    preferred = 0
    for seed in range(100):
        tail = np.sort(3 + np.random.default_rng(seed).exponential(1.0, 1000))
        found = compare_laws(tail, 1 + 1000 / float(np.log(tail / tail[0]).sum()))
        assert found is not None
        preferred += found.exponential_ratio < 0 and found.exponential_p < 0.05
    assert preferred >= 95


def test_power_law_tails_reject_neither_the_power_law_nor_gain_by_a_cut_off() -> None:
    against = gained = leaning = 0
    for seed in range(200):
        tail = np.sort(1 + np.random.default_rng(seed).pareto(1.5, 1000))
        found = compare_laws(tail, 1 + 1000 / float(np.log(tail / tail[0]).sum()))
        assert found is not None
        against += found.exponential_ratio < 0
        gained += found.truncated_p < 0.05
        leaning += found.truncated_p < 0.3
    assert against == 0
    # 5 % of 200 are 10 with a standard deviation of 3.1: at most three of them above.
    assert gained <= 19
    # 30 % of 200 are 60 with a standard deviation of 6.5; a probability twice too large would give 30.
    assert leaning == pytest.approx(60, abs=20)


def test_truncated_tails_are_recognised() -> None:
    recognised = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        values = 1 + random.pareto(1.0, 40_000)
        tail = np.sort(values[random.random(len(values)) < np.exp(-0.1 * (values - 1))][:1000])
        found = compare_laws(tail, 1 + 1000 / float(np.log(tail / tail[0]).sum()))
        assert found is not None
        recognised += found.truncated_p < 0.01
    assert recognised >= 98


UNITLESS = (
    "alpha",
    "ks_distance",
    "tail_size",
    "stable_rank",
    "entropy",
    "effective_rank",
    "rank_loss",
    "mp_softrank",
    "num_spikes",
    "small_end_share",
    "erg_tail",
    "erg_gap",
    "hill_alpha",
    "exponential_ratio",
    "exponential_p",
    "truncated_ratio",
    "truncated_p",
)


def assert_same_numbers(found: SpectralNumbers, expected: SpectralNumbers, rel: float) -> None:
    for name in UNITLESS:
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=rel, abs=rel), name


def trained_like() -> Matrix:
    """Noise with a few strong directions and a decaying tail."""
    left, values, right = np.linalg.svd(noise((180, 120), 3), full_matrices=False)
    values = values * (1 + 30 / np.arange(1, 121))
    return np.asarray(left * values @ right)


@pytest.mark.parametrize("scale", [1e-20, 0.1, 7.0, 1e20, 1e100])
def test_no_unitless_number_depends_on_the_scale(scale: float) -> None:
    expected, found = numbers_of(trained_like()), numbers_of(scale * trained_like())

    assert_same_numbers(found, expected, rel=1e-6)
    assert expected.mp_bulk_edge is not None
    assert found.mp_bulk_edge == pytest.approx(scale**2 * expected.mp_bulk_edge)


def test_a_transposed_matrix_has_the_same_numbers() -> None:
    assert_same_numbers(numbers_of(trained_like().T.copy()), numbers_of(trained_like()), rel=1e-6)
    matrix = noise((300, 200), 8)
    assert farms_alpha([matrix.T]) == pytest.approx(farms_alpha([matrix]))


def test_rotations_from_both_sides_change_nothing() -> None:
    left = np.linalg.qr(noise((180, 180), 4))[0]
    right = np.linalg.qr(noise((120, 120), 5))[0]

    assert_same_numbers(numbers_of(left @ trained_like() @ right), numbers_of(trained_like()), rel=1e-6)


def test_cutting_directions_off_never_raises_stable_or_effective_rank() -> None:
    left, values, right = np.linalg.svd(noise((120, 80), 6), full_matrices=False)
    found = []
    for kept in range(80, 0, -7):
        cut = np.where(np.arange(80) < kept, values, 0.0)
        found.append(numbers_of(left * cut @ right))

    for more, fewer in pairwise(found):
        assert fewer.stable_rank is not None and more.stable_rank is not None
        assert fewer.effective_rank is not None and more.effective_rank is not None
        assert fewer.stable_rank < more.stable_rank
        assert fewer.effective_rank < more.effective_rank


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (4, 3), (60, 200), (128, 130)])
@pytest.mark.parametrize("scale", [1e-320, 1e-160, 1e-42, 1e-20, 1.0, 1e20, 1e38, 1e153, 1e300])
@pytest.mark.filterwarnings("error")
def test_hostile_matrices_give_finite_numbers_or_none(
    shape: tuple[int, int], dtype: type, scale: float
) -> None:
    normal = noise(shape, 9)
    one = np.zeros(shape)
    one[-1, -1] = 1.0
    matrices = {
        "noise": normal,
        "zeros": np.zeros(shape),
        "constant": np.full(shape, 0.1),
        "rank one": np.outer(normal[:, 0], normal[0]),
        "identity": np.eye(*shape),
        "one element": one,
        "signs": np.sign(normal),
        "equal rows": np.repeat(normal[:1], shape[0], axis=0),
        "one huge element": normal + 1e6 * one,
        "heavy elements": normal**9,
        "mean": 1 + 1e-4 * normal,
    }
    for name, matrix in matrices.items():
        with np.errstate(over="ignore", under="ignore"):
            values: NDArray[Any] = (matrix * scale).astype(dtype)
        if not np.isfinite(values).all():
            continue
        numbers = numbers_of(values)
        assert numbers == numbers_of(values.copy())
        traps = find_traps([values], seed=1)
        found = [getattr(numbers, field) for field in UNITLESS] + [
            numbers.mp_bulk_edge,
            traps.count,
            traps.largest,
            farms_alpha([values]),
        ]
        assert all(one is None or np.isfinite(one) for one in found), name
        assert numbers.hill_alpha is None or numbers.hill_alpha < 1e5, name


def test_a_matrix_of_rank_one_has_no_bulk_made_of_rounding_errors() -> None:
    found = numbers_of(np.outer(noise((90, 1))[:, 0], noise((1, 70), 1)[0]))

    assert (found.mp_bulk_edge, found.mp_softrank, found.num_spikes, found.small_end_share) == (None,) * 4
    assert found.hill_alpha is None
    assert found.erg_tail == 2


def test_hills_alpha_of_the_numbers_is_that_of_the_eigenvalues() -> None:
    matrix = noise((150, 120), 2)

    assert numbers_of(matrix).hill_alpha == hill_alpha(eigenvalues(matrix))
