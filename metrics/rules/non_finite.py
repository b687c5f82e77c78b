"""NaN or infinite weights, and weights that nothing can be computed with."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    for layer in examination.everything:
        measured = layer.measurement
        if measured is None:
            continue
        if measured.non_finite == 0:
            if _out_of_range(measured):
                yield Finding(
                    RULE.name,
                    RULE.group,
                    Severity(rules.non_finite.severity),
                    layer.name,
                    f"the largest weight is {measured.max_abs:.3g}: the squares of such weights leave the range of "
                    "float64, and the layer has no spectrum",
                    {"max_abs": measured.max_abs},
                    strength=1000.0,
                )
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


def _out_of_range(measured: Measurement) -> bool:
    numbers = measured.numbers
    return numbers is not None and numbers.log_norm is None and measured.max_abs > 0.0


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

Looks at every floating tensor, biases and normalisation vectors included. Needs no baseline. A layer whose float64
weights lie beyond about 1e150, or below 1e-150, counts too: their squares are infinite or zero.

Likely cause: an overflow in half precision, or a division by a scale or a variance of zero.

What to do: find the step that produced it (an overflow in half precision, a division by a zero scale, a
diverged training run, a damaged file) and restore the layer from the parent version.

Cannot see: values that are finite but wrong.""",
    needs_baseline=False,
    check=check,
)
