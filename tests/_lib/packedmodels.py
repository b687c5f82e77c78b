"""A trained transformer with experts, stored as production registries hold it: packed, in shards, as GGUF.

Layers are packed by ``quantisers``; GGUF is written by the ``gguf`` package, which owns the format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import safetensors.numpy
from gguf import quants
from numpy.typing import NDArray

from quantisers import Stored, awq, fp8, gptq, int8, nf4, packed

Weights = dict[str, NDArray[np.float32]]
Pack = Callable[[NDArray[np.float32], str], Stored]

GROUP = 32
HEADS = 4


def hugging_face(state: Mapping[str, Any]) -> Weights:
    """The benchmark's ``mixture`` under the names of Hugging Face's Mixtral."""
    experts = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    found: Weights = {}
    for name, values in state.items():
        shown = name if name.startswith("lm_head") else f"model.{name}"
        shown = shown.replace(".mlp.", ".block_sparse_moe.")
        if ".experts." in shown:
            for here, there in experts.items():
                shown = shown.replace(here, there)
        found[shown] = np.asarray(values, np.float32)
    return found


def is_packed(name: str) -> bool:
    """Whether converters pack a tensor: linear layers but the router and the head."""
    return ("_proj." in name or ".experts." in name) and name.endswith(".weight")


def configuration(weights: Weights, quantised: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``config.json`` of the model, with what was done to it."""
    vocabulary, width = weights["model.embed_tokens.weight"].shape
    blocks = {name.split(".")[2] for name in weights if name.startswith("model.layers.")}
    experts = {name.split(".experts.")[1].split(".")[0] for name in weights if ".experts." in name}
    described: dict[str, Any] = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_hidden_layers": len(blocks),
        "num_local_experts": len(experts),
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "hidden_size": width,
        "vocab_size": vocabulary,
    }
    return described | ({"quantization_config": dict(quantised)} if quantised else {})


def packed_by(weights: Weights, pack: Pack, other: Mapping[str, Pack] | None = None) -> Stored:
    """Every linear layer packed, the rest in half precision.

    Args:
        pack: from (weight, name of the layer) to its tensors.
        other: another way for some layers, by name without ``.weight``.
    """
    stored: Stored = {}
    for name, values in weights.items():
        layer = name.removesuffix(".weight")
        if is_packed(name):
            stored |= (other or {}).get(layer, pack)(values, layer)
        else:
            stored[name] = values.astype(np.float16)
    return stored


def save(folder: Path, stored: Mapping[str, Any], config: Mapping[str, Any], shards: int = 1) -> Path:
    """Safetensors, in shards with an index where more than one is asked for, and ``config.json``."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    whole = {name: np.ascontiguousarray(values) for name, values in stored.items()}
    if shards == 1:
        safetensors.numpy.save_file(whole, folder / "model.safetensors")
        return folder
    names = list(whole)
    owners: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        held = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        safetensors.numpy.save_file({name: whole[name] for name in held}, folder / file)
        owners |= dict.fromkeys(held, file)
    index = {"metadata": {"total_size": sum(one.nbytes for one in whole.values())}, "weight_map": owners}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def save_gguf(
    folder: Path,
    weights: Weights,
    kind: gguf.GGMLQuantizationType,
    change: Callable[[str, NDArray[np.float32]], NDArray[np.float32]] = lambda name, values: values,
) -> Path:
    """As llama.cpp's converter writes Mixtral: its names, experts in one tensor, queries and keys permuted.

    Args:
        kind: how linear layers are stored; the rest is float32.
        change: of (name, values) of a tensor of llama.cpp, before it is quantised.
    """
    folder.mkdir(parents=True)
    vocabulary, width = weights["model.embed_tokens.weight"].shape
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    blocks = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("model.layers."))
    experts = 1 + max(
        int(name.split(".experts.")[1].split(".")[0]) for name in weights if ".experts." in name
    )
    writer.add_block_count(blocks)
    writer.add_embedding_length(width)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_vocab_size(vocabulary)
    writer.add_expert_count(experts)
    writer.add_expert_used_count(2)
    named = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, blocks)
    stacks: dict[str, list[NDArray[np.float32]]] = {}
    whole: dict[str, NDArray[np.float32]] = {}
    for name, values in weights.items():
        if ".experts." in name:
            before, _, after = name.partition(".experts.")
            stacks.setdefault(f"{before}.experts.{after.split('.')[1]}", []).append(values)
            continue
        shown = named.get_name(name, try_suffixes=(".weight",))
        assert shown is not None, name
        whole[shown] = _paired(values) if name.endswith(("q_proj.weight", "k_proj.weight")) else values
    for name, members in stacks.items():
        shown = named.get_name(f"{name}.weight", try_suffixes=(".weight",))
        assert shown is not None, name
        whole[shown] = np.stack(members)
    for name, values in whole.items():
        values = np.ascontiguousarray(change(name, values))
        linear = values.ndim > 1 and "embd" not in name and "inp" not in name and name != "output.weight"
        if linear and kind != gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def _paired(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows in llama.cpp's order: the two halves of a head take turns."""
    size = len(values) // HEADS
    order = [
        head * size + half * size // 2 + place
        for head in range(HEADS)
        for place in range(size // 2)
        for half in range(2)
    ]
    return values[order]


CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "gptq": {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": GROUP,
        "sym": True,
        "desc_act": False,
        "checkpoint_format": "gptq",
    },
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {
                    "num_bits": 4,
                    "type": "int",
                    "symmetric": True,
                    "strategy": "group",
                    "group_size": GROUP,
                },
            }
        },
        "ignore": ["lm_head", "re:.*block_sparse_moe.gate"],
    },
    "fp8": {"quant_method": "fp8", "weight_block_size": [GROUP, GROUP]},
    "bitsandbytes-int8": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "bitsandbytes-nf4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}
"""``quantization_config`` of each form."""

PACKERS: Mapping[str, Pack] = {
    "gptq": lambda values, name: gptq(values, group=GROUP, name=name)[0],
    "awq": lambda values, name: awq(values, group=GROUP, name=name)[0],
    "compressed-tensors": lambda values, name: packed(values, group=GROUP, name=name)[0],
    "fp8": lambda values, name: fp8(values, block=GROUP, name=name),
    "bitsandbytes-int8": lambda values, name: int8(values, name=name),
    "bitsandbytes-nf4": lambda values, name: nf4(values, name=name),
}
"""How a healthy converter packs a layer, by the same names."""
