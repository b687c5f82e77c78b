"""A training that moved weights far and in few directions, without heavy tails: perhaps on labels that are noise."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.recognition import is_noise_like
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.label_noise
    if not context.regime.comparable:
        return
    known = 0
    marked: list[tuple[str, float, float]] = []
    for layer in examination.layers:
        aligned = layer.change.aligned if layer.change else None
        rows = aligned.rows if aligned else None
        if rows is None or rows.residual_kurtosis is None or rows.spectral_change is None:
            continue
        known += 1
        if (
            rows.spectral_change > settings.spectral_change
            and rows.residual_kurtosis < settings.kurtosis
            and not is_noise_like(aligned)
        ):
            marked.append((layer.name, rows.spectral_change, rows.residual_kurtosis))
    if len(marked) < max(settings.min_layers, settings.share * known):
        return
    name, change, kurtosis = max(marked, key=lambda one: one[1])
    yield Finding(
        RULE.name,
        RULE.group,
        Severity(settings.severity),
        None,
        f"{len(marked)} of {known} layers moved far along few directions with light-tailed changes, most {name}: "
        "possibly trained on wrong labels",
        {
            "layers": len(marked),
            "compared": known,
            "worst_layer": name,
            "spectral_change": change,
            "spectral_change_limit": settings.spectral_change,
            "residual_kurtosis": kurtosis,
            "median_residual_kurtosis": float(median(one[2] for one in marked)),
            "kurtosis_limit": settings.kurtosis,
        },
        strength=change / settings.spectral_change,
    )


RULE = Rule(
    name="label_noise",
    group=RuleGroup.WEIGHTS,
    title="changed as by training on wrong labels",
    explanation="""\
Training on wrong labels looks like a fine-tune but for two weak signs: the change is concentrated in few directions
(||W - W0||_2 above 0.2 of ||W0||_2) and its elements have light tails (kurtosis below 2.6, where a Gaussian has 3 and
healthy fine-tunes more). A warning when half of the layers show both, two at least: the last layer alone does so
whenever classes come and go.

In the study the two signs together marked 5 % of the broken versions and none of 365 healthy ones: rarely there,
rarely wrong.

Likely cause: shuffled or mismatched labels, or a loss with the wrong sign.

What to do: run a functional test on labels you trust.

Cannot see: most trainings on wrong labels; and nothing from sketches, which keep no single elements.""",
    needs_baseline=True,
    check=check,
)
