"""Archives in layers: members are found and read without unpacking, and what is not safe is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
import zlib
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.daemon.registries.oci import layers as oci_layers
from layerwatch.daemon.registries.oci.layers import Layers, Member
from layerwatch.daemon.registries.oci.manifests import Packing
from layerwatch.daemon.registries.oci.unpacking import zstd_missing
from layerwatch.metrics.errors import UnreadableError, UnreadableReason

MIB = 2**20
_random = random.Random(7)
FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "model-00001-of-00002.safetensors": _random.randbytes(3 * MIB + 5),
    f"{'deep/' * 30}notes.txt": b"a path that needs a header of its own",
    "model-00002-of-00002.safetensors": _random.randbytes(2 * MIB),
    "empty.bin": b"",
}


class Blob:
    """The bytes of a layer, and which of them were asked for."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.reads: list[tuple[int, int]] = []

    def __call__(self, begin: int, end: int | None) -> Iterator[bytes]:
        piece = self.data[begin:end]
        self.reads.append((begin, len(piece)))
        for start in range(0, len(piece), 300_000):
            yield piece[start : start + 300_000]

    @property
    def bytes_read(self) -> int:
        return sum(size for _, size in self.reads)


def tar(
    files: dict[str, bytes] = FILES, format: int = tarfile.PAX_FORMAT, extra: tuple[tarfile.TarInfo, ...] = ()
) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=format) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for member in extra:
            archive.addfile(member)
    return output.getvalue()


def packed(packing: Packing, data: bytes) -> Blob:
    if packing is Packing.TAR_GZIP:
        return Blob(gzip.compress(data, compresslevel=1))
    if packing is Packing.TAR_ZSTD:
        zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")
        return Blob(zstandard.ZstdCompressor(level=1).compress(data))
    return Blob(data)


def listed(layers: Layers, packing: Packing, blob: Blob) -> dict[str, Member]:
    return {one.path: one for one in layers.members(packing, blob.digest, len(blob.data), blob)}


def refused(packing: Packing, blob: Blob) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        Layers().members(packing, blob.digest, len(blob.data), blob)
    return caught.value


ARCHIVES = [Packing.TAR, Packing.TAR_GZIP, Packing.TAR_ZSTD]


@pytest.mark.parametrize("packing", ARCHIVES)
@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_file_is_found_with_its_size_and_read_from_any_position(packing: Packing, format: int) -> None:
    blob = packed(packing, tar(format=format))
    layers = Layers()
    found = listed(layers, packing, blob)
    assert {path: one.size_bytes for path, one in found.items()} == {
        path: len(data) for path, data in FILES.items()
    }
    for path, data in FILES.items():
        begin = found[path].offset
        for first, last in [(0, len(data)), (len(data) // 2, len(data)), (0, min(8, len(data)))]:
            read = layers.stream(packing, blob.digest, blob, begin + first, begin + last)
            assert b"".join(read) == data[first:last]


@pytest.mark.parametrize("packing", [Packing.TAR_GZIP, Packing.TAR_ZSTD])
def test_listing_a_compressed_archive_promises_the_digest_of_every_file(packing: Packing) -> None:
    found = listed(Layers(), packing, packed(packing, tar()))
    assert {path: one.sha256 for path, one in found.items()} == {
        path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()
    }


def test_listing_a_plain_archive_reads_its_headers_alone_and_promises_nothing() -> None:
    blob = Blob(tar())
    found = listed(Layers(), Packing.TAR, blob)
    assert blob.bytes_read < 400_000 < len(blob.data)
    assert all(one.sha256 is None for one in found.values())


def test_a_file_in_a_gzip_archive_is_read_from_its_own_beginning_once_the_archive_was_listed() -> None:
    blob = packed(Packing.TAR_GZIP, tar())
    layers = Layers()
    second = listed(layers, Packing.TAR_GZIP, blob)["model-00002-of-00002.safetensors"]
    assert blob.reads == [(0, len(blob.data))]
    blob.reads.clear()
    end = second.offset + second.size_bytes
    read = layers.stream(Packing.TAR_GZIP, blob.digest, blob, second.offset, end)
    assert b"".join(read) == FILES[second.path]
    # Noise does not shrink: what lies before the file in the archive is not read again, but for a block.
    assert blob.reads[0][0] > second.offset - 2 * MIB


def test_a_gzip_archive_is_read_from_its_beginning_by_a_process_that_did_not_list_it() -> None:
    blob = packed(Packing.TAR_GZIP, tar())
    second = listed(Layers(), Packing.TAR_GZIP, blob)["model-00002-of-00002.safetensors"]
    end = second.offset + second.size_bytes
    assert (
        b"".join(Layers().stream(Packing.TAR_GZIP, blob.digest, blob, second.offset, end))
        == FILES[second.path]
    )


def test_a_large_file_in_a_gzip_archive_is_resumed_near_where_it_broke_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(oci_layers, "_STATE_EVERY", MIB)
    data = _random.randbytes(20 * MIB)
    blob = packed(Packing.TAR_GZIP, tar({"model.bin": data}))
    layers = Layers()
    only = listed(layers, Packing.TAR_GZIP, blob)["model.bin"]
    blob.reads.clear()
    begin = 15 * MIB
    read = layers.stream(Packing.TAR_GZIP, blob.digest, blob, only.offset + begin, only.offset + len(data))
    assert b"".join(read) == data[begin:]
    assert blob.bytes_read < 8 * MIB


def test_the_states_kept_of_a_gzip_archive_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_layers, "_STATE_EVERY", 1)
    monkeypatch.setattr(oci_layers, "_MOST_STATES", 4)
    data = _random.randbytes(20 * MIB)
    blob = packed(Packing.TAR_GZIP, tar({"model.bin": data}))
    layers = Layers()
    only = listed(layers, Packing.TAR_GZIP, blob)["model.bin"]
    assert len(layers._states[blob.digest]) <= 4
    read = layers.stream(Packing.TAR_GZIP, blob.digest, blob, only.offset + 12 * MIB, only.offset + len(data))
    assert b"".join(read) == data[12 * MIB :]


def test_a_gzip_archive_in_several_parts_is_read_as_one() -> None:
    data = tar()
    parts = [gzip.compress(data[:MIB]), gzip.compress(b""), gzip.compress(data[MIB:]) + bytes(100)]
    blob = Blob(b"".join(parts))
    found = listed(Layers(), Packing.TAR_GZIP, blob)
    assert (
        found["model-00001-of-00002.safetensors"].sha256
        == hashlib.sha256(FILES["model-00001-of-00002.safetensors"]).hexdigest()
    )


def test_a_layer_is_listed_once_and_then_remembered() -> None:
    blob = packed(Packing.TAR_GZIP, tar())
    layers = Layers()
    first = listed(layers, Packing.TAR_GZIP, blob)
    blob.reads.clear()
    assert listed(layers, Packing.TAR_GZIP, blob) == first
    assert blob.reads == []


def test_the_layers_of_a_model_of_many_are_all_remembered() -> None:
    blobs = [packed(Packing.TAR_GZIP, tar({f"model-{number}.bin": bytes(1000)})) for number in range(20)]
    layers = Layers()
    for _ in range(3):
        for blob in blobs:
            listed(layers, Packing.TAR_GZIP, blob)
    assert [len(blob.reads) for blob in blobs] == [1] * 20
    assert len(layers._states) <= oci_layers._KEPT_LAYERS


def test_a_layer_that_is_read_from_keeps_its_states_when_others_are_listed() -> None:
    layers = Layers()
    used = packed(Packing.TAR_GZIP, tar({"model.bin": _random.randbytes(MIB)}))
    only = listed(layers, Packing.TAR_GZIP, used)["model.bin"]
    for number in range(20):
        listed(layers, Packing.TAR_GZIP, packed(Packing.TAR_GZIP, tar({f"model-{number}.bin": bytes(1000)})))
        assert b"".join(layers.stream(Packing.TAR_GZIP, used.digest, used, only.offset, only.offset + 5))
    assert used.digest in layers._states


def test_what_is_remembered_of_layers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_layers, "_KEPT_MEMBERS", 10)
    layers = Layers()
    blobs = [packed(Packing.TAR, tar({f"model-{number}.bin": b"x"})) for number in range(20)]
    for blob in blobs:
        listed(layers, Packing.TAR, blob)
    assert sum(len(members) + 1 for members in layers._members.values()) <= 10
    blobs[-1].reads.clear()
    listed(layers, Packing.TAR, blobs[-1])
    assert blobs[-1].reads == []


@pytest.mark.parametrize("packing", ARCHIVES)
@pytest.mark.parametrize("name", ["../outside.bin", "/etc/outside.bin", "a/../../outside.bin", "a\\b.bin"])
def test_a_path_that_leads_out_of_the_archive_is_refused(packing: Packing, name: str) -> None:
    error = refused(packing, packed(packing, tar({name: b"x"})))
    assert error.reason is UnreadableReason.CORRUPT
    assert "cannot be its own" in error.detail


@pytest.mark.parametrize("packing", ARCHIVES)
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_weights_that_are_a_link_or_a_device_are_refused_and_other_links_left_out(
    packing: Packing, kind: bytes
) -> None:
    def special(name: str) -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.linkname = "/etc/passwd"
        return member

    error = refused(packing, packed(packing, tar(extra=(special("model.safetensors"),))))
    assert error.reason is UnreadableReason.CORRUPT
    assert "not followed" in error.detail
    found = listed(Layers(), packing, packed(packing, tar(extra=(special("README.md"),))))
    assert found.keys() == FILES.keys()


@pytest.mark.parametrize("packing", ARCHIVES)
def test_a_broken_header_in_the_middle_hides_nothing(packing: Packing) -> None:
    data = bytearray(tar({"a.bin": bytes(512), "b.bin": bytes(512)}, tarfile.USTAR_FORMAT))
    data[1024 + 100] ^= 0xFF
    error = refused(packing, packed(packing, bytes(data)))
    assert error.reason is UnreadableReason.CORRUPT


@pytest.mark.parametrize("packing", ARCHIVES)
def test_an_archive_that_ends_in_the_middle_of_a_file_is_refused(packing: Packing) -> None:
    error = refused(packing, packed(packing, tar()[: 2 * MIB]))
    assert error.reason in (UnreadableReason.TRUNCATED, UnreadableReason.CORRUPT)


def test_a_compressed_layer_that_is_cut_off_or_damaged_is_refused() -> None:
    whole = packed(Packing.TAR_GZIP, tar()).data
    assert refused(Packing.TAR_GZIP, Blob(whole[: len(whole) // 2])).reason is UnreadableReason.CORRUPT
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    assert refused(Packing.TAR_GZIP, Blob(bytes(damaged))).reason is UnreadableReason.CORRUPT


def test_a_compressed_layer_whose_bytes_are_not_those_of_its_digest_is_refused() -> None:
    blob = packed(Packing.TAR_GZIP, tar())
    blob.digest = f"sha256:{'0' * 64}"
    error = refused(Packing.TAR_GZIP, blob)
    assert error.reason is UnreadableReason.CORRUPT
    assert "damaged in the store or on the way" in error.detail


def test_a_layer_that_unpacks_to_far_more_than_its_size_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(oci_layers, "_FREE_GROWTH", 4 * MIB)
    bomb = packed(Packing.TAR_GZIP, tar({"model.bin": bytes(64 * MIB)}))
    assert len(bomb.data) < 400_000
    error = refused(Packing.TAR_GZIP, bomb)
    assert error.reason is UnreadableReason.TOO_LARGE


@pytest.mark.parametrize("packing", ARCHIVES)
def test_a_header_that_claims_to_be_huge_is_not_read(packing: Packing) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type = tarfile.XHDTYPE
    header.size = 2**40
    data = header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)
    assert refused(packing, packed(packing, data)).reason is UnreadableReason.TOO_LARGE


@pytest.mark.parametrize("packing", ARCHIVES)
def test_an_archive_of_more_files_than_any_model_has_is_left_alone(
    packing: Packing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oci_layers, "_MOST_MEMBERS", 20)
    many = {f"part-{number}.bin": b"" for number in range(21)}
    assert refused(packing, packed(packing, tar(many))).reason is UnreadableReason.TOO_LARGE


def test_a_negative_size_does_not_lead_in_circles() -> None:
    data = bytearray(tar({"a.bin": b"x", "b.bin": b"y"}, tarfile.GNU_FORMAT))
    data[1024 + 124 : 1024 + 136] = b"\xff" * 8 + (-1024).to_bytes(4, "big", signed=True)
    block = data[1024:1536]
    block[148:156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(block)
    assert refused(Packing.TAR, Blob(bytes(data))).reason is UnreadableReason.CORRUPT


def test_zstd_needs_a_module_and_says_which() -> None:
    missing = zstd_missing()
    if find_spec("zstandard") is None:
        assert missing is not None
        assert "pip install zstandard" in missing
    else:
        assert missing is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_are_an_archive_or_refused(data: bytes) -> None:
    for packing, layer in [
        (Packing.TAR, data),
        (Packing.TAR_GZIP, data),
        (Packing.TAR_GZIP, gzip.compress(data)),
    ]:
        blob = Blob(layer)
        try:
            found = Layers().members(packing, blob.digest, len(layer), blob)
        except UnreadableError:
            continue
        assert all(one.offset + one.size_bytes <= 3000 for one in found)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5119), st.integers(0, 255))
def test_a_changed_byte_in_an_archive_never_leads_out_of_it(position: int, value: int) -> None:
    data = bytearray(tar({"a/b.bin": bytes(600), "c.safetensors": b"weights"}, tarfile.GNU_FORMAT))[:5120]
    data[position % len(data)] = value
    blob = Blob(bytes(data))
    try:
        found = Layers().members(Packing.TAR, blob.digest, len(data), blob)
    except UnreadableError:
        return
    for one in found:
        assert not one.path.startswith("/")
        assert ".." not in one.path.split("/")
        assert 0 <= one.offset <= one.offset + one.size_bytes <= len(data)


def test_states_work_after_odd_ends_of_input() -> None:
    data = tar({"model.bin": _random.randbytes(MIB) + bytes(3 * MIB) + _random.randbytes(MIB)})
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    blob = Blob(compressor.compress(data) + compressor.flush())
    layers = Layers()
    only = listed(layers, Packing.TAR_GZIP, blob)["model.bin"]
    for begin in (0, 1, MIB - 1, 4 * MIB + 17, 5 * MIB - 1):
        end = only.offset + only.size_bytes
        read = b"".join(layers.stream(Packing.TAR_GZIP, blob.digest, blob, only.offset + begin, end))
        assert read == data[only.offset + begin : end]
