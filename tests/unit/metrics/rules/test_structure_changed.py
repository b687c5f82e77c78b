"""Rule structure_changed: missing, reshaped and added layers."""

from __future__ import annotations

from dataclasses import replace

from layerwatch.metrics.examination import Examination, ExaminedLayer, MissingLayer, Problem
from layerwatch.metrics.findings import Severity
from layerwatch_testing.examinations import (
    among_healthy,
    change,
    examination,
    findings_of,
    layer,
    measurement,
    new_layer,
    rule_named,
    settings,
    unreadable_layer,
    vector,
)

RULE = "structure_changed"


def reshaped() -> ExaminedLayer:
    return layer("emb", shape=(65, 64), measurement=measurement(shape=(65, 64)), change=change(aligned=None))


def everything() -> Examination:
    return among_healthy(
        reshaped(),
        new_layer("extra"),
        missing=(MissingLayer("head", (10, 64)), MissingLayer("head.bias", (10,))),
    )


def test_an_unchanged_structure_is_silent() -> None:
    assert findings_of(RULE, among_healthy(layer("fc"), vector("fc.bias"))) == []


def test_missing_is_critical_reshaped_a_warning_added_information() -> None:
    found = {
        finding.layer: (finding.severity, finding.message) for finding in findings_of(RULE, everything())
    }

    assert found == {
        "head": (Severity.CRITICAL, "the baseline has this layer (shape 10x64), the version does not"),
        "head.bias": (Severity.CRITICAL, "the baseline has this layer (shape 10), the version does not"),
        "emb": (Severity.WARNING, "shape 64x64 became 65x64"),
        "extra": (Severity.INFO, "the version has this layer (shape 64x64), the baseline does not"),
    }


def test_a_head_that_was_stored_twice_and_is_tied_now_is_information() -> None:
    """``save_pretrained`` leaves out the head that is the embedding."""
    found = among_healthy(missing=(MissingLayer("lm_head", (65, 64), tied_to="embed_tokens"),))

    (finding,) = findings_of(RULE, found)

    assert (finding.layer, finding.severity) == ("lm_head", Severity.INFO)
    assert "here and as embed_tokens" in finding.message


def test_each_severity_comes_from_its_own_setting() -> None:
    rules = settings(RULE, severity="info", changed_shape_severity="critical", added_layer_severity="warning")

    found = {finding.layer: finding.severity for finding in findings_of(RULE, everything(), rules)}

    assert found == {
        "head": Severity.INFO,
        "head.bias": Severity.INFO,
        "emb": Severity.CRITICAL,
        "extra": Severity.WARNING,
    }


def test_an_unreadable_file_is_not_a_file_without_layers() -> None:
    version = examination(
        missing=(MissingLayer("head", (10, 64)),), problem=Problem("truncated", "cut short")
    )

    assert findings_of(RULE, version) == []


def test_an_unreadable_layer_is_neither_missing_nor_added() -> None:
    unreadable_in_baseline = replace(unreadable_layer("b"), baseline=None)

    assert findings_of(RULE, among_healthy(unreadable_layer("a"), unreadable_in_baseline)) == []


def test_the_rule_is_not_run_without_a_baseline() -> None:
    assert rule_named(RULE).needs_baseline


def adapter(*more: ExaminedLayer, missing: tuple[str, ...] = ("q.weight", "q.bias")) -> Examination:
    factors = (new_layer("q.lora_A.weight", shape=(4, 64)), new_layer("q.lora_B.weight", shape=(64, 4)))
    return examination(*factors, *more, missing=tuple(MissingLayer(name, (64, 64)) for name in missing))


def severities(found: Examination) -> set[Severity]:
    return {finding.severity for finding in findings_of(RULE, found)}


def test_an_adapter_held_against_its_base_lacks_nothing() -> None:
    assert severities(adapter()) == {Severity.INFO}


def test_a_model_with_factors_among_its_layers_may_lack_some() -> None:
    assert severities(adapter(layer("fc"))) == {Severity.INFO, Severity.CRITICAL}


def test_an_adapter_held_against_an_adapter_may_lack_a_factor() -> None:
    assert severities(adapter(missing=("k.lora_A.weight",))) == {Severity.INFO, Severity.CRITICAL}
