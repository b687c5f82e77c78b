"""Alpha against the baseline, in units of its standard error: information, never an alarm by itself."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    settings = rules.tail_exponent
    for layer in examination.layers:
        change, measured, baseline = layer.change, layer.measurement, layer.baseline
        if change is None or measured is None or baseline is None:
            continue
        numbers, numbers0 = measured.numbers, baseline.numbers
        sigmas = change.alpha_shift_sigmas
        if numbers is None or numbers0 is None or sigmas is None or abs(sigmas) <= settings.sigmas:
            continue
        if min(numbers.num_eigenvalues, numbers0.num_eigenvalues) < settings.min_eigenvalues:
            continue
        yield Finding(
            RULE.name,
            RULE.group,
            Severity(settings.severity),
            layer.name,
            f"alpha {numbers0.alpha:.2f} -> {numbers.alpha:.2f}, {abs(sigmas):.1f} sigma from the baseline",
            {
                "alpha": numbers.alpha,
                "alpha_sigma": numbers.alpha_sigma,
                "baseline_alpha": numbers0.alpha,
                "baseline_alpha_sigma": numbers0.alpha_sigma,
                "sigmas": sigmas,
                "limit": settings.sigmas,
                "ks_distance": numbers.ks_distance,
                "fit_status": str(numbers.fit_status),
            },
            strength=abs(sigmas) / settings.sigmas,
        )


RULE = Rule(
    name="tail_exponent",
    group=RuleGroup.WEIGHTS,
    title="alpha moved against the baseline",
    explanation="""\
Alpha is the exponent of the power-law tail of a layer's eigenvalue spectrum: near 2 in well-trained vision
models, 3 to 4 in language models, above 6 where little was learned.

Reported when it moves by more than 4 times sqrt(sigma^2 + sigma0^2) and both spectra have 50 eigenvalues or
more. It is information and may be raised to a warning, never to critical: in a study of 1,196 versions with
known function alpha was the weakest serious signal (1 % weight noise moved some layer's alpha by 28.8; absolute
limits of 2 and 6 fire on 66 to 94 % of healthy versions).

Likely cause: further training, or noise in the weights; often nothing but the choice of where the tail begins.

What to do: read it beside the other numbers and its own fit status.

Cannot see: most defects; permutations, sign flips and scales leave alpha exactly as it is.""",
    needs_baseline=True,
    check=check,
)
