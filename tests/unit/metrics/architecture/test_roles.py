"""Roles, by the names that libraries give; those of torch from its own modules."""

from __future__ import annotations

import gguf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.metrics.architecture.roles import Role, role_of
from layerwatch.metrics.layers import plan_layers
from layerwatch.metrics.measurement import LayerKind
from layerwatch.metrics.tensors import TensorInfo


def roles(shapes: dict[str, tuple[int, ...]]) -> dict[str, Role]:
    plan = plan_layers([TensorInfo(name, shape, "F32", 0) for name, shape in shapes.items()])
    return {one.tensor: role_of(one.name, one.shape, one.kind) for one in (*plan.layers, *plan.vectors)}


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (
            "attention_query",
            "model.layers.0.self_attn.q_proj encoder.layer.0.attention.self.query blk.0.attn_q",
        ),
        (
            "attention_query",
            "layers.0.attention.wq down_blocks.0.attentions.0.attn1.to_q transformer.layer.0.attention.q_lin",
        ),
        ("attention_key", "model.layers.0.self_attn.k_proj decoder.block.0.layer.0.SelfAttention.k"),
        ("attention_value", "model.layers.0.self_attn.v_proj encoder.layer.0.attention.self.value"),
        (
            "attention_output",
            "model.layers.0.self_attn.o_proj encoder.layer.0.attention.output.dense h.0.attn.c_proj",
        ),
        (
            "attention_output",
            "blocks.0.attn.proj encoder.layers.encoder_layer_0.self_attention.out_proj blk.0.attn_output",
        ),
        (
            "attention_output",
            "attn1.to_out.0 model.layers.0.self_attn.dense gpt_neox.layers.0.attention.dense",
        ),
        (
            "attention_fused",
            "h.0.attn.c_attn blocks.0.attn.qkv encoder.self_attention.in_proj_weight blk.0.attn_qkv",
        ),
        ("attention_fused", "model.layers.0.self_attn.qkv_proj gpt_neox.layers.0.attention.query_key_value"),
        ("mlp_gate", "model.layers.0.mlp.gate_proj blk.0.ffn_gate layers.0.feed_forward.w1"),
        (
            "mlp_up",
            "model.layers.0.mlp.up_proj h.0.mlp.c_fc blocks.0.mlp.fc1 encoder.layer.0.intermediate.dense",
        ),
        ("mlp_up", "encoder.layers.0.linear1 layers.0.feed_forward.w3 gpt_neox.layers.0.mlp.dense_h_to_4h"),
        (
            "mlp_down",
            "model.layers.0.mlp.down_proj h.0.mlp.c_proj blocks.0.mlp.fc2 encoder.layer.0.output.dense",
        ),
        ("mlp_fused", "model.layers.0.mlp.gate_up_proj"),
        (
            "router",
            "model.layers.0.mlp.gate model.layers.0.block_sparse_moe.gate model.layers.0.mlp.router blk.0.ffn_gate_inp",
        ),
        ("router", "model.layers.0.mlp.shared_expert_gate"),
        (
            "expert_gate",
            "model.layers.0.mlp.experts.3.gate_proj blk.0.ffn_gate_exps model.block_sparse_moe.experts.0.w1",
        ),
        ("expert_up", "model.layers.0.mlp.experts.3.up_proj model.layers.0.mlp.shared_expert.up_proj"),
        ("expert_down", "model.layers.0.mlp.experts.3.down_proj model.block_sparse_moe.experts.0.w2"),
        ("expert_fused", "model.layers.0.mlp.experts.gate_up_proj"),
        (
            "embedding",
            "model.embed_tokens transformer.wte transformer.wpe embeddings.position_embeddings",
        ),
        ("unembedding", "lm_head output embed_out cls.predictions.decoder"),
        ("linear", "fc classifier fc1 head model.layers.0.something"),
    ],
)
def test_a_matrix_has_the_role_of_its_name(role: str, names: str) -> None:
    found = roles({f"{name}.weight": (8, 4) for name in names.split()})
    assert found == dict.fromkeys(found, Role(role))


def test_recurrent_layers_are_told_apart_by_what_they_read() -> None:
    for made in (torch.nn.LSTM(4, 6, num_layers=2, bidirectional=True), torch.nn.GRUCell(4, 6)):
        for name, role in roles({name: tuple(one.shape) for name, one in made.state_dict().items()}).items():
            expected = {"weight_ih": "recurrent_input", "weight_hh": "recurrent_hidden"}.get(name[:9], "bias")
            assert role == expected, name


def test_modules_of_torch_have_their_roles() -> None:
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16)
    found = roles({f"layers.0.{name}": tuple(one.shape) for name, one in layer.state_dict().items()})
    assert {name.removeprefix("layers.0."): role.value for name, role in found.items()} == {
        "self_attn.in_proj_weight": "attention_fused",
        "self_attn.in_proj_bias": "bias",
        "self_attn.out_proj.weight": "attention_output",
        "self_attn.out_proj.bias": "bias",
        "linear1.weight": "mlp_up",
        "linear1.bias": "bias",
        "linear2.weight": "mlp_down",
        "linear2.bias": "bias",
        "norm1.weight": "norm",
        "norm1.bias": "bias",
        "norm2.weight": "norm",
        "norm2.bias": "bias",
    }


def test_convolutions_and_tables_have_theirs() -> None:
    found = roles(
        {
            "layer1.0.conv1.weight": (64, 64, 3, 3),
            "patch_embed.proj.weight": (64, 3, 16, 16),
            "encoder.0.weight": (32, 16, 5),
            "pos_embed": (1, 197, 64),
            "mlp.experts.down_proj_bias": (8, 64),
            "running_mean": (8,),
        }
    )
    assert [role.value for role in found.values()] == ["convolution"] * 3 + ["embedding", "bias", "other"]


def test_every_matrix_of_a_llama_in_gguf_has_a_role() -> None:
    for tensor in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.LLAMA]:
        name = gguf.TENSOR_NAMES[tensor].format(bid=0)
        if "norm" not in name and "rope" not in name and "rot" not in name and name != "token_embd":
            assert role_of(name, (4, 4), LayerKind.LINEAR) is not Role.LINEAR, name


@given(st.text(alphabet="att_.qkvprojmlpexperts0", max_size=700), st.sampled_from(list(LayerKind)))
@settings(max_examples=300, deadline=500)
def test_any_name_has_a_role_at_once(name: str, kind: LayerKind) -> None:
    assert role_of(name, (4, 4), kind) in Role


def test_names_made_to_keep_an_expression_busy_do_not() -> None:
    for word in ("att_", "att.", "mlp_", "_", "experts.", "a", "layer_h_"):
        long = (word * 600)[:512]
        assert role_of(long, (4, 4), LayerKind.LINEAR) is Role.LINEAR
        assert role_of(long * 8, (4, 4), LayerKind.LINEAR) is Role.LINEAR
