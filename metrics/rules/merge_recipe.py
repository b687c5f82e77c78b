"""A merge that was not made by its recipe, in one layer or in all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import EvidenceValue, Finding, RuleGroup, Severity
from layerwatch.metrics.merge import MergedLayer, MergeEvidence, MergeMethod, sign_conflict
from layerwatch.metrics.rules.base import Rule

_FEWEST_LAYERS = 4
"""With fewer layers it is not known how far the drawing of dropped elements moves a coefficient."""

_BY_SIZE = 0.2
"""A parent's share in a TIES merge is a constant less up to this over the size of its change beside the largest one.

Where both are kept and agree, the mean of the two is taken: the larger change is halved just where the smaller one is
found, and least squares gives the smaller one a share below zero for that. For jointly Gaussian elements of which half
are kept it is 0.4, 0.3, -0.1 and -1 at sizes of 0.5, 0.3, 0.15 and 0.08. In heads of small classifiers sizes were 0.08
to 0.16, in their other layers 0.25."""

_ELECTED = 1.5
"""The changes of a head agree more than those of other layers, and have heavier tails: in 324 healthy TIES merges of the
benchmark's networks its shares came to 1.1 times what drawing, errors and sizes allow."""

_GAUSSIAN = 1.4826
"""Standard deviation over median absolute deviation, of a Gaussian."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.merge_recipe
    merge = examination.merge
    if merge is None or not merge.layers:
        return
    severity = Severity(settings.severity)
    exact = merge.explained >= settings.explained_share
    if exact:
        deviating = [layer for layer in merge.layers if not layer.follows]
    else:
        deviating = [layer for layer in merge.layers if _strength(layer, merge, settings.coefficient) > 1.0]
        wrong = _wrong_as_a_whole(merge, settings.coefficient)
        if wrong is not None:
            yield Finding(RULE.name, RULE.group, severity, None, wrong, _evidence(merge), strength=10.0)
            return
    for layer in deviating:
        reference = layer.expected if exact else merge.coefficients
        yield Finding(
            RULE.name,
            RULE.group,
            severity,
            layer.name,
            f"was merged otherwise than the others: {_shares(merge, layer.coefficients)} instead of "
            f"{_shares(merge, reference)}",
            {
                **_numbers("coefficient_of", merge.parents, layer.coefficients),
                **_numbers("expected_of", merge.parents, reference),
                "deviation": layer.deviation,
                "left_over": layer.left_over,
            },
            strength=max(
                1.0,
                20.0 * (layer.deviation or 0.05) if exact else _strength(layer, merge, settings.coefficient),
            ),
        )
    if merge.coefficients is not None:
        verified = (
            "verified" if exact and merge.recipe is not None and merge.recipe.weights is not None else "found"
        )
        yield Finding(
            RULE.name,
            RULE.group,
            Severity.INFO,
            None,
            f"recipe {verified} in {len(merge.layers) - len(deviating)} of {len(merge.layers)} layers: "
            f"{_shares(merge, merge.coefficients)}",
            _evidence(merge),
        )


def _wrong_as_a_whole(merge: MergeEvidence, limit: float) -> str | None:
    """Why the declared recipe is not what was done, where most layers do not follow it."""
    recipe = merge.recipe
    if recipe is None or recipe.method is None or recipe.weights is None:
        return None
    found = merge.coefficients
    name = f"the declared recipe ({recipe.method}"
    left_over = merge.median_of("left_over")
    if recipe.method.is_exact:
        if left_over is not None and left_over > limit:
            return (
                f"{name}) is not what was done: {left_over:.0%} of what distinguishes the parents stays unexplained "
                "by any weights; another base or another parent"
            )
        return f"{name}) is not what was done: found {_shares(merge, found)}, declared {_declared(merge)}"
    if recipe.method.value == "dare_linear" and found is not None:
        declared = recipe.coefficients()
        if declared is not None and any(
            abs(one - other) > max(limit * max(abs(other), 0.2), _chance(merge, position))
            for position, (one, other) in enumerate(zip(found, declared, strict=True))
        ):
            return f"{name}) is not what was done: found {_shares(merge, found)}, declared {_declared(merge)}"
    return None


def _chance(merge: MergeEvidence, position: int) -> float:
    """How far the drawing of the dropped elements moves the median of a coefficient; infinite for few layers."""
    values = [one.coefficients[position] for one in merge.layers if one.coefficients is not None]
    if len(values) < _FEWEST_LAYERS:
        return inf
    usual = median(values)
    return 6.0 * _GAUSSIAN * float(median(abs(value - usual) for value in values))


def _declared(merge: MergeEvidence) -> str:
    for layer in merge.layers:
        if layer.expected is not None:
            return _shares(merge, layer.expected)
    return "other weights"


def _strength(layer: MergedLayer, merge: MergeEvidence, limit: float) -> float:
    """How far a layer's coefficients lie from the others', in units of what is allowed; above 1 it deviates."""
    if layer.coefficients is None or merge.coefficients is None:
        return 0.0
    worst = 0.0
    for position, usual in enumerate(merge.coefficients):
        values = [one.coefficients[position] for one in merge.layers if one.coefficients is not None]
        spread = _GAUSSIAN * float(median(abs(value - usual) for value in values))
        allowed = max(limit, 6.0 * spread, 6.0 * layer.errors[position])
        if merge.recipe is not None and merge.recipe.method is MergeMethod.TIES:
            allowed = _ELECTED * allowed + _room(layer, merge, position)
        worst = max(worst, abs(layer.coefficients[position] - usual) / allowed)
    usual_rest = merge.median_of("left_over")
    if layer.left_over is not None and usual_rest is not None:
        worst = max(worst, layer.left_over / max(1.5, 4.0 * usual_rest))
    return worst


def _room(layer: MergedLayer, merge: MergeEvidence, position: int) -> float:
    """How much more a parent's share may differ because its change is smaller or larger here than elsewhere."""
    sizes = [one.task_sizes[position] for one in merge.layers if one.task_sizes]
    if not layer.task_sizes or min(layer.task_sizes[position], usual := median(sizes)) <= 0.0:
        return 0.0
    return _BY_SIZE * abs(1.0 / layer.task_sizes[position] - 1.0 / usual)


def _shares(merge: MergeEvidence, coefficients: Sequence[float] | None) -> str:
    if coefficients is None:
        return "no mixture of the parents"
    return " + ".join(
        f"{value:.3g} x {name}" for name, value in zip(merge.parents, coefficients, strict=True)
    )


def _numbers(prefix: str, parents: Sequence[str], values: Sequence[float] | None) -> dict[str, EvidenceValue]:
    return {f"{prefix}_{name}": value for name, value in zip(parents, values or (), strict=False)}


def _evidence(merge: MergeEvidence) -> dict[str, EvidenceValue]:
    conflict = merge.median_of("task_cosine")
    return {
        **_numbers("coefficient_of", merge.parents, merge.coefficients),
        "explained_share": merge.explained,
        "median_deviation": merge.median_of("deviation"),
        "median_left_over": merge.median_of("left_over"),
        "base": merge.base,
        "parents_cosine": merge.median_of("parents_cosine"),
        "task_cosine": conflict,
        "sign_conflict_estimate": None if conflict is None else sign_conflict(conflict),
        "left_out": len(merge.left_out),
    }


RULE = Rule(
    name="merge_recipe",
    group=RuleGroup.WEIGHTS,
    title="a merge that does not follow its recipe",
    explanation="""\
Averages, task arithmetic and spherical interpolation are mixtures of the parents with known shares; least squares
over the stored sketches finds the shares of every layer again. Where the recipe is declared, every layer is held
against it, else against the median over the layers.

Critical on a layer that was mixed otherwise (more than 5 % of the parents' distance stays unexplained), and on the
version when most layers were: then the declared weights, the base or a parent are not those that were used. TIES and
DARE drop and rescale elements, so that only the shares of a layer against those of the others are judged, from a
difference of 0.25 on; in TIES from 0.38 on, and more where a parent changed a layer much less than the other one. What
was found is reported as information.

Likely cause: a wrong weight or filter in the merge's configuration, a parent or base that was exchanged, an adapter
that was merged twice into one layer.

What to do: compare the shares that were found with the merge's configuration, layer by layer.

Cannot see: anything without the parents' measurements; vectors (biases, norms); layers with a batch norm folded in
that were measured by a release that kept no sketch of their raw weights: they are left out and counted; sign conflicts
of single elements, of which only an estimate from the cosine is given.""",
    needs_baseline=False,
    check=check,
)
