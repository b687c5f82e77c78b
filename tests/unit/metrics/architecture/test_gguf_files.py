"""GGUF files stand under the names, and in the order of rows, of the models that they were converted from.

Names: the tensor map of the package ``gguf``, which llama.cpp's converter uses. Rows: the converter's formula
(``convert_hf_to_gguf.py``, ``LlamaModel.permute``), applied row by row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from layerwatch.metrics.architecture.arranged import ArrangedReader
from layerwatch.metrics.architecture.ggufnames import NAMES
from layerwatch.metrics.openmodel import open_layers
from layerwatch.metrics.readers.gguf import GgufFile
from layerwatch_testing.memoryreader import MemoryReader

Values = NDArray[Any]
ARCHITECTURES = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
KEPT = {
    # Not made from a tensor of the model, or made from several.
    *("rope_freqs", "attn_rot_embd", "rope_factors_long", "rope_factors_short"),
    *("stablelm.attn_q_norm", "stablelm.attn_k_norm"),
    # Named by the package and written by no converter of these architectures.
    *("falcon.ffn_norm", "mpt.ffn", "mpt.attn_q_norm", "mpt.attn_k_norm", "phi2.attn_qkv", "phi2.ffn_norm"),
    *("bert.attn_qkv", "bert.output_norm", "bert.cls", "bert.cls.output"),
}
WIDTH, HEADS, SHARED, UNITS, EXPERTS = 32, 4, 2, 48, 3


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(path: Path, architecture: str, state: dict[str, Values], **pairs: int) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in pairs.items():
        writer.add_uint32(f"{architecture}.attention.{key}", value)
    for name, values in state.items():
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def as_ggml_reads(weight: Values, heads: int) -> Values:
    """Row by row: ggml's rows 2i and 2i + 1 of a head are rows i and i + d/2 of transformers."""
    size = len(weight) // heads
    order = [
        head * size + half * (size // 2) + pair
        for head in range(heads)
        for pair in range(size // 2)
        for half in (0, 1)
    ]
    return weight[order]


def llama(blocks: int = 2) -> dict[str, Values]:
    """A small Llama with grouped queries, by its names in transformers."""
    state: dict[str, Values] = {
        "model.embed_tokens.weight": normal(1, 64, WIDTH),
        "model.norm.weight": normal(2, WIDTH),
        "lm_head.weight": normal(3, 64, WIDTH),
    }
    shared = WIDTH * SHARED // HEADS
    for number in range(blocks):
        block = f"model.layers.{number}"
        shapes = {
            "self_attn.q_proj": (WIDTH, WIDTH),
            "self_attn.k_proj": (shared, WIDTH),
            "self_attn.v_proj": (shared, WIDTH),
            "self_attn.o_proj": (WIDTH, WIDTH),
            "mlp.gate_proj": (UNITS, WIDTH),
            "mlp.up_proj": (UNITS, WIDTH),
            "mlp.down_proj": (WIDTH, UNITS),
            "input_layernorm": (WIDTH,),
            "post_attention_layernorm": (WIDTH,),
        }
        for place, (name, shape) in enumerate(shapes.items()):
            state[f"{block}.{name}.weight"] = normal(100 * number + place, *shape)
        state[f"{block}.self_attn.q_proj.bias"] = normal(number, WIDTH)
    return state


def converted(
    state: dict[str, Values], architecture: str, blocks: int, permuted: bool = True
) -> dict[str, Values]:
    """As llama.cpp's converter writes it."""
    names = gguf.get_tensor_name_map(ARCHITECTURES[architecture], blocks)
    made = {}
    for name, values in state.items():
        wanted = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert wanted is not None, name
        if permuted and ".q_proj." in name:
            values = as_ggml_reads(values, HEADS)
        if permuted and ".k_proj." in name:
            values = as_ggml_reads(values, SHARED)
        made[wanted] = values
    return made


def layers_of(path: Path) -> dict[str, Values]:
    model = open_layers(path)
    try:
        every = (*model.plan.layers, *model.plan.vectors)
        return {layer.tensor: np.array(model.values(layer)) for layer in every}
    finally:
        model.close()


def test_the_rows_of_a_permuted_head_are_those_of_the_published_formula() -> None:
    weight = normal(0, 24, 5)
    published = weight.reshape(3, 2, 24 // 3 // 2, 5).swapaxes(1, 2).reshape(24, 5)
    np.testing.assert_array_equal(as_ggml_reads(weight, 3), published)


@pytest.mark.parametrize(("architecture", "permuted"), [("llama", True), ("qwen2", False), ("qwen3", False)])
def test_a_gguf_file_has_the_names_and_bytes_of_its_parent(
    tmp_path: Path, architecture: str, permuted: bool
) -> None:
    state = llama()
    made = converted(state, architecture, 2, permuted)
    assert "blk.1.attn_q.bias" in made
    path = write(tmp_path / "a.gguf", architecture, made, head_count=HEADS, head_count_kv=SHARED)
    parent = tmp_path / "model.safetensors"
    save_file(state, parent)
    found, expected = layers_of(path), layers_of(parent)
    assert found.keys() == expected.keys() == state.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_both_files_give_the_same_digests(tmp_path: Path) -> None:
    state = llama()
    path = write(
        tmp_path / "a.gguf", "llama", converted(state, "llama", 2), head_count=HEADS, head_count_kv=SHARED
    )
    save_file(state, tmp_path / "model.safetensors")
    digests = []
    for file in (path, tmp_path / "model.safetensors"):
        model = open_layers(file)
        digests.append({layer.name: model.read(layer).digest for layer in model.plan.layers})
        model.close()
    assert digests[0] == digests[1]


def test_rows_stay_as_they_are_without_the_number_of_heads(tmp_path: Path) -> None:
    made = converted(llama(1), "llama", 1)
    found = layers_of(write(tmp_path / "a.gguf", "llama", made))
    np.testing.assert_array_equal(
        found["model.layers.0.self_attn.q_proj.weight"], made["blk.0.attn_q.weight"]
    )
    odd = layers_of(write(tmp_path / "b.gguf", "llama", made, head_count=5))
    np.testing.assert_array_equal(odd["model.layers.0.self_attn.q_proj.weight"], made["blk.0.attn_q.weight"])


def test_heads_may_be_declared_for_each_block(tmp_path: Path) -> None:
    state = llama()
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.attention.head_count", HEADS)
    writer.add_array("llama.attention.head_count_kv", [SHARED, SHARED])
    for name, values in converted(state, "llama", 2).items():
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = layers_of(path)
    name = "model.layers.1.self_attn.k_proj.weight"
    np.testing.assert_array_equal(found[name], state[name])


@pytest.mark.parametrize("architecture", sorted(NAMES))
def test_every_name_is_one_that_the_converter_takes_for_the_same_tensor(architecture: str) -> None:
    names = gguf.get_tensor_name_map(ARCHITECTURES[architecture], 3)
    for short, module in NAMES[architecture].items():
        tensor = next(
            one for one, name in gguf.TENSOR_NAMES.items() if name.replace("blk.{bid}.", "") == short
        )
        wanted = gguf.TENSOR_NAMES[tensor].format(bid=2)
        if tensor not in gguf.MODEL_TENSORS[ARCHITECTURES[architecture]]:
            # Shared tables name more than this architecture has.
            continue
        here = module.replace("{}", "2")
        # BLOOM's own files, which the map is made for, have no "transformer." in front.
        assert wanted in (names.get_name(here), names.get_name(here.removeprefix("transformer."))), short


@pytest.mark.parametrize("architecture", sorted(NAMES))
def test_every_tensor_of_an_architecture_gets_a_name(architecture: str) -> None:
    shorts = {
        gguf.TENSOR_NAMES[tensor].replace("blk.{bid}.", "")
        for tensor in gguf.MODEL_TENSORS[ARCHITECTURES[architecture]]
    }
    left = {one for one in shorts if one not in KEPT and f"{architecture}.{one}" not in KEPT}
    assert left <= NAMES[architecture].keys()


def test_names_of_unknown_architectures_stay(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.gguf",
        "mamba",
        {"blk.0.attn_norm.weight": normal(0, 8), "output.weight": normal(1, 8, 8)},
    )
    assert [one.name for one in ArrangedReader(GgufFile(path), "a").tensors()] == [
        "blk.0.attn_norm.weight",
        "output.weight",
    ]


def test_a_name_that_is_taken_already_is_given_to_nobody_else(tmp_path: Path) -> None:
    state = {"lm_head.weight": normal(0, 8, 8), "output.weight": normal(1, 8, 8)}
    found = layers_of(write(tmp_path / "a.gguf", "llama", state))
    assert found.keys() == state.keys()
    np.testing.assert_array_equal(found["output.weight"], state["output.weight"])


def test_falcon_has_two_names_for_its_first_norm(tmp_path: Path) -> None:
    one = {"blk.0.attn_norm.weight": normal(0, 8)}
    both = one | {"blk.0.attn_norm_2.weight": normal(1, 8)}
    tensors = {
        name: [
            info.name
            for info in ArrangedReader(GgufFile(write(tmp_path / name, "falcon", state)), name).tensors()
        ]
        for name, state in (("7b", one), ("40b", both))
    }
    assert tensors["7b"] == ["transformer.h.0.input_layernorm.weight"]
    assert tensors["40b"] == ["transformer.h.0.ln_mlp.weight", "transformer.h.0.ln_attn.weight"]


def test_stacked_experts_of_mixtral_are_those_of_its_parent(tmp_path: Path) -> None:
    gate, up, down = (
        normal(1, EXPERTS, UNITS, WIDTH),
        normal(2, EXPERTS, UNITS, WIDTH),
        normal(3, EXPERTS, WIDTH, UNITS),
    )
    router = normal(4, EXPERTS, WIDTH)
    path = write(
        tmp_path / "a.gguf",
        "llama",
        {
            "blk.0.ffn_gate_inp.weight": router,
            "blk.0.ffn_gate_exps.weight": gate,
            "blk.0.ffn_up_exps.weight": up,
            "blk.0.ffn_down_exps.weight": down,
        },
    )
    old: dict[str, Values] = {"model.layers.0.block_sparse_moe.gate.weight": router}
    for number in range(EXPERTS):
        for which, stack in (("w1", gate), ("w2", down), ("w3", up)):
            old[f"model.layers.0.block_sparse_moe.experts.{number}.{which}.weight"] = stack[number]
    parent = tmp_path / "model.safetensors"
    save_file({name: np.ascontiguousarray(values) for name, values in old.items()}, parent)
    found, expected = layers_of(path), layers_of(parent)
    assert found.keys() == expected.keys()
    assert len(found) == 1 + 3 * EXPERTS
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    np.testing.assert_array_equal(found["model.layers.0.mlp.experts.2.up_proj.weight"], up[2])


def test_experts_of_an_older_mixtral_file_get_the_same_names(tmp_path: Path) -> None:
    state = {
        f"blk.0.ffn_{which}.{number}.weight": normal(number, 8, 8)
        for which in ("gate", "down")
        for number in (0, 1)
    }
    assert sorted(layers_of(write(tmp_path / "a.gguf", "llama", state))) == [
        f"model.layers.0.mlp.experts.{number}.{which}_proj.weight"
        for number in (0, 1)
        for which in ("down", "gate")
    ]


def test_a_quantised_stack_is_read_once_for_all_its_experts(tmp_path: Path) -> None:
    stack = normal(1, 4, 8, 64)
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    kind = gguf.GGMLQuantizationType.Q8_0
    packed = gguf.quantize(stack, kind)
    writer.add_tensor("blk.0.ffn_up_exps.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    class Counted(GgufFile):
        loaded = 0

        def load(self, name: str) -> Values:
            self.loaded += 1
            return super().load(name)

    file = Counted(path)
    reader = ArrangedReader(file, "a")
    assert [one.dtype for one in reader.tensors()] == ["Q8_0"] * 4
    assert sum(one.size_bytes for one in reader.tensors()) == file.tensors()[0].size_bytes
    expected = gguf.dequantize(packed, kind).reshape(stack.shape)
    for number, one in enumerate(reader.tensors()):
        reader.release()
        np.testing.assert_array_equal(reader.load(one.name), expected[number])
    assert file.loaded == 1
    reader.load(reader.tensors()[0].name)
    assert file.loaded == 2


@pytest.mark.parametrize("architecture", ["gemma", "gemma2", "gemma3"])
def test_gains_of_gemma_are_those_of_its_parent(tmp_path: Path, architecture: str) -> None:
    gain = normal(0, 16) / 8
    made: dict[str, Values] = {
        "blk.0.attn_norm.weight": gain + 1,
        "output_norm.weight": gain + 1,
        "blk.0.attn_q.weight": normal(1, 16, 16),
    }
    if architecture != "gemma":
        made["blk.0.post_ffw_norm.weight"] = gain + 1
    found = layers_of(write(tmp_path / "a.gguf", architecture, made))
    for name, values in found.items():
        if name.endswith("norm.weight"):
            # (w + 1) - 1 in float32: half a unit in the last place of numbers up to 2.
            np.testing.assert_allclose(values, gain, rtol=0, atol=2**-23)
    np.testing.assert_array_equal(
        found["model.layers.0.self_attn.q_proj.weight"], made["blk.0.attn_q.weight"]
    )
    assert "model.layers.0.input_layernorm.weight" in found


def test_gains_of_llama_are_left_alone(tmp_path: Path) -> None:
    gain = normal(0, 16)
    found = layers_of(
        write(tmp_path / "a.gguf", "llama", {"output_norm.weight": gain, "output.weight": normal(1, 4, 16)})
    )
    np.testing.assert_array_equal(found["model.norm.weight"], gain)


@pytest.mark.parametrize(
    ("architecture", "head_counts", "expected"),
    [
        # Sorted by the converter: queries, keys, values, one after the other.
        ("bloom", {"head_count": 4}, "transformer.h.0.self_attention"),
        ("falcon", {"head_count": 4, "head_count_kv": 1}, "transformer.h.0.self_attention"),
        ("gptneox", {"head_count": 4}, "gpt_neox.layers.0.attention"),
        ("gpt2", {"head_count": 4}, "transformer.h.0.attn"),
        ("starcoder", {"head_count": 4, "head_count_kv": 1}, "transformer.h.0.attn"),
        ("mpt", {"head_count": 4}, "transformer.blocks.0.attn"),
        ("phi3", {"head_count": 4, "head_count_kv": 2}, "model.layers.0.self_attn"),
    ],
)
def test_fused_attention_of_a_gguf_file(
    tmp_path: Path, architecture: str, head_counts: dict[str, int], expected: str
) -> None:
    shared = head_counts.get("head_count_kv", 4) * 8
    parts = {"q_proj": normal(1, 32, 32), "k_proj": normal(2, shared, 32), "v_proj": normal(3, shared, 32)}
    made = {
        "blk.0.attn_qkv.weight": np.concatenate(list(parts.values())),
        "blk.0.attn_output.weight": normal(4, 32, 32),
    }
    made["blk.0.attn_qkv.bias"] = made["blk.0.attn_qkv.weight"][:, 0]
    found = layers_of(write(tmp_path / "a.gguf", architecture, made, **head_counts))
    for name, values in parts.items():
        np.testing.assert_array_equal(found[f"{expected}.{name}.weight"], values)
        np.testing.assert_array_equal(found[f"{expected}.{name}.bias"], values[:, 0])
    assert len(found) == 7


def test_without_anything_to_undo_everything_is_handed_on() -> None:
    state = {
        "layers.0.w": normal(0, 4, 4),
        "blk.0.attn_q.weight": normal(1, 4, 4),
        "output.weight": normal(2, 4),
    }
    reader = MemoryReader(state)
    arranged = ArrangedReader(reader, "memory", {"model_type": "llama", "num_attention_heads": 2})
    assert list(arranged.tensors()) == list(reader.tensors())
    for name, values in state.items():
        np.testing.assert_array_equal(arranged.load(name), values)
    arranged.release()
    arranged.close()
    assert (reader.released, reader.closed) == (1, True)
