"""What norms and spectrum of a layer tell about how it changed, without its weights; and whose weights it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.outline import OutlineChange, concentrations, outline_change
from layerwatch_testing.memoryreader import opened
from layerwatch_testing.models import examine_states

Values = NDArray[Any]


def trained(seed: int = 0, shape: tuple[int, ...] = (48, 48)) -> NDArray[np.float32]:
    """Rows and columns of unequal norm, as training leaves them."""
    generator = np.random.default_rng(seed)
    matrix = generator.standard_normal(shape)
    matrix *= np.exp(0.4 * generator.standard_normal((shape[0], *[1] * (len(shape) - 1))))
    matrix *= np.exp(0.2 * generator.standard_normal((1, shape[1], *[1] * (len(shape) - 2))))
    return matrix.astype(np.float32)


def measured(values: Values, batchnorm: Mapping[str, Values] | None = None) -> Measurement:
    name = "conv.weight" if batchnorm else "fc.weight"
    found = [
        one.measurement
        for one in measure_layers(opened({name: values, **(batchnorm or {})}), lambda digest: False)
        if one.layer.tensor == name
    ]
    assert found[0] is not None
    return found[0]


def outlined(new: Values, old: Values, batchnorm: Mapping[str, Values] | None = None) -> OutlineChange:
    found = outline_change(measured(new, batchnorm), measured(old, batchnorm))
    assert found is not None
    return found


def test_a_permutation_keeps_norms_as_a_set() -> None:
    old = trained()

    found = outlined(old[np.random.default_rng(1).permutation(48)], old)

    assert found.rows > 0.2
    assert found.columns == found.sorted_columns == pytest.approx(0, abs=1e-6)
    assert found.sorted_rows == pytest.approx(0, abs=1e-6)
    assert found.spectrum == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("shape", [(48, 48), (24, 24, 3, 3)])
def test_a_transpose_exchanges_the_norms(shape: tuple[int, ...]) -> None:
    old = trained(shape=shape)

    found = outlined(np.ascontiguousarray(old.swapaxes(0, 1)), old)

    assert found.exchanged == pytest.approx(0, abs=1e-5)
    assert min(found.rows, found.sorted_rows) > 0.05


def test_flipped_signs_keep_everything_in_place() -> None:
    old = trained()
    new = old.copy()
    new[::3] *= -1

    found = outlined(new, old)

    assert max(found.rows, found.columns, found.spectrum) == pytest.approx(0, abs=1e-4)
    assert outlined(trained(1), old).sorted_rows > 0.02


def test_norms_are_exchanged_only_between_equal_sides() -> None:
    assert outlined(trained(1, (48, 40)), trained(0, (48, 40))).exchanged is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.1, 0.5]))
def test_nothing_sorted_moves_further_than_the_update_itself(seed: int, size: float) -> None:
    old = trained(seed)
    update = np.random.default_rng(seed + 1).standard_normal(old.shape)
    new = (old + size * update).astype(np.float32)
    relative = float(np.linalg.norm(new - old) / np.linalg.norm(old))

    found = outlined(new, old)

    # Mirsky's theorem for singular values, the triangle inequality for norms.
    slack = 1.0001 * relative + 1e-5
    assert max(found.rows, found.columns, found.spectrum) <= slack
    assert found.sorted_rows <= found.rows + 1e-6
    assert found.sorted_columns <= found.columns + 1e-6


def batchnorm(seed: int) -> dict[str, Values]:
    generator = np.random.default_rng(seed)
    return {
        "bn.weight": np.exp(0.7 * generator.standard_normal(24)).astype(np.float32),
        "bn.bias": np.zeros(24, np.float32),
        "bn.running_mean": np.zeros(24, np.float32),
        "bn.running_var": np.ones(24, np.float32),
    }


def test_under_a_batch_norm_a_permuted_row_has_another_factor_but_the_raw_rows_are_as_unequal_as_before() -> (
    None
):
    old = trained(shape=(24, 24, 3, 3))
    gains = batchnorm(3)

    permuted = outlined(old[::-1].copy(), old, gains)
    turned = outlined(np.ascontiguousarray(old.swapaxes(0, 1)), old, gains)

    assert permuted.folded
    assert permuted.exchanged is None
    assert permuted.sorted_rows > 0.02
    assert permuted.concentrations == pytest.approx(0, abs=1e-9)
    assert turned.exchanged_concentrations == pytest.approx(0, abs=1e-9)
    assert turned.concentrations is not None
    assert turned.concentrations > 0.01
    assert permuted.spectrum == turned.spectrum == pytest.approx(0, abs=1e-4)


def test_concentrations_are_shares_of_fourth_powers() -> None:
    # Row norms squared 25, 0; channel norms squared 9, 16.
    rows, channels = concentrations(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert (rows, channels) == (1.0, (81 + 256) / 625)
    assert concentrations(np.zeros((2, 2))) == (None, None)


def test_a_layer_of_other_size_or_without_arrays_has_no_outline() -> None:
    bare = Measurement("d", measured(trained()).kind, (48, 48), "F32", 0, 1.0, 1.0, 0.0)

    assert outline_change(bare, measured(trained())) is None


@pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])
def test_layers_that_changed_places_resemble_each_other(tmp_path: Path, exact: bool) -> None:
    old = {f"fc{number}.weight": trained(number) for number in range(6)}
    new = {**old, "fc1.weight": old["fc4.weight"], "fc4.weight": old["fc1.weight"]}

    found = examine_states(tmp_path, new, old, exact)

    resembling = {layer.name: layer.resembles for layer in found.layers if layer.resembles is not None}
    assert {name: one.layer for name, one in resembling.items()} == {"fc1": "fc4", "fc4": "fc1"}
    assert all(one.cosine == pytest.approx(1.0, abs=1e-6) for one in resembling.values())


def test_a_new_layer_resembles_nothing_and_after_a_retrain_nothing_is_looked_for(tmp_path: Path) -> None:
    old = {f"fc{number}.weight": trained(number) for number in range(6)}
    fresh = {f"fc{number}.weight": trained(number + 1) for number in range(6)}

    one = examine_states(tmp_path, {**old, "fc1.weight": trained(99)}, old)
    every = examine_states(tmp_path, fresh, old)

    assert [layer.resembles for layer in (*one.layers, *every.layers)] == [None] * 12
