"""Checkpoints of Orbax against what Orbax itself restores (``tests/_data/orbax``, Orbax 0.12.8)."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers import orbax
from layerwatch.metrics.readers.orbax import OrbaxDirectory

FILES = Path(__file__).parents[3] / "_data" / "orbax"
KINDS = ("ocdbt", "zarr", "zarr3")
SHAPES = {
    "params.attention.kernel": ((16, 2, 8), "F32"),
    "params.blocks.0": ((8, 8), "BF16"),
    "params.blocks.1": ((8, 8), "F16"),
    "params.conv.kernel": ((8, 4, 3, 2), "F32"),
    "params.dense.bias": ((16,), "F32"),
    "params.dense.kernel": ((16, 24), "F32"),
    "params.zeros.scale": ((16,), "F32"),
    "step": ((), "I32"),
}


def unpacked(folder: Path, kind: str = "ocdbt") -> Path:
    with tarfile.open(FILES / f"{kind}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / kind


def change(place: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    file = place / "_METADATA"
    description = json.loads(file.read_text())
    edit(description)
    file.write_text(json.dumps(description))


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_are_those_that_orbax_restores(tmp_path: Path, kind: str) -> None:
    reader = OrbaxDirectory(unpacked(tmp_path, kind))

    assert {info.name: (info.shape, info.dtype) for info in reader.tensors()} == SHAPES
    with np.load(FILES / "expected.npz") as expected:
        assert set(expected) == SHAPES.keys()
        for info in reader.tensors():
            values = reader.load(info.name)
            assert values.shape == info.shape
            assert values.nbytes == info.size_bytes
            assert not values.flags.writeable
            turned = {"params.dense.kernel": (1, 0), "params.conv.kernel": (3, 2, 0, 1)}.get(info.name)
            wanted = expected[info.name] if turned is None else expected[info.name].transpose(turned)
            assert np.array_equal(values.astype(np.float32), wanted), info.name
    assert reader.left_out == [("opt_state", "training state: not examined")]


def test_no_values_are_read_before_they_are_asked_for(tmp_path: Path) -> None:
    place = unpacked(tmp_path, "zarr")
    for chunk in place.glob("params.*/[0-9]*"):
        chunk.write_bytes(b"\0" * chunk.stat().st_size)

    reader = OrbaxDirectory(place)

    assert len(reader.tensors()) == len(SHAPES)
    with pytest.raises(UnreadableError) as caught:
        reader.load("params.dense.kernel")
    assert (caught.value.reason, caught.value.tensor) == (UnreadableReason.CORRUPT, "params.dense.kernel")
    assert int(reader.load("step")) == 7


@pytest.mark.parametrize("kind", ["zarr", "zarr3"])
def test_a_chunk_that_is_lost_is_no_chunk_of_zeros(tmp_path: Path, kind: str) -> None:
    place = unpacked(tmp_path, kind)
    if kind == "zarr":
        (place / "params.dense.kernel" / "0.0").unlink()
        reader = OrbaxDirectory(place)
        with pytest.raises(UnreadableError) as caught:
            reader.load("params.dense.kernel")
        assert caught.value.reason is UnreadableReason.MISSING_SHARD
    else:
        shutil.rmtree(place / "ocdbt.process_0")
        with pytest.raises(UnreadableError) as caught:
            reader = OrbaxDirectory(place)
            reader.load("params.dense.kernel")
        assert caught.value.reason in {UnreadableReason.MISSING_SHARD, UnreadableReason.CORRUPT}


def test_a_chunk_that_older_releases_left_out_is_zero(tmp_path: Path) -> None:
    place = unpacked(tmp_path, "zarr")
    change(place, lambda description: description.pop("store_array_data_equal_to_fill_value"))
    (place / "params.zeros.scale" / "0").unlink()

    assert OrbaxDirectory(place).load("params.zeros.scale").tolist() == [0.0] * 16


@pytest.mark.parametrize("kind", KINDS)
def test_an_array_that_is_declared_and_not_there_is_named(tmp_path: Path, kind: str) -> None:
    place = unpacked(tmp_path, kind)

    def add(description: dict[str, Any]) -> None:
        tree = description["tree_metadata"]
        tree["x"] = {
            "key_metadata": [{"key": "lost"}, {"key": "kernel"}],
            "value_metadata": {"value_type": "jax.Array"},
        }

    change(place, add)
    with pytest.raises(UnreadableError) as caught:
        OrbaxDirectory(place)
    assert (caught.value.reason, caught.value.tensor) == (UnreadableReason.MISSING_SHARD, "lost.kernel")


@pytest.mark.parametrize(
    "name",
    ["../outside", "..", "a/../../outside", "/etc", "a//b", "a\\b", "a\0b", "./a", "", "x" * 5000, "\ud800"],
)
def test_names_that_are_ways_through_directories_are_refused(tmp_path: Path, name: str) -> None:
    place = unpacked(tmp_path, "zarr")
    shutil.copytree(place / "params.dense.kernel", tmp_path / "outside")

    def rename(description: dict[str, Any]) -> None:
        first = next(iter(description["tree_metadata"].values()))
        first["key_metadata"] = [{"key": name}]

    change(place, rename)
    with pytest.raises(UnreadableError) as caught:
        OrbaxDirectory(place)
    assert caught.value.reason is UnreadableReason.BAD_HEADER


def crc32c(raw: bytes) -> int:
    """Castagnoli's checksum, RFC 3720, appendix B.4."""
    state = 0xFFFFFFFF
    for byte in raw:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def plain(raw: bytes, edit: Callable[[bytes], bytes]) -> bytes:
    """A file of a database without its compression: magic, length, version, method, content, checksum."""
    content = edit(zstandard.ZstdDecompressor().decompressobj().decompress(raw[14:-4]))
    head = raw[:4] + struct.pack("<Q", len(content) + 18) + raw[12:13] + b"\0"
    return head + content + struct.pack("<I", crc32c(head + content))


def length(number: int) -> bytes:
    return bytes([number & 127 | 128, number >> 7])


@pytest.mark.parametrize("leads_out", [False, True])
def test_a_database_that_refers_to_files_outside_is_refused(tmp_path: Path, leads_out: bool) -> None:
    place = unpacked(tmp_path)
    (node,) = (place / "d").iterdir()
    before = node.read_bytes()
    new = b"../bt.process_0" if leads_out else b"ocdbt.process_0"
    node.write_bytes(plain(before, lambda raw: raw.replace(b"ocdbt.process_0", new)))
    manifest = place / "manifest.ocdbt"
    sizes = length(len(before)), length(node.stat().st_size)
    manifest.write_bytes(plain(manifest.read_bytes(), lambda raw: raw.replace(*sizes)))
    shutil.copytree(place / "ocdbt.process_0", tmp_path / "bt.process_0")

    reader = OrbaxDirectory(place)

    if leads_out:
        with pytest.raises(UnreadableError, match="Invalid key") as caught:
            reader.load("params.dense.kernel")
        assert caught.value.reason is UnreadableReason.CORRUPT
    else:
        assert reader.load("params.dense.kernel").shape == (16, 24)


@pytest.mark.parametrize("target", ["file", "folder"])
def test_links_that_lead_out_are_refused(tmp_path: Path, target: str) -> None:
    place = unpacked(tmp_path, "zarr")
    inside = place / "params.dense.kernel"
    outside = tmp_path / "elsewhere"
    if target == "file":
        shutil.move(inside / "0.0", outside)
        (inside / "0.0").symlink_to(outside)
    else:
        shutil.move(inside, outside)
        inside.symlink_to(outside)

    with pytest.raises(UnreadableError, match="link that leads elsewhere") as caught:
        OrbaxDirectory(place)
    assert caught.value.reason is UnreadableReason.NOT_FOUND


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    place = unpacked(tmp_path, "zarr")
    os.mkfifo(place / "params.dense.kernel" / "1.0")
    with pytest.raises(UnreadableError, match="no regular file"):
        OrbaxDirectory(place)


@pytest.mark.parametrize(
    ("key", "value"), [("shape", [2**20, 2**20]), ("chunks", [2**16, 2**16]), ("shape", [2**40, 2**40])]
)
def test_arrays_and_chunks_far_larger_than_the_files_are_refused(
    tmp_path: Path, key: str, value: list[int]
) -> None:
    place = unpacked(tmp_path, "zarr")
    file = place / "params.dense.kernel" / ".zarray"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))

    with pytest.raises(UnreadableError) as caught:
        OrbaxDirectory(place)
    assert caught.value.reason in {
        UnreadableReason.TOO_LARGE,
        UnreadableReason.BAD_HEADER,
        UnreadableReason.CORRUPT,
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", UnreadableReason.BAD_HEADER),
        (b"[]", UnreadableReason.BAD_HEADER),
        (b"{}", UnreadableReason.BAD_HEADER),
        (b'{"tree_metadata": []}', UnreadableReason.BAD_HEADER),
        (b'{"tree_metadata": {"a": 1}}', UnreadableReason.BAD_HEADER),
        (
            b'{"tree_metadata": {"a": {"key_metadata": [1], "value_metadata": {}}}}',
            UnreadableReason.BAD_HEADER,
        ),
        (b'{"tree_metadata": {}}', UnreadableReason.NO_TENSORS),
        (b"[" * 100, UnreadableReason.TOO_DEEP),
    ],
)
def test_a_description_that_is_none_is_refused(
    tmp_path: Path, content: bytes, reason: UnreadableReason
) -> None:
    place = unpacked(tmp_path)
    (place / "_METADATA").write_bytes(content)
    with pytest.raises(UnreadableError) as caught:
        OrbaxDirectory(place)
    assert caught.value.reason is reason


def test_limits_on_the_description_and_on_files_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = unpacked(tmp_path)
    for limit, most in (("MAX_METADATA_BYTES", 100), ("MAX_ARRAYS", 3), ("MAX_FILES", 3)):
        with monkeypatch.context() as patched:
            patched.setattr(orbax, limit, most)
            with pytest.raises(UnreadableError) as caught:
                OrbaxDirectory(place)
        assert caught.value.reason is UnreadableReason.TOO_LARGE


def test_a_checkpoint_that_is_replaced_meanwhile_is_refused(tmp_path: Path) -> None:
    place = unpacked(tmp_path)
    reader = OrbaxDirectory(place)
    (place / "manifest.ocdbt").write_bytes(b"x")
    with pytest.raises(UnreadableError) as caught:
        reader.load("params.dense.kernel")
    assert caught.value.reason is UnreadableReason.CHANGED_WHILE_READING


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_end_in_values_or_a_typed_error(tmp_path: Path, kind: str, seed: int) -> None:
    place = unpacked(tmp_path, kind)
    chosen = random.Random(seed)
    files = sorted(file for file in place.rglob("*") if file.is_file())
    for _ in range(chosen.randint(1, 3)):
        file = chosen.choice(files)
        raw = bytearray(file.read_bytes())
        for _ in range(chosen.randint(1, 8)):
            raw[chosen.randrange(len(raw))] = chosen.randrange(256)
        file.write_bytes(raw[: chosen.choice([len(raw), chosen.randint(1, len(raw))])])
    try:
        reader = OrbaxDirectory(place)
    except UnreadableError:
        return
    for info in reader.tensors():
        try:
            assert reader.load(info.name).shape == info.shape
        except UnreadableError:
            continue


def test_without_tensorstore_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(UnreadableError, match=r"\[orbax\]"):
        OrbaxDirectory(unpacked(tmp_path))
