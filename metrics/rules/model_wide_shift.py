"""Every spectrum of the version moved."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.model_wide_shift
    value = context.median_severity
    limit = settings.limit
    if context.regime in (Regime.UNALIGNED, Regime.UNALIGNED_WIDE):
        limit = max(limit, settings.unaligned_limit)
    if context.regime is Regime.NONE or len(context.severities) < settings.min_layers or value < limit:
        return
    worst = max(context.severities, key=lambda name: context.severities[name])
    yield Finding(
        RULE.name,
        RULE.group,
        Severity(settings.severity),
        None,
        f"the spectra of all layers moved: the median layer by {value:.2g} times what healthy changes do, most "
        f"{worst} by {context.severities[worst]:.2g}",
        {
            "median_severity": value,
            "limit": limit,
            "worst_layer": worst,
            "worst_severity": context.severities[worst],
            "regime": str(context.regime),
        },
        strength=value / limit,
    )


RULE = Rule(
    name="model_wide_shift",
    group=RuleGroup.WEIGHTS,
    title="every spectrum of the version moved",
    explanation="""\
A defect of one layer leaves the others alone; a training that went wrong, or another recipe, moves all spectra. The
median over the layers of the spectral severity (see spectral_outlier; where every spectrum moved, the effective rank
counts only from 0.20 decades on) says so from 0.6 on, and after a retrain from another seed from 0.68 on.

Measured on new seeds of three digits networks: the same recipe 0.16 to 0.33, twice or half the training, ten times
the weight decay or a quarter of the batch 0.16 to 0.57, three times the learning rate 0.5 to 1.0, one epoch instead
of twenty or twenty times the learning rate 0.7 to 4.5. Of 124 healthy trainings of the benchmark from other seeds four
reached 0.6 (0.61, 0.61, 0.64 and 0.79); what broke all layers and no other rule saw began at 0.72.

Likely cause: a changed training recipe (learning rate, length), a diverged or cut-short training, labels that are
noise, or a compression of all layers.

What to do: run a functional test; if the recipe was changed on purpose, accept the version as the new baseline.

Cannot see: training on wrong data by an unchanged recipe.""",
    needs_baseline=True,
    check=check,
)
