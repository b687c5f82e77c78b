"""``.npy`` and ``.npz`` files written by numpy itself, damaged ones, and hostile ones."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers import ziparchive
from layerwatch.metrics.readers.numpyfiles import NumpyFile, is_numpy
from layerwatch.metrics.tensors import Array

RANDOM = np.random.default_rng(0)

ARRAYS: dict[str, Array] = {
    "block.0.weight": RANDOM.standard_normal((5, 7)).astype(np.float32),
    "columns": np.asfortranarray(RANDOM.standard_normal((4, 3, 2))),
    "big": RANDOM.standard_normal((3, 4)).astype(">f4"),
    "big columns": np.asfortranarray(RANDOM.standard_normal((3, 4)).astype(">f8")),
    "half": RANDOM.standard_normal(9).astype(np.float16),
    "int8": RANDOM.integers(-128, 127, (6, 2)).astype(np.int8),
    "big int16": RANDOM.integers(-128, 127, (6, 2)).astype(">i2"),
    "mask": RANDOM.standard_normal(5) > 0,
    "complex": (RANDOM.standard_normal(3) + 1j).astype(np.complex64),
    "number": np.array(3.5),
    "nothing": np.zeros((0, 4), np.float32),
}


def header(
    text: str, data: bytes = b"", version: tuple[int, int] = (1, 0), length: int | None = None
) -> bytes:
    raw = text.encode("latin-1")
    size = struct.pack("<H" if version[0] == 1 else "<I", len(raw) if length is None else length)
    return b"\x93NUMPY" + bytes(version) + size + raw + data


def described(descr: str = "'<f4'", order: str = "False", shape: str = "(2, 3)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def refusal(path: Path) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        reader = NumpyFile(path)
        for info in reader.tensors():
            reader.load(info.name)
    assert caught.value.path == str(path)
    return caught.value


def refused(tmp_path: Path, content: bytes) -> UnreadableError:
    path = tmp_path / "m.npy"
    path.write_bytes(content)
    return refusal(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_every_array_of_an_archive_is_what_numpy_reads(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "model.npz"
    save(path, **ARRAYS)
    reader = NumpyFile(path)
    assert reader.format == "numpy"
    assert [info.name for info in reader.tensors()] == list(ARRAYS)
    with np.load(path) as expected:
        for info in reader.tensors():
            loaded = reader.load(info.name)
            assert loaded.dtype == ARRAYS[info.name].dtype.newbyteorder("<")
            assert loaded.shape == info.shape == expected[info.name].shape
            assert np.array_equal(loaded, expected[info.name]), info.name
            assert info.size_bytes == expected[info.name].nbytes
            assert not loaded.flags.writeable
    reader.close()


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_a_single_array_is_called_like_its_file(tmp_path: Path, name: str, version: tuple[int, int]) -> None:
    path = tmp_path / f"{name}.npy"
    with path.open("wb") as stream:
        np.lib.format.write_array(stream, ARRAYS[name], version=version)
    (info,) = NumpyFile(path).tensors()
    assert info.name == name
    assert np.array_equal(NumpyFile(path).load(name), ARRAYS[name])


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        *(("f2", "F16"), ("f4", "F32"), ("f8", "F64"), ("i1", "I8"), ("u1", "U8"), ("i8", "I64")),
        *(("?", "BOOL"), ("c8", "C64"), ("c16", "C128"), ("u4", "U32")),
    ],
)
def test_types_are_told_in_the_spelling_of_safetensors(tmp_path: Path, dtype: str, stored: str) -> None:
    np.save(tmp_path / "a.npy", np.ones(3, dtype))
    assert NumpyFile(tmp_path / "a.npy").tensors()[0].dtype == stored


def test_a_stored_array_is_a_view_of_the_file_and_a_compressed_one_a_copy(tmp_path: Path) -> None:
    array = RANDOM.standard_normal((64, 64))
    np.savez(tmp_path / "s.npz", a=array)
    np.savez_compressed(tmp_path / "c.npz", a=array)
    stored = NumpyFile(tmp_path / "s.npz").load("a")
    path = tmp_path / "s.npz"
    content = bytearray(path.read_bytes())
    at = bytes(content).index(array.tobytes())
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(np.float64(42).tobytes())
    assert stored[0, 0] == 42.0


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.longdouble])
def test_types_that_numpy_does_not_keep_are_listed_and_refused(tmp_path: Path, dtype: Any) -> None:
    np.savez(tmp_path / "m.npz", w=np.ones((2, 2)).astype(dtype))
    reader = NumpyFile(tmp_path / "m.npz")
    assert reader.tensors()[0].shape == (2, 2)
    assert reader.tensors()[0].dtype not in {"F16", "F32", "F64", "BF16"}
    with pytest.raises(UnreadableError) as caught:
        reader.load("w")
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_DTYPE
    assert caught.value.tensor == "w"


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_pickled_objects_are_never_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    objects = np.array([Evil(trace)], dtype=object)
    np.save(tmp_path / "m.npy", objects)
    error = refusal(tmp_path / "m.npy")
    assert error.reason is UnreadableReason.UNSUPPORTED_TENSOR
    assert "unpickling" in error.detail
    np.savez(tmp_path / "m.npz", w=np.ones(2), hidden=objects)
    reader = NumpyFile(tmp_path / "m.npz")
    assert [info.name for info in reader.tensors()] == ["w"]
    (unexamined,) = reader.unexamined
    assert unexamined.name == "m.npz/hidden.npy"
    assert unexamined.reason is UnreadableReason.UNSUPPORTED_TENSOR
    assert not trace.exists()
    pickle.loads(pickle.dumps(Evil(trace)))  # noqa: S301 - shows that the trace would be there
    assert trace.exists()


def test_records_and_foreign_members_are_not_examined_and_text_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, w=np.ones(2), words=np.array(["a", "b"]), records=np.zeros(2, [("x", "f4"), ("y", "i2")]))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data.pkl", b"x")
    reader = NumpyFile(path)
    assert [info.name for info in reader.tensors()] == ["w"]
    assert [name for name, _ in reader.left_out] == ["words"]
    assert {one.name: one.reason for one in reader.unexamined} == {
        "m.npz/records.npy": UnreadableReason.UNSUPPORTED_TENSOR,
        "m.npz/archive/data.pkl": UnreadableReason.UNKNOWN_FORMAT,
    }


def test_an_archive_of_nothing_but_text_holds_no_tensors(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", words=np.array(["a"]))
    assert refusal(tmp_path / "m.npz").reason is UnreadableReason.NO_TENSORS
    np.save(tmp_path / "m.npy", np.array(["2026-01-01"], "M8[D]"))
    assert refusal(tmp_path / "m.npy").reason is UnreadableReason.NO_TENSORS


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (header(described(), bytes(23)), UnreadableReason.TRUNCATED, "1 bytes are missing"),
        (header(described(), bytes(25)), UnreadableReason.BAD_HEADER, "1 bytes at the end"),
        (header(described(), b"", length=200), UnreadableReason.TRUNCATED, "bytes of the header are missing"),
        (header(described(), b"", (2, 0), length=2**31), UnreadableReason.TOO_LARGE, "2147483648"),
        (header(described(), bytes(24), (9, 0)), UnreadableReason.UNKNOWN_FORMAT, "version 9"),
        (b"\x93NUMPY\x01", UnreadableReason.TRUNCATED, "no header"),
        (header("[]"), UnreadableReason.BAD_HEADER, "no dict"),
        (header("{}"), UnreadableReason.BAD_HEADER, "exactly"),
        (header(described()[:-1] + "'x': 1}", bytes(24)), UnreadableReason.BAD_HEADER, "exactly"),
        (
            header(described()[:-1] + "'shape': (2, 3)}", bytes(24)),
            UnreadableReason.BAD_HEADER,
            "once",
        ),
        (header(described("__import__('os').abort()")), UnreadableReason.BAD_HEADER, "exactly"),
        (header(described("'<f4'", "1")), UnreadableReason.BAD_HEADER, "exactly"),
        (header(described("'<f4'", "(1)")), UnreadableReason.BAD_HEADER, "another type"),
        (header(described("'nonsense'")), UnreadableReason.BAD_HEADER, "no numpy type"),
        (header(described("'<f3'")), UnreadableReason.BAD_HEADER, "no numpy type"),
        (header(described("'|V0'")), UnreadableReason.BAD_HEADER, "no size"),
        (header(described(shape="(-2, 3)")), UnreadableReason.BAD_HEADER, "header"),
        (header(described(shape="(2)"), bytes(8)), UnreadableReason.BAD_HEADER, "no tuple"),
        (header(described(shape="(2, L)")), UnreadableReason.BAD_HEADER, "counts"),
        (header(described(shape=f"({2**62}, {2**62})")), UnreadableReason.BAD_HEADER, "more elements"),
        (header(described(shape=f"(0, {2**63})")), UnreadableReason.BAD_HEADER, "more elements"),
        (header(described(shape="(" + "1," * 65 + ")"), bytes(4)), UnreadableReason.BAD_HEADER, "more"),
        (header(described("[('a', '<f4')]"), bytes(24)), UnreadableReason.UNSUPPORTED_TENSOR, "structured"),
    ],
)
def test_a_header_that_breaks_the_format_is_refused(
    tmp_path: Path, content: bytes, reason: UnreadableReason, words: str
) -> None:
    error = refused(tmp_path, content)
    assert (error.reason, words in error.detail) == (reason, True), error


@pytest.mark.parametrize(
    "text",
    [
        "{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4'}",
        '{"descr": "<f4", "fortran_order": False, "shape": (2, 3)}',
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }",
        "  {'descr':'<f4','fortran_order':False,'shape':(2,3)}   \n",
    ],
)
@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_headers_as_other_writers_spell_them_are_read_as_numpy_reads_them(tmp_path: Path, text: str) -> None:
    data = np.arange(6, dtype="<f4")
    path = tmp_path / "m.npy"
    path.write_bytes(header(text, data.tobytes()))
    expected = np.load(io.BytesIO(path.read_bytes()))
    assert np.array_equal(NumpyFile(path).load("m"), expected)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "m.npz", zeros=np.zeros(2**19))
    assert NumpyFile(tmp_path / "m.npz").load("zeros").sum() == 0
    monkeypatch.setattr(ziparchive, "EXPANSION_FLOOR_BYTES", 2**20)
    error = refusal(tmp_path / "m.npz")
    assert error.reason is UnreadableReason.TOO_LARGE
    assert "zip bombs" in error.detail


def test_a_member_that_unpacks_to_more_than_it_declares_is_cut_off_there(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    zeros = np.zeros(2**21)
    np.savez_compressed(path, a=zeros)
    content = path.read_bytes()
    directory = content.index(b"PK\1\2")
    lie = content[: directory + 24] + struct.pack("<I", 128 + 80) + content[directory + 28 :]
    path.write_bytes(lie)
    error = refusal(path)
    assert error.reason is UnreadableReason.BAD_HEADER or error.reason is UnreadableReason.TRUNCATED
    np.savez_compressed(path, a=np.zeros(10), b=zeros)
    content = path.read_bytes()
    second = content.index(b"PK\1\2", content.index(b"PK\1\2") + 4)
    header_of_ten = np.lib.format.header_data_from_array_1_0(np.zeros(10))
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, header_of_ten)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.npy", stream.getvalue() + bytes(2**24))
    content = bomb.getvalue()
    second = content.index(b"PK\1\2")
    declared = struct.pack("<I", len(stream.getvalue()) + 80)
    path.write_bytes(content[: second + 24] + declared + content[second + 28 :])
    error = refusal(path)
    assert error.reason is UnreadableReason.CORRUPT
    assert "more than" in error.detail


def test_a_damaged_member_does_not_match_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, w=ARRAYS["block.0.weight"])
    content = bytearray(path.read_bytes())
    content[content.index(ARRAYS["block.0.weight"].tobytes()) + 5] ^= 1
    path.write_bytes(content)
    assert NumpyFile(path).tensors()[0].name == "w"
    assert refusal(path).reason is UnreadableReason.CORRUPT


def test_archives_are_known_by_their_first_member(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(1))
    np.save(tmp_path / "a.npy", np.ones(1))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    heads = {path.name: path.read_bytes()[:512] for path in tmp_path.iterdir()}
    assert {name: is_numpy(head) for name, head in heads.items()} == {
        "a.npz": True,
        "a.npy": True,
        "other.zip": False,
    }
    assert not is_numpy(b"PK\3\4")
