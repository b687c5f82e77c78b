"""A re-export that is not bit-identical, or a cast that did more than round."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.change import Method
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer
from layerwatch.metrics.expectation import cast_limit
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.recognition import recognised_relation
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.rules.base import Rule

_SAME_IN_A_SKETCH = 1e-6
"""Sketches and norms of equal numbers, kept in float32, agree this well."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    recognised = recognised_relation(examination, context)
    if recognised.relation not in (Relation.REEXPORTED, Relation.CAST):
        return
    cast = recognised.relation is Relation.CAST
    how = "declared" if recognised.declared else "recognised"
    for layer in examination.everything:
        value, is_same = _difference(layer)
        limit = cast_limit(layer) if cast else 0.0
        if value is None or is_same or value <= limit:
            continue
        aligned = layer.change.aligned if layer.change else None
        what = (
            f"the {how} cast rounds by at most {limit:.2g}" if cast else "a re-export must be bit-identical"
        )
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(rules.export_differs.severity),
            layer.name,
            f"differs from the baseline by {value:.3g} of its norm; {what}",
            {
                "relative_change": value,
                "limit": limit,
                "relation": str(recognised.relation),
                "declared": recognised.declared,
                "dtype": layer.dtype,
                "baseline_dtype": layer.baseline.dtype if layer.baseline else None,
                "cosine": aligned.cosine if aligned else None,
            },
            strength=value / limit if limit else 1.0 + value,
        )


def _difference(layer: ExaminedLayer) -> tuple[float | None, bool]:
    """Relative change of a layer, or of a vector's norm, and whether it is none at all."""
    new, old, change = layer.measurement, layer.baseline, layer.change
    if new is None or old is None or change is None:
        return None, False
    if new.digest == old.digest:
        return 0.0, True
    aligned = change.aligned
    if aligned is None and len(layer.shape) >= 2:
        return None, False
    if aligned is not None and aligned.relative_change is not None:
        unsure = _SAME_IN_A_SKETCH if aligned.method is Method.SKETCH else 0.0
        return aligned.relative_change, aligned.relative_change <= unsure
    if max(new.norm, old.norm) == 0.0:
        return 0.0, True
    moved = max(
        abs(new.norm - old.norm) / (old.norm or 1.0), abs(new.max_abs - old.max_abs) / (old.max_abs or 1.0)
    )
    # Equal sizes in equal types with other bytes are other numbers, of which only the sizes are kept.
    is_same = moved <= _SAME_IN_A_SKETCH and new.dtype != old.dtype
    return max(moved, _SAME_IN_A_SKETCH), is_same


RULE = Rule(
    name="export_differs",
    group=RuleGroup.WEIGHTS,
    title="a re-export or cast changed the weights",
    explanation="""\
A version that is declared to be a re-export ("relation": "reexported") holds the same numbers in another file, bit
for bit; a cast, declared or recognised by the stored types of most layers, holds them rounded: within 1e-3 of the
norm, or within the rounding error of its type where that is coarser (BF16 0.004, FP8 0.06 to 0.13).

Two published exports of a real network were not the release they stood beside; nothing else would have told.

Likely cause: where most layers differ, the export was made from another checkpoint; where few do, a conversion step
(transpose, scale, tied weights) was applied to them alone.

What to do: export again from the parent's file, and compare fingerprints.

Cannot see: of biases and norms, whose elements are not kept, a cast that moves single elements and no size.""",
    needs_baseline=True,
    check=check,
    is_about_the_step=True,
)
