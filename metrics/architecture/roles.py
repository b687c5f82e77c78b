"""What a layer does in its network, by the names that the common libraries give it.

Names: transformers, torch, torchvision, timm, diffusers, Meta's own files, GGUF. The first line of the table that fits
is the role. A name that fits none is what its kind says (a convolution, an embedding) or plainly linear.
"""

from __future__ import annotations

import re
from enum import StrEnum

from layerwatch.metrics.measurement import LayerKind


class Role(StrEnum):
    """What a layer does. ``*_fused`` are several of the kind in one tensor; ``other`` is nothing of the list."""

    ATTENTION_QUERY = "attention_query"
    ATTENTION_KEY = "attention_key"
    ATTENTION_VALUE = "attention_value"
    ATTENTION_OUTPUT = "attention_output"
    ATTENTION_FUSED = "attention_fused"
    MLP_GATE = "mlp_gate"
    MLP_UP = "mlp_up"
    MLP_DOWN = "mlp_down"
    MLP_FUSED = "mlp_fused"
    ROUTER = "router"
    EXPERT_GATE = "expert_gate"
    EXPERT_UP = "expert_up"
    EXPERT_DOWN = "expert_down"
    EXPERT_FUSED = "expert_fused"
    EMBEDDING = "embedding"
    UNEMBEDDING = "unembedding"
    CONVOLUTION = "convolution"
    RECURRENT_INPUT = "recurrent_input"
    RECURRENT_HIDDEN = "recurrent_hidden"
    NORM = "norm"
    BIAS = "bias"
    LINEAR = "linear"
    OTHER = "other"


_ANYWHERE = re.compile("")
_IN_ATTENTION = re.compile(r"att")
_IN_BLOCK = re.compile(
    r"(^|[._])(mlp|ffn|ff|feed_forward|layers?|blocks?|h|encoder|decoder|resblocks)([._]|$)"
)
"""What stands before the last word: a module that calls itself attention, one that holds feed-forward parts."""

_TABLE: tuple[tuple[Role, re.Pattern[str], str], ...] = (
    (Role.BIAS, _ANYWHERE, r"(.*_)?bias(_[a-z0-9_]+)?"),
    (Role.RECURRENT_INPUT, _ANYWHERE, r"weight_ih(_l\d+)?(_reverse)?"),
    (Role.RECURRENT_HIDDEN, _ANYWHERE, r"weight_hh(_l\d+)?(_reverse)?|recurrent_kernel"),
    (Role.UNEMBEDDING, _ANYWHERE, r"lm_head|embed_out|unembed|output_projection|predictions\.decoder"),
    (Role.UNEMBEDDING, re.compile("^$"), r"output"),
    (Role.ROUTER, _ANYWHERE, r"router|router\.[a-z0-9_]+|ffn_gate_inp(_shexp)?|shared_expert_gate|gate\.wg"),
    (Role.ROUTER, _ANYWHERE, r"(moe|mlp|ffn|block_sparse_moe|feed_forward)\.gate"),
    (Role.EMBEDDING, _ANYWHERE, r"pos_embed|pos_embedding|position_embeddings?|cls_token|wpe|wte"),
    (Role.ATTENTION_QUERY, _ANYWHERE, r"(q|query)_proj(_weight)?|wq|q_lin|to_q|q_linear|attn_q"),
    (Role.ATTENTION_KEY, _ANYWHERE, r"(k|key)_proj(_weight)?|wk|k_lin|to_k|k_linear|attn_k"),
    (Role.ATTENTION_VALUE, _ANYWHERE, r"(v|value)_proj(_weight)?|wv|v_lin|to_v|v_linear|attn_v"),
    (Role.ATTENTION_QUERY, _IN_ATTENTION, r"q|query"),
    (Role.ATTENTION_KEY, _IN_ATTENTION, r"k|key"),
    (Role.ATTENTION_VALUE, _IN_ATTENTION, r"v|value"),
    (
        Role.ATTENTION_FUSED,
        _ANYWHERE,
        r"qkv|qkv_proj|wqkv|to_qkv|query_key_value|c_attn|in_proj_weight|attn_qkv",
    ),
    (Role.ATTENTION_FUSED, _IN_ATTENTION, r"in_proj"),
    (Role.ATTENTION_OUTPUT, _ANYWHERE, r"o_proj|out_lin|attn_output|attn_out"),
    (
        Role.ATTENTION_OUTPUT,
        _IN_ATTENTION,
        r"out_proj|c_proj|proj|wo|o|to_out(\.0)?|out|output|(output\.)?dense",
    ),
    (Role.MLP_FUSED, _ANYWHERE, r"gate_up_proj|ffn_gate_up_exps|w12"),
    (Role.MLP_GATE, _ANYWHERE, r"gate_proj|wi_0|ffn_gate(_exps|_shexp)?"),
    (
        Role.MLP_UP,
        _ANYWHERE,
        r"up_proj|wi_1|ffn_up(_exps|_shexp)?|c_fc|dense_h_to_4h|intermediate\.dense|fc_in",
    ),
    (Role.MLP_DOWN, _ANYWHERE, r"down_proj|ffn_down(_exps|_shexp)?|dense_4h_to_h|fc_out"),
    (Role.MLP_GATE, _ANYWHERE, r"(feed_forward|\d+)\.w1"),
    (Role.MLP_UP, _ANYWHERE, r"(feed_forward|\d+)\.w3"),
    (Role.MLP_DOWN, _ANYWHERE, r"(feed_forward|\d+)\.w2"),
    (Role.MLP_UP, _IN_BLOCK, r"fc_?1|linear_?1|lin1|wi"),
    (Role.MLP_DOWN, _IN_BLOCK, r"fc_?2|linear_?2|lin2|wo|c_proj|output\.dense"),
)
"""Role; what stands before the last word; the last word, or the last two."""

_PATTERNS = tuple((role, before, re.compile(last)) for role, before, last in _TABLE)

_EXPERT = re.compile(r"(?:^|[._])(?:shared_)?experts?[._]|_(?:sh)?exps?$")
_OF_EXPERTS = {
    Role.MLP_GATE: Role.EXPERT_GATE,
    Role.MLP_UP: Role.EXPERT_UP,
    Role.MLP_DOWN: Role.EXPERT_DOWN,
    Role.MLP_FUSED: Role.EXPERT_FUSED,
}
_BY_KIND = {
    LayerKind.LINEAR: Role.LINEAR,
    LayerKind.EMBEDDING: Role.EMBEDDING,
    LayerKind.CONV: Role.CONVOLUTION,
    LayerKind.NORM: Role.NORM,
    LayerKind.BIAS: Role.BIAS,
}
_MAX_NAME = 512


def role_of(name: str, shape: tuple[int, ...], kind: LayerKind) -> Role:
    """The role of a layer or vector.

    Args:
        name: with or without ``.weight``; names of more than 512 characters are not looked at.
        shape: as stored.
        kind: ``Layer.kind``.
    """
    if len(shape) <= 1 or (len(shape) > 2 and kind is LayerKind.CONV and not _is_one_vector_each(shape)):
        return _BY_KIND.get(kind, Role.OTHER) if len(shape) > 1 or kind in _VECTORS else Role.OTHER
    module = name.removesuffix(".weight").lower()
    if len(module) > _MAX_NAME:
        return _BY_KIND.get(kind, Role.OTHER)
    before, _, last = module.rpartition(".")
    last_two = f"{before.rpartition('.')[2]}.{last}"
    role = next(
        (
            role
            for role, around, words in _PATTERNS
            if (words.fullmatch(last) or words.fullmatch(last_two)) and around.search(before)
        ),
        None,
    )
    if role is None:
        return _BY_KIND.get(kind, Role.OTHER)
    return _OF_EXPERTS.get(role, role) if _EXPERT.search(module) else role


_VECTORS = frozenset({LayerKind.NORM, LayerKind.BIAS})


def _is_one_vector_each(shape: tuple[int, ...]) -> bool:
    """(1, entries, width): a table, not a kernel."""
    return len(shape) == 3 and shape[0] == 1
