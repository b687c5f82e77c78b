"""Quantised storage that contradicts itself or the configuration beside it."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.census.remark import StorageRemarkKind
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule

_WRONG = frozenset(
    {
        StorageRemarkKind.ZERO_POINT,
        StorageRemarkKind.MISSING_PART,
        StorageRemarkKind.SCALES,
        StorageRemarkKind.SHAPES,
        StorageRemarkKind.GROUP_SIZE,
    }
)
"""With these the numbers are wrong, or a program that believes the configuration cannot read them."""
_DOUBTFUL = frozenset(
    {
        StorageRemarkKind.FORMAT,
        StorageRemarkKind.BITS,
        StorageRemarkKind.GROUP_INDEX,
        StorageRemarkKind.EXCLUDED,
        StorageRemarkKind.CODEBOOK,
    }
)
"""With these it depends on the program: some follow the tensors, some the configuration."""


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    most = Severity(rules.packing.severity)
    known = {one.about for one in examination.baseline_remarks}
    undecided = {layer.name for layer in examination.undecided}
    for one in examination.remarks:
        if one.kind not in _WRONG and one.kind not in _DOUBTFUL:
            continue
        certain = one.kind in _WRONG or (one.kind is StorageRemarkKind.GROUP_INDEX and one.layer in undecided)
        severity = most if certain or most is Severity.INFO else Severity.WARNING
        as_before = one.about in known
        yield Finding(
            RULE.name,
            RULE.group,
            Severity.INFO if as_before else severity,
            one.layer or None,
            f"{one.detail}{', as in the baseline' if as_before else ''}",
            {"contradiction": one.kind.value, "declared": one.declared, "stored": one.stored},
            strength=1.0 if as_before else 300.0 if certain else 2.0,
        )


RULE = Rule(
    name="packing",
    group=RuleGroup.WEIGHTS,
    title="quantised storage contradicts itself or its config",
    explanation="""\
A quantised layer is several tensors that mean something only together, and only when read as they were written:
numbers, scales, zero points, sometimes an order of the inputs. The configuration (config.json) says how. Where the two
contradict each other, one program reads other weights than the next, or nothing at all. Looked at before any spectrum,
without a baseline: the method, format, bits and group size that are declared; zero points of the other version of GPTQ
(every weight off by one step); parts that are missing or do not fit each other; scales that are NaN, infinite, zero,
inverted or above 100; an index of groups that contradicts what is declared; a table of values that is not the one of
its type; layers that the configuration excludes and that are quantised.

Critical for zero points, missing parts, scales, shapes and group sizes, where the numbers are wrong or cannot be read
by a program that believes the configuration. A warning for the others, where programs differ. Information where the
baseline has the same contradiction.

Likely cause: a converter of another version than the loader, a config.json copied from another conversion, or an upload
that lost a file.

What to do: the finding says what is declared and what is stored: mend the configuration where only that is wrong (the
daemon knows a version by its weights: accept the mended one), else convert the model again; compare the output of the
program that serves it with the parent's.

Cannot see: another order of the numbers in a word (AWQ's) and scales made for groups of another size, where every
number is plausible: only the parent shows them (order_not_undone, group_scales). Zero points of 8 bits off by one step.
The blocks of GGUF, which carry their own layout. Storage that is not undone here, which is undecided.""",
    needs_baseline=False,
    check=check,
    is_about_the_step=True,
)
