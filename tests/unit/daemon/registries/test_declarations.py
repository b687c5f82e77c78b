"""Declarations in files that other tools write: PEFT, mergekit, transformers and GGUF."""

from __future__ import annotations

import json
import logging
import struct
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.daemon.registries.base import DeclaredLineage
from layerwatch.daemon.registries.declarations import (
    DECLARATION_FILES,
    confidence_of,
    declared_in,
    for_baseline,
)
from layerwatch.daemon.registries.ggufheader import HEAD_BYTES, general_pairs
from layerwatch_testing.worlds.directory import DirectoryWorld


def told(name: str, **values: Any) -> list[tuple[str, str | None]]:
    """(parent, relation) out of one JSON file."""
    return [(one.parent, one.relation) for one in declared_in({name: json.dumps(values).encode()})]


def merged(text: str, name: str = "mergekit_config.yml") -> tuple[DeclaredLineage, ...]:
    return declared_in({name: dedent(text).encode()})


def gguf(*pairs: tuple[str, Any], version: int = 3) -> bytes:
    """A header as ggml's gguf.md describes it: uint32 for numbers, strings, and arrays of strings."""
    written = [b"GGUF", struct.pack("<IQQ", version, 0, len(pairs))]

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    for key, value in pairs:
        written.append(text(key))
        if isinstance(value, str):
            written += [struct.pack("<I", 8), text(value)]
        elif isinstance(value, list):
            written += [struct.pack("<IIQ", 9, 8, len(value)), *map(text, value)]
        else:
            written.append(struct.pack("<II", 4, value))
    return b"".join(written)


def of_gguf(*pairs: tuple[str, Any]) -> list[tuple[str, str | None]]:
    return [(one.parent, one.relation) for one in declared_in({"model.gguf": gguf(*pairs)})]


def test_peft_names_the_base_of_an_adapter_and_its_revision() -> None:
    base = {"base_model_name_or_path": "meta/llama", "peft_type": "LORA"}
    assert told("adapter_config.json", **base) == [("meta/llama", "adapter")]
    assert told("adapter_config.json", **base, revision="abc") == [("meta/llama@abc", "adapter")]
    assert told("adapter_config.json", base_model_name_or_path=None) == []
    assert told("adapter_config.json", base_model_name_or_path=3) == []


def test_a_quantised_config_names_what_was_loaded_and_is_hardly_believed() -> None:
    quantised = {"_name_or_path": "meta/llama", "quantization_config": {"quant_method": "awq"}}
    assert told("config.json", **quantised) == [("meta/llama", "quantized")]
    (found,) = declared_in({"config.json": json.dumps(quantised).encode()})
    assert confidence_of(found) == pytest.approx(0.3)
    assert for_baseline([found]) is None
    assert told("config.json", _name_or_path="meta/llama") == []
    assert told("config.json", **{**quantised, "_name_or_path": "./"}) == []


def test_the_most_reliable_declaration_comes_first() -> None:
    texts = {
        "config.json": b'{"_name_or_path": "c", "quantization_config": {}}',
        "adapter_config.json": b'{"base_model_name_or_path": "a"}',
        "lineage.json": b'{"parent": "v1"}',
        "mergekit_config.yml": b"models: [{model: m}]\nmerge_method: linear",
        "model.gguf": gguf(("general.source.repo_url", "g")),
    }
    assert [one.parent for one in declared_in(texts)] == ["v1", "m", "a", "g", "c"]
    confidences = [confidence_of(one) for one in declared_in(texts)]
    assert confidences == sorted(confidences, reverse=True)


def test_revisions_and_adapters_of_mergekit_are_kept() -> None:
    (found,) = merged(
        """
        models:
          - model: org/one@abc+org/lora
          - model: {model: {path: org/two, revision: def}}
        merge_method: linear
        """
    )
    assert found.parents == ("org/one@abc+org/lora", "org/two@def")
    assert found.is_baseline


def test_slices_tell_their_models_and_no_recipe() -> None:
    # The form of mergekit's examples/bio-merge.yml and orcamini-platy-44layer.yml.
    found = merged(
        """
        slices:
          - sources:
              - {model: org/one, layer_range: [0, 16]}
          - sources:
              - {model: org/two, layer_range: [8, 24]}
              - {model: org/one, layer_range: [8, 24]}
        merge_method: passthrough
        """
    )
    assert [(one.parent, one.relation, one.parents, one.recipe) for one in found] == [
        ("org/one", "merged", (), None),
        ("org/two", "merged", (), None),
    ]
    assert for_baseline(found) is None


def test_a_mixture_of_experts_tells_its_base_and_its_experts() -> None:
    found = merged(
        """
        base_model: org/base
        gate_mode: hidden
        experts:
          - {source_model: org/math, positive_prompts: ["sum", "prove"]}
          - {source_model: org/code, positive_prompts: ["def"]}
        """,
        "mergekit_moe_config.yml",
    )
    assert [(one.parent, one.source) for one in found] == [
        (name, "mergekit_moe_config.yml") for name in ("org/base", "org/math", "org/code")
    ]


def test_steps_of_several_merges_are_no_models() -> None:
    found = merged(
        """
        name: first
        models: [{model: org/a}, {model: org/b}]
        merge_method: linear
        ---
        models: [{model: first}, {model: org/c}]
        merge_method: linear
        """
    )
    assert [one.parent for one in found] == ["org/a", "org/b", "org/c"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mergekit_config.yml", b"models: [{model: &a a}, {model: *a}]\nmerge_method: linear"),
        ("mergekit_config.yml", b"[" * 100_000),
        ("mergekit_config.yml", b"x: 1\n" * 100_000),
        ("mergekit_config.yml", b"!!python/object/apply:os.system ['true']"),
        ("mergekit_moe_config.yml", b"experts: []"),
        ("adapter_config.json", b"[" * 100_000),
        ("adapter_config.json", b"[]"),
        ("adapter_config.json", b'{"base_model_name_or_path": "' + b"x" * 5000 + b'"}'),
        ("adapter_config.json", b'{"base_model_name_or_path": "\\ud800"}'),
        ("config.json", b" " * (4 * 2**20 + 1)),
        ("lineage.json", b"{"),
        ("model.gguf", b"GGML" + bytes(40)),
        ("model.gguf", b"GGUF\x00\x00\x00\x03" + bytes(40)),
    ],
)
def test_what_cannot_be_read_is_left_out_and_told(
    name: str, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert declared_in({name: text}) == ()
    assert f"{name} is not used" in caplog.text


def test_gguf_tells_what_was_converted_and_how() -> None:
    assert of_gguf(
        ("general.architecture", "llama"),
        ("general.file_type", 15),
        ("general.source.repo_url", "https://huggingface.co/org/merge"),
        ("general.base_model.count", 2),
        ("general.base_model.0.name", "Llama 3"),
        ("general.base_model.0.organization", "Meta"),
        ("general.base_model.1.repo_url", "https://huggingface.co/org/other"),
    ) == [
        ("https://huggingface.co/org/merge", "quantized"),
        ("Meta/Llama 3", "merged"),
        ("https://huggingface.co/org/other", "merged"),
    ]
    assert of_gguf(("general.file_type", 1), ("general.source.url", "a/b")) == [("a/b", None)]
    adapter = (
        ("general.type", "adapter"),
        ("general.base_model.count", 1),
        ("general.base_model.0.name", "x"),
    )
    assert of_gguf(*adapter) == [("x", "adapter")]


def test_a_vocabulary_is_stepped_over_and_one_that_is_cut_off_ends_the_reading() -> None:
    tokens = ("tokenizer.ggml.tokens", ["word"] * 1000)
    source = ("general.source.repo_url", "a/b")
    assert general_pairs(gguf(tokens, source)) == {"general.source.repo_url": "a/b"}
    assert general_pairs(gguf(source, tokens)[:2000]) == {"general.source.repo_url": "a/b"}
    assert general_pairs(gguf(tokens, source, version=2)[:2000]) == {}


@settings(max_examples=300)
@given(st.binary(max_size=300), st.integers(0, 2**64 - 1), st.sampled_from([*DECLARATION_FILES, "m.gguf"]))
def test_no_bytes_do_harm(text: bytes, number: int, name: str) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, number) + text
    for one in (text, head):
        for found in declared_in({name: one}):
            assert found.parent


def test_a_directory_tells_what_lies_beside_the_weights(world: DirectoryWorld) -> None:
    world.publish("m", "v2", lineage=b'{"parent": "v1"}')
    folder: Path = world.folder("m", "v2")
    (folder / "adapter_config.json").write_bytes(b'{"base_model_name_or_path": "org/base"}')
    (folder / "mergekit_config.yml").write_bytes(b"models: [{model: a}]\nmerge_method: linear")
    (folder / "z.gguf").write_bytes(gguf(("general.source.repo_url", "org/source")) + bytes(2 * HEAD_BYTES))
    registry = world.registry
    (found,) = world.look().versions
    assert [(one.parent, one.source) for one in registry.lineage(found)] == [
        ("v1", "lineage.json"),
        ("a", "mergekit_config.yml"),
        ("org/base", "adapter_config.json"),
        ("org/source", "gguf"),
    ]
