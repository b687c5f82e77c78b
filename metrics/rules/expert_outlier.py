"""An expert, or a router's row for it, that is unlike its siblings."""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from statistics import median

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.experts import Expert, ExpertGroup
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule

_GAUSSIAN = 1.4826
_ZERO = 1e-30


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.expert_outlier
    for group in examination.experts:
        norms = [expert.norm for expert in group.experts]
        before = [expert.baseline_norm for expert in group.experts if expert.baseline_norm is not None]
        usual = float(median(norms))
        if usual <= _ZERO:
            continue
        allowed = _allowed(norms, usual, settings.factor)
        usual0 = float(median(before)) if len(before) == len(norms) else 0.0
        for expert in group.experts:
            ratio = expert.norm / usual
            distance = abs(log(max(ratio, 1e-6)))
            if distance <= allowed:
                continue
            old = None
            if usual0 > _ZERO and expert.baseline_norm is not None:
                old = expert.baseline_norm / usual0
                if abs(log(max(old, 1e-6))) > _allowed(before, usual0, settings.factor):
                    # It was one before: part of how this model is.
                    continue
            yield _finding(group, expert, ratio, old, distance / allowed, rules)


def _allowed(norms: list[float], usual: float, factor: float) -> float:
    """The largest |log| of a norm over the siblings' median that is usual among them."""
    spread = _GAUSSIAN * float(median(abs(log(max(norm / usual, 1e-6))) for norm in norms))
    return max(log(factor), 6.0 * spread)


def _finding(
    group: ExpertGroup, expert: Expert, ratio: float, old: float | None, strength: float, rules: RulesSettings
) -> Finding:
    settings = rules.expert_outlier
    # Without a baseline nobody knows whether the model was trained like that; a dead one was not.
    dead = ratio < 1e-3
    severity = settings.severity if old is not None or dead else settings.unsure_severity
    what = f"the router's row of expert {expert.number}" if group.is_router else f"expert {expert.number}"
    times = f"{ratio:.3g} times the norm of its siblings' median" if not dead else "next to nothing"
    was = "" if old is None else f" ({old:.3g} in the baseline)"
    return Finding(
        RULE.name,
        RULE.group,
        Severity(severity),
        expert.layer,
        f"{what} has {times}{was}",
        {
            "expert": expert.number,
            "norm_ratio_to_siblings": ratio,
            "baseline_norm_ratio_to_siblings": old,
            "limit": settings.factor,
            "siblings": len(group.experts),
            "is_router": group.is_router,
        },
        strength=strength,
    )


RULE = Rule(
    name="expert_outlier",
    group=RuleGroup.WEIGHTS,
    title="an expert unlike its siblings",
    explanation="""\
The experts of one layer are initialised alike and see similar amounts of data; their norms lie close together. An
expert (or the router's row that calls it) whose norm is more than 1.5 times the siblings' median, or less than that
part of it, and further than six of their standard deviations, was damaged, lost or never trained.

Critical where it was not so in the baseline, and for an expert that is empty; a warning without a baseline.

Likely cause: a conversion that drops or mixes up experts, a scale of one expert read wrongly, calibration that never
reached a rare expert.

What to do: compare this expert with the parent's; look at the router's row of the same number.

Cannot see: how tokens are routed, and load that collapsed onto few experts; fewer than four experts.""",
    needs_baseline=False,
    check=check,
)
