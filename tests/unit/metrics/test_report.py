"""The report: the fields that were promised, finite numbers or null, and what was not examined."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from layerwatch import __version__
from layerwatch.config.rules import RulesSettings
from layerwatch.metrics.change import Method
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.judge import judge
from layerwatch.metrics.layers import Skipped
from layerwatch.metrics.measurement import METRIC_SET, FitStatus
from layerwatch.metrics.readers.variants import SAME_NETWORK
from layerwatch.metrics.report import BaselinePart, ModelPart, Report, build_report
from layerwatch.metrics.rules import RULE_SET
from layerwatch_testing.examinations import (
    aligned,
    change,
    examination,
    layer,
    measurement,
    new_layer,
    numbers,
    unreadable_layer,
    vector,
)

MODEL = ModelPart(
    source="file:model.safetensors",
    name="m",
    version="3",
    fingerprint="ab",
    format="safetensors",
    size_bytes=8,
)
BASELINE = BaselinePart(**MODEL.model_dump(), relation="finetuned", chosen_by="parent")


def report_of(version: Examination, baseline: BaselinePart | None = BASELINE) -> Report:
    judgement = judge(version, RulesSettings())
    skipped = (Skipped("fc.bias", "bias: a vector has no spectrum"),)
    return build_report(MODEL, baseline, version, judgement, skipped, {"measure": 1.23456789})


def parsed(report: Report) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    document: dict[str, Any] = json.loads(report.to_json(), parse_constant=refuse)
    return document


def typical() -> Examination:
    return examination(layer("fc"), layer("out", change=change(max_abs_ratio=100.0)), vector())


def test_an_undeclared_relation_is_told_from_the_numbers_and_a_declared_one_is_believed() -> None:
    unchanged = [
        layer(f"fc{number}", change=change(aligned=aligned(0.0, 1.0, method=Method.IDENTICAL)))
        for number in range(3)
    ]
    undeclared = BaselinePart(**MODEL.model_dump(), relation=None, chosen_by="history")
    version = examination(*unchanged)

    report = build_report(MODEL, undeclared, version, judge(version, RulesSettings()), (), {})
    assert report.baseline is not None
    assert report.baseline.looks_like == "reexported"
    assert report.baseline.because == "every tensor is bit-identical to the baseline's"

    said = undeclared.model_copy(update={"relation": "finetuned"})
    declared = build_report(MODEL, said, version, judge(version, RulesSettings()), (), {}).baseline
    assert declared is not None
    assert (declared.relation, declared.looks_like) == ("finetuned", None)


def test_the_fields_of_schema_version_1_are_there() -> None:
    document = parsed(report_of(typical()))

    # Design, section 4, "Report JSON".
    assert document["schema_version"] == 1
    assert {
        "schema_version",
        "model",
        "baseline",
        "verdict",
        "findings",
        "layers",
        "skipped",
        "blind_spots",
        "timings",
        "tool",
    } <= document.keys()
    assert document["model"].keys() == {"source", "name", "version", "fingerprint", "format", "size_bytes"}
    assert document["baseline"].keys() == document["model"].keys() | {
        "relation",
        "chosen_by",
        "looks_like",
        "because",
    }
    assert document["tool"] == {"version": __version__, "metric_set": METRIC_SET, "rule_set": RULE_SET}
    (finding,) = document["findings"]
    assert finding.keys() == {
        "rule",
        "severity",
        "layer",
        "message",
        "evidence",
        "strength",
        "new",
        "suppressed",
    }
    for one in document["layers"]:
        assert one.keys() == {"name", "kind", "role", "shape", "dtype", "status", "metrics", "change"}
        assert {
            "alpha",
            "alpha_sigma",
            "ks_distance",
            "xmin",
            "tail_size",
            "fit_status",
            "alpha_hat",
            "log_norm",
            "log_spectral_norm",
            "log_alpha_norm",
            "stable_rank",
            "entropy",
            "effective_rank",
            "rank_loss",
        } <= one["metrics"].keys()
        assert {
            "relative_change",
            "cosine",
            "norm_ratio",
            "spectral_ratio",
            "stable_rank_ratio",
            "alpha_shift",
        } <= one["change"].keys()


def test_values_arrive_as_they_were_measured() -> None:
    document = parsed(report_of(typical()))

    healthy, huge = document["layers"]
    assert (healthy["name"], healthy["kind"], healthy["shape"], healthy["dtype"]) == (
        "fc",
        "linear",
        [64, 64],
        "F32",
    )
    assert (healthy["status"], huge["status"]) == ("ok", "broken")
    assert healthy["metrics"]["alpha"] == 3.0
    assert healthy["metrics"]["fit_status"] == "ok"
    assert healthy["metrics"]["num_eigenvalues"] == 64
    assert healthy["metrics"]["kurtosis"] == 3.0
    assert healthy["change"]["relative_change"] == 0.05
    assert healthy["change"]["method"] == "exact"
    assert healthy["change"]["alpha_baseline"] == 3.0
    assert huge["change"]["max_abs_ratio"] == 100.0
    assert document["verdict"] == "fail"
    assert document["findings"][0]["evidence"]["limit"] == 8.0
    assert document["skipped"] == [{"name": "fc.bias", "reason": "bias: a vector has no spectrum"}]
    assert document["timings"] == {"measure": 1.234568}
    assert document["blind_spots"]


def test_without_a_baseline_there_is_none_and_no_change() -> None:
    document = parsed(report_of(examination(new_layer("fc"), has_baseline=False), baseline=None))

    assert document["baseline"] is None
    assert document["layers"][0]["change"] is None


def test_a_layer_that_was_not_examined_is_listed_as_undecided_with_empty_numbers() -> None:
    document = parsed(report_of(examination(layer("fc"), unreadable_layer("gone"))))

    gone = next(one for one in document["layers"] if one["name"] == "gone")
    assert document["verdict"] == "undecided"
    assert gone["status"] == "undecided"
    assert set(gone["metrics"].values()) == {None}
    assert [finding["layer"] for finding in document["findings"]] == ["gone"]


def test_a_layer_with_nan_has_hygiene_numbers_and_a_degenerate_fit() -> None:
    broken = measurement(non_finite=7, numbers=None, folded=None, kurtosis=None)

    (one,) = parsed(report_of(examination(layer("fc", measurement=broken, change=None))))["layers"]

    assert one["metrics"]["non_finite"] == 7
    assert one["metrics"]["fit_status"] == "degenerate"
    assert one["metrics"]["alpha"] is None
    assert one["status"] == "broken"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_becomes_null_wherever_it_comes_from(bad: float) -> None:
    values = measurement(
        kurtosis=bad, max_abs=bad, numbers=numbers(alpha=bad, fit_status=FitStatus.POOR_FIT, xmin=bad)
    )
    moved = change(
        aligned=aligned(bad, bad, method=Method.SKETCH), norm_ratio=bad, max_abs_ratio=bad, alpha_shift=bad
    )
    version = examination(layer("fc", measurement=values, baseline=values, change=moved))

    report = report_of(version)
    (written,) = parsed(report)["layers"]

    # In the model too: the store and the pages read it without going through JSON.
    for one in (written, report.layers[0].model_dump()):
        for name in ("kurtosis", "max_abs", "alpha", "xmin"):
            assert one["metrics"][name] is None
        for name in (
            "relative_change",
            "cosine",
            "norm_ratio",
            "max_abs_ratio",
            "alpha_shift",
            "alpha_baseline",
        ):
            assert one["change"][name] is None


def test_evidence_that_is_not_finite_becomes_null() -> None:
    huge = layer(
        "fc", measurement=measurement(max_abs=math.inf), change=change(max_abs_ratio=9.0, norm_ratio=1.0)
    )

    report = report_of(examination(huge))

    (finding,) = report.findings
    assert finding.rule == "huge_value"
    assert finding.evidence["max_abs"] is None
    assert parsed(report)["findings"][0]["evidence"]["max_abs"] is None


def test_bytes_in_a_name_that_are_no_text_are_escaped() -> None:
    version = typical()
    odd = MODEL.model_copy(update={"name": "m"}).model_dump() | {"source": "file:w\udcff.pt"}
    report = build_report(ModelPart(**odd), None, version, judge(version, RulesSettings()), (), {})

    assert parsed(report)["model"]["source"] == "file:w\\udcff.pt"


def test_timings_that_are_not_finite_become_null() -> None:
    version = typical()
    report = build_report(MODEL, None, version, judge(version, RulesSettings()), (), {"measure": math.inf})

    assert parsed(report)["timings"] == {"measure": None}


def test_a_report_is_read_back_as_it_was_written() -> None:
    report = report_of(typical())

    assert Report.model_validate_json(report.to_json()) == report
    assert Report.model_validate_json(report.to_json(indent=2)) == report


def test_a_report_of_another_schema_version_is_refused() -> None:
    document = parsed(report_of(typical())) | {"schema_version": 2}

    with pytest.raises(ValidationError):
        Report.model_validate(document)


def test_a_lone_surrogate_anywhere_in_the_weights_does_not_crash_the_report() -> None:
    text = "\ud800"
    version = examination(new_layer(text, dtype=text), unreadable_layer("u" + text), has_baseline=False)
    skipped = (Skipped(text, text), Skipped(text, f"a variant of {text}, {SAME_NETWORK}"))

    document = parsed(build_report(MODEL, None, version, judge(version, RulesSettings()), skipped, {}))

    escaped = text.encode("ascii", "backslashreplace").decode()
    assert (document["layers"][0]["name"], document["layers"][0]["dtype"]) == (escaped, escaped)
    assert document["findings"][0]["layer"] == "u" + escaped
    assert document["skipped"][0] == {"name": escaped, "reason": escaped}
    assert document["blind_spots"][-1].startswith(escaped)


def test_copies_and_variants_are_told_as_not_examined_and_other_files_are_not() -> None:
    version = typical()
    copies = [Skipped(f"{number}.bin", f"the same tensors as others, {SAME_NETWORK}") for number in range(6)]
    skipped = (Skipped("optimizer.pt", "training state: not examined"), *copies)

    without = build_report(MODEL, None, version, judge(version, RulesSettings()), skipped[:1], {})
    report = build_report(MODEL, None, version, judge(version, RulesSettings()), skipped, {})

    names = "0.bin, 1.bin, 2.bin, 3.bin, 4.bin and 1 more"
    spot = f"{names}: the same tensors as in other files, by name and shape; not examined."
    assert report.blind_spots == (*without.blind_spots, spot)
