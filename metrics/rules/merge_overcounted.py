"""What a parent learned, counted more than once."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.merge import MergedLayer, MergeEvidence
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.merge_overcounted
    merge = examination.merge
    if merge is None or merge.base is None:
        return
    known = [layer for layer in merge.layers if layer.coefficients is not None and _means_something(layer)]
    found = [(layer, *_most(layer, merge)) for layer in known]
    twice = [one for one in found if one[2] > settings.coefficient]
    if twice and len(twice) > len(known) / 2:
        value = float(median(one[2] for one in twice))
        name = twice[0][1]
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            None,
            f"what {name} adds to the base is in there {value:.3g} times in {len(twice)} of {len(known)} layers",
            {"coefficient": value, "limit": settings.coefficient, "parent": name, "layers": len(twice)},
            strength=value / settings.coefficient,
        )
    else:
        for layer, name, value in twice:
            yield Finding(
                RULE.name,
                RULE.group,
                Severity(settings.severity),
                layer.name,
                f"what {name} adds to the base is in there {value:.3g} times",
                {"coefficient": value, "limit": settings.coefficient, "parent": name},
                strength=value / settings.coefficient,
            )
    yield from _shared_directions(merge, rules)


def _means_something(layer: MergedLayer) -> bool:
    """Whether the parents explain more than they leave over: else there is another base, and no count of theirs."""
    return layer.left_over is None or layer.left_over < max(map(abs, layer.coefficients or (0.0,)))


def _most(layer: MergedLayer, merge: MergeEvidence) -> tuple[str, float]:
    """The parent that counts most beyond what the recipe declares for it, and how often it counts."""
    declared = layer.expected if merge.recipe is not None and merge.recipe.weights is not None else None
    best = ("", 0.0)
    for position, value in enumerate(layer.coefficients or ()):
        asked = max(1.0, declared[position]) if declared is not None else 1.0
        if value / asked > best[1]:
            best = (merge.parents[position], value / asked)
    return best


def _shared_directions(merge: MergeEvidence, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.merge_overcounted
    cosine, amplification = merge.median_of("task_cosine"), merge.median_of("amplification")
    if cosine is None or amplification is None:
        return
    if cosine < settings.task_cosine or amplification < settings.amplification:
        return
    yield Finding(
        RULE.name,
        RULE.group,
        Severity(settings.shared_severity),
        None,
        f"the parents learned much the same (cosine {cosine:.2g}), and it was added up: the version lies "
        f"{amplification:.3g} times as far from the base as they do",
        {
            "task_cosine": cosine,
            "task_cosine_limit": settings.task_cosine,
            "amplification": amplification,
            "limit": settings.amplification,
        },
        strength=amplification / settings.amplification,
    )


RULE = Rule(
    name="merge_overcounted",
    group=RuleGroup.WEIGHTS,
    title="a parent's change counted more than once",
    explanation="""\
Adding a fine-tune's change to its base gives the fine-tune. Adding it twice - an adapter merged into a model that
holds it already - gives something that was never trained. Critical where a parent counts more than 1.5 times, on the
layers concerned or on the version, unless the recipe declares such a weight.

Parents that learned the same directions count them once each ("spectral over-accumulation", arXiv:2602.05536): a
warning where their changes agree (cosine above 0.3) and the sum lies more than 1.5 times as far from the base as they
do.

Likely cause: an adapter applied to a model that it was merged into before; weights of task vectors that add up to more
than one.

What to do: merge again from the base; lower the weights, or rescale the shared directions.

Cannot see: anything without the measurements of the parent and the base. An adapter given as its factors must be
merged into the base once to serve as a parent.""",
    needs_baseline=False,
    check=check,
)
