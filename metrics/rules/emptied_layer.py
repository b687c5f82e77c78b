"""A layer whose weights are all zero."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.adapters import is_second_factor
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.measurement import LayerKind
from layerwatch.metrics.pruning import pruning_of
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    gains = (vector for vector in examination.vectors if vector.kind is LayerKind.NORM and vector.change)
    empty = [
        (layer, layer.measurement)
        for layer in (*examination.layers, *gains)
        if layer.measurement is not None
        and not layer.measurement.non_finite
        and layer.measurement.max_abs == 0.0
    ]
    branches = pruning_of(examination).branches if empty else {}
    for layer, measured in empty:
        severity, message = _judge(layer, branches.get(layer.name), Severity(rules.emptied_layer.severity))
        yield Finding(
            RULE.name,
            RULE.group,
            severity,
            layer.name,
            message,
            {
                "max_abs": 0.0,
                "baseline_max_abs": layer.baseline.max_abs if layer.baseline else None,
                "statistics_empty": measured.fold_statistics_empty,
            },
            strength=500.0 if severity is not Severity.INFO else 1.0,
        )


def _judge(layer: ExaminedLayer, branch: str | None, severity: Severity) -> tuple[Severity, str]:
    measured = layer.measurement
    if layer.baseline is not None and layer.baseline.max_abs == 0.0:
        return Severity.INFO, "all weights are zero, as in the baseline"
    if measured is not None and measured.fold_statistics_empty:
        return Severity.INFO, (
            f"all weights are zero and {measured.folded_by} saw only zeros during training: a removed branch"
        )
    if branch is not None:
        return Severity.INFO, f"all weights are zero; it belongs to the removed branch that ends in {branch}"
    if layer.baseline is None and is_second_factor(layer.name):
        return Severity.INFO, "all weights are zero, as in an adapter before its training (see adapter_no_op)"
    if layer.baseline is None:
        return severity, "all weights are zero"
    return severity, (f"all weights are zero; in the baseline the largest was {layer.baseline.max_abs:.3g}")


RULE = Rule(
    name="emptied_layer",
    group=RuleGroup.WEIGHTS,
    title="all weights of a layer are zero",
    explanation="""\
A layer of zeros passes nothing on: it was lost in an export, zeroed by a failed merge, or pruned away.

Critical when the baseline's layer was not zero, or when there is no baseline. Information when it is zero in
the baseline too, and when the batch norm behind it kept running statistics of exactly zero: then the layer was
already empty during training and is a branch that was removed on purpose. The layers that feed nothing but such a
branch belong to it and are information too. So is the second factor of an adapter (lora_B), which is zero before
training, where there is no baseline.

Likely cause: an export or a merge that lost the layer, or a mask or a multiplication by zero that was saved.

What to do: if the layer was removed on purpose, accept the version as the new baseline
(layerwatch baseline accept); otherwise restore the layer from the parent.

Cannot see: a removed branch in a network without batch norms; it is reported as critical once. Biases may be zero by
right; one that became zero is told by vector_reset.""",
    needs_baseline=False,
    check=check,
)
