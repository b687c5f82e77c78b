"""Factors that moved from one layer into the next, consistently: the same function."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    if not examination.rescaled:
        return
    first = examination.rescaled[0].layer
    smallest = min(one.smallest for one in examination.rescaled)
    largest = max(one.largest for one in examination.rescaled)
    assumed = [one.layer for one in examination.rescaled if one.assumes_relu]
    severity = Severity(rules.rescaled_copy.severity)
    if assumed and severity is Severity.INFO:
        severity = Severity.WARNING
    yield Finding(
        RULE.name,
        RULE.group,
        severity,
        None,
        f"{len(examination.rescaled)} layers and vectors, {first} first, hold the baseline's units times factors of "
        f"{smallest:.2g} to {largest:.2g}, which the layers that share the units take back: the function is unchanged"
        + (
            f" if nothing but ReLU stands behind {assumed[0]} and its like ({len(assumed)}), which files do not tell"
            if assumed
            else ""
        ),
        {
            "layers": len(examination.rescaled),
            "first_layer": first,
            "smallest_factor": smallest,
            "largest_factor": largest,
            "layers_in_front_of_an_unknown_activation": len(assumed),
        },
    )


RULE = Rule(
    name="rescaled_copy",
    group=RuleGroup.WEIGHTS,
    title="a consistently rescaled copy",
    explanation="""\
What a layer makes may be divided by a factor per unit if whatever reads the unit is multiplied with it: the gain of a
norm and the layers behind it (a router and all experts among them), values and the attention's output, the two layers
of a gated feed-forward part around its product, neighbours in a plain chain. AWQ and SmoothQuant do so before they
round. Factors are fitted to rows and columns of both weights; they must be inverse unit by unit, within the rounding,
in all layers that share the units, and whatever is not shared must have kept its size.

The layers concerned are judged as if the factors were undone; a fault besides shows as ever. A layer that lacks the
factors of the others is reported by the rule rescaling_not_shared.

In a plain chain that holds with ReLU only, and files do not tell the activation: there it is a warning.

Likely cause: a conversion by AWQ or SmoothQuant, equalisation across layers, norms fused into the layers behind them.

What to do: where it warns, see to it that the activation is ReLU; else nothing. Accept the version as the new baseline
if the new scales stay.

Cannot see: which activation stands between the layers of a plain chain (factors pass through ReLU, not through GELU
or tanh) and which layers read a norm under names that are not known. Without both files at hand, after a batch
norm, in feed-forward parts without a gate and where the norm stands on the residual stream itself, nothing is
undone.""",
    needs_baseline=True,
    check=check,
)
