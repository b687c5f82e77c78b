"""Some rows of a layer are others now, while other layers keep theirs."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rowchange import RowChange
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.rows_replaced
    if context.regime is not Regime.ALIGNED:
        return
    shares = {
        layer.name: found.low_share for layer in examination.layers if (found := _rows_of(layer)) is not None
    }
    for layer in examination.layers:
        found = _rows_of(layer)
        if found is None or found.low_share <= settings.share or layer.change is None or layer.change.emptied:
            continue
        around = median([share for name, share in shares.items() if name != layer.name] or [0.0])
        if around >= settings.share:
            continue
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            layer.name,
            f"{found.low_rows} of {found.live_rows} live rows have a cosine below 0.5 with the baseline's "
            f"({found.low_share:.1%}, limit {settings.share:.0%}; the median layer has {around:.1%})",
            {
                "low_rows": found.low_rows,
                "live_rows": found.live_rows,
                "share": found.low_share,
                "median_share": around,
                "limit": settings.share,
            },
            strength=found.low_share / settings.share,
        )


def _rows_of(layer: ExaminedLayer) -> RowChange | None:
    return layer.change.aligned.rows if layer.change and layer.change.aligned else None


RULE = Rule(
    name="rows_replaced",
    group=RuleGroup.WEIGHTS,
    title="some rows no longer look like themselves",
    explanation="""\
A live row (norm above a fifth of the median) whose cosine with its baseline is below 0.5 does something else now.
Violated when more than 2 % of a layer's live rows are such while the median layer has fewer, and the version as a
whole has hardly moved. Needs both weights.

Rows that became exactly zero do not count here (zero_rows).

Likely cause: rows overwritten by a copy, new tokens written over old ones, a partial merge, lost rank.

What to do: compare the rows with the parent's; for an embedding, compare the vocabulary.

Cannot see: anything from sketches alone, after a long fine-tune, or where every layer lost rows.""",
    needs_baseline=True,
    check=check,
    is_statistical=True,
)
