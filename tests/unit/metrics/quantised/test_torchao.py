"""What torchao stores for kernels is told from what it stores plainly, and never measured as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.openmodel import open_layers
from quantisers import Stored
from storedlayers import kinds_of, the_layer, values_of

RANDOM = np.random.default_rng(4)
FLOAT8 = ml_dtypes.float8_e4m3fn


def subclass(name: str = "fc._weight_", **parts: Any) -> Stored:
    return {name + role: values for role, values in parts.items()}


def codes(*shape: int, low: int = -100, high: int = 100) -> Any:
    return RANDOM.integers(low, high, shape).astype(np.int8)


@pytest.mark.parametrize("scale", [(8, 1), (8, 4), (1, 1), ()])
def test_whole_numbers_are_scaled_per_row_per_group_or_at_once(scale: tuple[int, ...]) -> None:
    """``W = (q - zero_point) * scale``: ``dequantize_affine`` of torchao."""
    q, factors = codes(8, 100), RANDOM.uniform(0.1, 0.2, scale).astype(np.float32)
    zeros = codes(*scale, low=-5, high=5) if scale else np.int8(3).reshape(())
    stored = subclass(qdata=q, scale=factors, zero_point=np.asarray(zeros))

    found = values_of(stored)

    for row, column in [(0, 0), (3, 24), (3, 25), (7, 99)]:
        at = () if not scale else (row if scale[0] > 1 else 0, column * scale[1] // 100)
        expected = (float(q[row, column]) - float(np.asarray(zeros)[at])) * float(factors[at])
        assert found[row, column] == pytest.approx(expected, rel=1e-6)


def test_four_bits_are_sign_and_low_half_first() -> None:
    """``pack_int4`` and ``int4_row_quantize_zp`` of FBGEMM: ``q * scale + zero``, scales of shape (groups, out)."""
    packed = np.array([[0x7F, 0x08]], np.uint8).view(np.int8)
    stored = subclass(
        qdata=packed,
        scale=np.array([[2.0], [4.0]], np.float32),
        zero_point=np.array([[10.0], [100.0]], np.float32),
    )

    assert values_of(stored).tolist() == [[-1 * 2 + 10, 7 * 2 + 10, -8 * 4 + 100, 0 * 4 + 100]]
    assert the_layer(stored).group_size == 2


def test_experts_of_four_bits_are_read_each_on_its_own() -> None:
    one, two = codes(3, 8), codes(3, 8)
    scale = RANDOM.uniform(0.1, 0.2, (2, 4, 3)).astype(np.float32)
    zero = RANDOM.uniform(0.1, 0.2, (2, 4, 3)).astype(np.float32)

    found = values_of(
        subclass("mlp.experts._down_proj_", qdata=np.stack([one, two]), scale=scale, zero_point=zero)
    )

    alone = [
        subclass(qdata=q, scale=s, zero_point=z) for q, s, z in zip((one, two), scale, zero, strict=True)
    ]
    assert found.shape == (2, 3, 16)
    assert np.array_equal(found, np.stack([values_of(each) for each in alone]))


KERNELS: dict[str, Stored] = {
    "MXTensor": subclass(
        qdata=np.ones((32, 64), FLOAT8), scale=np.ones((32, 2)).astype(ml_dtypes.float8_e8m0fnu)
    ),
    "NVFP4Tensor": subclass(
        qdata=np.ones((32, 32), np.uint8),
        scale=np.ones((32, 4), FLOAT8),
        per_tensor_scale=np.ones((), np.float32),
    ),
    "Int4PlainInt32Tensor": subclass(
        qdata=np.ones((32, 8), np.int32),
        scale=np.ones((2, 32), np.float16),
        zero_point=np.ones((2, 32), np.int8),
    ),
    "Int4TilePackedTo4dTensor": subclass(
        qdata=np.ones((4, 1, 32, 4), np.int32), scale_and_zero=np.ones((2, 32, 2), np.float16)
    ),
    "inputs scaled before": subclass(
        qdata=codes(32, 64), scale=np.ones((32, 1), np.float32), act_pre_scale=np.ones(64, np.float32)
    ),
}


@pytest.mark.parametrize("kind", KERNELS)
def test_layouts_of_kernels_are_undecided_with_a_reason(tmp_path: Path, kind: str) -> None:
    safetensors.numpy.save_file(dict(KERNELS[kind]), tmp_path / "model.safetensors")

    model = open_layers(tmp_path)
    try:
        (layer,) = model.plan.layers
        with pytest.raises(UnreadableError, match="torchao") as caught:
            model.read(layer)
    finally:
        model.close()
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_TENSOR
    assert layer.name == "fc"


def test_a_missing_scale_is_named() -> None:
    stored = subclass(qdata=codes(8, 16))

    assert kinds_of(stored) == ["missing_part"]
    with pytest.raises(UnreadableError) as caught:
        values_of(stored)
    assert caught.value.reason is UnreadableReason.QUANTISED_WITHOUT_SCALE


@pytest.mark.parametrize(
    "scale", [np.ones((3, 1), np.float32), np.ones((8, 7), np.float32), np.ones((8, 0), np.float32)]
)
def test_a_scale_that_does_not_fit_is_a_remark_and_refused(scale: Any) -> None:
    stored = subclass(qdata=codes(8, 16), scale=scale)

    assert kinds_of(stored) == ["shapes"]
    with pytest.raises(UnreadableError):
        values_of(stored)


def test_names_are_those_of_the_parameters(tmp_path: Path) -> None:
    one, scale = codes(8, 16), np.ones((8, 1), np.float32)
    stored = subclass("model.up_proj._weight_", qdata=one, scale=scale)
    stored |= subclass("attention._in_proj_weight_", qdata=codes(24, 16), scale=np.ones((24, 1), np.float32))
    stored |= {"model.up_proj.bias": np.ones(8, np.float32)}
    safetensors.numpy.save_file(stored, tmp_path / "model.safetensors")

    model = open_layers(tmp_path)
    try:
        assert {layer.tensor: layer.shape for layer in model.plan.layers} == {
            "model.up_proj.weight": (8, 16),
            "attention.in_proj_weight": (24, 16),
        }
        assert [one.name for one in model.plan.vectors] == ["model.up_proj.bias"]
    finally:
        model.close()


def test_the_declared_method_is_compared() -> None:
    stored = subclass(qdata=codes(8, 16), scale=np.ones((8, 1), np.float32))

    assert kinds_of(stored, {"quantization_config": {"quant_method": "torchao"}}) == []
    assert kinds_of(stored, {"quantization_config": {"quant_method": "gptq"}}) == ["format"]
