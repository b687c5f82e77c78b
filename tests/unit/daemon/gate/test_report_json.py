"""The JSON report: the fields of the design, section 4, and no number that JSON cannot hold."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.layers import Skipped
from layerwatch_testing.examinations import (
    among_healthy,
    examination,
    layer,
    measurement,
    new_layer,
    numbers,
    unreadable_layer,
    vector,
)
from layerwatch_testing.reports import report_of

TOP = {
    *("schema_version", "model", "baseline", "verdict", "findings", "layers", "skipped", "blind_spots"),
    *("timings", "tool", "complete", "gate"),
}
MODEL = {"source", "name", "version", "fingerprint", "format", "size_bytes"}
FINDING = {"rule", "severity", "layer", "message", "evidence", "strength", "new", "suppressed"}
LAYER = {"name", "kind", "role", "shape", "dtype", "status", "metrics", "change"}
METRICS = {
    *("alpha", "alpha_sigma", "ks_distance", "xmin", "tail_size", "fit_status", "alpha_hat", "log_norm"),
    *("log_spectral_norm", "log_alpha_norm", "stable_rank", "entropy", "effective_rank", "rank_loss"),
}
CHANGE = {
    *("relative_change", "cosine", "norm_ratio", "spectral_ratio", "stable_rank_ratio", "alpha_shift"),
}
STATUSES = {"ok", "info", "suspect", "broken", "undecided"}


def refuse(constant: str) -> None:
    pytest.fail(f"{constant} in the JSON report")


def strict(text: str) -> Any:
    """Parsed as the JSON standard has it, which knows no NaN."""
    return json.loads(text, parse_constant=refuse)


def test_the_report_has_every_field_of_its_contract() -> None:
    found = among_healthy(
        layer("broken", measurement=measurement(non_finite=1, numbers=None, folded=None), change=None),
        unreadable_layer("unseen"),
        vector(),
    )
    report = strict(report_of(found, skipped=(Skipped("fc.bias", "bias"),)).to_json())

    assert set(report) >= TOP
    assert report["schema_version"] == 1
    assert set(report["model"]) == MODEL
    assert set(report["baseline"]) == MODEL | {"relation", "chosen_by", "looks_like", "because"}
    assert report["verdict"] == "fail"
    assert {finding["rule"] for finding in report["findings"]} == {"non_finite", "unreadable"}
    for finding in report["findings"]:
        assert set(finding) == FINDING
    assert len(report["layers"]) == 6
    for part in report["layers"]:
        assert set(part) == LAYER
        assert set(part["metrics"]) >= METRICS
        assert part["change"] is None or set(part["change"]) >= CHANGE
        assert part["status"] in STATUSES
    assert {part["name"]: part["status"] for part in report["layers"][-2:]} == {
        "broken": "broken",
        "unseen": "undecided",
    }
    assert report["skipped"] == [{"name": "fc.bias", "reason": "bias"}]
    assert report["blind_spots"]
    assert set(report["tool"]) == {"version", "metric_set", "rule_set"}
    assert report["timings"] == {"measure_seconds": 1.5, "judge_seconds": 0.25}


def test_without_a_baseline_the_report_says_so_and_names_what_it_could_not_see() -> None:
    report = strict(report_of(among_healthy(has_baseline=False)).to_json())

    assert report["baseline"] is None
    assert any("no baseline" in spot for spot in report["blind_spots"])


extreme = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@given(extreme, extreme, extreme)
def test_a_number_that_is_not_finite_becomes_null(
    alpha: float | None, stable_rank: float | None, kurtosis: float | None
) -> None:
    measured = measurement(numbers=numbers(alpha=alpha, stable_rank=stable_rank), kurtosis=kurtosis)
    odd = new_layer("odd", measurement=measured)

    report = strict(report_of(examination(odd, has_baseline=False)).to_json())

    found = report["layers"][0]["metrics"]
    for name, value in (("alpha", alpha), ("stable_rank", stable_rank), ("kurtosis", kurtosis)):
        assert found[name] == (value if value is not None and math.isfinite(value) else None)


def test_names_that_no_encoding_knows_do_not_cost_the_report() -> None:
    report = report_of(among_healthy())
    # What Python makes of a file name with the byte 0xff, which is no UTF-8.
    named = type(report.model).model_validate(report.model.model_dump() | {"source": "bad\udcff.safetensors"})

    found = strict(report.model_copy(update={"model": named}).to_json())

    assert found["model"]["source"] == "bad\\udcff.safetensors"
