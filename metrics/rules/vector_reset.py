"""A bias, a norm's gain or a running statistic that was reset or rescaled."""

from __future__ import annotations

from collections.abc import Iterator
from math import log10, prod, sqrt

from layerwatch.config.rules import RulesSettings, VectorResetSettings
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.measurement import LayerKind, Measurement
from layerwatch.metrics.pruning import Pruning, pruning_of
from layerwatch.metrics.rules.base import Rule
from layerwatch.metrics.statisticgrowth import explained_growth, growth_in_front, is_variance

_NOTHING = 1e-12
"""Vectors whose root mean square is below this on both sides are nothing that could change."""

_NEARLY_CONSTANT = 1.02
"""Largest element over root mean square below which a vector may become constant by rounding."""

_MOST = 1e3
"""Strength of a vector that lost everything."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.vector_reset
    pruning: Pruning | None = None
    growth = growth_in_front(examination)
    carried = {one.layer for one in examination.rescaled}
    for vector in examination.vectors:
        measured, baseline = vector.measurement, vector.baseline
        if measured is not None and not measured.non_finite and _is_negative_variance(vector, measured):
            yield _negative(vector, measured, Severity(settings.severity))
            continue
        if measured is None or baseline is None or measured.shape != baseline.shape:
            continue
        if vector.name in carried:
            continue
        elements = prod(vector.shape)
        if measured.non_finite or baseline.non_finite or elements < settings.min_elements:
            continue
        if max(measured.norm, baseline.norm) <= _NOTHING * sqrt(elements):
            continue
        became_constant = measured.constant and not baseline.constant and not _nearly_constant(baseline)
        ratio = measured.norm / baseline.norm if baseline.norm > 0.0 else None
        moved = _moved(vector, ratio, explained_growth(vector, growth)) if ratio else None
        if not became_constant and (moved is None or moved <= settings.norm_ratio):
            continue
        pruning = pruning or pruning_of(examination)
        if vector.name in pruning.branches:
            continue
        yield Finding(
            RULE.name,
            RULE.group,
            _severity(vector, context, settings, became_constant, moved),
            vector.name,
            _message(measured, ratio, moved, became_constant, settings.norm_ratio),
            {
                "norm": measured.norm,
                "baseline_norm": baseline.norm,
                "ratio": ratio,
                "moved": moved,
                "limit": settings.norm_ratio,
                "became_constant": became_constant,
            },
            strength=_strength(became_constant, moved, settings.norm_ratio),
        )


def _is_negative_variance(vector: ExaminedLayer, measured: Measurement) -> bool:
    return is_variance(vector) and measured.min_value < 0.0


def _negative(vector: ExaminedLayer, measured: Measurement, severity: Severity) -> Finding:
    return Finding(
        RULE.name,
        RULE.group,
        severity,
        vector.name,
        f"a variance is below zero (smallest {measured.min_value:.3g}): no data makes it so, and its root is no number",
        {
            "min_value": measured.min_value,
            "baseline_min_value": vector.baseline.min_value if vector.baseline else None,
            "limit": 0.0,
        },
        strength=_MOST,
    )


def _moved(vector: ExaminedLayer, ratio: float, explained: float) -> float:
    """How many times larger or smaller, >= 1, beyond what the weights in front explain."""
    left = ratio / explained
    # A statistic that stayed where it was while the weights moved is not the one that was reset.
    moved = min(max(ratio, 1.0 / ratio), max(left, 1.0 / left))
    return sqrt(moved) if is_variance(vector) else moved


def _severity(
    vector: ExaminedLayer,
    context: Context,
    settings: VectorResetSettings,
    became_constant: bool,
    moved: float | None,
) -> Severity:
    severity = Severity(settings.severity)
    if severity is not Severity.CRITICAL or became_constant:
        return severity
    if moved is not None and moved > settings.extreme_norm_ratio:
        return severity
    # Running variances follow the activations of the layers in front, and move far in a healthy fine-tune.
    steady = context.regime is Regime.ALIGNED and vector.kind is not LayerKind.STATISTIC
    return severity if steady else Severity.WARNING


def _message(
    measured: Measurement, ratio: float | None, moved: float | None, became_constant: bool, limit: float
) -> str:
    if became_constant:
        value = "zero" if measured.max_abs == 0.0 else f"{measured.max_abs:.3g} in size"
        return f"all elements have become equal ({value}); in the baseline they were not"
    assert ratio is not None
    assert moved is not None
    counts = "" if max(ratio, 1.0 / ratio) <= 1.01 * moved else f", which counts as {moved:.3g} times"
    return f"the norm is {ratio:.3g} times the baseline's{counts} (limit {limit:g} times, up or down)"


def _strength(became_constant: bool, moved: float | None, limit: float) -> float:
    if moved is None:
        return _MOST if became_constant else 1.0
    # In decades: a norm that fell by a million is not a million times as bad.
    decades = max(1.0, min(_MOST, log10(max(1.0, moved)) / log10(limit)))
    return max(2.0, decades) if became_constant else decades


def _nearly_constant(baseline: Measurement) -> bool:
    """All elements have about the same size, as the gains of a young network do; a cast may make them equal."""
    mean_square = baseline.norm / sqrt(max(1, prod(baseline.shape)))
    return baseline.max_abs <= _NEARLY_CONSTANT * mean_square


RULE = Rule(
    name="vector_reset",
    group=RuleGroup.WEIGHTS,
    title="a bias, gain or statistic was reset or rescaled",
    explanation="""\
A norm whose gains are all one again, running statistics at their initial values, a bias times a thousand: the
matrices look healthy, and the network does not work.

Looks at 1-D tensors of at least 8 elements. One whose elements all became equal, and were not in the baseline, was
reset: critical whatever else happened. A norm that changed by more than 3.2 times, up or down, is critical while the
weights align with the baseline's after a short change, and a warning after a long fine-tune or a retrain; running
statistics follow the activations and are a warning there too, after what the weights in front of them explain was
divided out; of a variance the square root counts. Beyond 100 times it is critical in any case: the largest
change between healthy releases of the study was 62 times. Norms and statistics of a removed branch are left out. A
running variance below zero is critical in any case, also without a baseline.

Likely cause: a layer re-created after loading, a checkpoint loaded with strict=False, statistics of a batch norm left
at their start, or averages of variances with a weight below zero.

What to do: see whether the step that made the version re-created the layer, or loaded it with strict=False.

Cannot see: a vector that was permuted, or replaced by one of the same size; one whose elements were all of one size
before; running statistics of the wrong data (batchnorm_statistics may).""",
    needs_baseline=False,
    check=check,
    is_statistical=True,
)
