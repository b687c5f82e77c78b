"""Results as DataFrames."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from layerwatch.metrics import compare_models, measure_model
from layerwatch.metrics.delta import DeltaNumbers
from layerwatch.metrics.frames import LAYER_COLUMNS
from layerwatch.metrics.measurement import SpectralNumbers
from layerwatch.metrics.report import ChangePart, LayerMetrics
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network

State = dict[str, NDArray[Any]]


def troubled() -> State:
    state: State = dict(network())
    state["dead.weight"] = np.zeros((20, 10), np.float32)
    state["nan.weight"] = np.full((20, 10), np.nan, np.float32)
    state["integers.weight"] = np.ones((20, 10), np.int8)
    return state


def row(frame: Any, name: str) -> Any:
    found = frame[frame["name"] == name]
    assert len(found) == 1
    return found.iloc[0]


def test_the_columns_are_the_reports() -> None:
    frame = measure_model(network()).frame()

    assert list(frame.columns) == [*LAYER_COLUMNS, *LayerMetrics.model_fields]
    assert list(LAYER_COLUMNS) == ["name", "kind", "shape", "dtype", "status", "problem"]


def test_there_is_one_row_per_layer_with_the_reports_values() -> None:
    measured = measure_model(network())

    frame = measured.frame()

    assert list(frame["name"]) == ["fc1", "fc2", "fc3"]
    assert list(frame["shape"]) == [(96, 64), (64, 96), (32, 64)]
    for part in measured.report.layers:
        for name, value in part.metrics:
            shown = row(frame, part.name)[name]
            assert pd.isna(shown) if value is None else shown == value, (part.name, name)


def test_what_is_undefined_is_missing_and_never_a_number() -> None:
    frame = measure_model(troubled()).frame()

    assert list(frame["name"]) == ["fc1", "fc2", "fc3", "dead", "nan", "integers"]
    for name in ("dead", "nan", "integers"):
        for column in ("alpha", "log_norm", "stable_rank", "tail_size"):
            assert pd.isna(row(frame, name)[column]), (name, column)
    assert row(frame, "nan")["non_finite"] == 200
    assert row(frame, "dead")["zero_share"] == 1.0
    assert frame["alpha"].mean() == pytest.approx(frame["alpha"][:3].mean())


def test_types_of_columns_do_not_depend_on_what_is_missing() -> None:
    whole, broken = measure_model(network()).frame(), measure_model({"w": np.zeros((3, 2))}).frame()

    assert dict(whole.dtypes) == dict(broken.dtypes)
    assert str(whole["alpha"].dtype) == "float64"
    assert str(whole["tail_size"].dtype) == "Int64"
    assert str(whole["fit_status"].dtype) == "string"


def test_a_layer_that_cannot_be_examined_says_why_in_its_row() -> None:
    frame = measure_model(troubled()).frame()

    assert "quantised_without_scale" in row(frame, "integers")["problem"]
    assert row(frame, "integers")["status"] == "undecided"
    assert frame["problem"].notna().sum() == 1


def test_vectors_have_a_row_where_something_is_to_be_said_of_them(tmp_path: Path) -> None:
    state: State = dict(network())
    state["fc1.bias"][0] = np.inf
    write_safetensors(tmp_path / "model.safetensors", state)
    (tmp_path / "other.gguf").write_bytes(b"GGUF and more")

    frame = measure_model(tmp_path).frame()

    assert list(frame["name"]) == ["fc1", "fc2", "fc3", "fc1.bias", "other.gguf"]
    assert row(frame, "fc1.bias")["non_finite"] == 1
    assert row(frame, "fc1.bias")["status"] == "broken"
    assert "GGUF" in row(frame, "other.gguf")["problem"]


def test_a_model_without_layers_gives_a_frame_without_rows() -> None:
    frame = measure_model({"fc.bias": np.ones(3)}).frame()

    assert len(frame) == 0
    assert list(frame.columns) == [*LAYER_COLUMNS, *LayerMetrics.model_fields]


def test_a_comparison_has_the_reports_columns_of_change() -> None:
    compared = compare_models(finetuned(network()), network())

    frame = compared.frame()

    changes = [f"change.{name}" for name in ChangePart.model_fields]
    assert list(frame.columns) == [*LAYER_COLUMNS, *LayerMetrics.model_fields, *changes]
    for part in compared.report.layers:
        assert part.change is not None
        for name, value in part.change:
            shown = row(frame, part.name)[f"change.{name}"]
            assert pd.isna(shown) if value is None else shown == value, (part.name, name)


def test_layers_of_one_side_only_have_rows_without_a_change() -> None:
    new: State = dict(network())
    new["added.weight"] = new.pop("fc3.weight")

    frame = compare_models(new, network()).frame()

    assert list(frame["name"]) == ["fc1", "fc2", "added", "fc3"]
    assert list(frame["kind"]) == ["linear", "linear", "linear", "missing"]
    assert row(frame, "fc3")["shape"] == (32, 64)
    assert row(frame, "fc3")["status"] == "broken"
    for name in ("added", "fc3"):
        assert pd.isna(row(frame, name)["change.relative_change"])
    assert pd.isna(row(frame, "fc3")["alpha"])


def test_a_baseline_that_cannot_be_compared_with_is_told_in_the_row() -> None:
    frame = compare_models(network(), {**network(), "fc2.weight": np.ones((64, 96), np.int8)}).frame()

    assert "baseline's layer could not be examined" in row(frame, "fc2")["problem"]


def test_differences_have_columns_of_their_own_where_they_were_asked_for() -> None:
    new = {**network(), "fc2.weight": finetuned(network())["fc2.weight"]}
    compared = compare_models(new, network(), delta=True)

    frame = compared.frame()

    delta = compared["fc2"].delta
    assert delta is not None
    assert row(frame, "fc2")["delta.alpha"] == delta.numbers.alpha
    assert row(frame, "fc2")["delta.relative_change"] == delta.relative_change
    assert row(frame, "fc2")["delta.status"] == "ok"
    assert pd.isna(row(frame, "fc1")["delta.alpha"])
    shown = {column.removeprefix("delta.") for column in frame.columns if column.startswith("delta.")}
    expected = {field.name for field in (*fields(DeltaNumbers), *fields(SpectralNumbers))}
    assert shown == expected - {"numbers", "spectrum"}


def test_columns_of_differences_are_there_even_if_nothing_changed() -> None:
    same = compare_models(network(), network(), delta=True).frame()
    changed = compare_models(finetuned(network()), network(), delta=True).frame()

    assert dict(same.dtypes) == dict(changed.dtypes)
    assert same["delta.alpha"].isna().all()


def test_without_pandas_the_command_that_installs_it_is_told() -> None:
    program = (
        "import sys\n"
        "sys.modules['pandas'] = None\n"
        "import numpy\n"
        "from layerwatch.metrics import measure_model\n"
        "from layerwatch.metrics.frames import FrameError\n"
        "measured = measure_model({'fc.weight': numpy.eye(4)})\n"
        "for make in (measured.frame, measured.weightwatcher_frame):\n"
        "    try:\n"
        "        make()\n"
        "    except FrameError as error:\n"
        "        print(error)\n"
    )

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    line = "missing_package: frames need pandas, which is not installed; run: pip install pandas"
    assert answer.stdout.splitlines() == [line, line]
