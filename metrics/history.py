"""What is usual for each layer of a model, from its healthy versions (detection study, sections 5 and 12).

Raw "three sigma of the last five versions" fires on a quarter to three quarters of healthy versions, because a standard
deviation of five numbers is often far too small. Here it never falls below the floor that the study found, and no
history begins before the model has calmed down: the first epochs of a training move everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite, log10
from statistics import median, stdev

from layerwatch.metrics.estimate import estimated_change
from layerwatch.metrics.examination import LayerHistory
from layerwatch.metrics.measurement import Measurement

MOST_VERSIONS = 8
"""A history looks back so far."""

CALM_STEPS = 3
"""So many steps in a row must be calm before there is a history, hence four versions."""

CALM_CHANGE = 0.2
"""A step from one version to the next is calm when the median layer changed by less than this share of its norm."""

FLOORS: Mapping[str, float] = {
    "log_norm": 0.02,
    "log_spectral_norm": 0.03,
    "log_stable_rank": 0.02,
    "log_effective_rank": 0.01,
    # The study has no floor for the kurtosis: a fifth of the default divisor, which five of them give again.
    "log_kurtosis": 0.11,
}
"""Smallest standard deviation that is believed, in decades, by attribute of `LayerHistory`."""


def layer_histories(versions: Sequence[Mapping[str, Measurement]]) -> dict[str, LayerHistory]:
    """How much each layer's numbers scattered over healthy versions.

    Args:
        versions: measurements by layer name of at least two versions; arrays are not needed.

    Returns:
        The layers that every version has in one shape and with finite numbers.
    """
    if len(versions) < 2:
        return {}
    histories = {}
    for name, first in versions[0].items():
        found = [version[name] for version in versions if name in version]
        if len(found) < len(versions) or any(one.shape != first.shape for one in found):
            continue
        numbers = [_numbers(one) for one in found]
        whole = [one for one in numbers if one is not None]
        if len(whole) == len(numbers):
            spread = {key: max(floor, stdev(one[key] for one in whole)) for key, floor in FLOORS.items()}
            histories[name] = LayerHistory(versions=len(versions), **spread)
    return histories


def median_change(pairs: Sequence[tuple[Measurement, Measurement]]) -> float | None:
    """Median over layers of the relative change from one version to the next, from their sketches.

    Args:
        pairs: (earlier, later) of each layer, arrays loaded.

    Returns:
        Norm of the difference over norm of the earlier, >= 0; None where no pair can be compared.
    """
    changes = [change for earlier, later in pairs if (change := _change(earlier, later)) is not None]
    return median(changes) if changes else None


def calm_versions(count: int, change: Callable[[int], float | None]) -> int:
    """How many of the latest versions belong to the history: those since the last step that was not calm.

    Args:
        count: number of versions.
        change: the median change from version ``i`` to ``i + 1``, oldest version first; asked from the latest step
            backwards, and no further than needed.

    Returns:
        0 while there is no history.
    """
    calm = 0
    for step in reversed(range(count - 1)):
        moved = change(step)
        if moved is None or moved >= CALM_CHANGE:
            break
        calm += 1
    return calm + 1 if calm >= CALM_STEPS else 0


def _numbers(measurement: Measurement) -> dict[str, float] | None:
    folded = measurement.folded
    if folded is None:
        return None
    logs = {
        "log_norm": folded.log_norm,
        "log_spectral_norm": folded.log_spectral_norm,
        "log_stable_rank": _log(folded.stable_rank),
        "log_effective_rank": _log(folded.effective_rank),
        "log_kurtosis": _log(measurement.kurtosis),
    }
    known = {key: value for key, value in logs.items() if value is not None and isfinite(value)}
    return known if len(known) == len(logs) else None


def _log(value: float | None) -> float | None:
    return log10(value) if value is not None and value > 0.0 else None


def _change(earlier: Measurement, later: Measurement) -> float | None:
    if earlier.digest == later.digest:
        return 0.0
    if earlier.shape != later.shape or earlier.sketch is None or later.sketch is None:
        return None
    norm, norm0 = _norm(later), _norm(earlier)
    if norm is None or norm0 is None:
        return None
    found = estimated_change(later.sketch, earlier.sketch, norm, norm0).relative_change
    return None if found is None else found.value


def _norm(measurement: Measurement) -> float | None:
    folded = measurement.folded
    return None if folded is None or folded.log_norm is None else float(10.0 ** (folded.log_norm / 2))
