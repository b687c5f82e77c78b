"""The context of a version: its regime, its medians, and what a small or odd layer does to them."""

from __future__ import annotations

import pytest

from layerwatch.config.rules import SpectralOutlierSettings
from layerwatch.metrics.change import Method
from layerwatch.metrics.examination import (
    Context,
    Examination,
    ExaminedLayer,
    LayerHistory,
    Regime,
    context_of,
    spectral_severity,
)
from layerwatch_testing.examinations import aligned, change, examination, layer, new_layer, unreadable_layer

SETTINGS = SpectralOutlierSettings()


def context(*layers: ExaminedLayer) -> Context:
    return context_of(examination(*layers), SETTINGS)


def moved(
    name: str, relative: float, cosine: float | None, shape: tuple[int, ...] = (64, 64), severity: float = 0.0
) -> ExaminedLayer:
    return layer(
        name,
        shape=shape,
        change=change(aligned=aligned(relative, cosine), effective_rank_ratio=10 ** (0.08 * severity)),
    )


def several(count: int, relative: float, cosine: float | None, severity: float = 0.0) -> list[ExaminedLayer]:
    return [moved(f"{cosine}-{number}", relative, cosine, severity=severity) for number in range(count)]


@pytest.mark.parametrize(
    ("relative", "cosine", "severity", "regime"),
    [
        # Limits of section 10 of the detection study: aligned share 0.5, median change 0.2, severity 0.6.
        (0.19, 0.98, 0.0, Regime.ALIGNED),
        (0.21, 0.98, 0.0, Regime.LONG),
        (0.9, 0.31, 0.0, Regime.LONG),
        (1.4, 0.29, 0.5, Regime.UNALIGNED),
        (1.4, 0.01, 0.59, Regime.UNALIGNED),
        (1.4, 0.01, 0.61, Regime.UNALIGNED_WIDE),
    ],
)
def test_the_regime_follows_from_alignment_change_and_spectra(
    relative: float, cosine: float, severity: float, regime: Regime
) -> None:
    assert context(*several(5, relative, cosine, severity)).regime is regime


def test_half_of_the_layers_must_be_aligned() -> None:
    assert context(*several(2, 0.1, 0.99), *several(2, 1.4, 0.0)).aligned_share == 0.5
    assert context(*several(2, 0.1, 0.99), *several(2, 1.4, 0.0)).regime.comparable
    assert not context(*several(2, 0.1, 0.99), *several(3, 1.4, 0.0)).regime.comparable


def test_of_three_layers_one_that_is_aligned_tells_the_lineage() -> None:
    # Nothing of another seed aligns (section 7 of the study): the other two are broken, not retrained.
    assert context(*several(1, 0.1, 0.99), *several(2, 1.4, 0.0)).regime.comparable
    assert not context(*several(3, 1.4, 0.0)).regime.comparable


def test_the_floor_of_alignment_rises_for_small_layers() -> None:
    # Chance cosines of 100 elements have a standard deviation of 0.1; six of them are 0.6.
    assert context(moved("small", 0.9, 0.55, (10, 10))).aligned_share == 0.0
    assert context(moved("small", 0.9, 0.65, (10, 10))).aligned_share == 1.0
    assert context(moved("large", 0.9, 0.35, (1000, 1000))).aligned_share == 1.0


@pytest.mark.parametrize("shape", [(1, 1), (2, 4), (6, 6)])
def test_a_network_of_tiny_layers_that_did_not_change_is_aligned(shape: tuple[int, ...]) -> None:
    same = change(aligned=aligned(0.0, 1.0, method=Method.IDENTICAL))

    found = context(layer("a", shape=shape, change=same), layer("b", shape=shape, change=same))

    assert found.aligned_share == 1.0
    assert found.regime is Regime.ALIGNED


def test_empty_layers_say_nothing_about_alignment() -> None:
    found = context(*several(1, 0.1, 0.99), *several(4, 1.0, None))

    assert found.aligned_share == 1.0


def test_medians_are_taken_over_compared_layers_unchanged_ones_included() -> None:
    layers = [moved("a", 0.0, 1.0), moved("b", 0.1, 0.99, severity=0.4), moved("c", 5.0, 0.99, severity=9.0)]
    reshaped = layer("d", change=change(aligned=None))

    found = context(*layers, reshaped, new_layer("e"), unreadable_layer("f"))

    assert found.median_relative_change == 0.1
    assert found.median_severity == pytest.approx(0.4)
    assert set(found.severities) == {"a", "b", "c"}


def test_the_median_norm_ratio_is_in_decades() -> None:
    layers = [
        layer(name, change=change(norm_ratio=ratio))
        for name, ratio in (("a", 0.1), ("b", 10.0), ("c", 100.0))
    ]

    assert context(*layers).median_log_norm_ratio == pytest.approx(1.0)
    assert context(layer("a", change=change(norm_ratio=None))).median_log_norm_ratio == 0.0


@pytest.mark.parametrize(
    "version",
    [
        examination(),
        examination(new_layer(), has_baseline=False),
        examination(layer(), has_baseline=False),
        examination(new_layer()),
        examination(unreadable_layer()),
        examination(layer(change=change(aligned=None))),
    ],
)
def test_where_nothing_is_compared_there_is_no_regime(version: Examination) -> None:
    found = context_of(version, SETTINGS)

    assert found == Context(Regime.NONE, 0.0, 0.0, 0.0, 0.0, {})
    assert not found.regime.comparable


def test_a_layer_without_any_number_has_no_severity() -> None:
    nothing = change(
        norm_ratio=None,
        spectral_ratio=None,
        stable_rank_ratio=None,
        effective_rank_ratio=None,
        kurtosis_ratio=None,
        rank_loss_shift=None,
        esd_distance=None,
    )

    assert spectral_severity(nothing, SETTINGS.divisors) == 0.0


def test_where_every_spectrum_moved_the_effective_rank_counts_in_larger_units() -> None:
    # Section 12 of the detection study, P2: 0.20 decades instead of 0.08.
    one_seed_later = context(*several(5, 1.4, 0.01, severity=2.5))

    assert one_seed_later.regime is Regime.UNALIGNED_WIDE
    assert one_seed_later.median_severity == pytest.approx(1.0)
    assert context(*several(5, 0.05, 0.99, severity=2.5)).median_severity == pytest.approx(2.5)


def test_a_layer_that_moves_by_itself_is_measured_in_units_of_its_history() -> None:
    restless = LayerHistory(
        versions=5,
        log_norm=0.001,
        log_spectral_norm=0.001,
        log_stable_rank=0.001,
        log_effective_rank=0.04,
        log_kurtosis=0.001,
    )
    moved_far = change(effective_rank_ratio=10**0.2, norm_ratio=10**0.1)

    # 0.2 decades of effective rank: 2.5 units of 0.08, one of five times 0.04. The norm keeps its default of 0.20.
    assert spectral_severity(moved_far, SETTINGS.divisors) == pytest.approx(2.5)
    assert spectral_severity(moved_far, SETTINGS.divisors, restless) == pytest.approx(1.0)


def test_everything_lists_layers_before_vectors_and_undecided_those_with_a_problem() -> None:
    version = examination(unreadable_layer("broken"), layer("fc"))

    assert [one.name for one in version.everything] == ["broken", "fc"]
    assert [one.name for one in version.undecided] == ["broken"]
