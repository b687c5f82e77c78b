"""GGUF names of tensors to those of the Hugging Face model they were converted from.

llama.cpp gives every architecture the same short names (``blk.3.attn_q.weight``); which module of transformers each
came from depends on ``general.architecture``. Names of architectures that are not in the tables stay as they are. The
experts of a block, which GGUF keeps in one tensor, get one name here and are taken apart by ``expertstacks.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from layerwatch.metrics.architecture.arrangement import Group, Part, Tensors
from layerwatch.metrics.architecture.facts import Facts

Names = dict[str, str]
"""From the GGUF name, without number and suffix, to that of transformers; ``{}`` stands for the block's number."""

_IN_BLOCK = re.compile(
    r"^blk\.(?P<block>0|[1-9][0-9]{0,5})\.(?P<rest>[a-z][a-z0-9_]*)(\.(?P<expert>0|[1-9][0-9]{0,5}))?\.(?P<suffix>weight|bias)$"
)
_OUTSIDE = re.compile(r"^(?P<rest>[a-z][a-z0-9_]*)\.(?P<suffix>weight|bias)$")


def _llama(**others: str) -> Names:
    """Llama and the many that keep its module names; ``others`` are this architecture's own."""
    block = "model.layers.{}"
    return {
        "token_embd": "model.embed_tokens",
        "output_norm": "model.norm",
        "output": "lm_head",
        "attn_norm": f"{block}.input_layernorm",
        "attn_q": f"{block}.self_attn.q_proj",
        "attn_k": f"{block}.self_attn.k_proj",
        "attn_v": f"{block}.self_attn.v_proj",
        "attn_output": f"{block}.self_attn.o_proj",
        "attn_q_norm": f"{block}.self_attn.q_norm",
        "attn_k_norm": f"{block}.self_attn.k_norm",
        "ffn_norm": f"{block}.post_attention_layernorm",
        "ffn_gate": f"{block}.mlp.gate_proj",
        "ffn_up": f"{block}.mlp.up_proj",
        "ffn_down": f"{block}.mlp.down_proj",
        "ffn_gate_inp": f"{block}.mlp.gate",
        "ffn_gate_exps": f"{block}.mlp.experts.gate_proj",
        "ffn_up_exps": f"{block}.mlp.experts.up_proj",
        "ffn_down_exps": f"{block}.mlp.experts.down_proj",
        **{name: f"{block}.{module}" for name, module in others.items()},
    }


def _gpt(attention: str, projection: str, first: str, second: str, up: str, down: str) -> Names:
    block = "transformer.h.{}"
    return {
        "token_embd": "transformer.wte",
        "position_embd": "transformer.wpe",
        "output_norm": "transformer.ln_f",
        "output": "lm_head",
        "attn_norm": f"{block}.{first}",
        "attn_qkv": f"{block}.{attention}",
        "attn_output": f"{block}.{projection}",
        "ffn_norm": f"{block}.{second}",
        "ffn_up": f"{block}.{up}",
        "ffn_down": f"{block}.{down}",
    }


_GPT2 = _gpt("attn.c_attn", "attn.c_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
_MEGATRON = ("self_attention.query_key_value", "self_attention.dense", "input_layernorm")
_WIDE = ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
_NEOX = {
    name: module.replace("transformer.h.", "gpt_neox.layers.").replace("self_attention.", "attention.")
    for name, module in _gpt(*_MEGATRON, "post_attention_layernorm", *_WIDE).items()
    if name != "position_embd"
}
_MPT = {
    name: module.replace("transformer.h.", "transformer.blocks.")
    for name, module in _gpt(
        "attn.Wqkv", "attn.out_proj", "norm_1", "norm_2", "ffn.up_proj", "ffn.down_proj"
    ).items()
}
_SANDWICH = _llama(
    post_attention_norm="post_attention_layernorm",
    ffn_norm="pre_feedforward_layernorm",
    post_ffw_norm="post_feedforward_layernorm",
)
_SHARED = _llama(
    ffn_gate_inp_shexp="mlp.shared_expert_gate",
    ffn_gate_shexp="mlp.shared_expert.gate_proj",
    ffn_up_shexp="mlp.shared_expert.up_proj",
    ffn_down_shexp="mlp.shared_expert.down_proj",
)
_LAYER = "encoder.layer.{}"

NAMES: Mapping[str, Names] = {
    **dict.fromkeys(("llama", "mistral3", "granite", "olmo", "smollm3"), _llama()),
    **dict.fromkeys(("qwen2", "qwen3", "qwen3moe", "olmoe", "stablelm", "gemma"), _llama()),
    "qwen2moe": _SHARED,
    "gemma2": _SANDWICH,
    "gemma3": _SANDWICH,
    "olmo2": _SANDWICH,
    "gpt-oss": _llama(
        attn_sinks="self_attn.sinks",
        post_attention_norm="post_attention_layernorm",
        ffn_gate_inp="mlp.router",
    ),
    "phi2": _llama(attn_output="self_attn.dense", ffn_up="mlp.fc1", ffn_down="mlp.fc2")
    | {"output_norm": "model.final_layernorm"},
    "phi3": _llama(attn_qkv="self_attn.qkv_proj", ffn_up="mlp.gate_up_proj"),
    "starcoder2": _llama(ffn_up="mlp.c_fc", ffn_down="mlp.c_proj"),
    "gpt2": _GPT2,
    "starcoder": _GPT2,
    "bloom": _gpt(*_MEGATRON, "post_attention_layernorm", *_WIDE)
    | {
        "token_embd": "transformer.word_embeddings",
        "token_embd_norm": "transformer.word_embeddings_layernorm",
    },
    "falcon": _gpt(*_MEGATRON, "post_attention_layernorm", *_WIDE)
    | {"token_embd": "transformer.word_embeddings", "attn_norm_2": "transformer.h.{}.ln_attn"},
    "gptneox": _NEOX
    | {
        "token_embd": "gpt_neox.embed_in",
        "output_norm": "gpt_neox.final_layer_norm",
        "output": "embed_out",
    },
    "mpt": _MPT | {"output_norm": "transformer.norm_f"},
    "bert": {
        "token_embd": "embeddings.word_embeddings",
        "token_embd_norm": "embeddings.LayerNorm",
        "token_types": "embeddings.token_type_embeddings",
        "position_embd": "embeddings.position_embeddings",
        "attn_q": f"{_LAYER}.attention.self.query",
        "attn_k": f"{_LAYER}.attention.self.key",
        "attn_v": f"{_LAYER}.attention.self.value",
        "attn_output": f"{_LAYER}.attention.output.dense",
        "attn_output_norm": f"{_LAYER}.attention.output.LayerNorm",
        "ffn_up": f"{_LAYER}.intermediate.dense",
        "ffn_down": f"{_LAYER}.output.dense",
        "layer_output_norm": f"{_LAYER}.output.LayerNorm",
    },
}
"""By ``general.architecture``. Mistral and Mixtral are stored as ``llama``."""

_WITHOUT_SUFFIX = frozenset({"attn_sinks"})
_PER_HEAD = {("stablelm", "attn_q_norm"), ("stablelm", "attn_k_norm")}
"""Stacked from a tensor per head, which transformers keeps apart: left under their own names."""

_BEFORE_BOTH = "ln_mlp"


def undo_gguf_names(tensors: Tensors, facts: Facts) -> Sequence[Group]:
    """Tensors of a GGUF file of a known architecture, each under its name in transformers."""
    names = NAMES.get(facts.gguf or "")
    if names is None or facts.gguf is None:
        return ()
    groups = []
    for name, info in tensors.items():
        wanted = _wanted(name, facts.gguf, names, tensors)
        if wanted is not None:
            groups.append({name: (Part(wanted, info.shape),)})
    return groups


def _wanted(name: str, architecture: str, names: Names, tensors: Tensors) -> str | None:
    found = _IN_BLOCK.match(name) or _OUTSIDE.match(name)
    if found is None or (architecture, found["rest"]) in _PER_HEAD:
        return None
    groups = found.groupdict()
    block, expert, rest = groups.get("block"), groups.get("expert"), found["rest"]
    if expert is not None:
        # Mixtral as it was stored before experts were stacked: blk.0.ffn_gate.3.weight.
        stack = names.get(f"{rest}_exps")
        module = None if stack is None else stack.replace(".experts.", f".experts.{expert}.")
    else:
        module = names.get(rest)
    if module is None or ("{}" in module) != (block is not None):
        return None
    if architecture == "falcon" and rest == "attn_norm" and f"blk.{block}.attn_norm_2.weight" in tensors:
        # With a norm for each of the two parts of a block, this one is the second.
        module = module.replace("input_layernorm", _BEFORE_BOTH)
    placed = module.replace("{}", block or "")
    return placed if rest in _WITHOUT_SUFFIX else f"{placed}.{found['suffix']}"
