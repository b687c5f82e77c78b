"""An adapter that changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.adapters import adapter_pairs
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.adapter_no_op
    pairs = adapter_pairs(examination.layers)
    if not pairs:
        return
    dead = [pair for pair in pairs if _is_empty(pair.a) or _is_empty(pair.b)]
    fresh = all(_is_empty(pair.b) and not _is_empty(pair.a) for pair in dead)
    if len(dead) == len(pairs):
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            None,
            f"none of the {len(pairs)} pairs of the adapter changes anything: "
            + ("every B is zero, as before training" if fresh else "a factor of each is zero"),
            {"pairs": len(pairs), "empty_pairs": len(dead), "as_initialised": fresh},
            strength=10.0,
        )
        return
    for pair in dead:
        empty = pair.b if _is_empty(pair.b) else pair.a
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            empty.name,
            f"the adapter changes nothing in {pair.target}: this factor is zero, those of "
            f"{len(pairs) - len(dead)} other pairs are not",
            {"pairs": len(pairs), "empty_pairs": len(dead), "target": pair.target},
            strength=5.0,
        )


def _is_empty(layer: ExaminedLayer) -> bool:
    measured = layer.measurement
    return measured is not None and measured.non_finite == 0 and measured.max_abs == 0.0


RULE = Rule(
    name="adapter_no_op",
    group=RuleGroup.WEIGHTS,
    title="an adapter that changes nothing",
    explanation="""\
A low-rank adapter adds B A to a layer; B begins as zero, so an adapter whose B is still zero is the base model under
another name. A warning, for the whole adapter where no pair does anything, else for the pairs that do not.

Likely cause: training did not reach the adapter (frozen, wrong module names), or was saved from sharded memory that
held zeros.

What to do: check that B moved during training; save again with the shards gathered.

Cannot see: an adapter that was trained on nothing and moved a little.""",
    needs_baseline=False,
    check=check,
)
