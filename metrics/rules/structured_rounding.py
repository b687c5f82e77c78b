"""A layer that a quantisation changed by more than rounding, hidden below the size of its errors."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.others import medians_of_others
from layerwatch.metrics.recognition import recognised_relation, vectors_moved
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rules.base import Rule

_FEEDBACK = 1.08
"""Median noise ratio of a version from which on its errors are correlated by design. Measured on a trained mixture of
experts: rounding to the nearest 0.99 to 1.00, GPTQ (which moves each column's error to those behind it) 1.34."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.structured_rounding
    recognised = recognised_relation(examination, context)
    if recognised.relation is not Relation.QUANTIZED or not context.regime.comparable:
        return
    if not recognised.declared and vectors_moved(examination):
        # Trained further and then quantised: the structure is that of the training.
        return
    structures: dict[str, float] = {}
    ratios: list[float] = []
    for layer in examination.layers:
        rows = layer.change.aligned.rows if layer.change and layer.change.aligned else None
        if rows is not None and rows.structure is not None and rows.noise_ratio is not None:
            structures[layer.name] = rows.structure
            ratios.append(rows.noise_ratio)
    if len(structures) <= settings.min_layers:
        return
    feedback = median(ratios) > _FEEDBACK
    times = settings.feedback_times_median if feedback else settings.times_median
    around = medians_of_others(structures)
    for name, value in structures.items():
        limit = max(settings.least, times * around[name])
        if value < limit:
            continue
        sure = not feedback and value >= max(settings.least, settings.critical_times_median * around[name])
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity if sure else settings.doubtful_severity),
            name,
            f"its quantisation error is no rounding: its largest singular value is {value:.2f} of its largest row and "
            f"column norms together, {value / around[name]:.1f} times as much as in the other layers",
            {
                "structure": value,
                "median_of_others": around[name],
                "limit": limit,
                "errors_fed_back": feedback,
            },
            strength=value / limit,
        )


RULE = Rule(
    name="structured_rounding",
    group=RuleGroup.WEIGHTS,
    title="a quantisation changed one layer by more than rounding",
    explanation="""\
Rounding errors are as good as independent: the largest singular value of such a matrix is at most about its largest
row norm and its largest column norm together, however unequal its rows and columns are (Bandeira and van Handel,
Annals of Probability 44, 2016, theorem 1.1). An adapter that was merged once too often, or an edit, adds few strong
directions, which stand out long before they change the layer by more than int4 does.

Measured on a trained mixture of experts (layers of 64 x 64): rounding to the nearest in groups of 32 gives 0.73 to
0.87 (median 0.78); an adapter of rank 4 and 5 % of the layer's norm, merged once too often below int4, 0.92 to 1.12;
one of 10 % 1.16 to 1.40. Critical from 1.4 times the other layers' median on.

GPTQ moves each column's error into the columns behind it, so its errors have structure by design (0.85, up to 1.11).
Where the whole version looks like that, it takes 1.6 times the median, and is a warning.

Likely cause: an adapter merged twice or with another scale, quantised weights of another fine-tune in one layer.

What to do: compare with the parent that was meant; merge the adapter again from the untouched base.

Cannot see: a change that all layers share; one below about a twentieth of the norm in int4; anything from sketches.""",
    needs_baseline=True,
    check=check,
    is_statistical=True,
)
