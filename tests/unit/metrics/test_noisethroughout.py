"""Noise on top of all layers of another training: it fills spectra from below, blurs couplings, belies batch norms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from layerwatch.metrics.coupling import Coupling, CouplingKind, Side
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.findings import Finding, Severity
from layerwatch.metrics.noisethroughout import NoiseThroughout, noise_throughout
from layerwatch.metrics.outofstep import compared_couplings
from layerwatch.metrics.spectra import eigenvalues, spectral_numbers
from layerwatch_testing.examinations import (
    aligned,
    change,
    coupling,
    examination,
    findings_of,
    layer,
    measurement,
    numbers,
    settings,
)

NAMES = [f"fc{number}" for number in range(10)]
EVERY = (1.0,) * len(NAMES)


def stream(kept: Sequence[float] = EVERY) -> tuple[Coupling, ...]:
    """Couplings of every layer with the residual stream; the baseline's are at 30."""
    return tuple(
        coupling(CouplingKind.STREAM_PARTNERS, 30.0 * share, name)
        for name, share in zip(NAMES, kept, strict=True)
    )


def norms(correlation: float, count: int = 6) -> tuple[Coupling, ...]:
    """Batch norms whose stored means the weights give this well."""
    sides = (Side.OUTPUTS, Side.VECTOR)
    return tuple(
        coupling(CouplingKind.BATCHNORM_STATISTICS, correlation, name, f"{name}.mean", sides=sides, slope=1.0)
        for name in NAMES[:count]
    )


def version(
    floors: Sequence[float],
    now: tuple[Coupling, ...],
    before: tuple[Coupling, ...],
    cosine: float = 0.0,
) -> Examination:
    """Layers whose random bulks end so many times higher than in the baseline."""
    layers = [
        layer(
            name,
            measurement=measurement(folded=numbers(mp_bulk_edge=2.0 * floor)),
            baseline=measurement(folded=numbers(mp_bulk_edge=2.0)),
            change=change(aligned=aligned(1.4 if cosine == 0.0 else 0.05, cosine)),
        )
        for name, floor in zip(NAMES, floors, strict=True)
    ]
    return examination(*layers, couplings=now, baseline_couplings=before)


def signs(found: Examination) -> NoiseThroughout | None:
    return noise_throughout(found, compared_couplings(found.couplings, found.baseline_couplings))


def of_the_version(found: Examination) -> list[Finding]:
    return [one for one in findings_of("noise_added", found) if one.layer is None]


def everywhere(value: float) -> tuple[float, ...]:
    return (value,) * len(NAMES)


def test_fuller_spectra_and_blurred_couplings_in_all_layers_are_a_warning_for_the_version() -> None:
    # What 30 % of noise made of the transformers of the benchmark, in the mean.
    (finding,) = of_the_version(version(everywhere(1.23), stream(everywhere(0.93)), stream()))

    assert finding.severity is Severity.WARNING
    assert "1.23 times as high" in finding.message
    assert "93%" in finding.message


@pytest.mark.parametrize(("floor", "kept"), [(1.0, 1.0), (1.05, 1.03), (1.0, 0.95), (1.12, 1.05)], ids=str)
def test_what_healthy_trainings_differ_by_is_no_noise(floor: float, kept: float) -> None:
    assert of_the_version(version(everywhere(floor), stream(everywhere(kept)), stream())) == []


def test_means_that_the_weights_no_longer_explain_tell_where_there_are_batch_norms() -> None:
    (finding,) = of_the_version(version(everywhere(1.1), norms(0.955), norms(0.985)))

    assert finding.evidence["unexplained_ratio"] == pytest.approx(3.0)
    assert of_the_version(version(everywhere(1.0), norms(0.98), norms(0.985))) == []


def test_a_single_layer_does_not_look_like_noise_in_all() -> None:
    one = (9.0, *EVERY[1:])
    blurred = (0.1, *EVERY[1:])

    healthy, broken = (
        signs(version(floors, stream(kept), stream())) for floors, kept in ((EVERY, EVERY), (one, blurred))
    )

    assert healthy is not None
    assert broken is not None
    assert broken.evidence == pytest.approx(healthy.evidence)


@pytest.mark.parametrize(
    ("now", "before"),
    [((), ()), (stream()[:2], stream()[:2]), (norms(0.9, 2), norms(0.98, 2)), (norms(0.2), norms(0.6))],
    ids=["none", "few", "few batch norms", "batch norms that never fitted"],
)
def test_without_couplings_full_spectra_say_nothing(
    now: tuple[Coupling, ...], before: tuple[Coupling, ...]
) -> None:
    found = version(everywhere(1.5), now, before)

    assert signs(found) is None
    assert of_the_version(found) == []


def test_one_sign_alone_never_says_more_than_six() -> None:
    found = signs(version(everywhere(1e6), stream(everywhere(1e-6)), stream()))

    assert found is not None
    assert found.evidence == pytest.approx(12.0)


def test_where_weights_align_other_rules_judge_noise() -> None:
    assert findings_of("noise_added", version(everywhere(1.5), stream(everywhere(0.5)), stream(), 0.99)) == []


def test_limit_and_severity_come_from_the_settings() -> None:
    noisy = version(everywhere(1.23), stream(everywhere(0.93)), stream())

    assert findings_of("noise_added", noisy, settings("noise_added", version_evidence=10.0)) == []
    (finding,) = findings_of("noise_added", noisy, settings("noise_added", severity="info"))
    assert finding.severity is Severity.INFO


def test_noise_raises_the_floor_of_a_spectrum_by_its_share_of_the_bulk() -> None:
    # A bulk that holds half of the squared norm; 9 % of all of it are 18 % of the bulk.
    random = np.random.default_rng(0)
    rows, columns = 96, 160
    bulk = random.standard_normal((rows, columns)) / (rows * columns) ** 0.5
    left, right = (np.linalg.qr(random.standard_normal((side, 8)))[0] for side in (rows, columns))
    weights = bulk + left @ right.T / 8**0.5
    noise = random.standard_normal(weights.shape)
    noise *= 0.3 * np.linalg.norm(weights) / np.linalg.norm(noise)

    edges = [
        spectral_numbers(eigenvalues(matrix), "F32", columns, rows).mp_bulk_edge
        for matrix in (weights, weights + noise)
    ]

    assert edges[0] is not None
    assert edges[1] is not None
    assert edges[1] / edges[0] == pytest.approx(1.18, abs=0.02)
