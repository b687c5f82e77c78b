"""A row whose norm moved far."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RowScalesSettings, RulesSettings
from layerwatch.metrics.examination import Context, Examination, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.others import medians_of_others
from layerwatch.metrics.rules.base import Rule

_SAME_DIRECTION = 0.8
"""Rows that were exchanged have other norms as well; they have rules of their own."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.row_scales
    if context.regime.comparable:
        yield from _scattered(examination, settings)
    if context.regime is not Regime.ALIGNED:
        return
    for layer in examination.layers:
        found = layer.change.aligned.rows if layer.change and layer.change.aligned else None
        if found is None or found.row_norm_ratio is None or found.row_norm_ratio <= settings.limit:
            continue
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            layer.name,
            f"row {found.rescaled_row} is {_times(found.row_norm_ratio)} times longer or shorter than the baseline's "
            f"(limit {settings.limit:g})",
            {"row": found.rescaled_row, "row_norm_ratio": found.row_norm_ratio, "limit": settings.limit},
            strength=found.row_norm_ratio / settings.limit,
        )


def _times(ratio: float) -> str:
    return f"{ratio:.3g}" if ratio < 1000 else f"{ratio:.0f}"


def _scattered(examination: Examination, settings: RowScalesSettings) -> Iterator[Finding]:
    scatters = {
        layer.name: layer.change.row_norm_scatter
        for layer in examination.layers
        if layer.change is not None and layer.change.row_norm_scatter is not None
    }
    around = medians_of_others(scatters)
    for layer in examination.layers:
        value = scatters.get(layer.name)
        aligned = layer.change.aligned if layer.change else None
        if value is None or aligned is None or aligned.cosine is None or aligned.cosine < _SAME_DIRECTION:
            continue
        usual = around[layer.name]
        limit = max(settings.scatter, settings.times_median * usual)
        if value <= limit:
            continue
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            layer.name,
            f"its rows became longer and shorter by {value:.0%} (standard deviation) while they point the same way; "
            f"the other layers' by {usual:.1%}, the limit is {limit:.0%}",
            {"row_norm_scatter": value, "median_of_others": usual, "limit": limit, "cosine": aligned.cosine},
            strength=value / limit,
        )


RULE = Rule(
    name="row_scales",
    group=RuleGroup.WEIGHTS,
    title="rows have another scale",
    explanation="""\
One live row (norm above a fifth of the median) is more than 3.2 times longer or shorter than the baseline's, in a
version that has hardly moved otherwise: one scale per row was lost, exchanged or read wrongly. Needs both weights;
compared on BatchNorm-folded matrices. The largest healthy move in the study was 0.44 of the limit.

Violated, too, when the norms of all live rows scatter: the logarithm of their ratios has a standard deviation above
0.05 and above 6 times that of the median layer, while the layer still points the same way. From stored norms, so the
weights need not be there. On the benchmark's networks for tuning: healthy layers up to 3 times the median, scales
shifted by one row or group 14 to 73 times, a wrong group size 8 to 16 times.

Rows that became exactly zero do not count here (zero_rows).

Likely cause: a scale per channel applied to the wrong row or not at all, a damaged number in a vector of scales, one
giant weight in the row.

What to do: compare the scales of the row with the parent's export.

Cannot see: a single row from stored measurements alone or after a long fine-tune, rows that were nearly dead before,
and exchanged scales behind a batch norm after a fine-tune that moved them by itself.""",
    needs_baseline=True,
    check=check,
    is_statistical=True,
)
