"""Which layer feeds which, read from names and shapes of the common libraries; unknown names give nothing."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from layerwatch.metrics.wiring import Block, Interface, Part, find_wiring, in_module_order


@dataclass(frozen=True)
class Named:
    """A tensor without values."""

    name: str
    shape: tuple[int, ...]


def model(**shapes: tuple[int, ...]) -> list[Named]:
    """Tensors; ``__`` stands for a dot."""
    return [Named(name.replace("__", "."), shape) for name, shape in shapes.items()]


def interfaces(*tensors: Named) -> list[tuple[str, str, int]]:
    return [(one.producer, one.consumer, one.units) for one in find_wiring(tensors).interfaces]


def only_block(tensors: list[Named]) -> Block:
    (stream,) = find_wiring(tensors).streams
    (block,) = stream.blocks
    return block


def test_linear_layers_with_rising_numbers_follow_each_other() -> None:
    tensors = model(fc1=(32, 64), fc1__bias=(32,), fc2=(16, 32), fc3=(10, 16))
    assert interfaces(*tensors) == [("fc1", "fc2", 32), ("fc2", "fc3", 16)]


def test_a_flattened_map_hands_on_a_block_of_columns_per_channel() -> None:
    assert interfaces(*model(conv1=(8, 3, 3, 3), conv2=(16, 8, 3, 3), fc=(10, 64))) == [
        ("conv1", "conv2", 8),
        ("conv2", "fc", 16),
    ]


def test_numbers_in_a_sequential_container_may_skip_what_has_no_weights() -> None:
    tensors = model(features__0=(8, 3, 3, 3), features__3=(16, 8, 3, 3), classifier__1=(10, 64))
    assert interfaces(*tensors) == [("features.0", "features.3", 8), ("features.3", "classifier.1", 16)]


def test_layers_that_do_not_fit_each_other_are_not_connected() -> None:
    assert interfaces(*model(fc1=(32, 64), fc2=(16, 48))) == []


def test_side_by_side_heads_are_not_connected() -> None:
    assert interfaces(*model(head_a=(32, 32), head_b=(32, 32))) == []


def test_the_stem_of_a_residual_network_is_connected_with_nothing_but_its_blocks_are_known() -> None:
    wiring = find_wiring(
        model(
            conv1=(16, 3, 3, 3),
            layer1__0__conv1=(16, 16, 3, 3),
            layer1__0__conv2=(16, 16, 3, 3),
            layer2__0__conv1=(32, 16, 3, 3),
            layer2__0__conv2=(32, 32, 3, 3),
            layer2__0__downsample__0=(32, 16, 1, 1),
            fc=(10, 32),
        )
    )
    assert wiring.interfaces == (
        Interface("layer1.0.conv1", "layer1.0.conv2", 16),
        Interface("layer2.0.conv1", "layer2.0.conv2", 32),
    )
    assert wiring.residual_blocks == ("layer1.0", "layer2.0")
    assert wiring.head == "fc"


def test_names_may_carry_their_weight_suffix() -> None:
    assert interfaces(Named("fc1.weight", (8, 4)), Named("fc2.weight", (2, 8))) == [
        ("fc1.weight", "fc2.weight", 8)
    ]


GPT2 = model(
    wte=(50, 12),
    wpe=(20, 12),
    h__0__ln_1__weight=(12,),
    h__0__attn__c_attn=(12, 36),
    h__0__attn__c_proj=(12, 12),
    h__0__ln_2__weight=(12,),
    h__0__mlp__c_fc=(12, 48),
    h__0__mlp__c_proj=(48, 12),
    ln_f__weight=(12,),
)


def test_gpt2_stores_its_layers_transposed_and_its_queries_keys_and_values_in_one() -> None:
    block = only_block(GPT2)
    assert block.attention is not None
    assert block.attention.query == Part("h.0.attn.c_attn", 0, 12, transposed=True)
    assert block.attention.value == Part("h.0.attn.c_attn", 24, 36, transposed=True)
    assert block.attention.output == Part("h.0.attn.c_proj", 0, 12, transposed=True)
    assert block.feed_forward is not None
    assert block.feed_forward.up == Part("h.0.mlp.c_fc", 0, 48, transposed=True)
    assert (block.attention_gain, block.feed_forward_gain) == ("h.0.ln_1.weight", "h.0.ln_2.weight")
    (stream,) = find_wiring(GPT2).streams
    assert (stream.embeddings, stream.positions, stream.final_gain) == (("wte", "wpe"), "wpe", "ln_f.weight")


LLAMA = model(
    model__embed_tokens=(50, 16),
    model__layers__0__self_attn__q_proj=(16, 16),
    model__layers__0__self_attn__k_proj=(8, 16),
    model__layers__0__self_attn__v_proj=(8, 16),
    model__layers__0__self_attn__o_proj=(16, 16),
    model__layers__0__mlp__gate_proj=(40, 16),
    model__layers__0__mlp__up_proj=(40, 16),
    model__layers__0__mlp__down_proj=(16, 40),
    model__layers__0__input_layernorm__weight=(16,),
    model__layers__0__post_attention_layernorm__weight=(16,),
    model__norm__weight=(16,),
    lm_head=(50, 16),
)


def test_llama_has_a_gate_and_shared_keys() -> None:
    block = only_block(LLAMA)
    assert block.attention is not None
    assert block.attention.key == Part("model.layers.0.self_attn.k_proj", 0, 8)
    assert block.feed_forward is not None
    assert block.feed_forward.gate == Part("model.layers.0.mlp.gate_proj", 0, 40)
    assert block.feed_forward_gain == "model.layers.0.post_attention_layernorm.weight"
    (stream,) = find_wiring(LLAMA).streams
    assert (stream.head, stream.final_gain) == ("lm_head", "model.norm.weight")


def test_readers_of_a_feed_forward_part_are_known_to_others_too() -> None:
    wiring = find_wiring(LLAMA)
    behind = wiring.consumer_of("model.layers.0.mlp.up_proj")
    assert behind == Interface("model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj", 40)
    before = wiring.producer_of("model.layers.0.mlp.down_proj")
    assert before is not None
    assert before.consumer == "model.layers.0.mlp.down_proj"
    # Values are read by the output once per head that shares them: not one unit by one column.
    assert wiring.consumer_of("model.layers.0.self_attn.v_proj") is None
    assert wiring.consumer_of("lm_head") is None


BERT = model(
    bert__embeddings__word_embeddings=(50, 12),
    bert__encoder__layer__0__attention__self__query=(12, 12),
    bert__encoder__layer__0__attention__self__key=(12, 12),
    bert__encoder__layer__0__attention__self__value=(12, 12),
    bert__encoder__layer__0__attention__output__dense=(12, 12),
    bert__encoder__layer__0__attention__output__LayerNorm__weight=(12,),
    bert__encoder__layer__0__intermediate__dense=(48, 12),
    bert__encoder__layer__0__output__dense=(12, 48),
    bert__encoder__layer__0__output__LayerNorm__weight=(12,),
)


def test_bert_norms_after_its_parts_so_that_the_next_part_reads_them() -> None:
    block = only_block(BERT)
    assert block.attention is not None
    assert block.attention.output.layer == "bert.encoder.layer.0.attention.output.dense"
    assert block.feed_forward is not None
    assert block.feed_forward.down.layer == "bert.encoder.layer.0.output.dense"
    assert block.attention_gain is None
    assert block.feed_forward_gain == "bert.encoder.layer.0.attention.output.LayerNorm.weight"


@pytest.mark.parametrize(
    ("fused", "output"),
    [
        ("blocks__0__attn__qkv", "blocks__0__attn__proj"),
        ("encoder__layers__0__self_attn__in_proj_weight", "encoder__layers__0__self_attn__out_proj"),
    ],
)
def test_fused_layers_of_timm_and_torch_are_taken_apart(fused: str, output: str) -> None:
    block = only_block(model(**{fused: (36, 12), output: (12, 12)}))
    assert block.attention is not None
    assert (block.attention.key.begin, block.attention.key.end) == (12, 24)


def test_queries_keys_and_values_that_are_mixed_by_head_are_left_alone() -> None:
    tensors = model(
        h__0__self_attention__query_key_value=(36, 12),
        h__0__self_attention__dense=(12, 12),
    )
    assert find_wiring(tensors).streams == ()


def test_unknown_names_give_nothing() -> None:
    wiring = find_wiring(model(alpha=(8, 8), beta__gamma=(8, 8), x__0__y=(8, 8), x__1__y=(8, 8)))
    assert (wiring.interfaces, wiring.streams, wiring.residual_blocks) == ((), (), ())


def test_tensors_are_taken_in_the_order_of_the_modules_not_of_the_names() -> None:
    in_order = ["stem.0", "blocks.2.conv", "blocks.10.conv", "blocks.10.downsample.0", "head"]
    of_resnet = ["bn1", "conv1", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "fc"]
    of_vgg = ["features.0", "features.3", "features.10", "classifier.0", "classifier.3"]
    for names in (in_order, of_resnet, of_vgg, ["fc1", "fc2", "fc10", "out"]):
        tensors = [Named(name, (8, 8)) for name in sorted(names)]
        assert [one.name for one in in_module_order(tensors)] == names
