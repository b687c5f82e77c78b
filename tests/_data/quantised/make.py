"""Writes the files beside it: layers as the libraries that own the formats store and restore them.

    pip install bitsandbytes==0.50.2 compressed-tensors==0.20.0 transformers==5.23.0 accelerate autoawq==0.2.9 \\
        auto-gptq==0.7.1 "mlx[cpu]==0.32.4" torchao==0.18.0
    python tests/_data/quantised/make.py

Each file holds the tensors of one layer under the names that the library gives them, and ``expected``, what the library
restores from them. ``weight`` before quantisation is drawn from a Student distribution with a fixed seed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import safetensors.torch
import torch

HERE = Path(__file__).parent


def original(rows: int = 32, columns: int = 64, seed: int = 0) -> torch.Tensor:
    """The layer before quantisation, shape (rows, columns), float32."""
    values = np.random.default_rng(seed).standard_t(4, (rows, columns)) * 0.02
    return torch.from_numpy(values.astype(np.float32))


def without_init(name: str) -> Any:
    """One module of a package whose other modules need a GPU or what is not installed."""
    top, *between = name.split(".")[:-1]
    for entry in sys.path:
        if (Path(entry) / top).is_dir():
            place = Path(entry) / top
            for one in ("", *between):
                place = place / one
                full = ".".join([top, *place.relative_to(Path(entry) / top).parts])
                if full not in sys.modules:
                    package = ModuleType(full)
                    package.__path__ = [str(place)]
                    sys.modules[full] = package
            break
    return import_module(name)


def bitsandbytes_int8() -> dict[str, torch.Tensor]:
    functional = import_module("bitsandbytes.functional")
    codes, scb, _ = functional.int8_vectorwise_quant(original().half())
    expected = functional.int8_vectorwise_dequant(codes, scb)
    kept = torch.tensor(0, dtype=torch.uint8)
    return {"fc.weight": codes, "fc.SCB": scb, "fc.weight_format": kept, "expected": expected.float()}


def bitsandbytes_4bit(kind: str, nested: bool) -> dict[str, torch.Tensor]:
    """Rows of 80 are no whole number of blocks of 64.

    Restored by the library's generic implementation: its kernel for CPUs counts blocks anew in every row, which neither
    its quantiser nor its other kernels do.
    """
    functional = import_module("bitsandbytes.functional")
    generic = import_module("bitsandbytes.backends.default.ops")
    weight, state = functional.quantize_4bit(
        original(40, 80), blocksize=64, compress_statistics=nested, quant_type=kind
    )
    absmax = state.absmax
    if nested:
        absmax = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    expected = generic._dequantize_4bit_compute(
        weight.reshape(-1), absmax, state.code, 64, state.shape, torch.float32
    )
    stored = {"fc.weight." + key: value for key, value in state.as_dict(packed=True).items()}
    return {"fc.weight": weight, **stored, "expected": expected}


def compressed(
    name: str, weights: Mapping[str, Any], *, shape: tuple[int, int] = (32, 64)
) -> dict[str, torch.Tensor]:
    quantisation = import_module("compressed_tensors.quantization")
    helpers = import_module("compressed_tensors.quantization.utils.helpers")
    compressors = import_module("compressed_tensors.compressors")
    arguments = quantisation.QuantizationArgs(**weights)
    scheme = quantisation.QuantizationScheme(targets=["Linear"], weights=arguments)
    weight = original(*shape)
    state: dict[str, torch.Tensor] = {"weight": weight}
    overall = None
    if name == "nvfp4-pack-quantized":
        overall = helpers.generate_gparam(weight.min(), weight.max())
        state["weight_global_scale"] = overall
    low, high = _ranges(weight, arguments)
    scale, zero = helpers.calculate_qparams(low, high, arguments, global_scale=overall)
    state["weight_scale"] = scale
    if not arguments.symmetric:
        state["weight_zero_point"] = zero
    compressor = compressors.BaseCompressor.get_value_from_registry(name)
    stored = compressor.compress(dict(state), scheme)
    expected = compressor.decompress(dict(stored), scheme)["weight"].float()
    return {**{"fc." + key: value for key, value in stored.items()}, "expected": expected}


def _ranges(weight: torch.Tensor, arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    strategy = str(getattr(arguments.strategy, "value", arguments.strategy))
    rows, columns = weight.shape
    if strategy == "tensor":
        return weight.min().reshape(1), weight.max().reshape(1)
    if strategy == "channel":
        return weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    if strategy == "block":
        height, width = arguments.block_structure
        blocks = weight.reshape(rows // height, height, columns // width, width)
        return blocks.amin((1, 3)), blocks.amax((1, 3))
    groups = weight.reshape(rows, -1, arguments.group_size)
    return groups.amin(2), groups.amax(2)


def gptq(bits: int, *, symmetric: bool = False, ordered: bool = True) -> dict[str, torch.Tensor]:
    """Packed and restored by AutoGPTQ: version 1 of the format.

    The quantiser is the plain one, as in the library before error is fed back.
    """
    weight = original()
    size = 16
    group_of = torch.arange(64) // size
    if not ordered:
        group_of = group_of[torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    most = 2**bits - 1
    scales, zeros = torch.empty(32, 4), torch.empty(32, 4)
    for group in range(4):
        part = weight[:, group_of == group]
        low, high = part.amin(1), part.amax(1)
        if symmetric:
            high = torch.maximum(high, -low)
            low = -high
        scales[:, group] = ((high - low) / most).half().float()
        zeros[:, group] = (most + 1) / 2 if symmetric else torch.round(-low / scales[:, group])
    # Codes beyond the range, and zero points of 0, spill over into the numbers beside them in this packer.
    zeros = zeros.clamp(1, most)
    by_input, shift = scales[:, group_of], zeros[:, group_of]
    linear = torch.nn.Linear(64, 32, bias=False)
    linear.weight.data = (torch.clamp(torch.round(weight / by_input) + shift, 0, most) - shift) * by_input
    module = without_init("auto_gptq.nn_modules.qlinear.qlinear_cuda")
    kernel = module.QuantLinear(bits, size, 64, 32, False, weight_dtype=torch.float32)
    kernel.pack(linear, scales, zeros, group_of.to(torch.int32))
    stored = {key: getattr(kernel, key) for key in ("qweight", "qzeros", "g_idx")}
    expected = kernel(torch.eye(64)).T
    return {
        **{"fc." + key: value for key, value in stored.items()},
        "fc.scales": scales.T.half(),
        "expected": expected,
    }


def awq() -> dict[str, torch.Tensor]:
    gemm = without_init("awq.modules.linear.gemm")
    packing = without_init("awq.utils.packing_utils")
    weight = original()
    groups = weight.reshape(32, 4, 16)
    low, high = groups.amin(2), groups.amax(2)
    scales = ((high - low) / 15).half().float()
    zeros = (-torch.round(low / scales)).clamp(0, 15)
    linear = torch.nn.Linear(64, 32, bias=False)
    linear.weight.data = weight
    layer = gemm.WQLinear_GEMM.from_linear(
        linear, 4, 16, scales=scales.T.contiguous(), zeros=zeros.T.contiguous()
    )
    expected = packing.dequantize_gemm(layer.qweight, layer.qzeros, layer.scales.float(), 4, 16).T
    stored = {key: getattr(layer, key) for key in ("qweight", "qzeros", "scales")}
    return {**{"fc." + key: value for key, value in stored.items()}, "expected": expected}


def mxfp4_experts() -> dict[str, torch.Tensor]:
    mxfp4 = import_module("transformers.integrations.mxfp4")
    random = np.random.default_rng(5)
    blocks = torch.from_numpy(random.integers(0, 256, (3, 24, 2, 16), dtype=np.uint8))
    scales = torch.from_numpy(random.integers(110, 126, (3, 24, 2), dtype=np.uint8))
    restored = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    expected = restored.transpose(1, 2).contiguous()
    return {
        "experts.gate_up_proj_blocks": blocks,
        "experts.gate_up_proj_scales": scales,
        "expected": expected,
    }


def fp8_blocks() -> dict[str, torch.Tensor]:
    converter = import_module("compressed_tensors.entrypoints.convert.converters.fp8block_dequantizer")
    weight = original(140, 150)
    padded = torch.zeros(256, 256)
    padded[:140, :150] = weight
    blocks = padded.reshape(2, 128, 2, 128)
    scale = blocks.abs().amax((1, 3)) / 448.0
    stored = (
        (blocks / scale[:, None, :, None]).reshape(256, 256)[:140, :150].to(torch.float8_e4m3fn).contiguous()
    )
    made = converter.FP8BlockDequantizer(dtype=torch.float32)
    expected = made._create_dequantized_weight(stored, scale)
    return {"fc.weight": stored, "fc.weight_scale_inv": scale, "expected": expected}


def mlx(bits: int, group_size: int, **options: Any) -> dict[str, torch.Tensor]:
    """Restored from scales as float32, so that nothing is rounded but products and sums."""
    core = import_module("mlx.core")
    weight = core.array(original(*options.pop("shape", (32, 128))).numpy())
    half = options.pop("half", False)
    stored = core.quantize(weight.astype(core.float16) if half else weight, group_size, bits, **options)
    words, scales, *biases = stored
    wide = [scales.astype(core.float32) if biases else scales, *(one.astype(core.float32) for one in biases)]
    expected = core.dequantize(words, *wide, group_size=group_size, bits=bits, dtype=core.float32, **options)
    names = ("fc.weight", "fc.scales", "fc.biases")
    tensors = {
        name: torch.from_numpy(np.array(one))
        for name, one in zip(names, (words, scales, *biases), strict=False)
    }
    return {**tensors, "expected": torch.from_numpy(np.array(expected))}


def mlx_experts() -> dict[str, torch.Tensor]:
    one, other = mlx(4, 32, shape=(16, 64)), mlx(4, 32, shape=(24, 64))
    return {name: torch.stack([one[name], other[name][8:]]) for name in one}


def torchao(name: str, **options: Any) -> dict[str, torch.Tensor]:
    quantization = import_module("torchao.quantization")
    support = import_module("torchao.prototype.safetensors.safetensors_support")
    module = torch.nn.Module()
    module.fc = torch.nn.Linear(128, 32, bias=False)
    module.fc.weight.data = original(32, 128)
    quantization.quantize_(module, getattr(quantization, name)(**options))
    stored, _ = support.flatten_tensor_state_dict({"fc.weight": module.fc.weight.data})
    return {**stored, "expected": module.fc.weight.dequantize()}


def torchao_int4() -> dict[str, torch.Tensor]:
    """By ``int4_row_quantize_zp`` and ``pack_int4`` of FBGEMM, without which torchao makes no ``Int4Tensor``.

    Restored by torchao's primitive for zero points that are floating numbers.
    """
    primitives = import_module("torchao.quantization.quant_primitives")
    groups = original(32, 128).reshape(-1, 32)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    scale = (high - low) / 15
    zero = low + scale * 8
    codes = ((groups - low).div(scale).round().clamp(0, 15) - 8).to(torch.int8).reshape(32, 128)
    scale, zero = (one.reshape(32, 4) for one in (scale, zero))
    expected = primitives._dequantize_affine_tinygemm(
        codes + 8, [1, 32], scale, zero, torch.int8, 0, 15, output_dtype=torch.float32
    )
    return {
        "fc._weight_qdata": (codes[:, ::2] & 0xF) | (codes[:, 1::2] << 4),
        "fc._weight_scale": scale.T,
        "fc._weight_zero_point": zero.T,
        "expected": expected,
    }


def torchao_grouped(bits: int, *, symmetric: bool = True) -> dict[str, torch.Tensor]:
    quantization = import_module("torchao.quantization")
    granularity = import_module("torchao.quantization.granularity")
    kind = quantization.MappingType
    return torchao(
        "IntxWeightOnlyConfig",
        weight_dtype=getattr(torch, f"int{bits}"),
        granularity=granularity.PerGroup(32),
        mapping_type=kind.SYMMETRIC if symmetric else kind.ASYMMETRIC,
    )


CASES: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
    "bitsandbytes-int8": bitsandbytes_int8,
    **{
        f"bitsandbytes-{kind}{'-nested' if nested else ''}": partial(bitsandbytes_4bit, kind, nested)
        for kind in ("nf4", "fp4")
        for nested in (False, True)
    },
    "pack-4bit-group": lambda: compressed(
        "pack-quantized", {"num_bits": 4, "group_size": 32, "strategy": "group"}
    ),
    "pack-4bit-group-asymmetric": lambda: compressed(
        "pack-quantized", {"num_bits": 4, "group_size": 32, "strategy": "group", "symmetric": False}
    ),
    "pack-8bit-channel": lambda: compressed("pack-quantized", {"num_bits": 8, "strategy": "channel"}),
    "pack-3bit-group": lambda: compressed(
        "pack-quantized", {"num_bits": 3, "group_size": 20, "strategy": "group"}, shape=(24, 100)
    ),
    "int-channel": lambda: compressed("int-quantized", {"num_bits": 8, "strategy": "channel"}),
    "int-channel-asymmetric": lambda: compressed(
        "int-quantized", {"num_bits": 8, "strategy": "channel", "symmetric": False}
    ),
    "fp8-tensor": lambda: compressed(
        "float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}
    ),
    "fp8-channel": lambda: compressed(
        "float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}
    ),
    "fp8-block": lambda: compressed(
        "float-quantized", {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [16, 32]}
    ),
    "fp8-block-inv": fp8_blocks,
    "nvfp4": lambda: compressed(
        "nvfp4-pack-quantized", {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
    ),
    "mxfp4": lambda: compressed(
        "mxfp4-pack-quantized",
        {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "scale_dtype": torch.uint8},
    ),
    "mxfp8": lambda: compressed(
        "mxfp8-quantized",
        {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 32, "scale_dtype": torch.uint8},
    ),
    "mxfp4-experts": mxfp4_experts,
    "awq-4bit": awq,
    "gptq-2bit": lambda: gptq(2),
    "gptq-3bit": lambda: gptq(3),
    "gptq-4bit-symmetric": lambda: gptq(4, symmetric=True),
    "gptq-4bit-activation-order": lambda: gptq(4, ordered=False),
    "gptq-8bit": lambda: gptq(8),
    **{f"mlx-{bits}bit": partial(mlx, bits, 64) for bits in (1, 2, 3, 4, 5, 6, 8)},
    "mlx-4bit-half": lambda: mlx(4, 32, half=True),
    "mlx-3bit-wide": lambda: mlx(3, 128),
    "mlx-experts": mlx_experts,
    "mlx-mxfp4": lambda: mlx(4, 32, mode="mxfp4"),
    "mlx-mxfp8": lambda: mlx(8, 32, mode="mxfp8"),
    "mlx-nvfp4": lambda: mlx(4, 16, mode="nvfp4"),
    "torchao-int8": lambda: torchao("Int8WeightOnlyConfig", version=2),
    "torchao-float8": lambda: torchao("Float8WeightOnlyConfig"),
    "torchao-intx4": lambda: torchao_grouped(4),
    "torchao-intx3-asymmetric": lambda: torchao_grouped(3, symmetric=False),
    "torchao-int4": torchao_int4,
}


def main() -> None:
    for name in sys.argv[1:] or CASES:
        tensors = {key: value.detach().contiguous().clone() for key, value in CASES[name]().items()}
        safetensors.torch.save_file(tensors, HERE / f"{name}.safetensors")


if __name__ == "__main__":
    main()
