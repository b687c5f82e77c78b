"""What became of a layer that no longer looks like its baseline: the one most specific answer.

With both weights at hand the answer is read off rows and columns (``rowchange.py``); from measurements alone it is
concluded from what was kept (``outline.py``): norms in place and the spectrum (signs), norms as a set and the
spectrum (a permutation), norms exchanged (a transpose).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import log
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.change import AlignedChange, Method
from layerwatch.metrics.examination import Context, Examination, ExaminedLayer, Regime
from layerwatch.metrics.findings import EvidenceValue, Finding, RuleGroup, Severity
from layerwatch.metrics.outline import OutlineChange
from layerwatch.metrics.rowmatching import Axis, Reordering

_KEPT = 0.02
_KEPT_AT_MOST = 0.1
"""Norms and spectra count as kept within the model's median relative change, between these two."""

_IN_PLACE = 1e-3
_LARGEST_KEPT = 0.005


class Defect(StrEnum):
    """What became of it; each is the rule of that name."""

    SWAPPED = "swapped"
    TRANSPOSED = "transposed"
    SIGN_FLIPPED = "sign_flipped"
    ORDER_NOT_UNDONE = "order_not_undone"
    PERMUTED = "permuted"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Became:
    """An answer.

    Attributes:
        defect: what became of the layer.
        message: the same in a sentence, with numbers.
        evidence: the numbers, beside their limits.
        strength: signal over threshold, >= 1.
    """

    defect: Defect
    message: str
    evidence: Mapping[str, EvidenceValue] = field(default_factory=dict)
    strength: float = 1.0


def what_became(
    layer: ExaminedLayer, examination: Examination, context: Context, rules: RulesSettings
) -> Became | None:
    """The most specific answer for one layer, or None where it is still itself, or nothing can be said."""
    aligned = layer.change.aligned if layer.change else None
    if aligned is None or aligned.method is Method.IDENTICAL or aligned.cosine is None:
        return None
    if not context.regime.comparable:
        # Small blocks in a wrong order are no other seed, even where all layers have them.
        return _order(aligned, rules) if context.regime is not Regime.NONE else None
    return (
        _swapped(layer, aligned.cosine, rules)
        or (_by_rows(aligned, rules) if aligned.rows else _by_outline(layer, aligned, context, rules))
        or _replaced(layer, aligned.cosine, examination, rules)
    )


def findings_of(
    defect: Defect, group: RuleGroup, examination: Examination, context: Context, rules: RulesSettings
) -> Iterator[Finding]:
    """What the rule of a defect says: one finding for each layer that this became of."""
    for layer in examination.layers:
        became = what_became(layer, examination, context, rules)
        if became is not None and became.defect is defect:
            yield Finding(
                str(defect),
                group,
                Severity(getattr(rules, defect).severity),
                layer.name,
                became.message,
                became.evidence,
                strength=became.strength,
            )


def usual_cosine(layer: str, examination: Examination) -> float:
    """Median cosine of the other layers of the version with their baseline; 0 where there are none."""
    cosines = [
        one.change.aligned.cosine
        for one in examination.layers
        if one.name != layer
        and one.change is not None
        and one.change.aligned is not None
        and one.change.aligned.cosine is not None
    ]
    return float(median(cosines)) if cosines else 0.0


def _swapped(layer: ExaminedLayer, cosine: float, rules: RulesSettings) -> Became | None:
    other, limit = layer.resembles, rules.swapped.cosine
    if other is None or other.cosine <= max(limit, cosine):
        return None
    return Became(
        Defect.SWAPPED,
        f"holds the weights of the baseline's {other.layer} (cosine {other.cosine:.2f}; with its own "
        f"{cosine:.2f})",
        {"resembles": other.layer, "resembles_cosine": other.cosine, "cosine": cosine, "limit": limit},
        other.cosine / limit,
    )


def _by_rows(aligned: AlignedChange, rules: RulesSettings) -> Became | None:
    rows, cosine = aligned.rows, aligned.cosine
    if rows is None or cosine is None:
        return None
    turned = rows.transposed_cosine
    if turned is not None and turned > rules.transposed.cosine:
        return _transposed(f"cosine {turned:.2f} with it, {cosine:.2f} as it is", turned, cosine, rules)
    if cosine < -rules.sign_flipped.cosine:
        return _all_signs(cosine, rules)
    least = max(rules.sign_flipped.least_rows, 0.5 * rows.low_rows)
    if rows.flipped_rows and rows.flipped_rows >= least:
        return Became(
            Defect.SIGN_FLIPPED,
            f"{rows.flipped_rows} of {rows.live_rows} rows point the opposite way",
            {
                "flipped_rows": rows.flipped_rows,
                "live_rows": rows.live_rows,
                "limit": rules.sign_flipped.least_rows,
                "cosine": cosine,
            },
            max(1.0, (aligned.relative_change or 0.0) / rules.relative_change.limit),
        )
    return _order(aligned, rules) or _permuted(aligned, rules)


def _is_reordered(found: Reordering | None, rules: RulesSettings) -> bool:
    if found is None or found.matched < rules.permuted.least:
        return False
    return found.matched >= rules.permuted.share * found.examined


def _order(aligned: AlignedChange, rules: RulesSettings) -> Became | None:
    found = aligned.rows.reordering if aligned.rows else None
    if found is None or found.block is None or found.matched < rules.order_not_undone.least:
        return None
    if not _is_reordered(found, rules):
        return None
    unit = "rows" if found.axis is Axis.ROWS else "columns"
    return Became(
        Defect.ORDER_NOT_UNDONE,
        f"{found.moved} {unit} stand at a wrong place within their run of {found.block}: an order of packing that was "
        "not undone",
        {**_of_reordering(found), "block": found.block, "limit": rules.order_not_undone.least},
        max(1.0, (aligned.relative_change or 0.0) / rules.relative_change.limit),
    )


def _permuted(aligned: AlignedChange, rules: RulesSettings) -> Became | None:
    found = aligned.rows.reordering if aligned.rows else None
    if found is None or not _is_reordered(found, rules):
        return None
    hint = ""
    if found.axis is Axis.COLUMNS:
        hint = "; an activation order (g_idx) that was not undone does this"
    return Became(
        Defect.PERMUTED,
        f"{found.moved} {found.axis} are others now, and {found.matched} of {found.examined} looked for stand at "
        f"another place{hint}",
        {**_of_reordering(found), "limit": rules.permuted.least, "cosine": aligned.cosine},
        max(1.0, (aligned.relative_change or 0.0) / rules.relative_change.limit),
    )


def _of_reordering(found: Reordering) -> dict[str, EvidenceValue]:
    return {
        "axis": str(found.axis),
        "moved": found.moved,
        "examined": found.examined,
        "matched_elsewhere": found.matched,
    }


def _all_signs(cosine: float, rules: RulesSettings) -> Became:
    limit = rules.sign_flipped.cosine
    return Became(
        Defect.SIGN_FLIPPED,
        f"points the opposite way: cosine {cosine:.2f} with the baseline (limit {-limit:g})",
        {"cosine": cosine, "limit": -limit},
        -cosine / limit,
    )


def _transposed(how: str, value: float, cosine: float, rules: RulesSettings) -> Became:
    limit = rules.transposed.cosine
    return Became(
        Defect.TRANSPOSED,
        f"is the baseline transposed ({how})",
        {"transposed_cosine": value, "cosine": cosine, "limit": limit},
        max(1.0, value / limit),
    )


def _by_outline(
    layer: ExaminedLayer, aligned: AlignedChange, context: Context, rules: RulesSettings
) -> Became | None:
    cosine, change = aligned.cosine, aligned.relative_change
    outline = layer.change.outline if layer.change else None
    if cosine is None or change is None or outline is None:
        return None
    if cosine < -rules.sign_flipped.cosine:
        return _all_signs(cosine, rules)
    around = context.relative_change_around(layer.name)
    limit = max(rules.relative_change.limit, rules.relative_change.times_median * around)
    kept = max(_KEPT, min(around, _KEPT_AT_MOST))
    if (
        change <= limit
        or outline.spectrum > kept
        or not _keeps_its_largest(layer, max(_LARGEST_KEPT, around))
    ):
        return None
    evidence: dict[str, EvidenceValue] = {
        "relative_change": change,
        "cosine": cosine,
        "spectrum_distance": outline.spectrum,
        "row_norms_distance": outline.rows,
        "column_norms_distance": outline.columns,
        "sorted_row_norms_distance": outline.sorted_rows,
        "sorted_column_norms_distance": outline.sorted_columns,
        "limit": kept,
    }
    if _norms_in_place(outline, kept):
        return Became(
            Defect.SIGN_FLIPPED,
            f"the norms of all rows and columns and the spectrum are the baseline's, yet its cosine is {cosine:.2f}: "
            "signs were flipped",
            evidence,
            change / limit,
        )
    if _is_exchanged(outline, kept):
        return Became(
            Defect.TRANSPOSED,
            "its row norms are the baseline's column norms and the other way round, with the same spectrum: it is the "
            "baseline transposed",
            {**evidence, "exchanged_norms_distance": outline.exchanged},
            change / limit,
        )
    if _is_rearranged(outline, kept):
        return Became(
            Defect.PERMUTED,
            f"its spectrum and its norms as a set are the baseline's, but not their places (cosine {cosine:.2f}): "
            "rows or columns were permuted",
            evidence,
            change / limit,
        )
    return None


def _keeps_its_largest(layer: ExaminedLayer, limit: float) -> bool:
    new, old = layer.measurement, layer.baseline
    if new is None or old is None or new.max_abs <= 0.0 or old.max_abs <= 0.0:
        return False
    return abs(log(new.max_abs) - log(old.max_abs)) <= limit


def _norms_in_place(outline: OutlineChange, kept: float) -> bool:
    return all(
        distance <= min(kept, max(_IN_PLACE, 3.0 * as_a_set))
        for distance, as_a_set in (
            (outline.rows, outline.sorted_rows),
            (outline.columns, outline.sorted_columns),
        )
    )


def _is_exchanged(outline: OutlineChange, kept: float) -> bool:
    if outline.exchanged is not None:
        return outline.exchanged <= min(kept, 0.5 * max(outline.rows, outline.columns))
    turned, straight = outline.exchanged_concentrations, outline.concentrations
    return turned is not None and straight is not None and turned <= min(kept, 0.5 * straight)


def _is_rearranged(outline: OutlineChange, kept: float) -> bool:
    if max(outline.sorted_rows, outline.sorted_columns) <= kept:
        return True
    # A raw row that moved is multiplied with another factor of the batch norm: only its raw norm was kept.
    return outline.concentrations is not None and outline.concentrations <= kept


def _replaced(
    layer: ExaminedLayer, cosine: float, examination: Examination, rules: RulesSettings
) -> Became | None:
    settings = rules.replaced
    if cosine >= settings.cosine:
        return None
    usual = usual_cosine(layer.name, examination)
    if usual <= settings.median_cosine:
        return None
    return Became(
        Defect.REPLACED,
        f"has nothing in common with the baseline's layer (cosine {cosine:.2f}, limit {settings.cosine:g}), while the "
        f"others have a median cosine of {usual:.2f}",
        {
            "cosine": cosine,
            "limit": settings.cosine,
            "median_cosine": usual,
            "median_cosine_limit": settings.median_cosine,
        },
        (1.0 - cosine) / (1.0 - settings.cosine),
    )
