"""Scales beside quantised weights: found under both names, and never ignored."""

from __future__ import annotations

import numpy as np
import pytest

from layerwatch.metrics.dequantise import as_float
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.layers import plan_layers
from layerwatch.metrics.tensors import TensorInfo


@pytest.mark.parametrize("suffix", ["_scale", "_scale_inv"])
def test_a_scale_is_tied_to_its_weight_under_either_name(suffix: str) -> None:
    plan = plan_layers(
        [
            TensorInfo("fc.weight", (4, 8), "F8_E4M3", 32),
            TensorInfo(f"fc.weight{suffix}", (4, 1), "F32", 16),
        ]
    )
    assert [(layer.name, layer.scale) for layer in plan.layers] == [("fc", f"fc.weight{suffix}")]
    assert [one.name for one in plan.skipped] == [f"fc.weight{suffix}"]


def test_block_scales_are_refused_and_not_left_out_of_the_measurement() -> None:
    """128 x 128 blocks, the layout of DeepSeek's FP8 checkpoints (``weight_scale_inv``)."""
    plan = plan_layers(
        [
            TensorInfo("fc.weight", (256, 256), "F8_E4M3", 65536),
            TensorInfo("fc.weight_scale_inv", (2, 2), "F32", 16),
        ]
    )
    (layer,) = plan.layers
    with pytest.raises(UnreadableError) as caught:
        as_float(layer, np.ones((256, 256), np.float32), np.ones((2, 2), np.float32), "model.safetensors")
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_TENSOR
