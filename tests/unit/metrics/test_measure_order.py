"""Layers measured side by side: the same results in the same order, and each set of bytes once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from layerwatch.daemon.demo.safetensors_file import write_safetensors
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.options import Device, MeasureOptions
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.threads import use_threads


def measured(path: Path, options: MeasureOptions | None = None) -> list[MeasuredLayer]:
    model = OpenModel(open_model(path), str(path))
    try:
        return list(measure_layers(model, lambda digest: False, None, options or MeasureOptions()))
    finally:
        model.close()


def mixed(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Small layers around a big one (above 2^22 elements), a vector, and one layer that is not finite."""
    random = np.random.default_rng(seed)
    tensors = {f"small{index}.weight": random.standard_normal((60 + index, 50)) for index in range(6)}
    tensors["middle.weight"] = random.standard_normal((64, 70_000))
    tensors |= {f"later{index}.weight": random.standard_normal((300, 260 + index)) for index in range(4)}
    tensors["small3.bias"] = random.standard_normal(63)
    found: dict[str, NDArray[Any]] = {name: values.astype(np.float32) for name, values in tensors.items()}
    found["small4.weight"][3, 3] = np.nan
    return found


def same(one: MeasuredLayer, other: MeasuredLayer) -> bool:
    a, b = one.measurement, other.measurement
    assert a is not None and b is not None
    return (
        (one.layer.name, one.digest, a.numbers, a.folded, a.traps, a.farms_alpha, a.kurtosis, a.norm)
        == (other.layer.name, other.digest, b.numbers, b.folded, b.traps, b.farms_alpha, b.kurtosis, b.norm)
    ) and (
        np.array_equal(a.spectrum, b.spectrum)
        if a.spectrum is not None and b.spectrum is not None
        else a.spectrum is b.spectrum
    )


def test_small_and_big_layers_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, mixed())
    model = OpenModel(open_model(path), str(path))
    planned = [layer.name for layer in (*model.plan.vectors, *model.plan.layers)]
    model.close()
    assert [one.layer.name for one in measured(path)] == planned


def test_the_same_bytes_give_the_same_numbers_to_the_last_digit(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, mixed())
    first = measured(path)
    for _ in range(3):
        again = measured(path)
        assert all(same(one, other) for one, other in zip(first, again, strict=True))


def test_a_layer_measured_beside_others_has_the_numbers_it_has_alone(tmp_path: Path) -> None:
    together, alone = tmp_path / "model.safetensors", tmp_path / "alone.safetensors"
    write_safetensors(together, mixed())
    for found in measured(together):
        write_safetensors(alone, {found.layer.tensor: mixed()[found.layer.tensor]})
        (single,) = measured(alone)
        assert same(found, single)


def test_equal_tensors_are_measured_once(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    values = mixed()["small0.weight"]
    write_safetensors(path, {"a.weight": values, "b.weight": values, "c.weight": values})
    known: set[str] = set()
    model = OpenModel(open_model(path), str(path))
    found = []
    for one in measure_layers(model, known.__contains__):
        found.append(one)
        if one.measurement is not None:
            known.add(one.measurement.digest)
    model.close()
    assert [one.measurement is not None for one in found] == [True, False, False]
    assert len({one.digest for one in found}) == 1


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.mark.usefixtures("four_threads")
def test_the_callers_number_of_threads_is_left_as_it_was_and_so_is_that_of_its_later_threads(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {name: values for name, values in mixed().items() if name.startswith("small")})
    measured(path)
    assert (torch.get_num_threads(), threads_of_a_new_thread()) == (4, 4)


@pytest.mark.usefixtures("four_threads")
def test_the_number_of_threads_is_as_before_when_measuring_is_broken_off(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, mixed())
    model = OpenModel(open_model(path), str(path))
    layers = measure_layers(model, lambda digest: False)
    next(layers)
    layers.close()  # type: ignore[attr-defined]
    model.close()
    assert (torch.get_num_threads(), threads_of_a_new_thread()) == (4, 4)


def test_a_thread_of_the_pool_stays_alone_whatever_another_thread_sets_meanwhile() -> None:
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1, initializer=use_threads, initargs=(1,)) as pool:
        pool.submit(int).result()
        torch.set_num_threads(3)
        assert pool.submit(torch.get_num_threads).result() == 1
    torch.set_num_threads(before)


def test_bytes_that_no_solver_can_undo_are_a_problem_of_every_layer_that_has_them(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    values = mixed()["later0.weight"]
    write_safetensors(path, {"a.weight": values, "b.weight": values, "c.bias": values[0]})
    model = OpenModel(open_model(path), str(path))
    answer = torch.linalg.eigvalsh
    # No matrix is known on which MKL's solver fails; it documents that it may.
    torch.linalg.eigvalsh = failing_solver
    try:
        found = {one.layer.name: one for one in measure_layers(model, lambda digest: False)}
    finally:
        torch.linalg.eigvalsh = answer
        model.close()
    for name in ("a", "b"):
        problem = found[name].problem
        assert problem is not None and found[name].digest is None
        assert (problem.reason, problem.tensor) == (UnreadableReason.NO_CONVERGENCE, f"{name}.weight")
    assert found["c.bias"].problem is None


def failing_solver(matrix: torch.Tensor, **_: object) -> torch.Tensor:
    # Long enough for the second layer of the same bytes to be read meanwhile.
    sleep(0.2)
    raise torch.linalg.LinAlgError("the algorithm failed to converge")  # type: ignore[attr-defined]


def test_the_shuffled_spectrum_is_taken_only_when_asked_for_and_has_the_norm_of_the_layer(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.safetensors"
    random = np.random.default_rng(5)
    # Rank one: shuffling spreads a spectrum that was a single value.
    weights = np.outer(random.standard_normal(90), random.standard_normal(80)).astype(np.float32)
    write_safetensors(path, {"fc.weight": weights})
    (plain,) = measured(path)
    (shuffled,) = measured(path, MeasureOptions(shuffled=True))
    assert plain.measurement is not None and shuffled.measurement is not None
    assert plain.measurement.shuffled_spectrum is None
    found = shuffled.measurement.shuffled_spectrum
    assert found is not None
    assert float(found.sum()) == pytest.approx(float(np.square(weights.astype(np.float64)).sum()), rel=1e-5)
    assert np.count_nonzero(found > 1e-3 * found[-1]) > 40


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_asked_for_and_missing_is_told_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"fc.weight": mixed()["small0.weight"]})
    with pytest.raises(UnreadableError, match="finds no GPU") as refused:
        measured(path, MeasureOptions(device=Device.CUDA))
    assert refused.value.reason is UnreadableReason.NO_DEVICE
