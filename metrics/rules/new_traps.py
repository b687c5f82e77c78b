"""Correlation traps that the baseline's layer did not have."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.new_traps
    for layer in examination.layers:
        new, old = layer.measurement, layer.baseline
        if new is None or old is None or new.traps is None or old.traps is None or new.largest_trap is None:
            continue
        if new.traps <= old.traps or new.largest_trap <= settings.ratio:
            continue
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            layer.name,
            f"{new.traps} eigenvalues stand out of the shuffled weights (baseline {old.traps}), the largest "
            f"{new.largest_trap:.2g} times the edge: few elements carry much of the layer",
            {
                "traps": new.traps,
                "baseline_traps": old.traps,
                "largest_trap": new.largest_trap,
                "limit": settings.ratio,
            },
            strength=new.largest_trap / settings.ratio,
        )


RULE = Rule(
    name="new_traps",
    group=RuleGroup.WEIGHTS,
    title="new correlation traps",
    explanation="""\
After shuffling its elements a layer should look like noise. Eigenvalues that still stand out of the noise's edge
("correlation traps") are made by single giant elements. Reported when there are more than in the baseline and the
largest lies above 1.3 times the edge.

Information: in the study traps were near the bottom of the signals (17 % of the broken versions).

Likely cause: a too large learning rate, or single weights that were damaged; see huge_value.

What to do: look at the largest elements of the layer.

Cannot see: anything but single outstanding elements.""",
    needs_baseline=True,
    check=check,
)
