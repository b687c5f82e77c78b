"""Keras files: written by Keras itself (tests/_data/keras), by h5py in the same layouts, and hostile ones."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
import torch

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers import keras
from layerwatch.metrics.readers.keras import KerasFile, is_keras
from layerwatch.metrics.readers.kerasnames import snake_case
from layerwatch.metrics.tensors import Array

DATA = Path(__file__).resolve().parents[3] / "_data" / "keras"

# Paths and shapes of model.weights, as Keras 3.15.1 prints them.
VARIABLES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("stem/kernel", (3, 3, 3, 4)),
    ("stem/bias", (4,)),
    ("stem_norm/gamma", (4,)),
    ("stem_norm/beta", (4,)),
    ("stem_norm/moving_mean", (4,)),
    ("stem_norm/moving_variance", (4,)),
    ("depth/kernel", (3, 3, 4, 1)),
    ("depth/bias", (4,)),
    ("separable/depthwise_kernel", (2, 2, 4, 1)),
    ("separable/pointwise_kernel", (1, 1, 4, 5)),
    ("separable/bias", (5,)),
    ("up/kernel", (2, 2, 6, 5)),
    ("up/bias", (6,)),
    ("attention/query/kernel", (6, 2, 3)),
    ("attention/query/bias", (2, 3)),
    ("attention/key/kernel", (6, 2, 3)),
    ("attention/key/bias", (2, 3)),
    ("attention/value/kernel", (6, 2, 3)),
    ("attention/value/bias", (2, 3)),
    ("attention/attention_output/kernel", (2, 3, 6)),
    ("attention/attention_output/bias", (6,)),
    ("norm/gamma", (6,)),
    ("norm/beta", (6,)),
    ("temporal/kernel", (3, 6, 7)),
    ("temporal/bias", (7,)),
    ("both/forward_lstm/lstm_cell/kernel", (7, 16)),
    ("both/forward_lstm/lstm_cell/recurrent_kernel", (4, 16)),
    ("both/forward_lstm/lstm_cell/bias", (16,)),
    ("both/backward_lstm/lstm_cell/kernel", (7, 16)),
    ("both/backward_lstm/lstm_cell/recurrent_kernel", (4, 16)),
    ("both/backward_lstm/lstm_cell/bias", (16,)),
    ("recurrent/gru_cell/kernel", (8, 15)),
    ("recurrent/gru_cell/recurrent_kernel", (5, 15)),
    ("recurrent/gru_cell/bias", (2, 15)),
    ("words/embeddings", (11, 3)),
    ("mlp/hidden/kernel", (5, 6)),
    ("mlp/hidden/bias", (6,)),
    ("mlp/hidden_2/kernel", (6, 2)),
    ("mlp/hidden_2/bias", (2,)),
    ("head/kernel", (14, 2)),
    ("head/bias", (2,)),
)


def kept(number: int, shape: tuple[int, ...]) -> Array:
    """What variable ``number`` holds, in Keras's own order of axes (tests/_data/keras/README.md)."""
    size = int(np.prod(shape))
    return (np.arange(size) % 97 / 97 + number).astype(np.float32).reshape(shape)


STORED = {name: kept(number, shape) for number, (name, shape) in enumerate(VARIABLES)}


@pytest.fixture(params=["small.keras", "small.h5"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The network of tests/_data/keras in one of its two formats."""
    path = tmp_path / str(request.param)
    path.write_bytes(gzip.decompress((DATA / f"{request.param}.gz").read_bytes()))
    return path


def test_the_variables_are_called_as_keras_calls_them(small: Path) -> None:
    reader = KerasFile(small)
    assert reader.format == "keras"
    assert {info.name for info in reader.tensors()} == set(STORED)
    assert {info.dtype for info in reader.tensors()} == {"F32"}
    assert all("training state" in reason for _, reason in reader.left_out)
    assert {name for name, _ in reader.left_out} in ({"optimizer"}, {"optimizer_weights"})
    assert not reader.unexamined
    for info in reader.tensors():
        assert info.size_bytes == STORED[info.name].nbytes
        assert reader.load(info.name).shape == info.shape
    reader.close()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        # Keras: y[o] = sum_i x[i] K[i, o]. torch: y[o] = sum_i W[o, i] x[i].
        ("head/kernel", lambda i, o: (o, i)),
        ("mlp/hidden/kernel", lambda i, o: (o, i)),
        ("both/forward_lstm/lstm_cell/kernel", lambda i, gate: (gate, i)),
        ("both/backward_lstm/lstm_cell/recurrent_kernel", lambda h, gate: (gate, h)),
        ("recurrent/gru_cell/kernel", lambda i, gate: (gate, i)),
        # Keras: (height, width, in, out); torch: (out, in, height, width).
        ("stem/kernel", lambda h, w, i, o: (o, i, h, w)),
        ("separable/pointwise_kernel", lambda h, w, i, o: (o, i, h, w)),
        ("temporal/kernel", lambda t, i, o: (o, i, t)),
        # Keras: (height, width, out, in); torch: (in, out, height, width).
        ("up/kernel", lambda h, w, o, i: (i, o, h, w)),
        # Keras: (height, width, channel, multiplier); torch: (channel * multiplier, 1, height, width).
        ("depth/kernel", lambda h, w, c, _: (c, 0, h, w)),
        ("separable/depthwise_kernel", lambda h, w, c, _: (c, 0, h, w)),
        # 2 heads of 3; torch's in_proj_weight and out_proj.weight.
        ("attention/query/kernel", lambda i, head, d: (3 * head + d, i)),
        ("attention/value/kernel", lambda i, head, d: (3 * head + d, i)),
        ("attention/attention_output/kernel", lambda head, d, o: (o, 3 * head + d)),
        ("attention/key/bias", lambda head, d: (3 * head + d,)),
        ("recurrent/gru_cell/bias", lambda part, gate: (15 * part + gate,)),
        ("words/embeddings", lambda token, d: (token, d)),
        ("stem_norm/moving_variance", lambda c: (c,)),
    ],
)
def test_every_element_is_where_torch_has_it(
    small: Path, name: str, place: Callable[..., tuple[int, ...]]
) -> None:
    loaded = KerasFile(small).load(name)
    stored = STORED[name]
    assert loaded.size == stored.size
    for index in np.ndindex(*stored.shape):
        assert loaded[place(*index)] == stored[index]
    assert not loaded.flags.writeable


def test_a_convolution_with_the_turned_kernel_is_the_one_that_keras_defines(small: Path) -> None:
    kernel = STORED["stem/kernel"]
    image = np.random.default_rng(1).standard_normal((5, 5, 3))
    expected = np.zeros((3, 3, 4))
    for y, x in np.ndindex(3, 3):
        # keras.layers.Conv2D, strides 1, padding "valid", data_format "channels_last".
        expected[y, x] = np.einsum("hwi,hwio->o", image[y : y + 3, x : x + 3], kernel)
    turned = torch.from_numpy(np.array(KerasFile(small).load("stem/kernel"), dtype=np.float64))
    given = torch.from_numpy(image).permute(2, 0, 1)[None]
    result = torch.nn.functional.conv2d(given, turned)[0].permute(1, 2, 0).numpy()
    assert np.allclose(result, expected, rtol=1e-12)


def legacy(path: Path, layers: dict[str, dict[str, Array]], root: str = "model_weights") -> Path:
    """A file as Keras 2 writes it: legacy_h5_format.save_weights_to_hdf5_group."""
    with h5py.File(path, "w") as file:
        group = file.create_group(root) if root else file
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, weights in layers.items():
            inner = group.create_group(layer)
            inner.attrs["weight_names"] = [name.encode() for name in weights]
            for name, values in weights.items():
                inner.create_dataset(name, data=values)
    return path


@pytest.mark.parametrize("root", ["model_weights", ""])
def test_the_names_of_keras_2_are_kept(tmp_path: Path, root: str) -> None:
    kernel = np.arange(6.0).reshape(2, 3)
    layers: dict[str, dict[str, Array]] = {
        "z_first": {"z_first/kernel:0": kernel, "z_first/bias:0": np.ones(3)},
        "embedding": {"embedding/embeddings:0": kernel},
        "lstm": {"lstm/lstm_cell/recurrent_kernel:0": kernel},
        "none": {},
    }
    reader = KerasFile(legacy(tmp_path / "m.h5", layers, root))
    assert {info.name: info.shape for info in reader.tensors()} == {
        "z_first/kernel:0": (3, 2),
        "z_first/bias:0": (3,),
        "embedding/embeddings:0": (2, 3),
        "lstm/lstm_cell/recurrent_kernel:0": (3, 2),
    }
    assert reader.tensors()[0].name.startswith("z_first/")
    assert np.array_equal(reader.load("z_first/kernel:0"), kernel.T)


def test_other_hdf5_files_are_listed_by_their_paths(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a/b/w"] = np.arange(6.0).reshape(2, 3)
        file["big"] = np.arange(4, dtype=">f4")
        file["words"] = ["text"]
        file.create_dataset("half", data=np.arange(9, dtype=np.float16).reshape(3, 3), compression="gzip")
        file.create_dataset("shuffled", data=np.ones((4, 4)), chunks=(2, 2), shuffle=True, fletcher32=True)
        file.create_dataset("unwritten", shape=(2, 2), dtype="f4")
        file.create_dataset("empty", shape=(0, 2), dtype="f4")
    reader = KerasFile(tmp_path / "m.h5")
    shapes = {info.name: (info.dtype, info.shape) for info in reader.tensors()}
    assert shapes == {
        "a/b/w": ("F64", (3, 2)),
        "big": ("F32", (4,)),
        "half": ("F16", (3, 3)),
        "shuffled": ("F64", (4, 4)),
        "unwritten": ("F32", (2, 2)),
        "empty": ("F32", (2, 0)),
    }
    assert reader.load("big").tolist() == [0, 1, 2, 3]
    assert reader.load("half").tolist() == np.arange(9).reshape(3, 3).T.tolist()
    assert reader.load("shuffled").sum() == 16
    assert reader.load("unwritten").tolist() == [[0, 0], [0, 0]]
    assert reader.load("empty").size == 0
    assert dict(reader.left_out) == {"words": "text or records: no weights"}


def test_bfloat16_of_keras_3_is_read(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3).astype(ml_dtypes.bfloat16)
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        variables = file.create_group("layers/dense/vars")
        variables.attrs["name"] = "head"
        variables.create_dataset("0", data=values).attrs["dtype"] = "bfloat16"
    reader = KerasFile(tmp_path / "m.weights.h5")
    (info,) = reader.tensors()
    assert (info.name, info.dtype, info.shape) == ("head/kernel", "BF16", (3, 2))
    assert np.array_equal(reader.load("head/kernel"), values.T)


def test_variables_of_unknown_layers_are_called_by_their_path(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for number in range(3):
            file[f"layers/my_layer/vars/{number}"] = np.ones((2, 3))
        file["layers/dense_1/vars/0"] = np.ones((2, 3))
    names = {info.name: info.shape for info in KerasFile(tmp_path / "m.weights.h5").tensors()}
    assert names == {
        "dense_1/kernel": (3, 2),
        **{f"layers/my_layer/vars/{number}": (3, 2) for number in range(3)},
    }


def test_two_layers_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for layer in ("dense", "dense_1"):
            variables = file.create_group(f"layers/{layer}/vars")
            variables.attrs["name"] = "same"
            variables["0"] = np.ones((2, 3))
    names = [info.name for info in KerasFile(tmp_path / "m.weights.h5").tensors()]
    assert names == ["layers/dense/vars/0", "layers/dense_1/vars/0"]


def hdf5(write: Callable[[Any], None]) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        write(file)
    return stream.getvalue()


def archive(path: Path, weights: bytes, compression: int = zipfile.ZIP_STORED, **others: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as target:
        target.writestr("metadata.json", "{}")
        target.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"name": "m"}}))
        target.writestr("model.weights.h5", weights)
        for name, data in others.items():
            target.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return path


def dense(file: Any) -> None:
    file["layers/dense/vars/0"] = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_is_read_packed_or_not(tmp_path: Path, compression: int) -> None:
    reader = KerasFile(archive(tmp_path / "m.keras", hdf5(dense), compression))
    assert np.array_equal(reader.load("dense/kernel"), np.arange(6.0).reshape(2, 3).T)


def test_foreign_members_of_an_archive_are_not_examined(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.keras", hdf5(dense), assets__words_dot_txt=b"a", evil_dot_pkl=b"x")
    reader = KerasFile(path)
    assert [one.name for one in reader.unexamined] == ["m.keras/evil.pkl"]


def test_a_zip_file_without_weights_is_no_keras_model(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as target:
        target.writestr("config.json", "{}")
    assert refusal(tmp_path / "m.keras").reason is UnreadableReason.UNKNOWN_FORMAT


def refusal(path: Path) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        reader = KerasFile(path)
        for info in reader.tensors():
            reader.load(info.name)
    assert caught.value.path == str(path)
    return caught.value


def outside(tmp_path: Path) -> Path:
    """A file that is not part of the model."""
    path = tmp_path / "outside.h5"
    with h5py.File(path, "w") as file:
        file["w"] = np.full((2, 2), 42.0)
    return path


def test_links_and_storage_in_other_files_are_refused(tmp_path: Path) -> None:
    secret = outside(tmp_path)
    layout = h5py.VirtualLayout((2, 2), "f8")
    layout[:] = h5py.VirtualSource(str(secret), "w", (2, 2))

    def external_link(file: Any) -> None:
        file["w"] = h5py.ExternalLink(str(secret), "/w")

    def soft_through_external(file: Any) -> None:
        file["w"] = h5py.SoftLink("/x/w")
        file["x"] = h5py.ExternalLink(str(secret), "/")

    def soft_to_nothing(file: Any) -> None:
        dense(file)
        file["w"] = h5py.SoftLink("/nowhere")

    def external_storage(file: Any) -> None:
        file.create_dataset("w", (2, 2), "f8", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])

    def virtual(file: Any) -> None:
        file.create_virtual_dataset("w", layout)

    for write in (external_link, soft_through_external, soft_to_nothing, external_storage, virtual):
        path = tmp_path / "m.h5"
        path.write_bytes(hdf5(write))
        error = refusal(path)
        assert error.reason is UnreadableReason.BAD_HEADER, write.__name__
        refused = refusal(archive(tmp_path / "m.keras", hdf5(write)))
        assert refused.reason is UnreadableReason.BAD_HEADER, write.__name__


def test_a_soft_link_within_the_file_is_left_out_and_hard_links_are_read_once(tmp_path: Path) -> None:
    def write(file: Any) -> None:
        file["a/w"] = np.ones((2, 2))
        file["a/soft"] = h5py.SoftLink("w")
        file["again"] = file["a"]
        file["a/cycle"] = file["/"]

    path = tmp_path / "m.h5"
    path.write_bytes(hdf5(write))
    reader = KerasFile(path)
    assert [info.name for info in reader.tensors()] == ["a/w"]
    assert dict(reader.left_out) == {"a/soft": "a link to a/w"}


def test_a_bomb_is_listed_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras, "EXPANSION_FLOOR_BYTES", 2**20)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("zeros", data=np.zeros(2**18), compression="gzip")
        file.create_dataset("declared", shape=(2**40,), dtype="f4", chunks=(2**10,))
    reader = KerasFile(tmp_path / "m.h5")
    for name in ("zeros", "declared"):
        with pytest.raises(UnreadableError) as caught:
            reader.load(name)
        assert caught.value.reason is UnreadableReason.TOO_LARGE


def test_deep_groups_are_refused(tmp_path: Path) -> None:
    def write(file: Any) -> None:
        file["/".join("g" * 100) + "/w"] = 1.0

    (tmp_path / "m.h5").write_bytes(hdf5(write))
    assert refusal(tmp_path / "m.h5").reason is UnreadableReason.TOO_DEEP


def test_a_file_without_numbers_holds_no_tensors(tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(hdf5(lambda file: file.create_group("nothing")))
    assert refusal(tmp_path / "m.h5").reason is UnreadableReason.NO_TENSORS


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    content = hdf5(dense)
    for keep in (9, 100, len(content) // 2, len(content) - 8):
        (tmp_path / "m.h5").write_bytes(content[:keep])
        assert refusal(tmp_path / "m.h5").reason in {UnreadableReason.CORRUPT, UnreadableReason.TRUNCATED}


def test_only_the_bytes_of_one_variable_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file["w"] = np.zeros((64, 64))
        offset = file["w"].id.get_offset()
    loaded = KerasFile(path).load("w")
    with path.open("r+b") as stream:
        stream.seek(offset + 8)
        stream.write(np.float64(42).tobytes())
    # A view of the file, turned: row 0, column 1 as stored.
    assert loaded[1, 0] == 42.0


def test_a_heap_of_texts_without_end_is_refused(tmp_path: Path) -> None:
    """libhdf5 2.0 does not come back from it; found by fuzzing."""

    def named(file: Any) -> None:
        dense(file)
        file["layers/dense/vars"].attrs["name"] = "head"

    content = bytearray(hdf5(named))
    heap = content.index(b"GCOL")
    assert content[heap + 16 : heap + 18] == b"\1\0"
    content[heap + 16 : heap + 32] = bytes(16)
    (tmp_path / "m.h5").write_bytes(content)
    error = refusal(tmp_path / "m.h5")
    assert error.reason is UnreadableReason.CORRUPT
    assert "heap" in error.detail


def test_without_h5py_the_extra_is_named(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    error = refusal(small)
    assert error.reason is UnreadableReason.UNKNOWN_FORMAT
    assert "[keras]" in error.detail


def test_keras_files_are_known_by_their_beginning(small: Path) -> None:
    assert is_keras(small.read_bytes()[:512])
    assert not is_keras(b"PK\3\4" + bytes(60))


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("Conv2DTranspose", "conv2d_transpose"),
        ("DepthwiseConv2D", "depthwise_conv2d"),
        ("Dense", "dense"),
        ("LSTMCell", "lstm_cell"),
        ("MultiHeadAttention", "multi_head_attention"),
        ("GRU", "gru"),
    ],
)
def test_classes_are_spelled_as_keras_names_their_layers(name: str, snake: str) -> None:
    # keras.src.utils.naming.to_snake_case of these names gives the groups of tests/_data/keras/small.keras.
    assert snake_case(name) == snake
