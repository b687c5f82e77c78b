"""A convolution whose output means are not those that the batch norm behind it has stored."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, log

from layerwatch.config.rules import BatchnormStatisticsSettings, RulesSettings
from layerwatch.metrics.coupling import Coupling, CouplingKind
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import EvidenceValue, Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule

_LEAST_ESTIMATED = 0.1
"""Estimated moments are judged by correlations this much lower, and losses this much larger."""

_FEW = 3


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.batchnorm_statistics
    before = {one.key: one for one in examination.baseline_couplings}
    witnesses = [one for one in examination.couplings if one.kind is CouplingKind.BATCHNORM_STATISTICS]
    unknown = [one for one in witnesses if one.key not in before and one.slope is not None]
    failing = [one for one in unknown if _absolute(one, settings) > 1.0]
    # Where most layers fail, the network is not of the form that the prediction is made for.
    applies = len(failing) < _FEW or 2 * len(failing) <= len(unknown)
    severity = Severity(settings.severity)
    unsure = Severity.WARNING if severity is Severity.CRITICAL else severity
    for one in witnesses:
        other = before.get(one.key)
        if other is not None:
            strength = _relative(one, other, settings)
            if one.slope is not None and _absolute(other, settings) <= 1.0:
                strength = max(strength, _absolute(one, settings))
            if strength > 1.0:
                yield _finding(one, other, severity, strength, settings)
        elif applies and one in failing:
            yield _finding(
                one,
                None,
                severity if len(unknown) - len(failing) >= _FEW else unsure,
                _absolute(one, settings),
                settings,
            )


def _absolute(one: Coupling, settings: BatchnormStatisticsSettings) -> float:
    """Distance from what healthy networks show, 1 at the limit."""
    parts = [(1.0 - one.value) / (1.0 - settings.correlation)]
    if one.slope is not None:
        parts.append(_log_ratio(one.slope, 1.0) / log(settings.slope))
    return max(parts)


def _relative(one: Coupling, other: Coupling, settings: BatchnormStatisticsSettings) -> float:
    """Distance from the baseline's value, 1 at the limit."""
    exact = not other.part
    sign = 1.0 if other.value >= 0.0 else -1.0
    lost = sign * (other.value - one.value)
    allowed = settings.correlation_loss if exact else settings.correlation_loss + _LEAST_ESTIMATED
    parts = [lost / allowed]
    if not exact and sign * one.value >= settings.correlation - _LEAST_ESTIMATED:
        parts = [0.0]
    if one.slope is not None and other.slope is not None:
        parts.append(_log_ratio(one.slope, other.slope) / log(settings.slope_change))
    return max(parts)


def _log_ratio(one: float, other: float) -> float:
    if one <= 0.0 or other <= 0.0:
        # A slope of the other sign is beyond any limit; where both are so, there is nothing to compare.
        return 0.0 if one <= 0.0 and other <= 0.0 else 10.0
    return min(10.0, abs(log(one / other)))


def _finding(
    one: Coupling,
    other: Coupling | None,
    severity: Severity,
    strength: float,
    settings: BatchnormStatisticsSettings,
) -> Finding:
    layer, mean = one.layers
    said = f"correlation {one.value:.2f}"
    evidence: dict[str, EvidenceValue] = {"correlation": one.value, "limit": settings.correlation}
    if one.slope is not None:
        said += f", slope {one.slope:.2f}"
        evidence |= {
            "slope": one.slope,
            "slope_limit": settings.slope,
            "smallest_slope": exp(-log(settings.slope)),
        }
    if other is not None:
        slope0 = "" if other.slope is None else f" and {other.slope:.2f}"
        said += f" (in the baseline {other.value:.2f}{slope0})"
        evidence |= {
            "baseline_correlation": other.value,
            "correlation_loss_limit": settings.correlation_loss,
            "baseline_slope": other.slope,
            "slope_change_limit": settings.slope_change,
        }
    evidence |= {"channels": one.units, "statistics": mean}
    return Finding(
        RULE.name,
        RULE.group,
        severity,
        layer,
        f"its weights do not give the output means that training stored in {mean}: {said}",
        evidence,
        strength=strength,
    )


RULE = Rule(
    name="batchnorm_statistics",
    group=RuleGroup.WEIGHTS,
    title="weights contradict their batch norm",
    explanation="""\
A batch norm keeps the running mean of what it saw in training: a fingerprint of the training data inside the
file. For a convolution whose input is ReLU(batch norm) the mean of each input channel follows from that norm's
gain and bias, and with the weights the mean of each output channel. Prediction and stored mean belong together:
in 120 layers of ten real checkpoints the correlation was 0.94 to 1.00 and the slope 0.9 to 1.5, int8, int4 and
30 % pruning included.

Needs no parent. Critical below a correlation of 0.85 or with a slope outside 0.5 to 2; against a baseline, of any
seed, when the correlation fell by more than 0.1 or the slope changed by more than a factor of 1.5. A layer that was
outside in the baseline already is judged against the baseline alone. The first convolution of a residual block
is predicted along the residual stream and compared with a wider margin. Without a baseline and with fewer than
three layers that fit, it is a warning: the network may not be of this form.

Sees permuted rows, sign flips, re-initialised, transposed and foreign layers, wrong scales, statistics that were
reset.

Likely cause: the layer was replaced, scaled or reordered without its batch norm, or the statistics were reset or taken
from another file.

What to do: find the step that touched the layer or its batch norm alone. After a deliberate re-estimation of the
statistics, accept the version as the new baseline.

Cannot see: layers without a batch norm, networks with other activations than ReLU between norm and convolution,
and statistics of a wrong domain that fit their weights.""",
    needs_baseline=False,
    check=check,
    is_statistical=True,
)
