"""Torch checkpoints that are cut, flipped, too deep or too large end in an error that names file and reason."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from forge import VALUES, dict_pickle, global_opcode, plain, tensor_opcodes, write_legacy, write_zip
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers import torchzip
from layerwatch.metrics.readers.detect import open_model

Writer = Callable[[Path, bytes], Path]
WRITERS = [pytest.param(write_zip, id="zip"), pytest.param(write_legacy, id="legacy")]


def refusal(path: Path) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        reader = open_model(path)
        for info in reader.tensors():
            reader.load(info.name)
    assert caught.value.path == str(path)
    assert caught.value.detail
    return caught.value


def legacy_file(path: Path) -> bytes:
    torch.save({"a": torch.arange(10.0), "b": torch.arange(10.0)}, path, _use_new_zipfile_serialization=False)
    return path.read_bytes()


def test_a_truncated_legacy_file_is_refused_with_the_missing_byte_count(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    path.write_bytes(legacy_file(path)[:-17])
    error = refusal(path)
    assert error.reason is UnreadableReason.TRUNCATED
    assert "17 bytes are missing" in error.detail


def test_a_legacy_file_cut_inside_its_pickle_is_refused_as_truncated(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    whole = legacy_file(path)
    for length in range(40, whole.index(b"storage") + 20):
        path.write_bytes(whole[:length])
        assert refusal(path).reason is UnreadableReason.TRUNCATED, length


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_zip_is_refused(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "m.pt"
    torch.save({"a": torch.arange(1000.0)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    error = refusal(path)
    assert error.reason is UnreadableReason.TRUNCATED
    assert "copy it again" in error.detail


def test_a_flipped_bit_in_a_storage_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"a": torch.arange(1000.0), "b": torch.zeros(3)}, path)
    content = bytearray(path.read_bytes())
    position = content.index(struct.pack("<3f", 500, 501, 502))
    content[position] ^= 1
    path.write_bytes(content)
    reader = open_model(path)
    with pytest.raises(UnreadableError, match="checksum") as caught:
        reader.load("a")
    assert caught.value.reason is UnreadableReason.CORRUPT
    assert reader.load("b").tolist() == [0, 0, 0]


def test_a_flipped_bit_in_the_pickle_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"alpha": torch.arange(10.0)}, path)
    path.write_bytes(path.read_bytes().replace(b"alpha", b"alphb"))
    assert refusal(path).reason is UnreadableReason.CORRUPT


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(b"")
    assert refusal(path).reason is UnreadableReason.EMPTY_FILE


DEEP: dict[str, bytes] = {
    "lists": b"]" * 10_000 + b"a" * 9_999,
    "tuples": b")" + b"\x85" * 10_000,
    "dicts": b"".join(b"}" + plain("k") for _ in range(10_000)) + b"N" + b"s" * 10_000,
    "objects": global_opcode("foreign", "Thing") * 10_000 + b")" + b"R\x85" * 9_999 + b"R",
    "states": b"".join(global_opcode("foreign", "Thing") + b")R}" + plain("k") for _ in range(10_000))
    + b"N"
    + b"sb" * 10_000,
}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("kind", DEEP)
def test_nesting_of_10000_levels_is_refused_without_recursion(
    tmp_path: Path, write: Writer, kind: str
) -> None:
    path = write(tmp_path / "m.pt", dict_pickle({"deep": DEEP[kind], "w": tensor_opcodes()}))
    assert refusal(path).reason is UnreadableReason.TOO_DEEP


@pytest.mark.parametrize("write", WRITERS)
def test_values_beside_the_weights_too_deep_to_be_searched_are_refused(tmp_path: Path, write: Writer) -> None:
    weights = dict_pickle({"w": tensor_opcodes()})[2:-1]
    path = write(tmp_path / "m.pt", dict_pickle({"deep": DEEP["tuples"], "state_dict": weights}))
    assert refusal(path).reason is UnreadableReason.TOO_DEEP


def test_a_tuple_of_100000_levels_as_dict_key_is_not_hashed(tmp_path: Path) -> None:
    deep_key = b"}" + b")" + b"\x85" * 100_000 + b"Ns"
    path = write_zip(
        tmp_path / "m.pt",
        dict_pickle({"x": deep_key, "state_dict": dict_pickle({"w": tensor_opcodes()})[2:-1]}),
    )
    assert open_model(path).load("w").shape == (2, 3)


def test_lists_that_double_at_every_level_are_refused(tmp_path: Path) -> None:
    # Each level holds the one before it ten times: 10**12 values in a few hundred bytes.
    levels = b"]q\0" + b"".join(
        b"](" + b"h" + bytes([level]) + (b"h" + bytes([level])) * 9 + b"eq" + bytes([level + 1])
        for level in range(12)
    )
    path = write_zip(tmp_path / "m.pt", b"\x80\x02" + levels + b".")
    assert refusal(path).reason is UnreadableReason.TOO_LARGE


BAD_OPCODES: dict[str, tuple[bytes, UnreadableReason, str]] = {
    "extension registry": (b"\x82\x01", UnreadableReason.BAD_PICKLE, "EXT1"),
    "long extension": (b"\x84\x01\0\0\0", UnreadableReason.BAD_PICKLE, "EXT4"),
    "out-of-band buffer": (b"\x97", UnreadableReason.BAD_PICKLE, "NEXT_BUFFER"),
    "protocol of the future": (b"\x80\x09N", UnreadableReason.BAD_PICKLE, "protocol 9"),
    "unknown opcode": (b"\xff", UnreadableReason.BAD_PICKLE, "opcode"),
    "memo never written": (b"h\x05", UnreadableReason.BAD_PICKLE, "memo entry 5"),
    "stack underflow": (b"0" * 9, UnreadableReason.BAD_PICKLE, "mark"),
    "mark never set": (b"Ne", UnreadableReason.BAD_PICKLE, "mark"),
    "append to a number": (b"K\1K\1a", UnreadableReason.BAD_PICKLE, "appended to 1"),
    "entry in a list": (b"]K\1K\1s", UnreadableReason.BAD_PICKLE, "entries are set in a list"),
    "key without value": (b"}(K\1u", UnreadableReason.BAD_PICKLE, "no value"),
    "arguments no tuple": (global_opcode("a", "b") + b"K\1R", UnreadableReason.BAD_PICKLE, "not a tuple"),
    "global named by a number": (b"K\1K\2\x93", UnreadableReason.BAD_PICKLE, "no text"),
    "object without class": (b"(o", UnreadableReason.BAD_PICKLE, "without a class"),
    "text persistent id": (b"Pabc\n", UnreadableReason.BAD_PICKLE, "'abc'"),
    "odd persistent id": (b"(K\1K\2tQ", UnreadableReason.BAD_PICKLE, "not known"),
    "empty persistent id": (b")Q", UnreadableReason.BAD_PICKLE, "tuple"),
    "bytes beyond the file": (
        b"\x8e" + struct.pack("<Q", 2**62) + b"x",
        UnreadableReason.TRUNCATED,
        "missing",
    ),
    "number beyond the file": (b"\x8b" + struct.pack("<i", 2**31 - 1), UnreadableReason.TRUNCATED, "missing"),
    "negative length": (b"\x8b" + struct.pack("<i", -5), UnreadableReason.BAD_PICKLE, "damaged"),
    "long decimal": (b"L" + b"9" * 5000 + b"L\n", UnreadableReason.BAD_PICKLE, "damaged"),
    "endless line": (b"V" + b"x" * 70_000 + b"\n", UnreadableReason.TOO_LARGE, "line"),
    "tensor without arguments": (
        global_opcode("torch._utils", "_rebuild_tensor_v2") + b")R",
        UnreadableReason.BAD_PICKLE,
        "at least 4",
    ),
    "tensor without storage": (
        global_opcode("torch._utils", "_rebuild_tensor_v2") + b"(NK\0)" + b")tR",
        UnreadableReason.BAD_PICKLE,
        "storage of a tensor is None",
    ),
    "typed tensor without type": (
        global_opcode("torch._utils", "_rebuild_tensor_v3") + b"(NNNNNNNtR",
        UnreadableReason.BAD_PICKLE,
        "without that type",
    ),
    "subclass rebuilt from nothing": (
        global_opcode("torch._tensor", "_rebuild_from_type_v2") + b"(" + global_opcode("a", "b") + b"NNNtR",
        UnreadableReason.BAD_PICKLE,
        "no tuple",
    ),
    "dict of no pairs": (
        global_opcode("collections", "OrderedDict") + b"(](K\1etR",
        UnreadableReason.BAD_PICKLE,
        "key and value",
    ),
}


@pytest.mark.parametrize("case", BAD_OPCODES)
def test_a_pickle_with_bad_opcodes_is_refused(tmp_path: Path, case: str) -> None:
    opcodes, reason, words = BAD_OPCODES[case]
    error = refusal(write_zip(tmp_path / "m.pt", b"\x80\x02" + opcodes + b"."))
    assert error.reason is reason
    assert words in error.detail


def test_a_memo_index_of_four_billion_takes_no_memory(tmp_path: Path) -> None:
    # CPython's unpickler before 3.14 allocates an array of that many entries.
    root = b"\x80\x02" + b"Nr\xff\xff\xff\xff0" + dict_pickle({"w": tensor_opcodes()})[2:]
    assert open_model(write_zip(tmp_path / "m.pt", root)).load("w").shape == (2, 3)


def test_rebuild_calls_nested_10000_deep_are_unwrapped_without_recursion(tmp_path: Path) -> None:
    opening = global_opcode("torch._tensor", "_rebuild_from_type_v2") + b"("
    inner = opening.removesuffix(b"(")
    nested = (
        (opening + inner + b"N(") * 10_000
        + global_opcode("torch._utils", "_rebuild_parameter")
        + b"N("
        + tensor_opcodes()
        + b"t" * 20_000
    )
    refusal(write_zip(tmp_path / "m.pt", dict_pickle({"w": nested + b"R"})))
    wrapped = tensor_opcodes()
    for _ in range(100):
        wrapped = opening + global_opcode("torch._utils", "_rebuild_parameter") + b"N(" + wrapped + b"ttR"
    assert open_model(write_zip(tmp_path / "n.pt", dict_pickle({"w": wrapped}))).load("w").shape == (2, 3)


def test_a_legacy_file_whose_counts_disagree_is_refused(tmp_path: Path) -> None:
    root = dict_pickle({"w": tensor_opcodes()})
    data = VALUES.tobytes()
    assert "holds 5 elements" in refusal(write_legacy(tmp_path / "a.pt", root, {"0": (5, data)})).detail
    assert (
        refusal(write_legacy(tmp_path / "b.pt", root, {"9": (6, data)})).reason is UnreadableReason.BAD_PICKLE
    )
    assert refusal(write_legacy(tmp_path / "c.pt", root, {})).reason is UnreadableReason.BAD_PICKLE


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"version": 1002}, UnreadableReason.UNKNOWN_FORMAT),
        ({"system": dict_pickle({"little_endian": b"\x89"})}, UnreadableReason.UNKNOWN_FORMAT),
        ({"keys": "keys"}, UnreadableReason.BAD_PICKLE),
        ({"keys": ["0", "0"]}, UnreadableReason.BAD_PICKLE),
        ({"keys": [None]}, UnreadableReason.BAD_PICKLE),
    ],
)
def test_a_legacy_header_that_is_not_ours_is_refused(
    tmp_path: Path, parts: dict[str, Any], reason: UnreadableReason
) -> None:
    path = write_legacy(tmp_path / "m.pt", dict_pickle({"w": tensor_opcodes()}), **parts)
    assert refusal(path).reason is reason


def test_a_legacy_storage_of_unknown_type_hides_those_behind_it(tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "m.pt", dict_pickle({"w": tensor_opcodes(storage="Float3Storage")}))
    assert refusal(path).reason is UnreadableReason.UNSUPPORTED_DTYPE


def zip_of(path: Path, entries: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


ROOT = dict_pickle({"w": tensor_opcodes()})


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "reason", "words"),
    [
        ([("a.txt", b"x")], UnreadableReason.UNKNOWN_FORMAT, "no torch checkpoint"),
        ([("a/data.pkl", ROOT), ("b/data.pkl", ROOT)], UnreadableReason.UNKNOWN_FORMAT, "2 entries"),
        ([("a/data.pkl", ROOT), ("a/constants.pkl", b"")], UnreadableReason.TRUNCATED, "pickle"),
        ([("a/data.pkl", ROOT), ("../b", b"")], UnreadableReason.BAD_HEADER, "lead out"),
        ([("a/data.pkl", ROOT), ("/b", b"")], UnreadableReason.BAD_HEADER, "lead out"),
        ([("a/data.pkl", ROOT), ("a/byteorder", b"big")], UnreadableReason.UNKNOWN_FORMAT, "big-endian"),
        ([("a/data.pkl", ROOT), ("a/data.pkl", ROOT)], UnreadableReason.BAD_HEADER, "same name"),
        ([("a/data.pkl", ROOT)], UnreadableReason.BAD_PICKLE, "not in the file"),
    ],
)
def test_a_zip_file_that_is_no_plain_checkpoint_is_refused(
    tmp_path: Path, entries: list[tuple[str, bytes]], reason: UnreadableReason, words: str
) -> None:
    error = refusal(zip_of(tmp_path / "m.pt", entries))
    assert error.reason is reason
    assert words in error.detail


def directory_field(content: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    """The zip file with one field of an entry of its central directory replaced."""
    begin = content.index(name, content.index(b"PK\1\2")) - 46
    return content[: begin + offset] + value + content[begin + offset + len(value) :]


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (42, struct.pack("<I", 3), UnreadableReason.BAD_HEADER),
        (42, struct.pack("<I", 2**32 - 2), UnreadableReason.BAD_HEADER),
        (24, struct.pack("<I", 2**30), UnreadableReason.BAD_PICKLE),
        (8, struct.pack("<H", 1), UnreadableReason.UNKNOWN_FORMAT),
        (10, struct.pack("<H", 8), UnreadableReason.CORRUPT),
        (10, struct.pack("<H", 99), UnreadableReason.CORRUPT),
    ],
    ids=["offset", "far offset", "size", "encrypted", "compressed", "unknown method"],
)
def test_a_zip_directory_that_lies_about_a_storage_is_refused(
    tmp_path: Path, offset: int, value: bytes, reason: UnreadableReason
) -> None:
    path = write_zip(tmp_path / "m.pt", ROOT)
    path.write_bytes(directory_field(path.read_bytes(), b"archive/data/0", offset, value))
    assert refusal(path).reason is reason


def test_a_compressed_entry_shorter_than_it_says_is_refused(tmp_path: Path) -> None:
    root = dict_pickle({"w": tensor_opcodes(numel=2**24)})
    path = write_zip(tmp_path / "m.pt", root, compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(directory_field(path.read_bytes(), b"archive/data/0", 24, struct.pack("<I", 2**26)))
    assert refusal(path).reason is UnreadableReason.CORRUPT


def test_a_compressed_entry_above_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "m.pt", ROOT, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torchzip, "MAX_COMPRESSED_STORAGE", 23)
    monkeypatch.setattr(torchzip, "MAX_PICKLE_BYTES", 10_000)
    assert refusal(path).reason is UnreadableReason.TOO_LARGE
