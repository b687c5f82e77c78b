"""The view for people who come from WeightWatcher: its columns, its conventions, its numbers.

Expected numbers: WeightWatcher 0.7.7 on float64, ``tests/_data/weightwatcher_vectors.json``; those written out here
were printed by ``WeightWatcher(state_dict).analyze(mp_fit=True, randomize=True, ERG=True)`` of the same version for
the same inputs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from layerwatch.metrics import MeasureOptions, measure_model
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.weightwatcher import COLUMNS, DIFFERENCES, jensen_shannon_distance
from layerwatch_testing.shared import shared_file

RELATIVE = 1e-6
VECTORS = Path(__file__).parents[2] / "_data" / "weightwatcher_vectors.json"

THEIR_COLUMNS = [
    "layer_id",
    "name",
    "D",
    "ERG_gap",
    "M",
    "N",
    "Q",
    "W_scale",
    "alpha",
    "alpha_weighted",
    "bulk_max",
    "bulk_min",
    "detX_num",
    "detX_val",
    "detX_val_unrescaled",
    "entropy",
    "has_esd",
    "lambda_max",
    "layer_type",
    "log_alpha_norm",
    "log_norm",
    "log_spectral_norm",
    "longname",
    "matrix_rank",
    "max_rand_eval",
    "mp_softrank",
    "norm",
    "num_ERG_spikes",
    "num_evals",
    "num_pl_spikes",
    "num_spikes",
    "num_traps",
    "rand_W_scale",
    "rand_bulk_max",
    "rand_bulk_min",
    "rand_distance",
    "rand_mp_softrank",
    "rand_num_spikes",
    "rand_sigma_mp",
    "rank_loss",
    "rf",
    "sigma",
    "sigma_mp",
    "spectral_norm",
    "stable_rank",
    "status",
    "sv_max",
    "sv_min",
    "warning",
    "weak_rank_loss",
    "ww_maxdist",
    "ww_softrank",
    "xmax",
    "xmin",
]
"""Of ``analyze(mp_fit=True, randomize=True, ERG=True)``, in its order."""


def vectors(part: str) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = json.loads(VECTORS.read_text())[part]
    return read


def dense_matrices() -> dict[str, NDArray[np.float32]]:
    """The matrices of the file, named by the beginning of their description; i, j count from 0."""
    i, j = np.indices((100, 60))
    toeplitz = np.exp(-np.abs(i - j) / 10)
    i, j = np.indices((120, 80))
    chirp = np.sin(0.001 * (80 * i + j) ** 2)
    i, j = np.indices((300, 200))
    banded = np.cos(i * j / 7) / (1 + np.abs(i - j)) ** 0.7
    named = {"toeplitz.weight": toeplitz, "sin.weight": chirp, "cos.weight": banded}
    return {name: matrix.astype(np.float32) for name, matrix in named.items()}


def rows_of(model: Any, **options: Any) -> Any:
    frame = measure_model(model, options=MeasureOptions(**options)).weightwatcher_frame()
    return frame.set_index("longname")


def assert_equal(row: Any, expected: dict[str, Any]) -> None:
    for column, value in expected.items():
        if isinstance(value, float):
            assert row[column] == pytest.approx(value, rel=RELATIVE), (row.name, column)
        else:
            assert row[column] == value, (row.name, column)


def test_the_columns_are_that_tools_in_its_order() -> None:
    shared = [column for column in THEIR_COLUMNS if column in COLUMNS]

    frame = measure_model(dense_matrices()).weightwatcher_frame()

    assert list(frame.columns) == list(COLUMNS) == [*shared, "problem"]


def test_every_column_that_is_missing_or_added_is_documented() -> None:
    documented = {column for one in DIFFERENCES for column in one.column.split(", ")}

    assert set(THEIR_COLUMNS) ^ set(COLUMNS) <= documented
    absent = {
        column for one in DIFFERENCES if one.ours.startswith("no such") for column in one.column.split(", ")
    }
    assert absent.isdisjoint(COLUMNS)
    assert documented - absent - {"rows"} <= set(COLUMNS)
    for one in DIFFERENCES:
        assert all((one.theirs, one.ours, one.why)), one.column


def test_dense_matrices_give_that_tools_numbers() -> None:
    rows = rows_of(dense_matrices())
    expected = vectors("dense_matrices")
    assert len(expected) == len(rows) == 3

    for entry in expected:
        row = rows.loc[entry["input"].partition(" ")[0].partition("(")[0]]
        assert len(entry) == 13
        assert_equal(row, {column: value for column, value in entry.items() if column != "input"})


def test_resnet20_gives_that_tools_numbers_with_halved_convolutions() -> None:
    rows = rows_of(str(shared_file("checkpoints/resnet20-12fca82f.th")))
    expected = vectors("resnet20")
    assert [entry["layer"] for entry in expected] == list(rows.index)

    for entry in expected:
        row = rows.loc[entry["layer"]]
        # Below 20 eigenvalues that tool fits in another way (DIFFERENCES).
        own_fit = ("alpha", "D", "sigma", "num_pl_spikes") if row["num_evals"] < 20 else ()
        assert_equal(row, {name: value for name, value in entry.items() if name not in ("layer", *own_fit)})
        # alpha_weighted is alpha * log10 of the halved lambda_max.
        weighted = row["alpha"] * entry["log_spectral_norm"]
        assert row["alpha_weighted"] == pytest.approx(weighted, rel=RELATIVE)
        assert row["warning"] == (
            "over-trained" if row["alpha"] < 2 else "under-trained" if row["alpha"] > 6 else ""
        )


def test_resnet20_gives_that_tools_means() -> None:
    model = measure_model(shared_file("checkpoints/resnet20-12fca82f.th"))
    frame = model.weightwatcher_frame().iloc[:-1]
    linear = vectors("resnet20")[-1]
    spectrum = _spectrum(model["linear"].measurement)
    last = {
        "alpha": linear["alpha"],
        "alpha_weighted": linear["alpha"] * linear["log_spectral_norm"],
        "log_alpha_norm": np.log10((spectrum ** linear["alpha"]).sum()),
        "log_norm": linear["log_norm"],
        "log_spectral_norm": linear["log_spectral_norm"],
        "stable_rank": linear["stable_rank"],
    }
    # get_summary() of that tool for this network; its fit of the last layer (10 eigenvalues) is its own.
    means = {
        "alpha": 4.091554451734453,
        "alpha_weighted": 1.0206546869348885,
        "log_alpha_norm": 1.6986270266282741,
        "log_norm": 1.7168951829659977,
        "log_spectral_norm": 0.2626890619086864,
        "stable_rank": 41.917633,
    }
    for column, mean in means.items():
        ours = (frame[column].sum() + last[column]) / 20
        assert ours == pytest.approx(mean, rel=RELATIVE), column


def _spectrum(measurement: Measurement | None) -> NDArray[np.float64]:
    assert measurement is not None
    assert measurement.spectrum is not None
    return measurement.spectrum.astype(np.float64)


def test_a_dense_layer_has_every_other_number_of_that_tool() -> None:
    assert_equal(
        rows_of(dense_matrices()).loc["toeplitz"],
        {
            "name": "toeplitz",
            "layer_type": "dense",
            "N": 100,
            "M": 60,
            "Q": 1.666666666666667,
            "rf": 1,
            "num_evals": 60,
            "norm": 577.0736310576071,
            "lambda_max": 304.7042865146655,
            "spectral_norm": 304.7042865146655,
            "sv_max": 17.455780891001854,
            "sv_min": 0.049992827639389,
            "xmax": 304.7042865146655,
            "W_scale": 0.322448239549555,
            "rank_loss": 0,
            "weak_rank_loss": 0,
            "matrix_rank": 60,
            "detX_num": 11,
            "detX_val": 0.532907220636111,
            "detX_val_unrescaled": 0.055407891675048,
            "ERG_gap": -33,
            "warning": "over-trained",
            "status": "success",
            "has_esd": True,
        },
    )


def test_a_convolution_has_every_other_number_of_that_tool() -> None:
    row = rows_of(shared_file("checkpoints/resnet20-12fca82f.th")).loc["layer3.2.conv2"]

    assert_equal(
        row,
        {
            "name": "conv2",
            "layer_type": "conv2d",
            "N": 64,
            "M": 64,
            "Q": 1.0,
            "rf": 9,
            "num_evals": 576,
            "norm": 42.88030005545759,
            "lambda_max": 0.689956872293356,
            "sv_max": 0.830636426057367,
            "xmin": 0.015133129909357,
            "xmax": 0.689956872293356,
            "W_scale": 3.665070507432576,
            "weak_rank_loss": 10,
            "matrix_rank": 576,
            "detX_val": 0.014572911730899,
            "detX_val_unrescaled": 0.195754160911701,
            "entropy": 0.818119884159518,
            "log_alpha_norm": 1.311859694741088,
            "alpha_weighted": -0.261689204751185,
            "ERG_gap": 2,
            "warning": "over-trained",
            "status": "success",
        },
    )


def test_only_four_dimensional_convolutions_are_halved() -> None:
    values = np.random.default_rng(0).standard_normal((12, 10, 3)).astype(np.float32)
    norm = float(np.square(values.astype(np.float64)).sum())
    rows = rows_of(
        {
            "conv1d.weight": values,
            "conv2d.weight": values[..., None],
            "conv3d.weight": values[..., None, None],
            "depthwise_conv.weight": values[:, :1, :, None],
            "linear.weight": values.reshape(12, 30),
        }
    )

    for name in ("conv1d", "conv3d", "linear"):
        assert rows.loc[name, "norm"] == pytest.approx(norm, rel=RELATIVE)
    assert rows.loc["conv2d", "norm"] == pytest.approx(norm / 2, rel=RELATIVE)
    depthwise = float(np.square(values[:, :1].astype(np.float64)).sum())
    assert rows.loc["depthwise_conv", "norm"] == pytest.approx(depthwise, rel=RELATIVE)
    assert list(rows["rf"]) == [3, 3, 3, 1, 1]
    assert list(rows["layer_type"]) == ["conv1d", "conv2d", "conv3d", "conv2d", "dense"]


@pytest.mark.parametrize("shape", [(100, 60), (32, 16, 3, 3)])
def test_the_bulk_of_noise_is_found_in_that_tools_units(shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    row = rows_of({"w": noise}).iloc[0]

    # Unit variance after rescaling, with edges (1 +- 1/sqrt(Q))^2 around it.
    assert row["sigma_mp"] == pytest.approx(1.0, abs=0.03)
    root = 1 / np.sqrt(row["Q"])
    for column, edge in (("bulk_max", 1 + root), ("bulk_min", 1 - root)):
        in_units = row[column] * row["W_scale"] ** 2 / row["sigma_mp"] ** 2
        assert in_units == pytest.approx(edge**2, rel=RELATIVE), column
    assert row["num_spikes"] == 0


def test_numbers_of_the_shuffle_are_there_when_they_were_asked_for() -> None:
    columns = ["max_rand_eval", "rand_distance", "ww_softrank", "ww_maxdist"]

    without, asked = rows_of(dense_matrices()), rows_of(dense_matrices(), shuffled=True)

    assert without[columns].isna().all(axis=None)
    assert asked[columns].notna().all(axis=None)
    row = asked.loc["toeplitz"]
    assert row["ww_softrank"] == pytest.approx(row["max_rand_eval"] / row["lambda_max"], rel=RELATIVE)
    assert row["ww_maxdist"] == pytest.approx(row["lambda_max"] - row["max_rand_eval"], rel=RELATIVE)
    # That tool, one unseeded shuffle: 0.471991, 0.088502, 0.115982; the spread of shuffles is several percent.
    assert list(asked["rand_distance"]) == pytest.approx([0.471991, 0.088502, 0.115982], rel=0.15)


def test_the_distance_between_a_spectrum_and_its_reverse_is_that_tools() -> None:
    # Its own vector: jensen_shannon_distance of 1..5 and 5..1.
    ascending = np.arange(1.0, 6.0)
    assert jensen_shannon_distance(ascending, ascending[::-1]) == pytest.approx(0.34595895, rel=RELATIVE)


def test_a_failed_fit_is_no_number_and_no_warning() -> None:
    rows = rows_of(
        {
            "zero.weight": np.zeros((20, 10)),
            "constant.weight": np.ones((20, 10)),
            "identity.weight": np.eye(20),
            "nan.weight": np.full((20, 10), np.nan),
            "integers.weight": np.ones((20, 10), np.int8),
            "row.weight": np.ones((1, 10)),
            "number.weight": np.ones((1, 1)),
        }
    )

    assert (rows["status"] == "failed").all()
    assert (rows["warning"] == "").all()
    for column in ("alpha", "D", "sigma", "xmin", "xmax", "alpha_weighted", "log_alpha_norm"):
        assert rows[column].isna().all(), column
    assert not np.isinf(rows.select_dtypes("float64")).any(axis=None)
    assert list(rows["has_esd"]) == [True, True, True, False, False, True, True]
    assert rows.loc["zero", "norm"] == rows.loc["zero", "sv_max"] == 0.0
    assert pd.isna(rows.loc["zero", "log_norm"])
    assert "200 of its weights" in rows.loc["nan", "problem"]
    assert "quantised_without_scale" in rows.loc["integers", "problem"]


@pytest.mark.parametrize("scale", [1e-60, 1e-25, 1e-6, 1e6, 1e25, 1e150])
def test_weights_of_any_scale_have_that_tools_numbers_without_infinities(scale: float) -> None:
    matrix = dense_matrices()["cos.weight"].astype(np.float64)
    expected = rows_of({"w": matrix}).iloc[0]

    row = rows_of({"w": matrix * scale}).iloc[0]

    for column in ("alpha", "D", "stable_rank", "sigma_mp", "Q"):
        assert row[column] == pytest.approx(expected[column], rel=1e-5), column
    for column in ("sv_max", "W_scale"):
        power = 1 if column == "sv_max" else -1
        assert row[column] == pytest.approx(expected[column] * scale**power, rel=1e-5), column
    values = row[[name for name, type_ in COLUMNS.items() if type_ == "float64"]].astype(float)
    assert not np.isinf(values).any()


def test_small_weights_keep_the_fit_that_they_have_when_large() -> None:
    matrix = dense_matrices()["sin.weight"]

    rows = rows_of({"large.weight": matrix, "small.weight": matrix * np.float32(1e-3)})

    assert list(rows["status"]) == ["success", "success"]
    assert rows.loc["small", "alpha"] == pytest.approx(rows.loc["large", "alpha"], rel=1e-4)
