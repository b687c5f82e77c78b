"""Declared sizes against the tensors: contradictions are told, conventions of real models are not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.metrics.census.againstconfig import sizes_against_config
from layerwatch.metrics.census.remark import StorageRemark
from layerwatch.metrics.tensors import TensorInfo

CONFIG: dict[str, Any] = {"num_hidden_layers": 4, "vocab_size": 1000, "hidden_size": 64}
EMBEDDING = "model.embed_tokens.weight"


def tensor(name: str, *shape: int, dtype: str = "BF16") -> TensorInfo:
    return TensorInfo(name, shape, dtype, 0)


def model(
    blocks: list[int] | None = None, rows: int = 1000, columns: int = 64, *others: TensorInfo
) -> list[TensorInfo]:
    numbers = range(4) if blocks is None else blocks
    return [
        tensor(EMBEDDING, rows, columns),
        *(tensor(f"model.layers.{number}.mlp.experts.7.w1.weight", 8, 8) for number in numbers),
        *others,
    ]


def told(tensors: list[TensorInfo], config: Any = CONFIG) -> list[tuple[str, str, str, str]]:
    found: list[StorageRemark] = list(sizes_against_config(tensors, config))
    return [(one.layer, one.kind.value, one.declared, one.stored) for one in found]


def test_what_the_configuration_says_is_silent() -> None:
    assert told(model()) == []


@pytest.mark.parametrize(("blocks", "names"), [([0, 1, 2], "layers.3"), ([0, 3], "layers.1, 2")])
def test_blocks_without_a_tensor_are_told(blocks: list[int], names: str) -> None:
    (remark,) = sizes_against_config(model(blocks), CONFIG)

    assert (remark.kind.value, remark.declared, remark.stored) == ("missing_blocks", "4", str(len(blocks)))
    assert remark.detail.endswith(names)


def test_of_many_missing_blocks_the_first_are_named() -> None:
    (remark,) = sizes_against_config(model([0]), CONFIG | {"num_hidden_layers": 10**9})

    assert remark.detail.endswith("layers.1, 2, 3, 4, 5, 6, 7, 8, ...")


def test_blocks_above_the_declared_number_are_told() -> None:
    assert told(model([0, 1, 2, 3, 4])) == [("", "extra_blocks", "4", "5")]


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        # DeepSeek-V3: the block that predicts further tokens stands behind the others.
        (model([0, 1, 2, 3, 4]), CONFIG | {"num_nextn_predict_layers": 1}),
        (model([1, 2, 3, 4]), CONFIG),
        # An encoder and a decoder; text and images.
        (model([0], 1000, 64, tensor("decoder.layers.0.fc.weight", 8, 8)), CONFIG),
        (model([0]), CONFIG | {"encoder_layers": 1, "decoder_layers": 3}),
        (model([0]), CONFIG | {"text_config": CONFIG}),
        # ALBERT shares the weights of its blocks.
        (model([0]), CONFIG | {"num_hidden_groups": 1}),
        # EfficientNet counts something else under this name, and has no vocabulary.
        (model([0]), {"num_hidden_layers": 64}),
        (model([0]), CONFIG | {"n_layer": 1}),
        (model([0]), CONFIG | {"num_hidden_layers": True}),
        (model([0]), CONFIG | {"num_hidden_layers": "4"}),
        ([tensor(EMBEDDING, 1000, 64), tensor("model.stages.0.w.weight", 8, 8)], CONFIG),
        ([tensor(EMBEDDING, 1000, 64)], CONFIG),
    ],
)
def test_blocks_that_can_be_counted_in_another_way_are_silent(
    tensors: list[TensorInfo], config: dict[str, Any]
) -> None:
    assert told(tensors, config) == []


def test_fewer_rows_than_tokens_are_told() -> None:
    assert told(model(rows=998)) == [("model.embed_tokens", "vocabulary", "1000", "998")]


@pytest.mark.parametrize(
    ("rows", "fires"), [(1024, False), (1008, False), (2016, False), (1001, True), (2048, True)]
)
def test_rows_above_the_vocabulary_are_told_where_they_are_no_padding(rows: int, fires: bool) -> None:
    assert [kind for _, kind, _, _ in told(model(rows=rows))] == ["extra_rows"] * fires


@pytest.mark.parametrize(
    ("columns", "config", "fires"),
    [
        (48, CONFIG, True),
        (48, {key: value for key, value in CONFIG.items() if key != "hidden_size"}, False),
        (48, CONFIG | {"embedding_size": 48}, False),
        (48, CONFIG | {"word_embed_proj_dim": 48}, False),
        (48, CONFIG | {"num_attention_heads": 48}, True),
        (48, CONFIG | {"d_model": 48}, False),
    ],
)
def test_an_embedding_of_another_width_is_told(columns: int, config: dict[str, Any], fires: bool) -> None:
    assert told(model(columns=columns), config) == [("model.embed_tokens", "hidden_size", "64", "48")] * fires


def test_the_sizes_of_the_text_are_those_of_its_part_of_the_configuration() -> None:
    config = {"text_config": {"vocab_size": 1000, "hidden_size": 64}, "vocab_size": 5, "hidden_size": 7}

    assert told(model(), config) == []
    assert [kind for _, kind, _, _ in told(model(rows=900), config)] == ["vocabulary"]


@pytest.mark.parametrize(
    "tensors",
    [
        # Packed, where columns are words; several embeddings; an adapter; a table of positions.
        [tensor(EMBEDDING, 900, 8, dtype="U32")],
        [tensor(EMBEDDING, 900, 8), tensor("other.embed_tokens.weight", 30, 8)],
        [tensor(EMBEDDING, 900, 8), tensor("model.layers.0.q.lora_A.weight", 4, 8)],
        [tensor("model.embed_positions.weight", 900, 8)],
        [],
    ],
)
def test_embeddings_that_can_mean_something_else_are_silent(tensors: list[TensorInfo]) -> None:
    assert told(tensors) == []


_values = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
)
_keys = st.sampled_from(
    ["num_hidden_layers", "n_layer", "vocab_size", "hidden_size", "d_model", "text_config", "encoder_layers"]
)
_names = st.lists(
    st.sampled_from(["model", "layers", "h", "0", "3", "²", "99999999", "embed_tokens", "weight"]), max_size=5
)


@given(
    st.lists(st.tuples(_names, st.lists(st.integers(0, 9), max_size=3)), max_size=5),
    st.none() | _values | st.dictionaries(_keys, _values | st.dictionaries(_keys, _values)),
)
def test_no_configuration_and_no_names_crash(named: list[tuple[list[str], list[int]]], config: Any) -> None:
    told([tensor(".".join(name), *shape) for name, shape in named], config)
