"""Measuring and comparing models from Python: every form of a model, and the same numbers as from its file."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import layerwatch.metrics
from layerwatch.config.settings import Settings
from layerwatch.daemon.gate.engine import examine_files
from layerwatch.metrics import (
    InputError,
    MeasureOptions,
    compare_models,
    measure_model,
    model_recipe,
    nearest_parent,
)
from layerwatch.metrics.change import Method
from layerwatch.metrics.delta import DeltaStatus, delta_numbers
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.findings import LayerStatus, Severity, Verdict
from layerwatch.metrics.measurement import FitStatus, LayerKind, Measurement
from layerwatch.metrics.options import Precision
from layerwatch.metrics.report import metrics_of
from layerwatch.metrics.results import LayerMeasurement, ModelMeasurement
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network

State = dict[str, NDArray[Any]]


class ConvNet(nn.Module):
    """A convolution with its batch norm, an embedding, a linear layer with bias."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1 = nn.Conv2d(16, 24, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.embed = nn.Embedding(80, 24)
        self.fc = nn.Linear(72, 60)
        with torch.no_grad():
            self.bn1.weight.uniform_(0.5, 2.0)
            self.bn1.running_var.uniform_(0.1, 3.0)  # type: ignore[union-attr]


def arrays(module: nn.Module) -> State:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def same(one: object, other: object) -> bool:
    """Whether two values are equal to the last bit, arrays among them."""
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    return one == other


def assert_same_measurement(one: Measurement | None, other: Measurement | None) -> None:
    assert one is not None
    assert other is not None
    for field in fields(Measurement):
        assert same(getattr(one, field.name), getattr(other, field.name)), field.name


def assert_same_model(one: ModelMeasurement, other: ModelMeasurement) -> None:
    ours = {layer.name: layer for layer in (*one.layers, *one.vectors)}
    theirs = {layer.name: layer for layer in (*other.layers, *other.vectors)}
    assert ours.keys() == theirs.keys()
    for name, layer in ours.items():
        assert layer.digest == theirs[name].digest is not None
        assert_same_measurement(layer.measurement, theirs[name].measurement)


def as_safetensors(module: nn.Module, folder: Path) -> Path:
    return write_safetensors(folder / "model.safetensors", arrays(module))


def as_checkpoint(module: nn.Module, folder: Path) -> str:
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, folder / "model.pt")
    return str(folder / "model.pt")


def as_directory(module: nn.Module, folder: Path) -> Path:
    (folder / "version").mkdir()
    as_safetensors(module, folder / "version")
    return folder / "version"


FORMS: dict[str, Callable[[nn.Module, Path], Any]] = {
    "a safetensors file": as_safetensors,
    "a torch checkpoint": as_checkpoint,
    "a directory": as_directory,
    "a module": lambda module, folder: module,
    "a wrapped module": lambda module, folder: nn.DataParallel(module),
    "a state dict": lambda module, folder: module.state_dict(),
    "a training checkpoint": lambda module, folder: {"model": module.state_dict(), "losses": [0.5, 0.25]},
    "numpy arrays": lambda module, folder: arrays(module),
    "numpy arrays in Fortran order": lambda module, folder: {
        name: np.asfortranarray(values) for name, values in arrays(module).items()
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_model_gives_the_same_numbers_and_digests(form: str, tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    reference = measure_model(as_safetensors(ConvNet(), tmp_path / "reference"))

    measured = measure_model(FORMS[form](ConvNet(), tmp_path))

    assert reference["conv1"].measurement is not None
    assert reference["conv1"].measurement.folded_by == "bn1"
    assert_same_model(measured, reference)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_a_model_of_another_type_gives_the_numbers_of_its_file(dtype: torch.dtype, tmp_path: Path) -> None:
    module = ConvNet().to(dtype)
    torch.save(module.state_dict(), tmp_path / "model.pt")

    assert_same_model(measure_model(module), measure_model(tmp_path / "model.pt"))


def test_numpy_bfloat16_gives_the_numbers_of_the_torch_tensor() -> None:
    tensor = ConvNet().fc.weight.detach().bfloat16()

    from_numpy = measure_model({"fc.weight": tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)})

    assert_same_model(from_numpy, measure_model({"fc.weight": tensor}))
    assert from_numpy["fc"].dtype == "BF16"


def test_the_numbers_are_those_of_layerwatch_scan(tmp_path: Path) -> None:
    path = as_safetensors(ConvNet(), tmp_path)

    scanned = examine_files(path, None, None, Settings(), lambda which, progress: None)

    measured = measure_model(ConvNet()).report
    assert measured.verdict == scanned.verdict
    assert {part.name: part for part in measured.layers} == {part.name: part for part in scanned.layers}


def test_a_comparison_is_that_of_layerwatch_gate(tmp_path: Path) -> None:
    old, new = network(), finetuned(network())
    new["fc2.weight"] = new["fc2.weight"] * np.float32(8)
    old_path = write_safetensors(tmp_path / "old.safetensors", old)
    new_path = write_safetensors(tmp_path / "new.safetensors", new)

    gate = examine_files(new_path, old_path, None, Settings(), lambda which, progress: None)

    report = compare_models(new, old).report
    assert (report.verdict, report.regime) == (gate.verdict, gate.regime)
    assert report.layers == gate.layers
    assert report.findings == gate.findings
    assert report.blind_spots == gate.blind_spots


def test_the_metrics_of_a_layer_are_those_of_the_report() -> None:
    state: State = arrays(ConvNet()) | {"dead.weight": np.zeros((8, 9), np.float32)}
    state["nan.weight"] = np.full((8, 9), np.nan, np.float32)

    measured = measure_model(state)

    assert len(measured.report.layers) == len(measured.layers) == 5
    for part in measured.report.layers:
        assert measured[part.name].metrics == part.metrics


def test_a_number_that_overflowed_is_undefined_as_in_the_report() -> None:
    measurement = measure_model(network())["fc1"].measurement
    assert measurement is not None

    assert metrics_of(replace(measurement, kurtosis=float("inf"))).kurtosis is None


def degenerate_layers() -> State:
    generator = np.random.default_rng(5)
    plain = generator.standard_normal((40, 30)).astype(np.float32)
    return {
        "zero.weight": np.zeros((40, 30), np.float32),
        "constant.weight": np.full((40, 30), 0.5, np.float32),
        "nan.weight": np.where(np.eye(40, 30) > 0, np.nan, plain).astype(np.float32),
        "infinite.weight": np.where(np.eye(40, 30) > 0, -np.inf, plain).astype(np.float32),
        "rank_one.weight": np.outer(np.arange(1, 41), np.arange(1, 31)).astype(np.float32),
        "single_row.weight": plain[:1],
        "single_column.weight": np.ascontiguousarray(plain[:, :1]),
        "single_number.weight": plain[:1, :1],
        "empty.weight": np.zeros((0, 30), np.float32),
        "identity.weight": np.eye(40, dtype=np.float32),
        "tiny.weight": plain * np.float32(1e-20),
        "huge.weight": plain * np.float32(1e20),
        "integers.weight": np.ones((40, 30), np.int8),
    }


def healthy_layers() -> State:
    generator = np.random.default_rng(6)
    return {
        f"healthy{i}.weight": generator.standard_normal((60 + 10 * i, 55)).astype(np.float32)
        for i in range(3)
    }


def test_degenerate_layers_leave_the_numbers_of_the_others_as_they_are_alone() -> None:
    healthy = healthy_layers()
    bad = degenerate_layers()
    mixed = dict(sorted((healthy | bad).items()))
    alone = measure_model(healthy)

    measured = measure_model(mixed)

    for name in alone:
        assert_same_measurement(measured[name].measurement, alone[name].measurement)
    assert {one.name for one in measured.problems} == {"integers"}
    assert measured.verdict is Verdict.FAIL


def test_degenerate_layers_have_finite_numbers_or_none() -> None:
    measured = measure_model(degenerate_layers())

    assert measured["nan"].metrics.non_finite == measured["infinite"].metrics.non_finite == 30
    for name in ("zero", "constant", "rank_one", "single_row", "single_column", "identity", "nan"):
        metrics = measured[name].metrics
        assert metrics.alpha is None, name
        assert metrics.fit_status == FitStatus.DEGENERATE, name
    assert measured["zero"].metrics.log_norm is None
    assert measured["zero"].metrics.zero_share == 1.0
    assert measured["rank_one"].metrics.stable_rank == pytest.approx(1.0)
    # Scaling moves no exponent.
    assert measured["tiny"].metrics.alpha == pytest.approx(measured["huge"].metrics.alpha, rel=1e-5)
    for layer in measured.layers:
        for name, value in layer.metrics:
            assert not isinstance(value, float) or np.isfinite(value), (layer.name, name)


def test_an_empty_tensor_is_named_as_skipped() -> None:
    measured = measure_model(degenerate_layers())

    assert "empty" not in measured
    assert [one.reason for one in measured.skipped if one.name == "empty.weight"] == ["empty tensor"]


def test_a_layer_that_cannot_be_examined_is_there_with_its_problem_and_shows_it() -> None:
    measured = measure_model({"fc.weight": np.ones((4, 3), np.int8), "odd.weight": torch.eye(3).to_sparse()})

    problem = measured["fc"].problem
    assert problem is not None
    assert problem.reason is UnreadableReason.QUANTISED_WITHOUT_SCALE
    assert measured["fc"].measurement is None
    assert measured["fc"].digest is None
    assert measured.verdict is Verdict.UNDECIDED
    for shown in (repr(measured), repr(measured["fc"]), measured._repr_html_()):
        assert "NOT EXAMINED" in shown
        assert "quantised_without_scale" in shown
    assert "to_dense" in repr(measured)


def test_a_vector_with_nan_is_told_though_it_has_no_spectrum() -> None:
    measured = measure_model({"fc.weight": np.eye(4, dtype=np.float32), "fc.bias": np.full(4, np.nan)})

    assert measured.verdict is Verdict.FAIL
    assert "critical non_finite fc.bias" in repr(measured)


def test_a_result_is_a_mapping_of_its_layers_by_name() -> None:
    measured = measure_model(ConvNet())

    assert list(measured) == ["conv1", "embed", "fc"]
    assert len(measured) == 3
    assert measured["embed"].kind is LayerKind.EMBEDDING
    assert measured["conv1"].shape == (24, 16, 3, 3)
    assert measured["conv1"].dtype == "F32"
    assert "fc" in measured
    assert "fc.bias" not in measured
    assert [vector.name for vector in measured.vectors][-1] == "fc.bias"
    assert measured.get("nothing") is None


@pytest.mark.parametrize(
    ("name", "told"), [("fc.weight", "there is 'fc'"), ("conv2", "'conv1'"), ("fc.bias", r"in \.vectors")]
)
def test_a_name_that_is_no_layer_is_answered_with_what_there_is(name: str, told: str) -> None:
    with pytest.raises(KeyError, match=told):
        measure_model(ConvNet())[name]


def test_a_result_is_called_as_its_file_its_directory_or_its_class(tmp_path: Path) -> None:
    names = {form: measure_model(FORMS[form](ConvNet(), tmp_path)).name for form in FORMS}

    assert names["a safetensors file"] == names["a torch checkpoint"] == "model"
    assert names["a directory"] == "version"
    assert names["a module"] == "ConvNet"
    assert names["a state dict"] == "state dict"
    assert names["numpy arrays"] == "arrays"


def test_a_result_shows_one_line_per_layer() -> None:
    text = repr(measure_model(ConvNet()))

    lines = text.splitlines()
    assert lines[0] == "ModelMeasurement ConvNet: 3 layers, 5 vectors, verdict pass"
    assert lines[2].split()[:4] == ["conv1", "conv", "24x16x3x3", "F32"]
    assert len(lines) == 5


def test_names_in_a_result_cannot_steer_a_terminal_or_a_page() -> None:
    name = "\x1b[2J<script>alert(1)</script>.weight"

    measured = measure_model({name: np.eye(4, dtype=np.float32)})

    assert "\x1b" not in repr(measured)
    assert "<script>" not in measured._repr_html_()
    assert "&lt;script&gt;" in measured._repr_html_()


def test_of_many_layers_the_first_are_shown_and_every_one_in_trouble() -> None:
    state: State = {f"layer{i:03}.weight": np.eye(3, dtype=np.float32) * (i + 1) for i in range(100)}
    state["layer099.weight"] = np.ones((3, 3), np.int8)

    text = repr(measure_model(state))

    assert "layer059 " in text
    assert "layer060 " not in text
    assert "layer099 " in text
    assert "39 more" in text


def test_a_measurement_leaves_the_model_as_it_is() -> None:
    module = ConvNet()
    before = {name: values.copy() for name, values in arrays(module).items()}

    measure_model(module)

    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(np.array_equal(values, before[name]) for name, values in arrays(module).items())


def test_options_reach_the_measurement() -> None:
    state = {"fc.weight": np.random.default_rng(0).standard_normal((80, 60))}

    plain = measure_model(state)
    asked = measure_model(state, options=MeasureOptions(precision=Precision.FLOAT32, shuffled=True))

    assert plain["fc"].measurement is not None
    assert asked["fc"].measurement is not None
    assert plain["fc"].measurement.shuffled_spectrum is None
    assert asked["fc"].measurement.shuffled_spectrum is not None
    assert plain["fc"].digest == asked["fc"].digest
    assert plain["fc"].metrics.alpha != asked["fc"].metrics.alpha
    assert plain["fc"].metrics.alpha == pytest.approx(asked["fc"].metrics.alpha, rel=1e-3)


def test_a_path_that_is_not_there_is_told() -> None:
    with pytest.raises(UnreadableError) as caught:
        measure_model("/nowhere/model.safetensors")

    assert caught.value.reason is UnreadableReason.NOT_FOUND


def test_a_damaged_file_is_told_and_not_measured(tmp_path: Path) -> None:
    path = as_safetensors(ConvNet(), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(UnreadableError, match="100 bytes are missing"):
        compare_models(ConvNet(), path)


def test_what_is_no_model_is_refused_with_what_to_pass() -> None:
    with pytest.raises(InputError, match=r"torch\.nn\.Module"):
        measure_model([1.0, 2.0])  # type: ignore[arg-type]


def test_equal_models_have_identical_layers_and_pass() -> None:
    compared = compare_models(ConvNet(), arrays(ConvNet()))

    assert compared.verdict is Verdict.PASS
    assert compared.only_in_new == compared.only_in_baseline == ()
    assert list(compared) == ["conv1", "embed", "fc"]
    for layer in compared.values():
        assert layer.change is not None
        assert layer.change.aligned is not None
        assert layer.change.aligned.method is Method.IDENTICAL
        assert layer.status is LayerStatus.OK


def test_a_change_is_computed_from_the_weights_themselves() -> None:
    old, new = network(), finetuned(network())

    compared = compare_models(new, old)

    for name, layer in compared.items():
        w, w0 = (state[f"{name}.weight"].astype(np.float64) for state in (new, old))
        assert layer.change is not None
        aligned = layer.change.aligned
        assert aligned is not None
        assert aligned.method is Method.EXACT
        # ||W - W0|| / ||W0|| and <W, W0> / (||W|| ||W0||), from the arrays.
        assert aligned.relative_change == pytest.approx(np.linalg.norm(w - w0) / np.linalg.norm(w0), rel=1e-9)
        assert aligned.cosine == pytest.approx(
            np.vdot(w, w0) / np.linalg.norm(w) / np.linalg.norm(w0), rel=1e-9
        )


def test_a_layer_of_the_wrong_scale_fails_the_comparison_and_is_named() -> None:
    old, new = network(), finetuned(network())
    new["fc2.weight"] = new["fc2.weight"] * np.float32(8)

    compared = compare_models(new, old)

    assert compared.verdict is Verdict.FAIL
    assert {finding.layer for finding in compared.findings} == {"fc2"}
    assert compared["fc2"].status is LayerStatus.BROKEN
    assert compared["fc2"].findings[0].severity is Severity.CRITICAL
    assert compared["fc1"].status is LayerStatus.OK
    assert compared["fc1"].findings == ()
    assert "critical" in repr(compared)
    assert "fc2" in compared._repr_html_()
    assert "broken" in repr(compared["fc2"])


def test_layers_without_a_counterpart_are_listed_on_both_sides() -> None:
    old, new = network(), network()
    new["added.weight"] = new.pop("fc3.weight")

    compared = compare_models(new, old)

    assert [layer.name for layer in compared.only_in_new] == ["added"]
    assert [layer.name for layer in compared.only_in_baseline] == ["fc3"]
    assert compared["added"].baseline is None
    assert compared["added"].change is None
    assert compared.verdict is Verdict.FAIL
    assert "only in the new model: added" in repr(compared)
    assert "only in the baseline: fc3" in repr(compared)
    assert "only in the new model" in repr(compared["added"])


def test_a_layer_of_another_shape_has_no_element_wise_numbers() -> None:
    old, new = network(), network()
    new["fc3.weight"] = np.concatenate([new["fc3.weight"], new["fc3.weight"][:2]])

    layer = compare_models(new, old, delta=True)["fc3"]

    assert layer.change is not None
    assert layer.change.aligned is None
    assert layer.delta is None
    assert layer.status is LayerStatus.SUSPECT
    assert "was 32x64" in repr(layer)


@pytest.mark.parametrize("side", ["new", "baseline"])
def test_a_layer_that_cannot_be_examined_leaves_the_comparison_undecided(side: str) -> None:
    good, bad = network(), {**network(), "fc2.weight": np.ones((64, 96), np.int8)}

    compared = compare_models(bad, good) if side == "new" else compare_models(good, bad)

    assert compared.verdict is Verdict.UNDECIDED
    assert compared["fc2"].status is LayerStatus.UNDECIDED
    assert compared["fc2"].problem is not None
    assert compared["fc2"].problem.reason == "quantised_without_scale"
    assert "NOT COMPARED" in repr(compared["fc2"])
    assert compared["fc1"].change is not None


def test_an_unexamined_file_of_either_side_leaves_the_comparison_undecided(tmp_path: Path) -> None:
    as_safetensors(ConvNet(), tmp_path)
    (tmp_path / "other.gguf").write_bytes(b"GGUF and more")

    compared = compare_models(ConvNet(), ConvNet())
    beside = compare_models(tmp_path, ConvNet())

    assert compared.verdict is Verdict.PASS
    assert beside.verdict is Verdict.UNDECIDED
    assert [one.name for one in beside.new.unexamined] == ["other.gguf"]
    assert "other.gguf" in repr(beside.new)


def test_delta_numbers_are_taken_of_changed_layers_only() -> None:
    old, new = network(), network()
    new["fc2.weight"] = finetuned(network())["fc2.weight"]

    compared = compare_models(new, old, delta=True)

    assert compared["fc1"].delta is None
    expected = delta_numbers(new["fc2.weight"], old["fc2.weight"], LayerKind.LINEAR, "F32")
    delta = compared["fc2"].delta
    assert delta is not None
    for field in fields(delta):
        assert same(getattr(delta, field.name), getattr(expected, field.name)), field.name
    assert compare_models(new, old)["fc2"].delta is None


def test_delta_numbers_are_taken_of_the_weights_before_a_batch_norm_is_folded() -> None:
    old, new = arrays(ConvNet()), arrays(ConvNet())
    new["bn1.weight"] = new["bn1.weight"] * np.float32(2)

    layer = compare_models(new, old, delta=True)["conv1"]

    assert layer.change is not None
    assert layer.change.aligned is not None
    assert layer.change.aligned.relative_change == pytest.approx(1.0)
    assert layer.delta is not None
    assert layer.delta.status is DeltaStatus.UNCHANGED


def test_delta_numbers_of_a_layer_with_nan_say_so_and_harm_no_other() -> None:
    old, new = network(), finetuned(network())
    new["fc1.weight"][0, 0] = np.nan

    compared = compare_models(new, old, delta=True)

    deltas = {name: layer.delta for name, layer in compared.items()}
    assert deltas["fc1"] is not None
    assert deltas["fc1"].status is DeltaStatus.NON_FINITE
    assert deltas["fc2"] is not None
    assert deltas["fc2"].status is DeltaStatus.OK


def test_models_of_different_form_and_type_are_compared(tmp_path: Path) -> None:
    module = ConvNet()

    compared = compare_models(ConvNet().bfloat16(), as_checkpoint(module, tmp_path))

    layer = compared["fc"]
    assert layer.dtype == "BF16"
    assert layer.baseline is not None
    assert layer.baseline.dtype == "F32"
    assert layer.change is not None
    assert layer.change.aligned is not None
    # Rounding to 8 bits: at most 2^-9 relative per element, less in the mean square.
    assert layer.change.aligned.relative_change is not None
    assert 0 < layer.change.aligned.relative_change < 2**-9
    assert compared.verdict is Verdict.PASS


def test_tied_weights_are_measured_once_and_reported_twice() -> None:
    weights = np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32)

    measured = measure_model(OrderedDict({"a.weight": weights, "b.weight": weights}))

    assert measured["a"].measurement is measured["b"].measurement is not None


def test_the_public_names_are_there_and_no_others() -> None:
    for name in layerwatch.metrics.__all__:
        assert getattr(layerwatch.metrics, name).__name__ == name
    assert set(layerwatch.metrics.__all__) <= set(dir(layerwatch.metrics))
    assert layerwatch.metrics.LayerMeasurement is LayerMeasurement
    with pytest.raises(AttributeError, match="no attribute 'measure_modle'"):
        layerwatch.metrics.measure_modle  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_loads_no_solver_and_no_pandas() -> None:
    program = (
        "import sys, layerwatch.metrics, layerwatch.metrics.report\n"
        "print([name for name in ('torch', 'pandas', 'matplotlib') if name in sys.modules])\n"
        "from layerwatch.metrics import measure_model\n"
        "print([name for name in ('torch', 'pandas', 'matplotlib') if name in sys.modules])\n"
    )

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.splitlines() == ["[]", "['torch']"]


def test_a_dict_of_arrays_needs_no_import_of_torch_by_its_reader() -> None:
    program = (
        "import sys, numpy\n"
        "from layerwatch.metrics.readers.memory import MemoryReader\n"
        "reader = MemoryReader({'fc.weight': numpy.ones((2, 3))})\n"
        "print(reader.load('fc.weight').sum(), 'torch' in sys.modules)\n"
    )

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.split() == ["6.0", "False"]


def test_options_take_words_and_refuse_what_is_none_of_them() -> None:
    assert MeasureOptions(precision="float64").precision is Precision.FLOAT64  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="float99"):
        MeasureOptions(precision="float99")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tpu"):
        MeasureOptions(device="tpu")  # type: ignore[arg-type]


def test_an_empty_path_is_refused_and_is_not_the_current_folder() -> None:
    with pytest.raises(InputError, match="the path is empty"):
        measure_model("")


def test_measurements_in_place_of_sketches_are_refused_with_the_call_that_gives_sketches() -> None:
    result = measure_model({"fc.weight": np.eye(8)})
    with pytest.raises(TypeError, match=r"measure_model\(\.\.\.\)\.sketches\(\)"):
        nearest_parent(result, {"a": result.sketches()})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"measure_model\(\.\.\.\)\.sketches\(\)"):
        model_recipe(result.sketches(), [result])  # type: ignore[list-item]


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_a_layer_whose_squares_leave_float64_never_passes_as_healthy(scale: float) -> None:
    random = np.random.default_rng(4)
    result = measure_model(
        {"a.weight": random.standard_normal((60, 60)), "h.weight": random.standard_normal((60, 60)) * scale}
    )
    assert result.verdict is Verdict.FAIL
    assert [(one.rule, one.layer) for one in result.report.findings if one.severity == "critical"] == [
        ("non_finite", "h")
    ]
