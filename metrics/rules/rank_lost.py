"""A layer most of whose directions are gone."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.others import medians_of_others
from layerwatch.metrics.rules.base import Rule

_ALONE = 0.5
"""The others' median loss must be below this share of a layer's own for the layer to stand out."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.rank_lost
    losses = {
        layer.name: layer.change.rank_loss_shift
        for layer in examination.layers
        if layer.change is not None and not layer.change.emptied and layer.change.rank_loss_shift is not None
    }
    lost = {name: value for name, value in losses.items() if value >= settings.share}
    left = {layer.name: _directions_left(layer) for layer in examination.layers if layer.name in lost}
    everywhere: list[str] = []
    usual = medians_of_others(losses)
    for name, value in lost.items():
        around = usual[name]
        if around >= _ALONE * value:
            everywhere.append(name)
            continue
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            name,
            f"{value:.0%} of its singular values became zero to rounding; of the other layers' {around:.0%}",
            {
                "rank_loss_shift": value,
                "median_of_others": around,
                "limit": settings.share,
                "directions_left": left[name],
            },
            strength=value / settings.share,
        )
    if everywhere:
        typical = float(median(losses.values()))
        yield Finding(
            RULE.name,
            RULE.group,
            min(Severity.WARNING, Severity(settings.severity), key=lambda one: one.rank),
            None,
            f"{len(everywhere)} of {len(losses)} layers lost rank, {typical:.0%} of the singular values in the median "
            "layer",
            {"layers": len(everywhere), "compared_layers": len(losses), "median_loss": typical},
            strength=max(lost[name] for name in everywhere) / settings.share,
        )


def _directions_left(layer: ExaminedLayer) -> int | None:
    numbers = layer.measurement.folded if layer.measurement is not None else None
    return numbers.num_eigenvalues - numbers.rank_loss if numbers and numbers.rank_loss is not None else None


RULE = Rule(
    name="rank_lost",
    group=RuleGroup.WEIGHTS,
    title="a layer lost rank",
    explanation="""\
A layer of rank r passes on r directions of its input and no more. Training, quantisation and unstructured pruning keep
every singular value of a layer away from zero; a truncated factorisation sets most of them to zero.

Violated when the share of singular values that are zero to the rounding of the stored type rose by 20 % or more, and
the other layers' median by less than half of that; compared between equal stored types only, and needs no aligned
weights. One warning for the version where most layers lost rank alike: it was factorised as a whole.

Likely cause: a low-rank factorisation cut too short, an adapter stored in the place of the layer it belongs to, rows
that were copied.

What to do: look at the spectrum for where it ends; restore the layer, or raise the rank of its factorisation.

Cannot see: a cut that was blurred by rounding to a coarser type or by training afterwards; the spectrum's shape still
shows it (spectral_outlier).""",
    needs_baseline=True,
    check=check,
)
