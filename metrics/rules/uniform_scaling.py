"""Every layer multiplied by a factor, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.uniform_scaling
    if not context.regime.comparable:
        return
    gains: list[float] = []
    compared = 0
    for layer in examination.layers:
        aligned = layer.change.aligned if layer.change else None
        ratio = layer.change.norm_ratio if layer.change else None
        if aligned is None or aligned.cosine is None or ratio is None:
            continue
        compared += 1
        gain = aligned.cosine * ratio
        perpendicular = ratio * max(0.0, 1.0 - aligned.cosine**2) ** 0.5
        if abs(gain - 1.0) > settings.gain and perpendicular < settings.perpendicular:
            gains.append(gain)
    if len(gains) < settings.min_layers or len(gains) <= compared / 2:
        return
    usual = float(median(gains))
    yield Finding(
        RULE.name,
        RULE.group,
        Severity(settings.severity),
        None,
        f"{len(gains)} of {compared} layers are the baseline's times {usual:.3g}, and nothing else",
        {
            "layers": len(gains),
            "compared": compared,
            "median_gain": usual,
            "limit": settings.gain,
            "perpendicular_limit": settings.perpendicular,
        },
        strength=abs(usual - 1.0) / settings.gain,
    )


RULE = Rule(
    name="uniform_scaling",
    group=RuleGroup.WEIGHTS,
    title="all layers multiplied by a factor",
    explanation="""\
The baseline times a number is no training: most layers kept their direction exactly (less than 0.02 of the norm
beside it) and changed their size by more than 2 %. The scale of a single layer is another rule (scaled); a factor that
all share is its median, and only this warning tells.

Likely cause: weights averaged with zeros, a merge whose weights do not add up to one, or a scale of an export applied
to the whole model.

What to do: compare with the parent; check the sum of the merge's weights.

Cannot see: a factor that a batch norm behind the layer divides out, which changes nothing either.""",
    needs_baseline=True,
    check=check,
)
