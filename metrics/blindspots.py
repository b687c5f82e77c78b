"""What one run could not have seen, in plain words."""

from __future__ import annotations

from layerwatch.metrics.change import Method
from layerwatch.metrics.examination import Context, Examination, Regime
from layerwatch.metrics.outofstep import compared_couplings, watched_layers
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.wiring import in_module_order

_SHOWN = 5


def blind_spots(examination: Examination, context: Context) -> tuple[str, ...]:
    """Faults that the examination could not have shown, whatever its findings."""
    spots = [
        (
            "Weights do not know the function: damage below 35 % of one layer's norm, label noise and a training set "
            "of the wrong domain leave no mark that these checks promise to see."
        )
    ]
    if not examination.has_baseline:
        why = (
            "The baseline could not be examined" if examination.baseline_problem else "There was no baseline"
        )
        spots.append(
            f"{why}: only missing numbers, empty layers and unreadable parts could be seen; wrong "
            "scales, replaced, permuted or sign-flipped layers could not."
        )
    elif context.regime in (Regime.UNALIGNED, Regime.UNALIGNED_WIDE):
        spots.append(_unaligned(examination))
    elif context.regime is Regime.NONE and examination.problem is None:
        spots.append("No layer has a counterpart of equal shape in the baseline: nothing could be compared.")
    methods = {
        layer.change.aligned.method for layer in examination.layers if layer.change and layer.change.aligned
    }
    if Method.SKETCH in methods:
        spots.append(
            "Changes were estimated from sketches (standard error up to 12 %); values near the limit may fall on "
            "either side. With both files at hand, layerwatch gate compares exactly."
        )
    if examination.history_remark and context.regime is not Regime.NONE:
        spots.append(examination.history_remark)
    spots.extend(examination.merge_remarks)
    if (
        examination.relation is Relation.MERGED
        and examination.merge is None
        and not examination.merge_remarks
    ):
        spots.append(
            "A merge was declared and its parents were not at hand: whether the recipe was followed could not be seen. "
            "The daemon checks it where lineage.json names them; in Python, compare_models(..., parents=...)."
        )
    if not examination.is_complete:
        spots.append("What is listed as undecided was not examined at all.")
    return tuple(spots)


def _unaligned(examination: Examination) -> str:
    watched = watched_layers(compared_couplings(examination.couplings, examination.baseline_couplings))
    bare = [layer.name for layer in in_module_order(examination.layers) if layer.name not in watched]
    seed = "The weights do not align with the baseline (another seed or another network): permuted rows or columns, "
    if not bare:
        return (
            f"{seed}sign flips, transposes and swapped layers show only in how the layers go together. A quarter of a "
            "layer's units out of place, turned signs of queries and keys and noise below the layer's own size may not."
        )
    shown = ", ".join(bare[:_SHOWN]) + (f" and {len(bare) - _SHOWN} more" if len(bare) > _SHOWN else "")
    return (
        f"{seed}sign flips, transposes and swapped layers leave spectra as they are, and could not be seen in "
        f"{len(bare)} of {len(examination.layers)} layers, which are not known to go together with others: {shown}."
    )
