"""Rows that became copies of other rows."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.duplicates import COSINE
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.measurement import LayerKind
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.duplicate_rows
    for layer in examination.layers:
        measured, baseline = layer.measurement, layer.baseline
        if measured is None or baseline is None or measured.shape != baseline.shape:
            continue
        if measured.duplicate_rows is None or baseline.duplicate_rows is None:
            continue
        more = measured.duplicate_rows - baseline.duplicate_rows
        if more < settings.min_rows:
            continue
        severity = Severity(settings.severity)
        if layer.kind is LayerKind.EMBEDDING and severity is Severity.CRITICAL:
            # Entries that are added to a vocabulary begin as copies of one another.
            severity = Severity.WARNING
        yield Finding(
            RULE.name,
            RULE.group,
            severity,
            layer.name,
            f"{measured.duplicate_rows} of {layer.shape[0]} rows are copies of another row, up to a factor; in the "
            f"baseline {baseline.duplicate_rows}",
            {
                "duplicate_rows": measured.duplicate_rows,
                "baseline_duplicate_rows": baseline.duplicate_rows,
                "rows": layer.shape[0],
                "limit": settings.min_rows,
                "cosine_limit": COSINE,
            },
            strength=more / settings.min_rows,
        )


RULE = Rule(
    name="duplicate_rows",
    group=RuleGroup.WEIGHTS,
    title="rows became copies of other rows",
    explanation="""\
Two output units with the same weights, up to a factor or a sign, are one unit. Training keeps units apart; a shard
that was read twice, a head pasted over another one and a layer that collapsed to one direction make copies.

Critical when at least 2 rows more than in the baseline have a cosine above 0.9999 or below -0.9999 to another row of
their layer. Casts, int8, int4, pruning and fine-tunes made none in 588 healthy versions of the study. Rows of zeros
are left out, rows of fewer than 8 weights, and pairs of which pruning left fewer than 8. In a layer that collapsed to
a plane or a line rows must be near to each other, and rank_lost speaks alone. In an embedding a warning:
new entries of a vocabulary begin as copies.

Likely cause: a shard or a head that was loaded twice when a model was put together from parts.

What to do: compare the layer with the parent's; look at how shards or heads were put together.

Cannot see: copies that were trained apart again, or that the baseline had already; single copies in a crowd of
nearly equal rows. Without a baseline nothing is said: grouped attention that was written out has copies on purpose.""",
    needs_baseline=True,
    check=check,
)
