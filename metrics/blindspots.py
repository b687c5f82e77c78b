"""What one run could not have seen, in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from layerwatch.metrics.change import Method
from layerwatch.metrics.examination import Context, Examination, Regime
from layerwatch.metrics.layers import Skipped
from layerwatch.metrics.outofstep import Suspicion, watched
from layerwatch.metrics.readers.variants import SAME_NETWORK
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.wiring import in_module_order

_SHOWN = 5

_SIDES = {
    Suspicion.OUTPUTS: "the order of the outputs",
    Suspicion.INPUTS: "the order of the inputs",
    Suspicion.SIGN: "the sign",
}


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


def files_not_examined(skipped: Sequence[Skipped]) -> tuple[str, ...]:
    """Of the files of a model: copies and variants of those that were examined."""
    names = [one.name for one in skipped if one.reason.endswith(SAME_NETWORK)]
    if not names:
        return ()
    return (f"{_named(names)}: the same tensors as in other files, by name and shape; not examined.",)


def _unaligned(examination: Examination) -> str:
    at_hand = {(one.key, one.units) for one in examination.couplings}
    known = watched(one for one in examination.baseline_couplings if (one.key, one.units) in at_hand)
    layers = in_module_order(examination.layers)
    bare = {
        what: [
            layer.name
            for layer in layers
            if suspicion not in known.get(layer.name, ()) and _can_be_damaged(layer.shape, suspicion)
        ]
        for suspicion, what in _SIDES.items()
    }
    told = [f"{what} of {_named_layers(names, len(layers))}" for what, names in bare.items() if names]
    seed = (
        "The weights do not align with the baseline (another seed or another network): permuted rows or columns, sign "
        "flips, transposes and swapped layers show only in how the layers go together."
    )
    if not told:
        return (
            f"{seed} A quarter of a layer's units out of place, turned signs of queries and keys and noise below the "
            "layer's own size may not."
        )
    return (
        f"{seed} Watched by nothing in this model, so that a permutation or turned signs there may leave no mark: "
        f"{'; '.join(told)}."
    )


def _can_be_damaged(shape: tuple[int, ...], suspicion: Suspicion) -> bool:
    # A single row or column has no order; a transposed layer has more than one of both.
    return {Suspicion.OUTPUTS: shape[0], Suspicion.INPUTS: shape[1]}.get(suspicion, 2) > 1


def _named_layers(names: Sequence[str], layers: int) -> str:
    return f"all {layers} layers" if len(names) == layers > 1 else _named(names)


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
