"""NaN or infinite weights."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    for layer in examination.everything:
        measured = layer.measurement
        if measured is None or measured.non_finite == 0:
            continue
        elements = max(1, _elements(layer.shape))
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(rules.non_finite.severity),
            layer.name,
            f"{measured.non_finite} of {elements} weights are NaN or infinite",
            {"non_finite": measured.non_finite, "elements": elements, "limit": 0},
            strength=1000.0,
        )


def _elements(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


RULE = Rule(
    name="non_finite",
    group=RuleGroup.WEIGHTS,
    title="NaN or infinite weights",
    explanation="""\
A weight that is NaN or infinite turns every output that it touches into NaN. One is enough.

Looks at every floating tensor, biases and normalisation vectors included. Needs no baseline.

What to do: find the step that produced it (an overflow in half precision, a division by a zero scale, a
diverged training run, a damaged file) and restore the layer from the parent version.

Cannot see: values that are finite but wrong.""",
    needs_baseline=False,
    check=check,
)
