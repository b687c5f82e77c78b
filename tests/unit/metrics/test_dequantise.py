"""Stored numbers to float, or a reason why not."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.metrics.dequantise import as_float
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.layers import Layer
from layerwatch.metrics.measurement import LayerKind

VALUES = np.random.default_rng(1).standard_normal((12, 8))


def layer(dtype: str, scale: str | None = None, shape: tuple[int, ...] = (12, 8)) -> Layer:
    return Layer("fc", "fc.weight", LayerKind.LINEAR, shape, dtype, scale=scale)


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("F32", np.float32),
        ("F16", np.float16),
        ("BF16", ml_dtypes.bfloat16),
        ("F8_E4M3", ml_dtypes.float8_e4m3fn),
        ("F8_E5M2", ml_dtypes.float8_e5m2),
    ],
)
def test_floats_become_float32_without_losing_a_digit(dtype: str, stored: type) -> None:
    values: NDArray[Any] = VALUES.astype(stored)

    found = as_float(layer(dtype), values, None, "m")

    assert found.dtype == np.float32
    assert np.array_equal(found.astype(np.float64), values.astype(np.float64))


def test_float64_stays_float64() -> None:
    assert as_float(layer("F64"), VALUES, None, "m") is VALUES


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (12,), (12, 1)])
def test_integers_are_multiplied_with_their_scale(shape: tuple[int, ...]) -> None:
    scale = np.full(shape, 0.25, dtype=np.float32) * (1 + np.arange(np.prod(shape, dtype=int)).reshape(shape))
    stored = np.round(VALUES * 40).astype(np.int8)

    found = as_float(layer("I8", "fc.weight_scale"), stored, scale.astype(np.float32), "m")

    rows = np.broadcast_to(scale.reshape(-1, 1), (12, 1))
    assert found.dtype == np.float32
    assert found == pytest.approx(stored * rows)


def test_a_scale_per_output_row_reaches_the_rows_of_a_convolution() -> None:
    stored = np.ones((4, 3, 2, 2), dtype=np.int8)
    scale = np.array([1.0, 2.0, 3.0, 4.0], dtype=ml_dtypes.bfloat16)

    found = as_float(layer("I8", "s", (4, 3, 2, 2)), stored, scale, "m")

    assert [float(row.min()) for row in found] == [float(row.max()) for row in found] == [1, 2, 3, 4]


def test_fp8_with_a_scale_is_scaled() -> None:
    stored = VALUES.astype(ml_dtypes.float8_e4m3fn)

    found = as_float(layer("F8_E4M3", "s"), stored, np.array(0.5, dtype=np.float32), "m")

    assert np.array_equal(found, stored.astype(np.float32) * np.float32(0.5))


def refused(dtype: str, stored: NDArray[Any], scale: NDArray[Any] | None) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        as_float(layer(dtype, "s" if scale is not None else None), stored, scale, "model.safetensors")
    assert caught.value.path == "model.safetensors"
    assert caught.value.tensor == "fc.weight"
    return caught.value


@pytest.mark.parametrize("dtype", ["I8", "U8", "I32"])
def test_integers_without_a_scale_are_refused(dtype: str) -> None:
    error = refused(dtype, np.ones((12, 8), dtype=np.int8), None)

    assert error.reason is UnreadableReason.QUANTISED_WITHOUT_SCALE
    assert "fc.weight_scale" in str(error)
    assert dtype in str(error)


@pytest.mark.parametrize("shape", [(8,), (12, 2), (2, 2), (0,)])
def test_a_scale_of_another_layout_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    error = refused("I8", np.ones((12, 8), dtype=np.int8), np.ones(shape, dtype=np.float32))

    assert error.reason is UnreadableReason.UNSUPPORTED_TENSOR
    assert str(shape) in str(error)


def test_complex_weights_are_refused() -> None:
    error = refused("C64", np.ones((12, 8), dtype=np.complex64), None)

    assert error.reason is UnreadableReason.UNSUPPORTED_DTYPE


def test_unsigned_integers_are_refused_even_with_a_scale_because_their_zero_point_is_unknown() -> None:
    error = refused("U8", np.ones((12, 8), dtype=np.uint8), np.ones(12, dtype=np.float32))

    assert error.reason is UnreadableReason.UNSUPPORTED_TENSOR
    assert "zero point" in str(error)
