"""Zip archives that lie about where their members are, or what they are."""

from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers import ziparchive
from layerwatch.metrics.readers.mapped import MappedFile
from layerwatch.metrics.readers.window import ViewStream, Window
from layerwatch.metrics.readers.ziparchive import ZipArchive


def archive_of(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def opened(path: Path) -> ZipArchive:
    return ZipArchive(MappedFile(path))


def refusal(path: Path) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        archive = opened(path)
        for name in archive.sizes:
            archive.read(name)
    return caught.value


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_are_what_zipfile_reads(tmp_path: Path, compression: int) -> None:
    members = {"a/data": bytes(range(256)) * 300, "b": b"", "ä": b"x"}
    archive = opened(archive_of(tmp_path / "m.zip", members, compression))
    assert {name: bytes(archive.read(name)) for name in archive.sizes} == members
    assert dict(archive.sizes) == {name: len(data) for name, data in members.items()}
    assert {name: archive.beginning(name, 100) for name in archive.sizes} == {
        name: data[:100] for name, data in members.items()
    }


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "a/.."])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    error = refusal(archive_of(tmp_path / "m.zip", {name: b"x"}))
    assert error.reason is UnreadableReason.BAD_HEADER
    assert "lead out" in error.detail


def test_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("weights")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    error = refusal(tmp_path / "m.zip")
    assert error.reason is UnreadableReason.BAD_HEADER
    assert "link" in error.detail


def test_members_in_the_same_place_are_refused(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "m.zip", {"a": bytes(1000), "b": bytes(1000)})
    content = path.read_bytes()
    second = content.index(b"PK\1\2", content.index(b"PK\1\2") + 4)
    path.write_bytes(content[: second + 42] + struct.pack("<I", 0) + content[second + 46 :])
    error = refusal(path)
    assert error.reason is UnreadableReason.BAD_HEADER
    assert "overlap" in error.detail


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path: Path, compression: int) -> None:
    assert refusal(archive_of(tmp_path / "m.zip", {"a": b"x" * 100}, compression)).reason is (
        UnreadableReason.CORRUPT
    )


def test_a_directory_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive_of(tmp_path / "m.zip", {f"member {number}": b"" for number in range(100)})
    assert len(opened(path).sizes) == 100
    monkeypatch.setattr(ziparchive, "MAX_DIRECTORY_BYTES", 1000)
    assert refusal(path).reason is UnreadableReason.TOO_LARGE


def test_a_member_without_a_name_is_dealt_with(tmp_path: Path) -> None:
    """zipfile's own ``is_dir`` fails on it; found by fuzzing."""
    path = archive_of(tmp_path / "m.zip", {"a": b"x"})
    content = path.read_bytes()
    directory = content.index(b"PK\1\2")
    nameless = content[: directory + 28] + b"\0\0" + content[directory + 30 : directory + 46]
    nameless += content[directory + 47 :]
    end = nameless.index(b"PK\5\6")
    path.write_bytes(nameless[: end + 12] + struct.pack("<I", 46) + nameless[end + 16 :])
    assert refusal(path).reason is UnreadableReason.BAD_HEADER


def test_a_window_is_a_file_of_its_own(tmp_path: Path) -> None:
    inner = archive_of(tmp_path / "inner.zip", {"a": b"values"}).read_bytes()
    (tmp_path / "outer").write_bytes(b"before" + inner + b"behind")
    archive = ZipArchive(Window(MappedFile(tmp_path / "outer"), 6, len(inner)))
    assert bytes(archive.read("a")) == b"values"


def test_a_stream_over_bytes_reads_and_seeks_as_a_file(tmp_path: Path) -> None:
    content = bytes(range(100))
    (tmp_path / "f").write_bytes(content)
    with (tmp_path / "f").open("rb") as expected:
        stream = ViewStream(memoryview(content), tmp_path / "f")
        for offset, whence, count in [(10, 0, 5), (-7, 2, 20), (3, 1, 4), (200, 0, 3), (0, 0, -1)]:
            assert stream.seek(offset, whence) == expected.seek(offset, whence)
            assert stream.read(count) == expected.read(count)
            assert stream.tell() == expected.tell()
        buffer = bytearray(8)
        stream.seek(96)
        assert stream.readinto(buffer) == 4
        assert buffer == bytes([96, 97, 98, 99, 0, 0, 0, 0])
        with pytest.raises(OSError, match="before the beginning"):
            stream.seek(-1)
