"""A first look at the headers of remote weight files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.daemon.registries.downloads import RemoteFile
from layerwatch.daemon.registries.headers import require_sound_headers
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import network


def look(data: bytes, size: int | None = None, path: str = "model.safetensors") -> int:
    """Look at a file of these bytes; so many were read."""
    read = 0

    def some(file: RemoteFile, begin: int, end: int) -> bytes:
        nonlocal read
        read += len(data[begin:end])
        return data[begin:end]

    require_sound_headers([RemoteFile(path, len(data) if size is None else size, "id")], some)
    return read


def refused(data: bytes, size: int | None = None) -> UnreadableReason:
    with pytest.raises(UnreadableError) as caught:
        look(data, size)
    return caught.value.reason


def safetensors(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_of_a_sound_file_the_header_alone_is_read(tmp_path: Path) -> None:
    data = write_safetensors(tmp_path / "weights", network()).read_bytes()
    assert look(data) == 8 + int.from_bytes(data[:8], "little")


def test_a_file_that_was_cut_off_is_told_without_reading_it(tmp_path: Path) -> None:
    data = write_safetensors(tmp_path / "weights", network()).read_bytes()
    assert refused(data[:-1]) is UnreadableReason.TRUNCATED


def test_other_formats_are_left_to_their_readers() -> None:
    assert look(b"anything", path="model.gguf") == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", UnreadableReason.EMPTY_FILE),
        (b"1234567", UnreadableReason.TRUNCATED),
        (b"<!DOCTYPE html><html></html>", UnreadableReason.BAD_HEADER),
        (b"version https://git-lfs.github.com/spec/v1\n", UnreadableReason.BAD_HEADER),
        (bytes(8), UnreadableReason.BAD_HEADER),
        (safetensors(b"{"), UnreadableReason.BAD_HEADER),
        (safetensors(b"\xff"), UnreadableReason.BAD_HEADER),
        (safetensors([]), UnreadableReason.BAD_HEADER),
        (safetensors(7), UnreadableReason.BAD_HEADER),
        (safetensors({"a": 7}), UnreadableReason.BAD_HEADER),
        (safetensors({"a": {}}), UnreadableReason.BAD_HEADER),
        (safetensors({"a": {"data_offsets": [0]}}), UnreadableReason.BAD_HEADER),
        (safetensors({"a": {"data_offsets": "ab"}}), UnreadableReason.BAD_HEADER),
        (safetensors({"a": {"data_offsets": [0, -1]}}), UnreadableReason.BAD_HEADER),
        (safetensors({"a": {"data_offsets": [0, True]}}), UnreadableReason.BAD_HEADER),
        (safetensors(b'{"a": {"data_offsets": [0, 1e999]}}'), UnreadableReason.BAD_HEADER),
        (safetensors(b'{"a": {"data_offsets": [0, NaN]}}'), UnreadableReason.BAD_HEADER),
        (safetensors(b'{"a": {"data_offsets": [0, ' + b"9" * 5000 + b"]}}"), UnreadableReason.BAD_HEADER),
        (safetensors(b"[" * 100_000), UnreadableReason.BAD_HEADER),
        (safetensors({"a": {"data_offsets": [0, 10**30]}}), UnreadableReason.TRUNCATED),
    ],
)
def test_what_is_no_header_is_told_as_what_it_is(data: bytes, reason: UnreadableReason) -> None:
    assert refused(data) is reason


def test_a_registry_that_gives_less_than_it_lists_is_told() -> None:
    assert refused(b"123", size=100) is UnreadableReason.TRUNCATED
    assert refused(safetensors(b"{}")[:9], size=100) is UnreadableReason.TRUNCATED


def test_a_very_long_header_is_left_to_the_reader_of_the_whole_file() -> None:
    length = 17 * 2**20
    assert look(length.to_bytes(8, "little"), size=length + 8) == 8


def test_an_empty_header_and_metadata_alone_are_sound() -> None:
    look(safetensors({}))
    look(safetensors({"__metadata__": {"format": "pt"}}))


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["a", "data_offsets", "__metadata__"]), inner)
        ),
    ).map(safetensors)
)
def test_any_bytes_end_as_sound_or_as_unreadable(data: bytes) -> None:
    try:
        look(data)
    except UnreadableError as error:
        assert error.reason in UnreadableReason
