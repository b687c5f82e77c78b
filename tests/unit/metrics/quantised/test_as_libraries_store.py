"""Every scheme against the library that owns it: what it stores and what it restores.

Files and the script that made them: ``tests/_data/quantised`` (bitsandbytes 0.50.2, compressed-tensors 0.20.0,
transformers 5.23.0, AutoAWQ 0.2.9, AutoGPTQ 0.7.1, MLX 0.32.4, torchao 0.18.0).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerwatch.metrics.quantised.schemes import check, find_quantised, load
from layerwatch.metrics.readers.detect import open_model

FILES = Path(__file__).parents[3] / "_data" / "quantised"

SCHEMES = {
    "awq-4bit": "awq",
    "bitsandbytes-fp4": "bitsandbytes-fp4",
    "bitsandbytes-fp4-nested": "bitsandbytes-fp4",
    "bitsandbytes-int8": "bitsandbytes-int8",
    "bitsandbytes-nf4": "bitsandbytes-nf4",
    "bitsandbytes-nf4-nested": "bitsandbytes-nf4",
    "fp8-block": "float-quantized",
    "fp8-block-inv": "float-quantized",
    "fp8-channel": "float-quantized",
    "fp8-tensor": "float-quantized",
    "gptq-2bit": "gptq",
    "gptq-3bit": "gptq",
    "gptq-4bit-activation-order": "gptq",
    "gptq-4bit-symmetric": "gptq",
    "gptq-8bit": "gptq",
    "int-channel": "int-quantized",
    "int-channel-asymmetric": "int-quantized",
    **{f"mlx-{bits}bit": "mlx" for bits in (1, 2, 3, 4, 5, 6, 8)},
    "mlx-3bit-wide": "mlx",
    "mlx-4bit-half": "mlx",
    "mlx-experts": "mlx",
    "mlx-mxfp4": "mlx-mxfp4",
    "mlx-mxfp8": "mlx-mxfp8",
    "mlx-nvfp4": "mlx-nvfp4",
    "mxfp4": "mxfp4-pack-quantized",
    "mxfp4-experts": "mxfp4-experts",
    "mxfp8": "mxfp8-quantized",
    "nvfp4": "nvfp4-pack-quantized",
    "pack-3bit-group": "pack-quantized",
    "pack-4bit-group": "pack-quantized",
    "pack-4bit-group-asymmetric": "pack-quantized",
    "pack-8bit-channel": "pack-quantized",
    "torchao-float8": "torchao-float8",
    "torchao-int4": "torchao-int4",
    "torchao-int8": "torchao-int8",
    "torchao-intx3-asymmetric": "torchao-int8",
    "torchao-intx4": "torchao-int8",
}

# MLX's words and scales alone fit several widths.
MLX: dict[str, Any] = {"bits": 4, "group_size": 64}
CONFIGS: dict[str, dict[str, Any]] = {
    "mlx-3bit-wide": {"quantization": {**MLX, "fc": {"bits": 3, "group_size": 128}}},
    "mlx-4bit-half": {"quantization_config": {"bits": 4, "group_size": 32}},
    "mlx-experts": {"quantization": {"bits": 4, "group_size": 32}},
    "mlx-mxfp4": {"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}},
    **{
        f"mlx-{bits}bit": {"quantization": {"bits": bits, "group_size": 64, "mode": "affine"}}
        for bits in (1, 2, 3, 4, 6, 8)
    },
}

ROUNDED = {
    # SCB / 127 by bitsandbytes is SCB * (1 / 127): one rounding more.
    "bitsandbytes-int8": 2.0**-22,
    # compressed-tensors restores NVFP4 as bfloat16: 8 bits of fraction, rounded three times.
    "nvfp4": 3 * 2.0**-9,
}

FUSED = 2.0**-24
"""MLX rounds products and sums once, as some of its kernels do: in units of the largest value."""


def test_there_is_a_file_for_each_of_these() -> None:
    assert {path.stem for path in FILES.glob("*.safetensors")} == SCHEMES.keys()


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_a_layer_is_restored_as_its_library_restores_it(name: str) -> None:
    path = FILES / f"{name}.safetensors"
    model = open_model(path)
    tensors = {one.name: (one.shape, one.dtype) for one in model.tensors() if one.name != "expected"}
    expected = model.load("expected")

    config = CONFIGS.get(name)

    (layer,) = find_quantised(tensors, config, model.load)
    found = load(layer, model.load, str(path))

    assert layer.scheme == SCHEMES[name]
    assert layer.name == ("experts.gate_up_proj" if name == "mxfp4-experts" else "fc")
    assert layer.shape == expected.shape == found.shape
    assert found.dtype == np.float32
    assert set(layer.parts.values()) == tensors.keys(), "every tensor of the layer is one of its parts"
    assert [*layer.remarks, *check(layer, model.load, config)] == []
    if layer.scheme == "mlx":
        assert np.all(np.abs(found - expected) <= FUSED * np.abs(expected).max())
    elif name in ROUNDED:
        assert np.all(np.abs(found - expected) <= ROUNDED[name] * np.abs(expected))
    else:
        assert np.array_equal(found, expected)
