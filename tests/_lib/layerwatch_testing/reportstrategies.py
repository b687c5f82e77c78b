"""Reports of every kind for hypothesis: whatever a file may call its layers, and whatever a gate was asked."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from layerwatch.metrics.findings import LayerStatus, Severity, Verdict
from layerwatch.metrics.report import (
    BaselinePart,
    DiagnosisPart,
    FindingPart,
    GatePart,
    IgnoreEntryPart,
    LayerMetrics,
    LayerPart,
    ModelPart,
    Report,
    SkippedPart,
    SuppressionPart,
    ToolPart,
)
from layerwatch.metrics.rules import RULES

ATTACKS = (
    "a|b`c``d",
    "]]></failure><script>alert(1)</script>",
    "x\r\n::error::y",
    "%0A::error::z",
    "<img src=x onerror=alert(1)>",
    "\x00\x08\x1b[31m\ufffe\ud800",
    "[link](http://evil.example) ![i](http://evil.example/x.png)",
    "@everyone see #1 and www.evil.example",
    "| --- | --- |\n| a | b |",
    "</details>",
    "::set-output name=x::y",
    "1. # heading\n---",
    "",
    " ",
    "\u202egpj.exe",
)
"""Names that mean something to one of the formats."""

NAMES = st.one_of(st.sampled_from(ATTACKS), st.text(max_size=30), st.characters())
_RULES = st.sampled_from([*(rule.name for rule in RULES), "a_rule_of_tomorrow"])
_DAYS = st.dates().map(lambda day: day.isoformat())
_HASHES = st.sampled_from([None, "ab" * 32])


def _models(kind: type[ModelPart] = ModelPart, **other: Any) -> st.SearchStrategy[Any]:
    return st.builds(
        kind,
        source=NAMES,
        name=NAMES,
        version=NAMES,
        fingerprint=_HASHES,
        format=st.sampled_from([None, "safetensors"]),
        size_bytes=st.sampled_from([None, 0, 10**12]),
        **other,
    )


_ENTRIES = st.lists(
    st.builds(
        IgnoreEntryPart,
        rule=_RULES,
        layer=st.none() | NAMES,
        model=st.none() | NAMES,
        reason=NAMES,
        expires=_DAYS,
        line=st.none() | st.integers(1, 99),
    ),
    max_size=2,
).map(tuple)

_EVIDENCE = st.one_of(
    st.none(), st.booleans(), st.integers(), NAMES, st.floats(allow_nan=False, allow_infinity=False)
)

FINDINGS = st.builds(
    FindingPart,
    rule=_RULES,
    severity=st.sampled_from([str(one) for one in Severity]),
    layer=st.none() | NAMES,
    message=NAMES,
    evidence=st.dictionaries(st.sampled_from(["a", "b"]), _EVIDENCE, max_size=2).filter(
        lambda evidence: not any(isinstance(one, str) and _is_lone(one) for one in evidence.values())
    ),
    new=st.sampled_from([None, True, False]),
    suppressed=st.none() | st.builds(SuppressionPart, reason=NAMES, expires=_DAYS),
)


def _is_lone(text: str) -> bool:
    """Evidence is layerwatch's own text: no half of a surrogate pair is in it."""
    return any("\ud800" <= character <= "\udfff" for character in text)


_LAYERS = st.lists(
    st.builds(
        LayerPart,
        name=NAMES,
        kind=st.sampled_from(["linear", "missing"]),
        shape=st.just((2, 3)),
        dtype=NAMES,
        status=st.sampled_from(LayerStatus),
        metrics=st.just(LayerMetrics()),
        change=st.none(),
    ),
    max_size=4,
).map(tuple)

_GATES = st.builds(
    GatePart,
    fail_on=st.sampled_from(["warning", "critical"]),
    fail_new=st.booleans(),
    allow_undecided=st.booleans(),
    exit_code=st.sampled_from([0, 1, 3]),
    ignore_file=st.none() | NAMES,
    ignore_file_sha256=_HASHES,
    expired=_ENTRIES,
    stale=_ENTRIES,
    expiring=_ENTRIES,
)

REPORTS: st.SearchStrategy[Report] = st.builds(
    Report,
    model=_models(),
    baseline=st.none()
    | _models(
        BaselinePart,
        relation=st.sampled_from([None, "finetuned"]),
        chosen_by=st.just("command line"),
        looks_like=st.none(),
        because=st.none(),
    ),
    verdict=st.sampled_from(Verdict),
    regime=st.just("aligned"),
    diagnoses=st.lists(
        st.builds(
            DiagnosisPart,
            layer=st.none() | NAMES,
            severity=st.just("critical"),
            defect=_RULES,
            title=st.just("a title"),
            likely_cause=st.just(""),
            what_to_do=st.just("do *this* & that."),
            confirmed_by=st.just(()),
            layers=st.just(1),
        ),
        max_size=2,
    ).map(tuple),
    findings=st.lists(FINDINGS, max_size=5).map(tuple),
    layers=_LAYERS,
    skipped=st.just((SkippedPart(name="fc.bias", reason="bias"),)),
    blind_spots=st.just(("Weights do not know the function.",)),
    timings=st.just({"measure_seconds": 1.5}),
    tool=st.just(ToolPart(version="1.0", metric_set="3", rule_set="1")),
    complete=st.sampled_from([None, True, False]),
    gate=st.none() | _GATES,
)
