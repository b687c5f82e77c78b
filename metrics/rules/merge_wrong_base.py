"""A merge whose parents were not made from the base."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.merge_wrong_base
    merge = examination.merge
    if merge is None or merge.base is None:
        return
    known = [layer for layer in merge.layers if layer.base_cosine is not None]
    apart = [layer for layer in known if (layer.base_cosine or 0.0) < settings.base_cosine]
    if not apart:
        return
    if len(apart) > len(known) / 2:
        cosine = float(median(layer.base_cosine or 0.0 for layer in apart))
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            None,
            f"a parent was not made from the base {merge.base}: in {len(apart)} of {len(known)} layers their cosine is "
            f"{cosine:.2g}; differences from it mean nothing",
            {"base_cosine": cosine, "limit": settings.base_cosine, "base": merge.base, "layers": len(apart)},
            strength=settings.base_cosine / max(0.05, cosine),
        )
        return
    for layer in apart:
        cosine = layer.base_cosine or 0.0
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            layer.name,
            f"a parent's layer was not made from that of the base {merge.base} (cosine {cosine:.2g})",
            {
                "base_cosine": cosine,
                "limit": settings.base_cosine,
                "median_base_cosine": merge.median_of("base_cosine"),
                "base": merge.base,
            },
            strength=settings.base_cosine / max(0.05, cosine),
        )


RULE = Rule(
    name="merge_wrong_base",
    group=RuleGroup.WEIGHTS,
    title="a merge with the wrong base",
    explanation="""\
Task arithmetic, TIES and DARE add up what each parent learned beyond a common base. A parent that was not trained from
that base differs from it by everything, and the sum is noise. Critical where the cosine between a parent and the base
is below 0.5 (fine-tunes of one base: above 0.9).

Likely cause: base_model of the merge's configuration names another model, or another release of it.

What to do: name the model that the parents were trained from.

Cannot see: a base that is a near relative of the right one (a later release, the instructed variant); if weights are
declared, merge_recipe tells.""",
    needs_baseline=False,
    check=check,
)
