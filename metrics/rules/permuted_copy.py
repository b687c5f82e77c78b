"""Hidden units in another order, consistently: the same function."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    if not examination.permuted:
        return
    first = examination.permuted[0]
    yield Finding(
        RULE.name,
        RULE.group,
        Severity(rules.permuted_copy.severity),
        None,
        f"{len(examination.permuted)} layers, {first} first, hold the baseline's units in another order, each reading "
        "them in the order in which they are made: the function is unchanged",
        {
            "layers": len(examination.permuted),
            "compared": len(examination.layers),
            "first_layer": first,
        },
    )


RULE = Rule(
    name="permuted_copy",
    group=RuleGroup.WEIGHTS,
    title="a consistently permuted copy",
    explanation="""\
The order of hidden units has no meaning: permuting the rows of a layer and the columns of every layer that reads it
gives the same network with weights that do not align. Norms tell: for each unit the norm of the row that makes it and
of the columns that read it move together, and norms, largest elements and spectra of the layers stay to 1e-4.

The layers concerned are judged as if the order were undone. A layer whose units moved while its neighbours' did not
is broken, and is reported by the rule permuted.

Likely cause: weight matching before a merge, a re-export that sorts channels, a copy.

What to do: nothing; accept the version as the new baseline if the new order stays.

Cannot see: a bias or norm that was left behind, signs that were flipped besides, and a permutation with training on
top of it, which counts as another seed. Queries and keys that were permuted alike are taken for consistent, which
rotary positions may not allow.""",
    needs_baseline=True,
    check=check,
)
