"""An adapter that does not fit the model that it is declared to belong to."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.adapters import adapter_pairs, is_adapter_factor
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.adapter_wrong_base
    pairs = adapter_pairs(examination.layers)
    if not pairs or not _is_adapter(examination):
        return
    shapes = {missing.name: missing.shape for missing in examination.missing if len(missing.shape) >= 2}
    # An earlier version of the adapter as the baseline says nothing about the base.
    if not shapes or any(pair.b.baseline is not None for pair in pairs):
        return
    absent = 0
    for pair in pairs:
        target = pair.target_in(shapes)
        if target is None:
            absent += 1
            continue
        (name, base), rows, columns = target, pair.b.shape[0], pair.columns
        width = 1
        for side in base[1:]:
            width *= side
        if (rows, columns) in ((base[0], width), (width, base[0]), (base[0], base[1])):
            continue
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            pair.b.name,
            f"makes a change of {rows}x{columns}, but {name} of the base is {'x'.join(map(str, base))}",
            {"rows": rows, "columns": columns, "base_layer": name, "base_shape": "x".join(map(str, base))},
            strength=100.0,
        )
    if absent:
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity if absent == len(pairs) else settings.absent_severity),
            None,
            f"{absent} of {len(pairs)} pairs belong to layers that the base does not have, {pairs[0].target} or the like",
            {"pairs": len(pairs), "without_layer": absent},
            strength=100.0 * absent / len(pairs),
        )


def _is_adapter(examination: Examination) -> bool:
    """Declared so; or, where nothing is declared, a version that holds factors and nothing else."""
    if examination.relation is None:
        return all(is_adapter_factor(layer.name) for layer in examination.layers)
    return examination.relation is Relation.ADAPTER


RULE = Rule(
    name="adapter_wrong_base",
    group=RuleGroup.WEIGHTS,
    title="an adapter that does not fit its base",
    explanation="""\
An adapter that is declared to belong to a base ("relation": "adapter", the base as its parent) must find each of its
layers there, in the shape of its factors: A as wide as the layer's inputs, B as tall as its outputs.

Critical for a pair of another shape, and where no layer is found at all; a warning where some are missing.

Likely cause: the adapter was trained on another size or release of the model.

What to do: declare the base that the adapter was trained on (adapter_config.json, base_model_name_or_path).

Cannot see: another base of the same shape; training on the wrong base leaves no mark in the factors.""",
    needs_baseline=True,
    check=check,
)
