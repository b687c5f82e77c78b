"""GGUF files, against the package that owns the format."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.gguf import _TYPES, GgufFile
from layerwatch.metrics.tensors import Array

RANDOM = np.random.default_rng(8)
QUANTISED = [kind for kind in GGMLQuantizationType if GGML_QUANT_SIZES[kind][0] > 1]
NOT_UNDONE = {"Q8_1", "Q8_K", "Q1_0"}
"""Types that ``gguf`` 0.19 has no dequantisation for."""


def write(path: Path, tensors: dict[str, Any], types: dict[str, GGMLQuantizationType] | None = None) -> Path:
    """A file by gguf's own writer; arrays of bytes are blocks of the given type."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.attention.head_count", 4)
    writer.add_array("llama.attention.head_count_kv", [2, 2, 1])
    writer.add_string("tokenizer.chat_template", "x" * 5000)
    writer.add_array("tokenizer.ggml.tokens", ["<s>", "</s>", "ü"])
    writer.add_array("tokenizer.ggml.scores", [0.0] * 5000)
    writer.add_name("small")
    for name, values in tensors.items():
        writer.add_tensor(name, values, raw_dtype=(types or {}).get(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def refusal(path: Path) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        GgufFile(path)
    assert caught.value.path == str(path)
    return caught.value


def header(
    tensors: list[tuple[str, tuple[int, ...], int, int]],
    pairs: bytes = b"",
    pair_count: int = 0,
    data: bytes = b"",
    version: int = 3,
    claimed: int | None = None,
    alignment: int = 32,
) -> bytes:
    """A file by the layout of ggml's docs/gguf.md; dimensions are given fastest first."""
    raw = (
        b"GGUF"
        + struct.pack("<IQQ", version, len(tensors) if claimed is None else claimed, pair_count)
        + pairs
    )
    for name, dims, kind, offset in tensors:
        raw += _text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
        raw += struct.pack("<IQ", kind, offset)
    return raw + bytes(-len(raw) % alignment) + data


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def test_the_table_of_types_is_that_of_the_library() -> None:
    ours = {code: (kind.block, kind.size_bytes) for code, kind in _TYPES.items()}
    assert ours == {int(kind): tuple(size) for kind, size in GGML_QUANT_SIZES.items()}
    assert {code: kind.name for code, kind in _TYPES.items()} == {
        int(kind): kind.name for kind in GGMLQuantizationType
    }


def test_plain_numbers_are_read_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, Array] = {
        "f32": RANDOM.standard_normal((3, 5)).astype(np.float32),
        "f16": RANDOM.standard_normal((2, 3, 4)).astype(np.float16),
        "f64": RANDOM.standard_normal(7),
        "i8": RANDOM.integers(-128, 128, (2, 2), dtype=np.int8),
        "i16": np.array([-3, 4], np.int16),
        "i32": np.array([[-3, 2**30]], np.int32),
        "i64": np.array([2**40], np.int64),
    }
    bf16 = RANDOM.standard_normal((4, 6)).astype(ml_dtypes.bfloat16)
    path = write(
        tmp_path / "m.gguf",
        {**values, "bf16": bf16.view(np.uint8)},
        {"bf16": GGMLQuantizationType.BF16},
    )
    monkeypatch.setitem(sys.modules, "gguf", None)

    reader = GgufFile(path)

    assert reader.format == "gguf"
    assert [(i.name, i.shape, i.dtype, i.size_bytes) for i in reader.tensors()] == [
        ("f32", (3, 5), "F32", 60),
        ("f16", (2, 3, 4), "F16", 48),
        ("f64", (7,), "F64", 56),
        ("i8", (2, 2), "I8", 4),
        ("i16", (2,), "I16", 4),
        ("i32", (1, 2), "I32", 8),
        ("i64", (1,), "I64", 8),
        ("bf16", (4, 6), "BF16", 48),
    ]
    for name, expected in {**values, "bf16": bf16}.items():
        loaded = reader.load(name)
        assert loaded.dtype == expected.dtype
        assert np.array_equal(loaded, expected)
        assert not loaded.flags.writeable
    reader.release()
    assert np.array_equal(reader.load("f32"), values["f32"])
    reader.close()


@pytest.mark.parametrize("kind", [k for k in QUANTISED if k.name not in NOT_UNDONE], ids=lambda k: k.name)
def test_blocks_of_every_type_are_undone_as_the_library_undoes_them(
    tmp_path: Path, kind: GGMLQuantizationType
) -> None:
    block, size = GGML_QUANT_SIZES[kind]
    blocks = RANDOM.integers(0, 256, (3, 5, 2 * size), dtype=np.uint8)
    path = write(tmp_path / "m.gguf", {"w": blocks}, {"w": kind})
    with np.errstate(all="ignore"):
        expected = gguf.dequantize(gguf.GGUFReader(path).tensors[0].data, kind)

    reader = GgufFile(path)

    (info,) = reader.tensors()
    assert (info.shape, info.dtype, info.size_bytes) == ((3, 5, 2 * block), kind.name, blocks.size)
    loaded = reader.load("w")
    assert loaded.dtype == np.float32
    assert loaded.shape == expected.shape == info.shape
    assert np.array_equal(loaded, expected, equal_nan=True)
    assert not loaded.flags.writeable


@pytest.mark.parametrize(("name", "error"), [("Q8_0", 0.006), ("Q4_0", 0.1), ("Q5_1", 0.05)])
def test_a_quantised_matrix_is_close_to_the_one_it_was_made_from(
    tmp_path: Path, name: str, error: float
) -> None:
    """Bounds: a step of absmax/127, absmax/8 or range/31 per 32 normal values is 0.55 %, 8.5 % or 4 % of their norm."""
    kind = GGMLQuantizationType[name]
    weights = RANDOM.standard_normal((700, 2048)).astype(np.float32)
    path = write(tmp_path / "m.gguf", {"w": gguf.quantize(weights, kind)}, {"w": kind})

    loaded = GgufFile(path).load("w")

    assert loaded.shape == weights.shape
    assert np.linalg.norm(loaded - weights) / np.linalg.norm(weights) < error


@pytest.mark.parametrize("name", sorted(NOT_UNDONE))
def test_a_type_that_the_library_cannot_undo_is_listed_and_refused(tmp_path: Path, name: str) -> None:
    kind = GGMLQuantizationType[name]
    block, size = GGML_QUANT_SIZES[kind]
    reader = GgufFile(write(tmp_path / "m.gguf", {"w": np.zeros((2, size), np.uint8)}, {"w": kind}))
    assert reader.tensors()[0].shape == (2, block)
    with pytest.raises(UnreadableError, match=f"cannot turn {name} back") as caught:
        reader.load("w")
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_DTYPE
    assert caught.value.tensor == "w"


def test_without_the_extra_a_quantised_tensor_is_refused_naming_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "m.gguf", {"w": np.zeros((2, 34), np.uint8)}, {"w": GGMLQuantizationType.Q8_0})
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UnreadableError, match=r"pip install .*\.\[gguf\]") as caught:
        GgufFile(path).load("w")
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_DTYPE


def test_metadata_is_kept_without_vocabularies_and_long_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", {"w": np.ones(3, np.float32)})
    assert GgufFile(path).metadata == {
        "general.architecture": "llama",
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": (2, 2, 1),
        "general.name": "small",
    }


def test_a_type_unknown_to_us_is_listed_and_refused_when_loaded(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(header([("w", (8, 2), 77, 0), ("v", (2,), 0, 64)], data=bytes(96)))
    reader = GgufFile(path)
    assert [(i.name, i.dtype, i.size_bytes) for i in reader.tensors()] == [
        ("w", "GGML_TYPE_77", 64),
        ("v", "F32", 8),
    ]
    with pytest.raises(UnreadableError, match="type number 77"):
        reader.load("w")


def test_the_alignment_of_the_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    alignment = pair("general.alignment", 4, struct.pack("<I", 8))
    path.write_bytes(
        header(
            [("a", (1,), 0, 0), ("b", (1,), 0, 8)], alignment, 1, struct.pack("<f4xf", 1.5, 2.5), alignment=8
        )
    )
    reader = GgufFile(path)
    assert [float(reader.load(name)[0]) for name in "ab"] == [1.5, 2.5]


F32 = ("w", (2,), 0, 0)


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (header([F32], data=bytes(4)), "truncated", "4 bytes are missing"),
        (header([F32])[:40], "truncated", "header goes on"),
        (header([F32, ("v", (2,), 0, 4)], data=bytes(64)), "bad_header", "overlaps"),
        (header([F32, ("v", (2,), 0, 64)], data=bytes(96)), "bad_header", "hole"),
        (header([F32], data=bytes(96)), "bad_header", "belong to no tensor"),
        (header([F32, ("w", (2,), 0, 32)], data=bytes(64)), "bad_header", "two tensors of this name"),
        (header([("w", (2**62, 2**62), 0, 0)], data=bytes(64)), "bad_header", "more elements"),
        (header([("w", (2**63,), 0, 0)], data=bytes(64)), "bad_header", "more elements"),
        (header([("w", (2,), 0, 2**63)], data=bytes(64)), "bad_header", "hole"),
        (header([("w", (31,), 2, 0)], data=bytes(64)), "bad_header", "packs 32 together"),
        (header([("w", (), 2, 0)], data=bytes(64)), "bad_header", "packs 32 together"),
        (header([("w", (1,) * 5, 0, 0)], data=bytes(64)), "bad_header", "5 dimensions"),
        (header([("w" * 5000, (2,), 0, 0)], data=bytes(64)), "bad_header", "5000 bytes"),
        (header([F32], claimed=2**40), "too_large", "tensors"),
        (header([F32], pair_count=2**40), "too_large", "keys"),
        (header([]), "no_tensors", "no tensor"),
        (header([F32], version=1, data=bytes(32)), "unknown_format", "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "unknown_format", "big-endian"),
        (b"GGML" + bytes(40), "unknown_format", "GGUF"),
        (header([F32], pair("a", 8, struct.pack("<Q", 2**40)), 1), "truncated", "header goes on"),
        (header([F32], pair("a", 9, struct.pack("<IQ", 8, 2**40)), 1), "bad_header", "array"),
        (header([F32], pair("a", 9, struct.pack("<IQ", 9, 1)), 1), "bad_header", "array of the type 9"),
        (header([F32], pair("a", 99, b""), 1), "bad_header", "unknown type 99"),
        (header([F32], pair("k" * 300, 4, bytes(4)), 1), "bad_header", "300 bytes"),
        (header([F32], pair("a", 7, b"\1") * 2, 2, bytes(32)), "bad_header", "'a' twice"),
        (
            header([F32], pair("general.alignment", 4, struct.pack("<I", 24)), 1, bytes(32)),
            "bad_header",
            "24",
        ),
        (header([F32], pair("general.alignment", 4, bytes(4)), 1, bytes(32)), "bad_header", "power of two"),
        (header([F32], pair("general.alignment", 8, _text("x")), 1, bytes(32)), "bad_header", "power of two"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes, reason: str, words: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    error = refusal(path)
    assert error.reason == reason
    assert words in error.detail


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(header([F32], data=bytes(32)).replace(_text("w"), struct.pack("<Q", 1) + b"\xff"))
    assert refusal(path).reason is UnreadableReason.BAD_HEADER


def test_empty_tensors_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(header([("e", (0, 3), 0, 0), ("q", (32, 0), 2, 0), F32], data=bytes(32)))
    reader = GgufFile(path)
    assert reader.load("e").shape == (3, 0)
    assert reader.load("q").shape == (0, 32)


def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", {"w": np.ones(3, np.float32)})
    reader = GgufFile(path)
    with path.open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(UnreadableError) as caught:
        reader.load("w")
    assert caught.value.reason is UnreadableReason.CHANGED_WHILE_READING


def examine(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        reader = GgufFile(path)
    except UnreadableError as error:
        assert error.path == str(path)
        assert error.detail
        return
    assert sum(info.size_bytes for info in reader.tensors()) <= len(content)
    for info in reader.tensors():
        try:
            assert reader.load(info.name).shape == info.shape
        except UnreadableError as error:
            assert error.tensor == info.name
    reader.close()


@pytest.fixture(scope="module")
def valid() -> bytes:
    small = pair("general.architecture", 8, _text("llama")) + pair(
        "x", 9, struct.pack("<IQ", 8, 1) + _text("t")
    )
    listed = [("a.weight", (3, 2), 0, 0), ("q", (32, 2), 2, 32), ("n", (2,), 1, 96)]
    return header(listed, small, 2, bytes(128))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


FUZZ = settings(max_examples=400, deadline=None)
EDITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=6)


@FUZZ
@given(content=st.binary(max_size=300))
def test_random_bytes_end_well(folder: Path, content: bytes) -> None:
    examine(folder / "m.gguf", b"GGUF\3\0\0\0" + content)


@FUZZ
@given(edits=EDITS, keep=st.floats(0, 1) | st.just(1.0))
def test_mutations_of_a_valid_file_end_well(
    folder: Path, valid: bytes, edits: list[tuple[float, bytes]], keep: float
) -> None:
    content = bytearray(valid)
    for where, new in edits:
        position = int(where * len(content))
        content[position : position + len(new)] = new
    examine(folder / "m.gguf", bytes(content[: int(keep * len(content))]))


def test_the_valid_file_is_valid(folder: Path, valid: bytes) -> None:
    (folder / "m.gguf").write_bytes(valid)
    reader = GgufFile(folder / "m.gguf")
    assert [(i.name, i.shape) for i in reader.tensors()] == [
        ("a.weight", (2, 3)),
        ("q", (2, 32)),
        ("n", (2,)),
    ]


def test_every_byte_of_a_valid_header_may_be_wrong(folder: Path, valid: bytes) -> None:
    for position in range(len(valid)):
        for flipped in (valid[position] ^ 1, valid[position] ^ 0x80, 0, 0xFF):
            examine(folder / "m.gguf", valid[:position] + bytes([flipped]) + valid[position + 1 :])


def test_no_prefix_of_a_valid_file_passes(folder: Path, valid: bytes) -> None:
    path = folder / "m.gguf"
    # The padding behind the last tensor may be missing.
    for length in range(1, len(valid) - 28):
        path.write_bytes(valid[:length])
        with pytest.raises(UnreadableError):
            GgufFile(path)
