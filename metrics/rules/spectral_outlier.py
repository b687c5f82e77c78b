"""One layer whose spectrum moved while the others' did not."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings, SpectralOutlierSettings
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.measurement import LayerKind
from layerwatch.metrics.rules.base import Rule

_FEW_EIGENVALUES = 32


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.spectral_outlier
    if context.regime is Regime.NONE:
        return
    for layer in examination.layers:
        value = context.severities.get(layer.name)
        change = layer.change
        around = context.severity_around(layer.name)
        limit = _limit(layer, context.regime, around, settings)
        if value is None or change is None or change.emptied or value < limit:
            continue
        severity = Severity(settings.severity)
        sure = _sure(context.regime, around, settings)
        if value < settings.unaligned_warning_share * sure:
            continue
        if severity is Severity.CRITICAL and value < sure:
            severity = Severity.WARNING
        yield Finding(
            RULE.name,
            RULE.group,
            severity,
            layer.name,
            f"its spectrum moved by {value:.3g} times what healthy changes do; the model's median is "
            f"{around:.3g}, the limit {limit:.3g}",
            {
                "spectral_severity": value,
                "median_severity": around,
                "limit": limit,
                "norm_ratio": change.norm_ratio,
                "spectral_ratio": change.spectral_ratio,
                "stable_rank_ratio": change.stable_rank_ratio,
                "effective_rank_ratio": change.effective_rank_ratio,
                "esd_distance": change.esd_distance,
                "rank_loss_shift": change.rank_loss_shift,
                "kurtosis_ratio": change.kurtosis_ratio,
                "regime": str(context.regime),
            },
            strength=value / limit,
        )


def _limit(layer: ExaminedLayer, regime: Regime, around: float, settings: SpectralOutlierSettings) -> float:
    if regime.is_wide or (regime is Regime.UNALIGNED and _differs_by_seed(layer)):
        return max(settings.wide_severity_limit, settings.wide_times_median * around)
    return max(settings.severity_limit, settings.times_median * around)


def _sure(regime: Regime, around: float, settings: SpectralOutlierSettings) -> float:
    """From where on it is no chance of the seed: of five trainings of a transformer one moves queries or keys further
    than the limit."""
    if regime is not Regime.UNALIGNED:
        return 0.0
    return max(settings.unaligned_severity_limit, settings.unaligned_times_median * around)


def _differs_by_seed(layer: ExaminedLayer) -> bool:
    """Embeddings keep much of their random start, and few eigenvalues scatter widely."""
    eigenvalues = layer.change.num_eigenvalues if layer.change else 0
    return layer.kind is LayerKind.EMBEDDING or eigenvalues < _FEW_EIGENVALUES


RULE = Rule(
    name="spectral_outlier",
    group=RuleGroup.WEIGHTS,
    title="one layer's spectrum moved alone",
    explanation="""\
Works without aligned weights, hence also after a retrain from another seed. The severity of a layer is the
largest of seven moves of its spectrum, each divided by the largest healthy one: squared norm 0.20 decades,
largest eigenvalue 0.35, stable rank 0.15, effective rank 0.08, kurtosis 0.55, KS distance of the mean-normalised
eigenvalues 0.15 (or what chance gives for its size), rank loss 20 %.

Critical at 1 and 3 times the model's median; at 5 and 6 times after a long fine-tune or a retrain that shifted every
spectrum, where the effective rank counts in units of 0.20, and for embeddings and layers with fewer than 32 eigenvalues
after any retrain from another seed. Where the model has a calm history of four versions or more, a number that moves
further by itself counts in units of five standard deviations.

After a retrain from another seed it is a warning below 2 and 6 times the median, and nothing below nine tenths of
these: how many directions the queries and keys of a block use is up to the seed. In 6 of 30 healthy trainings of the
benchmark's transformers those of one block moved by 1.2 to 1.7, or 3.2 to 5.6 times the median.

Likely cause: rank that was lost in a factorisation or a clipping, one giant element or row, a layer that was
re-initialised, or a scale that was read wrongly.

What to do: open the spectrum: a collapsed tail is lost rank, a lone spike one giant element or row.

Cannot see: permuted rows or columns, sign flips and transposes. They leave every singular value as it is.""",
    needs_baseline=True,
    check=check,
    is_statistical=True,
)
