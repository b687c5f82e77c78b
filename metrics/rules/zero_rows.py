"""Output rows or input columns that became exactly zero."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.zero_rows
    # A retrain with another recipe that shifts every spectrum is often a structured pruning.
    severity = Severity(settings.severity)
    if context.regime is Regime.UNALIGNED_WIDE and severity is Severity.CRITICAL:
        severity = Severity.WARNING
    for layer in examination.layers:
        change = layer.change
        if change is None or change.emptied:
            continue
        row_limit = max(1.0, settings.row_share * change.rows)
        column_limit = max(2.0, settings.column_share * change.columns)
        strength = max(change.new_zero_rows / row_limit, change.new_zero_columns / column_limit)
        if strength < 1.0:
            continue
        parts = []
        if change.new_zero_rows:
            parts.append(f"{change.new_zero_rows} of {change.rows} output rows")
        if change.new_zero_columns:
            parts.append(f"{change.new_zero_columns} of {change.columns} input columns")
        yield Finding(
            RULE.name,
            RULE.group,
            severity,
            layer.name,
            f"{' and '.join(parts)} that were live in the baseline are exactly zero",
            {
                "new_zero_rows": change.new_zero_rows,
                "rows": change.rows,
                "row_limit": row_limit,
                "new_zero_columns": change.new_zero_columns,
                "columns": change.columns,
                "column_limit": column_limit,
            },
            strength=strength,
        )


RULE = Rule(
    name="zero_rows",
    group=RuleGroup.WEIGHTS,
    title="rows or columns became exactly zero",
    explanation="""\
A row of zeros is an output unit that never fires, a column of zeros an input that is ignored. Healthy
fine-tuning, quantisation and unstructured pruning do not make whole live rows exactly zero.

Counts rows and columns that are exactly zero now and had more than a fifth of the median norm in the baseline;
reports from 2 % of the rows (at least one) or 10 % of the columns (at least two). A warning instead of critical
when the whole model was retrained with shifted spectra, which structured pruning does.

What to do: check the export or the pruning mask; if the units were removed on purpose, accept the version.

Cannot see: units that were dead in the baseline already, or that are small but not zero.""",
    needs_baseline=True,
    check=check,
)
