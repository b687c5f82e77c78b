"""Output rows or input columns that became exactly zero."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from layerwatch.config.rules import RulesSettings, ZeroRowsSettings
from layerwatch.metrics.change import Change
from layerwatch.metrics.examination import Context, Examination, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.pruning import Pruning, RemovedUnits, pruning_of
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rules.base import Rule

_HEAVY = 0.5
"""With fewer zeros among the weights of the other layers, a whole row of them is no chance."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.zero_rows
    candidates = [
        (layer, layer.change, _strength(layer.change, settings))
        for layer in examination.layers
        if layer.change is not None and not layer.change.emptied and _strength(layer.change, settings) >= 1.0
    ]
    if not candidates:
        return
    pruning = pruning_of(examination)
    wide: list[float] = []
    for layer, change, strength in candidates:
        if layer.name in pruning.branches:
            continue
        severity = Severity(settings.severity)
        removed = pruning.removed_units(layer)
        explained = _is_explained(change, removed, settings)
        if explained is not None:
            severity = Severity.INFO
        elif pruning.is_model_wide(layer.name) and _goes_with_pruning(
            pruning.rise_around(layer.name), change, len(candidates), len(examination.layers), settings
        ):
            wide.append(strength)
            continue
        elif context.regime is Regime.UNALIGNED_WIDE and severity is Severity.CRITICAL:
            # A retrain with another recipe that shifts every spectrum is often a structured pruning.
            severity = Severity.WARNING
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
            f"{' and '.join(parts)} that were live in the baseline are exactly zero{explained or ''}",
            {
                "new_zero_rows": change.new_zero_rows,
                "rows": change.rows,
                "row_limit": _row_limit(change, settings),
                "new_zero_columns": change.new_zero_columns,
                "columns": change.columns,
                "column_limit": _column_limit(change, settings),
            },
            strength=strength,
        )
    if wide:
        yield _of_the_model(examination, wide, pruning, Severity(settings.severity))


def _goes_with_pruning(
    rise: float, change: Change, candidates: int, layers: int, settings: ZeroRowsSettings
) -> bool:
    """Whether pruning of single weights alike in all layers can leave whole rows of this one empty.

    Coarse storage, too, turns a tenth of the weights of every layer into zeros, but no whole row.
    """
    if change.new_zero_rows < _row_limit(change, settings):
        return True
    return rise >= _HEAVY or 2 * candidates >= layers


def _row_limit(change: Change, settings: ZeroRowsSettings) -> float:
    return max(1.0, settings.row_share * change.rows)


def _column_limit(change: Change, settings: ZeroRowsSettings) -> float:
    return max(2.0, settings.column_share * change.columns)


def _strength(change: Change, settings: ZeroRowsSettings) -> float:
    return max(
        change.new_zero_rows / _row_limit(change, settings),
        change.new_zero_columns / _column_limit(change, settings),
    )


def _is_explained(change: Change, removed: RemovedUnits, settings: ZeroRowsSettings) -> str | None:
    """The words for a structured pruning; None unless it accounts for every side that is over its limit."""
    rows_over = change.new_zero_rows >= _row_limit(change, settings)
    columns_over = change.new_zero_columns >= _column_limit(change, settings)
    if (rows_over and not removed.rows) or (columns_over and not removed.columns):
        return None
    parts = []
    if rows_over:
        parts.append(f"{removed.consumer} does not read them any more")
    if columns_over:
        parts.append(f"{removed.producer} does not make them any more")
    return f"; {' and '.join(parts)}: units that were removed on both sides"


def _of_the_model(
    examination: Examination, strengths: list[float], pruning: Pruning, configured: Severity
) -> Finding:
    severity = min(configured, Severity.WARNING, key=lambda one: one.rank)
    if examination.relation is Relation.PRUNED:
        severity = Severity.INFO
    typical = median(pruning.rises.values())
    return Finding(
        RULE.name,
        RULE.group,
        severity,
        None,
        f"rows or columns of {len(strengths)} layers became exactly zero while the whole model was pruned: the share "
        f"of zeros rose by {typical:.0%} in the median layer",
        {"layers": len(strengths), "compared_layers": len(pruning.rises), "median_rise": typical},
        strength=max(strengths),
    )


RULE = Rule(
    name="zero_rows",
    group=RuleGroup.WEIGHTS,
    title="rows or columns became exactly zero",
    explanation="""\
A row of zeros is an output unit that never fires, a column of zeros an input that is ignored. Healthy
fine-tuning, quantisation and unstructured pruning do not make whole live rows exactly zero.

Counts rows and columns that are exactly zero now and had more than a fifth of the median norm in the baseline;
reports from 2 % of the rows (at least one) or 10 % of the columns (at least two). No healthy version of the study
but 20 to 50 % pruned ones had any.

Information where both sides agree: the columns of the next layer that would read the rows are zero too, or the rows
of the previous layer that would fill the columns. Then the units were removed on purpose. Which layer is next is read
off the names; where they do not tell, dead rows are critical. Where most layers became sparse alike, the whole model
was pruned: one warning for the version (information where it is declared as pruned). A warning instead of critical
when the whole model was retrained with shifted spectra, which structured pruning does.

Likely cause: a pruning mask that was applied to one layer and not to its neighbours, or an export that dropped units.

What to do: check the export or the pruning mask; if the units were removed on purpose, accept the version.

Cannot see: units that were dead in the baseline already, or that are small but not zero.""",
    needs_baseline=True,
    check=check,
)
