"""A layer left in full precision among quantised siblings, or quantised alone."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.census.remark import StorageRemarkKind
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule

_KINDS = frozenset(
    {
        StorageRemarkKind.LEFT_UNQUANTISED,
        StorageRemarkKind.QUANTISED_ALONE,
        StorageRemarkKind.NOTHING_QUANTISED,
    }
)


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    most = Severity(rules.left_unquantised.severity)
    known = {one.about for one in examination.baseline_remarks}
    for one in examination.remarks:
        if one.kind not in _KINDS:
            continue
        # Declared, a program that believes the configuration looks for parts that are not there.
        certain = one.kind is StorageRemarkKind.LEFT_UNQUANTISED and bool(one.declared)
        severity = most if certain or most is Severity.INFO else Severity.WARNING
        as_before = one.about in known
        yield Finding(
            RULE.name,
            RULE.group,
            Severity.INFO if as_before else severity,
            one.layer or None,
            f"{one.detail}{', as in the baseline' if as_before else ''}",
            {"contradiction": one.kind.value, "declared": one.declared, "stored": one.stored},
            strength=1.0 if as_before else 150.0 if certain else 2.0,
        )


RULE = Rule(
    name="left_unquantised",
    group=RuleGroup.WEIGHTS,
    title="a layer quantised unlike its siblings",
    explanation="""\
Models are quantised role by role: all down projections, all queries. A layer that is stored in full precision while
the layers of its role in other blocks are quantised was forgotten, or its parts were lost; one that is quantised alone
was to be left out. Needs no baseline, and is seen beside a parent of full precision, too.

Critical when the configuration declares quantised weights and does not exclude the layer: a program that believes it
looks for scales that are not there. A warning where nothing is declared and most of the siblings are quantised (at
least two), where a layer is quantised alone, and where quantised weights are declared and none is there. Layers that
the configuration excludes, or may store otherwise by rules of its own, are left out. Information where it was so in
the baseline.

Likely cause: a conversion that skipped a layer (an out-of-memory error, a pattern that did not match its name), or a
file replaced by the parent's.

What to do: convert the model again and read the converter's log about this layer; if it was left out on purpose, list
it in the configuration (modules_to_not_convert, ignore).

Cannot see: a whole role left out, or quantised by mistake, in every block; a layer of a role that is there only once;
GGUF, whose converters mix types within a role on purpose; models whose configuration has rules per layer.""",
    needs_baseline=False,
    check=check,
    is_about_the_step=True,
)
