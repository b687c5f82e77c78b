"""Sizes that the configuration declares and the tensors do not have."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.census.remark import StorageRemarkKind
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule

_LACKING = frozenset({StorageRemarkKind.MISSING_BLOCKS, StorageRemarkKind.VOCABULARY})
"""Weights that are computed with and not there."""
_KINDS = _LACKING | {
    StorageRemarkKind.EXTRA_BLOCKS,
    StorageRemarkKind.EXTRA_ROWS,
    StorageRemarkKind.HIDDEN_SIZE,
}


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    most = Severity(rules.config_contradicted.severity)
    known = {one.about for one in examination.baseline_remarks}
    for one in examination.remarks:
        if one.kind not in _KINDS:
            continue
        lacking = one.kind in _LACKING
        severity = most if lacking or most is Severity.INFO else Severity.WARNING
        as_before = one.about in known
        yield Finding(
            RULE.name,
            RULE.group,
            Severity.INFO if as_before else severity,
            one.layer or None,
            f"{one.detail}{', as in the baseline' if as_before else ''}",
            {
                "contradiction": one.kind.value,
                "declared": _number(one.declared),
                "stored": _number(one.stored),
            },
            strength=1.0 if as_before else 200.0 if lacking else 2.0,
        )


def _number(text: str) -> int | str:
    # Remarks come from the worker that handles untrusted files, and from caches: texts that need be no numbers.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


RULE = Rule(
    name="config_contradicted",
    group=RuleGroup.WEIGHTS,
    title="the tensors have other sizes than config.json says",
    explanation="""\
The program that serves a model builds it from config.json and then fills it with the tensors. Blocks of layers that are
declared and have no tensor keep their random initial weights; tokens beyond the rows of the embedding have none.

Compares the declared number of blocks (num_hidden_layers) with the numbers in the tensors' names, vocab_size with the
rows of the embedding, and hidden_size with its columns. Rows above the vocabulary are padding where their number is a
multiple of 8, at most 1023 above. Critical for blocks and rows that are missing; a warning for blocks and rows too
many and for another hidden size. Information where the baseline has the same contradiction. Needs no baseline.

Likely cause: a config.json of another version or size of the model, layers cut out without saying so, or an embedding
that was resized while the configuration was kept.

What to do: compare config.json with the parent's; publish the one that belongs to these weights.

Cannot see: models of several stacks (an encoder and a decoder, text and images) and those without a vocabulary, whose
blocks are not compared; widths of feed-forward parts, numbers of heads and experts; another base frequency,
activation or order of layers.""",
    needs_baseline=False,
    check=check,
)
