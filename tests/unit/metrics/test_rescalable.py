"""Between which tensors factors may move, by the names of the usual architectures."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from layerwatch.metrics.rescalable import Place, rescalable


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]


def bundles(*tensors: Tensor) -> list[tuple[set[str], set[str]]]:
    """Names of those that make and those that read the units of each bundle, in its first reading."""
    return [
        ({one.layer for one in readings[0] if one.makes}, {one.layer for one in readings[0] if not one.makes})
        for readings in rescalable(tensors)
    ]


def llama(values: int = 16, *others: Tensor, block: str = "model.layers.0") -> list[Tensor]:
    return [
        Tensor("model.embed_tokens", (50, 16)),
        Tensor(f"{block}.input_layernorm.weight", (16,)),
        Tensor(f"{block}.post_attention_layernorm.weight", (16,)),
        Tensor(f"{block}.self_attn.q_proj", (16, 16)),
        Tensor(f"{block}.self_attn.k_proj", (values, 16)),
        Tensor(f"{block}.self_attn.v_proj", (values, 16)),
        Tensor(f"{block}.self_attn.o_proj", (16, 16)),
        Tensor(f"{block}.mlp.gate_proj", (24, 16)),
        Tensor(f"{block}.mlp.up_proj", (24, 16)),
        Tensor(f"{block}.mlp.down_proj", (16, 24)),
        Tensor("model.norm.weight", (16,)),
        Tensor("lm_head", (50, 16)),
        *others,
    ]


P = "model.layers.0."


def test_norms_values_and_the_gated_part_of_a_llama_are_wired() -> None:
    found = bundles(*llama())

    attention = {f"{P}self_attn.{name}_proj" for name in "qkv"}
    assert ({f"{P}input_layernorm.weight"}, attention) in found
    parts = {f"{P}mlp.gate_proj", f"{P}mlp.up_proj"}
    assert ({f"{P}post_attention_layernorm.weight"}, parts) in found
    assert ({f"{P}self_attn.v_proj"}, {f"{P}self_attn.o_proj"}) in found
    assert ({f"{P}mlp.up_proj"}, {f"{P}mlp.down_proj"}) in found
    assert ({"model.norm.weight"}, {"lm_head"}) in found
    assert len(found) == 5


def test_values_that_heads_share_are_read_by_each_of_them() -> None:
    # Heads of 4: two of values, each read by two of four heads (repeat_kv of transformers).
    readings = next(
        one
        for one in rescalable(llama(8))
        if {carrier.layer for carrier in one[0]} == {f"{P}self_attn.v_proj", f"{P}self_attn.o_proj"}
    )
    places = [one.positions.tolist() for reading in readings for one in reading if not one.makes]

    assert [[0, 4], [1, 5], [2, 6], [3, 7], [8, 12], [9, 13], [10, 14], [11, 15]] in places
    assert all(sorted(chain.from_iterable(one)) == list(range(16)) for one in places)


def test_whatever_else_reads_a_norm_must_take_part() -> None:
    others = [Tensor(f"{P}mlp.shared_expert_gate", (1, 16)), Tensor(f"{P}self_attn.indexer", (8, 16))]
    found = {min(makes): reads for makes, reads in bundles(*llama(16, *others))}

    assert f"{P}mlp.shared_expert_gate" in found[f"{P}post_attention_layernorm.weight"]
    assert f"{P}self_attn.indexer" in found[f"{P}input_layernorm.weight"]


def test_one_norm_in_front_of_both_parts_is_read_by_both() -> None:
    tensors = [one for one in llama() if "post_attention" not in one.name]
    readers = {f"{P}self_attn.{name}_proj" for name in "qkv"} | {f"{P}mlp.gate_proj", f"{P}mlp.up_proj"}

    assert ({f"{P}input_layernorm.weight"}, readers) in bundles(*tensors)


def test_biases_of_norms_and_layers_go_along() -> None:
    others = [Tensor(f"{P}input_layernorm.bias", (16,)), Tensor(f"{P}self_attn.v_proj.bias", (16,))]
    makers = [makes for makes, _ in bundles(*llama(16, *others))]

    assert {f"{P}input_layernorm.weight", f"{P}input_layernorm.bias"} in makers
    assert {f"{P}self_attn.v_proj", f"{P}self_attn.v_proj.bias"} in makers


def test_a_norm_behind_the_attention_is_not_taken_for_the_one_before_the_next_part() -> None:
    """Gemma 2 has both."""
    others = [Tensor(f"{P}pre_feedforward_layernorm.weight", (16,))]
    found = {min(makes): reads for makes, reads in bundles(*llama(16, *others))}

    assert f"{P}pre_feedforward_layernorm.weight" in found
    assert f"{P}post_attention_layernorm.weight" not in found


def test_norms_on_the_stream_itself_are_left_alone() -> None:
    tensors = [one for one in llama() if one.name != "model.norm.weight"]

    assert all("norm" not in name for makes, _ in bundles(*tensors) for name in makes)


def test_a_part_without_a_gate_is_left_alone() -> None:
    tensors = [one for one in llama() if "gate_proj" not in one.name]

    assert ({f"{P}mlp.up_proj"}, {f"{P}mlp.down_proj"}) not in bundles(*tensors)


def test_norms_of_low_rank_queries_and_keys_are_wired() -> None:
    """DeepSeek: q_a_proj, q_a_layernorm, q_b_proj, and the same for keys and values."""
    others = [
        Tensor(f"{P}self_attn.q_a_proj", (6, 16)),
        Tensor(f"{P}self_attn.q_a_layernorm.weight", (6,)),
        Tensor(f"{P}self_attn.q_b_proj", (16, 6)),
        Tensor(f"{P}self_attn.kv_a_proj_with_mqa", (7, 16)),
        Tensor(f"{P}self_attn.kv_a_layernorm.weight", (5,)),
        Tensor(f"{P}self_attn.kv_b_proj", (32, 5)),
    ]
    tensors = [one for one in llama(16, *others) if ".q_proj" not in one.name and ".v_proj" not in one.name]
    found = bundles(*(one for one in tensors if ".k_proj" not in one.name))

    assert ({f"{P}self_attn.q_a_layernorm.weight"}, {f"{P}self_attn.q_b_proj"}) in found
    assert ({f"{P}self_attn.kv_a_layernorm.weight"}, {f"{P}self_attn.kv_b_proj"}) in found
    readers = {f"{P}self_attn.q_a_proj", f"{P}self_attn.kv_a_proj_with_mqa"}
    assert ({f"{P}input_layernorm.weight"}, readers) in found


def test_a_flattened_convolution_hands_on_a_run_of_columns_per_channel() -> None:
    tensors = [Tensor("0", (4, 3, 3, 3)), Tensor("2", (6, 4, 3, 3)), Tensor("5", (10, 24))]
    found = {
        tuple(one.layer for one in readings[0]): readings[0][1].positions for readings in rescalable(tensors)
    }

    assert found["0", "2"].tolist() == [list(range(9 * unit, 9 * unit + 9)) for unit in range(4)]
    assert found["2", "5"].tolist() == [list(range(4 * unit, 4 * unit + 4)) for unit in range(6)]
    assert all(one.place is not Place.ELEMENTS for readings in rescalable(tensors) for one in readings[0])
