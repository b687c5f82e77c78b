"""A pickled file that runs code of its author where it is loaded unguarded."""

from __future__ import annotations

from collections.abc import Iterator

from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.census.remark import StorageRemarkKind
from layerwatch.metrics.examination import Context, Examination
from layerwatch.metrics.findings import Finding, RuleGroup, Severity
from layerwatch.metrics.rules.base import Rule


def check(examination: Examination, context: Context, rules: RulesSettings) -> Iterator[Finding]:
    severity = Severity(rules.code_in_pickle.severity)
    for one in examination.remarks:
        if one.kind is StorageRemarkKind.CODE_IN_PICKLE:
            yield Finding(
                RULE.name,
                RULE.group,
                severity,
                one.layer or None,
                one.detail,
                {"file": one.declared, "asks_for": one.stored},
                strength=300.0,
            )


RULE = Rule(
    name="code_in_pickle",
    group=RuleGroup.INTEGRITY,
    title="a pickled file runs code when it is loaded",
    explanation="""\
A checkpoint of torch is a pickle, and a pickle may name any function of Python to be called while it is loaded. This
one names functions that no weights need: that start programs, evaluate text, import, open files or sockets, or load
another pickle. Nothing of it ran here: names are only read. Whoever loads the file with torch.load(weights_only=False),
the default before torch 2.6, or with pickle, runs it. The layers are measured as ever, and may be healthy.

The names are a closed table of what picklescan and fickling call dangerous, apart from what honest checkpoints
contain: classes of other libraries, numpy's scalars, functools.partial, getattr of a class or an object. A finding even
where the baseline has the same: accepting it as a baseline does not make it harmless.

Likely cause: a file from somebody who wants to run code on the machines that load it, or a trainer that pickled a
function or an open file beside the weights.

What to do: do not load the file, and find out who wrote it and which machines loaded it. Ask for safetensors, or load
it with weights_only=True, which refuses it.

Cannot see: code that is reached through functions of other libraries that are not in the table; modules that run code
when they are imported; files that are left out, such as optimizer states and training arguments; the pickled objects in
.distcp files; TorchScript, ONNX custom operators and Keras lambdas; Python files beside the weights.""",
    needs_baseline=False,
    check=check,
)
