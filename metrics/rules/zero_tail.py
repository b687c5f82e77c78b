"""A tensor that ends in zeros: a file that was cut off and filled up."""

from __future__ import annotations

from collections.abc import Iterator
from math import log, prod

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer, Regime
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.pruning import Pruning, pruning_of
from layerwatch.metrics.rules.base import Rule

_BY_CHANCE = 1e-9
"""A run of zeros at the end that has this probability, given how many zeros there are elsewhere, is no chance."""

_MOSTLY_ZERO = 0.5
"""With a larger share of zeros elsewhere the tensor was pruned or rounded, row by row as it happens."""

_DENSE = 0.05
"""Without a baseline only a layer with a smaller share of zeros elsewhere is judged."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.zero_tail
    pruning: Pruning | None = None
    for layer in examination.everything:
        measured, baseline = layer.measurement, layer.baseline
        if measured is None or measured.non_finite or measured.max_abs == 0.0 or not layer.shape:
            continue
        elements = prod(layer.shape)
        limit = max(float(settings.min_elements), settings.share * elements)
        if measured.zero_tail < settings.min_elements or measured.zero_tail <= settings.share * elements:
            continue
        if _may_be_chance(measured, elements):
            continue
        severity = Severity(settings.severity)
        if not examination.has_baseline or baseline is None:
            if not _ends_within_a_row(layer, measured, elements, settings.min_elements):
                continue
            severity = _at_most_a_warning(severity)
            before = "no layer is padded within a row"
        else:
            if baseline.shape != measured.shape or baseline.non_finite:
                continue
            energy = layer.change.zero_tail_energy if layer.change is not None else None
            if energy is None:
                # What a vector had there is not known, only that it was not zero.
                if len(layer.shape) > 1 or 2 * baseline.zero_tail > measured.zero_tail:
                    continue
                before = f"in the baseline the last {baseline.zero_tail} were"
                if not context.regime.comparable:
                    severity = _at_most_a_warning(severity)
            elif energy <= settings.energy:
                continue
            else:
                before = f"the baseline had {energy:.0%} of its average energy there"
            pruning = pruning or pruning_of(examination)
            if _is_pruned(layer, measured, elements, pruning):
                continue
            if context.regime is Regime.UNALIGNED_WIDE:
                severity = _at_most_a_warning(severity)
        yield Finding(
            RULE.name,
            RULE.group,
            severity,
            layer.name,
            f"the last {measured.zero_tail} of {elements} weights are exactly zero; {before}",
            {
                "zero_tail": measured.zero_tail,
                "baseline_zero_tail": baseline.zero_tail if baseline else None,
                "elements": elements,
                "limit": limit,
                "baseline_energy": layer.change.zero_tail_energy if layer.change else None,
                "energy_limit": settings.energy,
            },
            strength=max(1.0, measured.zero_tail / limit),
        )


def _at_most_a_warning(severity: Severity) -> Severity:
    return Severity.WARNING if severity is Severity.CRITICAL else severity


def _share_elsewhere(measured: Measurement, elements: int) -> float:
    """Share of zeros among the elements in front of the tail."""
    in_front = elements - measured.zero_tail
    zeros = round(measured.zero_share * elements) - measured.zero_tail
    return min(1.0, max(0.0, zeros / in_front)) if in_front > 0 else 0.0


def _may_be_chance(measured: Measurement, elements: int) -> bool:
    share = _share_elsewhere(measured, elements)
    if share > _MOSTLY_ZERO:
        return True
    return share > 0.0 and measured.zero_tail * log(share) > log(_BY_CHANCE)


def _ends_within_a_row(layer: ExaminedLayer, measured: Measurement, elements: int, shortest: int) -> bool:
    """Padding fills whole rows (a rounded vocabulary) or the end of every row, never a row and a half."""
    if len(layer.shape) < 2 or _share_elsewhere(measured, elements) > _DENSE:
        return False
    columns = elements // layer.shape[0]
    whole, rest = divmod(measured.zero_tail, columns)
    return whole >= 1 and shortest <= rest <= columns - shortest


def _is_pruned(layer: ExaminedLayer, measured: Measurement, elements: int, pruning: Pruning) -> bool:
    """Whole rows at the end that are zero along with rows elsewhere, or that nobody reads: ``zero_rows`` judges."""
    if layer.name in pruning.branches:
        return True
    if len(layer.shape) < 2 or layer.change is None:
        return False
    columns = elements // layer.shape[0]
    whole, rest = divmod(measured.zero_tail, columns)
    if rest:
        return False
    return len(layer.change.zero_rows) > whole or pruning.removed_units(layer).rows


RULE = Rule(
    name="zero_tail",
    group=RuleGroup.WEIGHTS,
    title="a tensor ends in zeros",
    explanation="""\
A copy that was cut off, a download that was filled up, a shard that was not written: the file has its full length,
and the last part of a tensor is zeros.

Critical when at least the last 32 weights, and more than 0.5 % of them, are exactly zero and the baseline had more
than 20 % of its average energy there (read off the norms of its rows, and of its columns within the row where the
zeros begin). Pruning by size empties weak ends, which stay below that: with this condition none of 365 healthy
versions of the study fired. A run that the zeros elsewhere in the tensor explain is left out, a tensor more than half
of which is zero elsewhere (sparsity judges that), and whole rows that are zero along with others or that no layer
reads (zero_rows judges those). Of a 1-D tensor it is only known that it did not end so before: critical while the
weights align with the baseline's, else a warning. A warning at most where a retrain shifted every spectrum, which
pruning does.

Without a counterpart in a baseline a warning, and only where the zeros begin within a row of a layer that has none
elsewhere: padding fills whole rows.

Likely cause: a download, a copy or a shard that broke off and was filled up with zeros to its full length.

What to do: compare the file's checksum with its origin's and fetch or export it again.

Cannot see: a tail that was weak in the baseline, one shorter than 32 weights, and rubbish instead of zeros.""",
    needs_baseline=False,
    check=check,
)
