"""Which format a file is, and which files of a directory make up the model."""

from __future__ import annotations

import io
import json
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import gguf
import h5py
import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.manifest import weight_files
from layerwatch.metrics.readers.detect import READERS, open_model


def save(path: Path, **values: float) -> Path:
    """A model file of this name with one-element tensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name.replace("_", "."): torch.tensor([value]) for name, value in values.items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def index(folder: Path, weight_map: Any, name: str = "model.safetensors.index.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def contents(path: Path) -> dict[str, float]:
    reader = open_model(path)
    return {info.name: float(reader.load(info.name)[0]) for info in reader.tensors()}


def refusal(path: Path) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        open_model(path)
    return caught.value


def test_the_formats_are_those_that_readers_report() -> None:
    assert [known.name for known in READERS] == [
        *("numpy", "keras", "pytorch", "safetensors", "gguf", "onnx")
    ]


@pytest.mark.parametrize(
    "name", ["m.pt", "m.pth", "m.bin", "m.th", "m.pth.tar", "m.ckpt", "m", "m.safetensors"]
)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_is_known_by_its_content(tmp_path: Path, name: str, legacy: bool) -> None:
    path = tmp_path / name
    torch.save({"w": torch.ones(1)}, path, _use_new_zipfile_serialization=not legacy)
    reader = open_model(path)
    assert reader.format == "pytorch"
    assert reader.load("w").tolist() == [1]


def test_a_safetensors_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = save(tmp_path / "a.safetensors", w=1)
    assert open_model(path.rename(tmp_path / "blob")).format == "safetensors"


def test_a_gguf_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("a", np.ones(1, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert open_model(path).format == "gguf"
    assert contents(path) == contents(path.rename(tmp_path / "m.gguf")) == {"a": 1}


def onnx_model(path: Path, outside: bool = False, **values: float) -> Path:
    tensors = [onnx.numpy_helper.from_array(np.array([v], np.float32), name) for name, v in values.items()]
    graph = onnx.helper.make_graph([], "g", [], [], tensors)
    onnx.save_model(
        onnx.helper.make_model(graph),
        path,
        save_as_external_data=outside,
        location=f"{path.name}.data",
        size_threshold=0,
    )
    return path


def test_an_onnx_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = onnx_model(tmp_path / "blob", a=1)
    assert open_model(path).format == "onnx"
    assert contents(path) == contents(path.rename(tmp_path / "m.onnx")) == {"a": 1}


def test_external_data_is_a_part_of_the_onnx_file_that_names_it(tmp_path: Path) -> None:
    path = onnx_model(tmp_path / "m.onnx", outside=True, a=1)
    save(tmp_path / "other.safetensors", b=2)
    assert contents(tmp_path) == {"b": 2, "a": 1}
    assert not open_model(tmp_path).unexamined
    assert weight_files(path) == (path, tmp_path / "m.onnx.data")
    assert set(weight_files(path)) < set(weight_files(tmp_path))


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_a_numpy_archive_is_known_by_its_content(tmp_path: Path, pack: Any) -> None:
    with (tmp_path / "blob").open("wb") as stream:
        pack(stream, a=np.ones(1, np.float32))
    path = tmp_path / "blob"
    assert open_model(path).format == "numpy"
    assert contents(path) == contents(path.rename(tmp_path / "m.npz")) == {"a": 1}


def test_a_numpy_array_is_known_by_its_content_and_named_after_its_file(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones(1, np.float32))
    assert contents(tmp_path / "w.npy") == contents(tmp_path) == {"w": 1}
    assert open_model((tmp_path / "w.npy").rename(tmp_path / "blob")).format == "numpy"


def hdf5(path: Path, **values: float) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            file[name] = np.array([value], np.float32)
    return path


def test_an_hdf5_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "blob", a=1)
    assert open_model(path).format == "keras"
    for suffix in (".h5", ".hdf5", ".weights.h5"):
        path = path.rename(tmp_path / f"m{suffix}")
        assert contents(path) == contents(tmp_path) == {"a": 1}


@pytest.mark.parametrize("first", ["metadata.json", "model.weights.h5", "assets/vocabulary.txt"])
def test_a_keras_archive_is_known_by_its_first_member_or_its_name(tmp_path: Path, first: str) -> None:
    weights = hdf5(tmp_path / "w", a=1).read_bytes()
    members = {"config.json": b"{}", "metadata.json": b"{}", "model.weights.h5": weights, first: b""} | {
        "model.weights.h5": weights
    }
    for name, order in (("blob", [first, *members]), ("m.keras", ["unknown/", *members])):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w") as archive:
            for member in dict.fromkeys(order):
                archive.writestr(member, members.get(member, b""))
        assert open_model(path).format == "keras"
        assert contents(path) == {"a": 1}


def test_a_zip_archive_without_arrays_in_front_is_known_by_its_name(tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.ones(1, np.float32))
    for name in ("m.npz", "m.pt"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("README", b"words")
            archive.writestr("a.npy", array.getvalue())
    reader = open_model(tmp_path / "m.npz")
    assert [info.name for info in reader.tensors()] == ["a"]
    assert [file.name for file in reader.unexamined] == ["m.npz/README"]
    assert "no torch checkpoint" in refusal(tmp_path / "m.pt").detail


def test_a_file_in_a_format_of_an_extra_that_is_missing_is_refused_naming_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hdf5(tmp_path / "m.h5", a=1)
    monkeypatch.setitem(sys.modules, "h5py", None)
    error = refusal(path)
    assert error.reason is UnreadableReason.UNKNOWN_FORMAT
    assert "'.[keras]'" in error.detail
    save(tmp_path / "model.safetensors", b=1)
    assert contents(tmp_path) == {"b": 1}
    assert unexamined(tmp_path) == {"m.h5": UnreadableReason.UNKNOWN_FORMAT}


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:Lite")
@pytest.mark.parametrize("name", ["net.jit", "net.torchscript", "net.pt", "net.ptl", "blob"])
def test_a_torchscript_archive_is_a_torch_file(tmp_path: Path, name: str) -> None:
    script: Any = torch.jit.script
    module = script(torch.nn.Linear(1, 1))
    path = tmp_path / name
    if name.endswith(".ptl"):
        module._save_for_lite_interpreter(str(path))
    else:
        module.save(str(path))
    for opened in (path, tmp_path) if path.suffix else (path,):
        reader = open_model(opened)
        assert reader.format == "pytorch"
        assert np.array_equal(reader.load("weight"), module.weight.detach().numpy())


def distributed(folder: Path, **values: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state: dict[str, Any] = {name: torch.tensor([value]) for name, value in values.items()}
        save_distributed(state, checkpoint_id=str(folder), no_dist=True)
    return folder


def test_a_distributed_checkpoint_is_read_as_the_directory_that_holds_it(tmp_path: Path) -> None:
    folder = distributed(tmp_path / "model", a=1, b=2)
    assert open_model(folder).format == "pytorch-distributed"
    assert contents(folder) == contents(tmp_path) == {"a": 1, "b": 2}
    assert not open_model(tmp_path).unexamined
    assert {file.name for file in weight_files(folder)} == {".metadata", "__0_0.distcp"}
    for file in (".metadata", "__0_0.distcp"):
        error = refusal(folder / file)
        assert error.reason is UnreadableReason.UNKNOWN_FORMAT
        assert "name its directory" in error.detail


def test_files_beside_a_distributed_checkpoint_are_examined_or_left_out(tmp_path: Path) -> None:
    distributed(tmp_path, a=1)
    torch.save({"arguments": 1}, tmp_path / "common.pt")
    save(tmp_path / "head.pt", b=2)
    assert contents(tmp_path) == {"a": 1, "b": 2}
    assert set(left_out(tmp_path)) == {"common.pt"}
    save(tmp_path / "model.safetensors", c=3)
    # Beside safetensors it is one more part of the model.
    assert contents(tmp_path) == {"c": 3, "a": 1, "b": 2}


def test_the_optimizer_beside_a_distributed_checkpoint_is_training_state(tmp_path: Path) -> None:
    """As accelerate lays out what it saves of a model under FSDP."""
    distributed(tmp_path / "pytorch_model_fsdp_0", a=1)
    distributed(tmp_path / "optimizer_0", a=3)
    assert contents(tmp_path) == {"a": 1}
    assert left_out(tmp_path) == {
        f"optimizer_0/{name}": "training state: not examined" for name in (".metadata", "__0_0.distcp")
    }
    assert contents(tmp_path / "optimizer_0") == {"a": 3}


def test_an_unfinished_distributed_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = distributed(tmp_path / "model", a=1)
    (folder / ".metadata").unlink()
    error = refusal(folder)
    assert error.reason is UnreadableReason.MISSING_SHARD
    assert "not finished" in error.detail
    save(tmp_path / "model.safetensors", b=1)
    assert contents(tmp_path) == {"b": 1}
    assert unexamined(tmp_path) == {"model": UnreadableReason.MISSING_SHARD}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\x80\x04K\1.", "pickle that torch.save did not write"),
        (b"hello, world", "hello"),
    ],
)
def test_anything_else_is_refused_saying_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    error = refusal(path)
    assert error.reason is UnreadableReason.UNKNOWN_FORMAT
    assert words in error.detail
    assert "safetensors" in error.detail


def test_a_tar_archive_is_refused_saying_so(tmp_path: Path) -> None:
    path = tmp_path / "model.pth.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(save(tmp_path / "m.pt", w=1), "storages")
    assert "tar archive" in refusal(path).detail


def test_missing_empty_and_special_files_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.pt").reason is UnreadableReason.NOT_FOUND
    assert refusal(save(tmp_path / "f.pt", w=1) / "below").reason is UnreadableReason.NOT_FOUND
    (tmp_path / "empty").write_bytes(b"")
    assert refusal(tmp_path / "empty").reason is UnreadableReason.EMPTY_FILE
    assert refusal(Path("/dev/zero")).reason is UnreadableReason.IO_ERROR
    assert refusal(tmp_path / "nul\0byte").reason is UnreadableReason.IO_ERROR


def test_shards_are_joined_by_their_index(tmp_path: Path) -> None:
    save(tmp_path / "model-00001-of-00002.safetensors", a=1, b=2)
    save(tmp_path / "model-00002-of-00002.safetensors", c=3)
    path = index(
        tmp_path,
        {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00001-of-00002.safetensors",
            "c": "model-00002-of-00002.safetensors",
        },
    )
    assert contents(tmp_path) == contents(path) == {"a": 1, "b": 2, "c": 3}
    path.unlink()
    assert contents(tmp_path) == {"a": 1, "b": 2, "c": 3}


def test_torch_shards_are_joined_by_their_index(tmp_path: Path) -> None:
    save(tmp_path / "pytorch_model-00001-of-00002.bin", module_a=1)
    save(tmp_path / "pytorch_model-00002-of-00002.bin", module_b=2)
    names = {f"module.{n}": f"pytorch_model-0000{i}-of-00002.bin" for i, n in enumerate("ab", 1)}
    index(tmp_path, names, "pytorch_model.bin.index.json")
    assert contents(tmp_path) == {"a": 1, "b": 2}


def test_the_index_decides_where_two_shards_hold_the_same_tensor(tmp_path: Path) -> None:
    save(tmp_path / "x.safetensors", a=1, b=2)
    save(tmp_path / "y.safetensors", a=10, c=3)
    index(tmp_path, {"a": "y.safetensors", "b": "x.safetensors"})
    assert contents(tmp_path) == {"b": 2, "a": 10, "c": 3}


@pytest.mark.parametrize(
    ("weight_map", "reason", "words"),
    [
        ({"a": "gone.safetensors"}, UnreadableReason.MISSING_SHARD, "gone.safetensors"),
        ({"zz": "x.safetensors"}, UnreadableReason.MISSING_SHARD, "does not hold it"),
        ({"a": "../x.safetensors"}, UnreadableReason.BAD_HEADER, "without any folder"),
        ({"a": "/etc/passwd"}, UnreadableReason.BAD_HEADER, "without any folder"),
        ({"a": ".."}, UnreadableReason.BAD_HEADER, "without any folder"),
        ({"a": 5}, UnreadableReason.BAD_HEADER, "without any folder"),
        ({}, UnreadableReason.NO_TENSORS, "empty"),
        ([], UnreadableReason.BAD_HEADER, "weight_map"),
    ],
)
def test_a_broken_index_is_refused(
    tmp_path: Path, weight_map: Any, reason: UnreadableReason, words: str
) -> None:
    save(tmp_path / "x.safetensors", a=1)
    index(tmp_path, weight_map)
    error = refusal(tmp_path)
    assert error.reason is reason
    assert words in error.detail


def test_an_index_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(b"[" * 10_000)
    assert refusal(tmp_path).reason is UnreadableReason.TOO_DEEP


def test_a_shard_that_is_not_there_is_missed_without_an_index_too(tmp_path: Path) -> None:
    save(tmp_path / "model-00001-of-00003.safetensors", a=1)
    save(tmp_path / "model-00003-of-00003.safetensors", b=1)
    error = refusal(tmp_path)
    assert error.reason is UnreadableReason.MISSING_SHARD
    assert "2 of 3" in error.detail


def test_the_same_tensor_in_two_numbered_shards_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "model-00001-of-00002.safetensors", a=1)
    save(tmp_path / "model-00002-of-00002.safetensors", a=2)
    assert refusal(tmp_path).reason is UnreadableReason.BAD_HEADER


def test_an_index_cannot_pull_in_a_file_from_outside_through_a_link(tmp_path: Path) -> None:
    outside = save(tmp_path / "outside.safetensors", a=1)
    model = tmp_path / "model"
    model.mkdir()
    save(model / "y.safetensors", b=1)
    (model / "x.safetensors").symlink_to(outside)
    index(model, {"a": "x.safetensors"})
    error = refusal(model)
    assert error.reason is UnreadableReason.NOT_FOUND
    assert "links that lead out of the directory, which are not followed (x.safetensors)" in error.detail


def test_several_indexes_are_refused_unless_one_is_the_usual_one(tmp_path: Path) -> None:
    save(tmp_path / "x.safetensors", a=1)
    index(tmp_path, {"a": "x.safetensors"}, "model.fp16.safetensors.index.json")
    index(tmp_path, {"a": "x.safetensors"}, "other.safetensors.index.json")
    assert refusal(tmp_path).reason is UnreadableReason.UNKNOWN_FORMAT
    index(tmp_path, {"a": "x.safetensors"})
    assert contents(tmp_path) == {"a": 1}


def test_safetensors_come_before_torch_and_training_state_is_left_out(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", a=1)
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "rng_state_0.pth"):
        save(tmp_path / name, a=2)
    assert contents(tmp_path) == {"a": 1}
    (tmp_path / "model.safetensors").unlink()
    assert contents(tmp_path) == {"a": 2}


def test_unrelated_files_are_joined_and_prefixed_only_where_names_collide(tmp_path: Path) -> None:
    save(tmp_path / "encoder.safetensors", a=1)
    save(tmp_path / "decoder.safetensors", b=2)
    assert contents(tmp_path) == {"b": 2, "a": 1}
    save(tmp_path / "head.v2.safetensors", a=3)
    assert contents(tmp_path) == {"decoder.b": 2, "encoder.a": 1, "head.v2.a": 3}


def test_torch_files_that_differ_only_in_suffix_keep_apart(tmp_path: Path) -> None:
    save(tmp_path / "m.pt", a=1)
    save(tmp_path / "m.pth", a=2)
    assert contents(tmp_path) == {"m.pt.a": 1, "m.pth.a": 2}


def test_torch_files_without_tensors_and_foreign_bin_files_stand_aside(tmp_path: Path) -> None:
    save(tmp_path / "weights.pt", a=1)
    torch.save({"note": 1}, tmp_path / "notes.pt")
    (tmp_path / "vocabulary.bin").write_bytes(b"words")
    assert contents(tmp_path) == {"a": 1}
    (tmp_path / "weights.pt").unlink()
    assert refusal(tmp_path).reason is UnreadableReason.NO_TENSORS
    (tmp_path / "notes.pt").unlink()
    assert refusal(tmp_path).reason is UnreadableReason.UNKNOWN_FORMAT


def test_a_broken_file_among_others_makes_the_model_unreadable(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", a=1)
    path = save(tmp_path / "b.safetensors", b=1)
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(tmp_path).reason is UnreadableReason.TRUNCATED


def test_folders_below_are_searched_when_the_directory_holds_no_weights(tmp_path: Path) -> None:
    save(tmp_path / "artifacts" / "data" / "model.pth", w=1)
    assert contents(tmp_path) == {"w": 1}
    save(tmp_path / "vae" / "model.safetensors", w=2)
    assert contents(tmp_path) == {"artifacts.data.w": 1, "vae.w": 2}
    assert open_model(tmp_path).format == "pytorch+safetensors"
    assert open_model(tmp_path).left_out == ()


def test_folders_below_belong_to_the_model_of_a_directory_with_weights_of_its_own(tmp_path: Path) -> None:
    save(tmp_path / "artifacts" / "data" / "model.pth", w=1)
    save(tmp_path / "vae" / "model.safetensors", w=2, v=4)
    save(tmp_path / "model.safetensors", w=3)
    assert contents(tmp_path) == {"w": 3, "artifacts.data.w": 1, "vae.w": 2, "vae.v": 4}
    assert open_model(tmp_path).unexamined == ()


def test_a_directory_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    assert refusal(tmp_path).reason is UnreadableReason.NOT_FOUND
    (tmp_path / "model.onnx.data").write_bytes(b"x")
    error = refusal(tmp_path)
    assert error.reason is UnreadableReason.UNKNOWN_FORMAT
    assert "model.onnx.data" in error.detail


def test_closing_a_joined_model_leaves_its_arrays_valid(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", a=1)
    save(tmp_path / "b.safetensors", b=2)
    reader = open_model(tmp_path)
    first, second = reader.load("a"), reader.load("b")
    reader.close()
    assert np.array_equal(np.concatenate([first, second]), [1, 2])
    with pytest.raises(KeyError):
        reader.load("c")


def left_out(path: Path) -> dict[str, str]:
    return dict(open_model(path).left_out)


def unexamined(path: Path) -> dict[str, UnreadableReason]:
    return {file.name: file.reason for file in open_model(path).unexamined}


def test_training_state_indexes_and_copies_of_the_weights_are_left_out_with_their_reason(
    tmp_path: Path,
) -> None:
    save(tmp_path / "model.safetensors", a=1, b=2)
    save(tmp_path / "pytorch_model-00001-of-00002.bin", a=1)
    save(tmp_path / "pytorch_model-00002-of-00002.bin", b=2)
    index(tmp_path, {"a": "pytorch_model-00001-of-00002.bin"}, "pytorch_model.bin.index.json")
    torch.save({"note": 1}, tmp_path / "notes.pt")
    save(tmp_path / "checkpoint" / "optimizer.pt", exp=1)

    reasons = left_out(tmp_path)

    assert contents(tmp_path) == {"a": 1, "b": 2}
    assert unexamined(tmp_path) == {}
    assert "the same tensors" in reasons.pop("pytorch_model-00001-of-00002.bin")
    assert "the same tensors" in reasons.pop("pytorch_model-00002-of-00002.bin")
    assert "index" in reasons.pop("pytorch_model.bin.index.json")
    assert "training state" in reasons.pop("checkpoint/optimizer.pt")
    assert "no weights" in reasons.pop("notes.pt")
    assert reasons == {}


@pytest.mark.parametrize("other", [{"a": 2.0, "c": 1.0}, {"c": 1.0}])
def test_a_torch_file_with_tensors_that_the_safetensors_lack_is_examined(
    tmp_path: Path, other: dict[str, float]
) -> None:
    save(tmp_path / "model.safetensors", a=1)
    save(tmp_path / "ema.pt", **other)

    prefix = "ema." if "a" in other else ""

    assert contents(tmp_path) == {"a": 1} | {prefix + name: value for name, value in other.items()}
    assert left_out(tmp_path) == {}


def copies(folder: Path, chosen: str) -> None:
    """The tensors a=1 and b=2 in every format but the chosen one."""
    np.savez(folder / "numpy.npz", a=np.ones(1, np.float32), b=np.full(1, 2, np.float16))
    hdf5(folder / "keras.h5", a=1, b=2)
    onnx_model(folder / "onnx.onnx", a=1, b=2)
    writer = gguf.GGUFWriter(folder / "gguf.gguf", "llama")
    writer.add_tensor("b", np.full(1, 2, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save(folder / chosen, a=1, b=2)


@pytest.mark.parametrize("chosen", ["model.safetensors", "model.pt"])
def test_copies_in_any_format_are_left_out(tmp_path: Path, chosen: str) -> None:
    copies(tmp_path, chosen)
    if chosen == "model.safetensors":
        distributed(tmp_path, a=1, b=2)
    assert contents(tmp_path) == {"a": 1, "b": 2}
    assert open_model(tmp_path).format == ("pytorch" if chosen == "model.pt" else "safetensors")
    assert set(left_out(tmp_path)) == {file.name for file in weight_files(tmp_path)} - {chosen}
    assert all("the same tensors" in reason for reason in left_out(tmp_path).values())
    assert not unexamined(tmp_path)


def test_a_file_with_the_same_names_in_a_quantised_type_or_with_more_in_it_is_no_copy(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", a=1)
    np.savez(tmp_path / "int8.npz", a=np.ones(1, np.int8))
    np.savez(tmp_path / "more.npz", a=np.ones(1, np.float32), b=np.array([{}]))
    assert contents(tmp_path) == {"a": 1, "int8.a": 1, "more.a": 1}
    assert unexamined(tmp_path) == {"more.npz/b.npy": UnreadableReason.UNSUPPORTED_TENSOR}


def test_a_damaged_file_of_another_format_beside_torch_files_does_not_hide_the_weights(
    tmp_path: Path,
) -> None:
    save(tmp_path / "model.pt", a=1)
    (tmp_path / "tf_model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    assert contents(tmp_path) == {"a": 1}
    assert unexamined(tmp_path) == {"tf_model.h5": UnreadableReason.CORRUPT}
    (tmp_path / "model.pt").unlink()
    assert refusal(tmp_path).reason is UnreadableReason.CORRUPT


def test_a_torch_file_with_a_tensor_of_another_shape_is_no_copy(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", a=1)
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    assert contents(tmp_path) == {"a": 1, "pytorch_model.a": 1}


def test_safetensors_that_the_index_does_not_name_are_examined(tmp_path: Path) -> None:
    save(tmp_path / "model-00001-of-00001.safetensors", a=1)
    index(tmp_path, {"a": "model-00001-of-00001.safetensors"})
    save(tmp_path / "consolidated.safetensors", a=2, b=3)
    assert contents(tmp_path) == {"a": 1, "consolidated.a": 2, "consolidated.b": 3}


def half(path: Path, **values: float) -> Path:
    """As :func:`save`, in half the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: torch.tensor([value], dtype=torch.float16) for name, value in values.items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("full", "smaller"),
    [
        ("model.safetensors", "model.fp16.safetensors"),
        ("model.fp32.safetensors", "model.safetensors"),
        ("x-F32.safetensors", "x_bf16.safetensors"),
        ("flux.safetensors", "flux-fp8_e4m3fn.safetensors"),
        ("x.i1-Q6_K.safetensors", "x-iq4_xs.safetensors"),
        ("x.Q4_K_M.safetensors", "x-UD-Q2_K_XL.safetensors"),
        ("Q8_0.safetensors", "Q4_0.safetensors"),
        ("pytorch_model.bin", "pytorch_model.fp16.bin"),
        ("m.pt", "m-int8.pth"),
    ],
)
def test_of_two_types_of_one_network_the_one_with_more_bytes_is_examined(
    tmp_path: Path, full: str, smaller: str
) -> None:
    save(tmp_path / full, a=1, b=2)
    half(tmp_path / smaller, a=3, b=4)
    assert contents(tmp_path) == {"a": 1, "b": 2}
    assert left_out(tmp_path) == {smaller: f"a variant of {full}, by name and shape: not examined"}


def test_of_types_with_equal_bytes_the_one_with_the_shortest_name_is_examined(tmp_path: Path) -> None:
    for number, name in enumerate(["model.float32", "model.bf16", "model"]):
        save(tmp_path / f"{name}.safetensors", a=number)
    assert contents(tmp_path) == {"a": 2}
    assert left_out(tmp_path).keys() == {"model.float32.safetensors", "model.bf16.safetensors"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("high_noise.safetensors", "low_noise.safetensors"),
        ("high_noise_fp8.safetensors", "low_noise_fp16.safetensors"),
        ("unet.safetensors", "unet.non_ema.safetensors"),
        ("unet.fp16.safetensors", "unet.non_ema.fp16.safetensors"),
        ("model.safetensors", "model.v16.safetensors"),
        ("model.safetensors", "modelfp16.safetensors"),
        ("m.fp16.pt", "m.fp16.pth"),
        ("vae/model.safetensors", "unet/model.fp16.safetensors"),
    ],
)
def test_two_networks_of_equal_shapes_are_both_examined(tmp_path: Path, one: str, other: str) -> None:
    save(tmp_path / one, a=1)
    half(tmp_path / other, a=2)
    assert sorted(contents(tmp_path).values()) == [1, 2]
    assert left_out(tmp_path) == {}


def test_a_type_with_another_tensor_or_shape_or_a_part_that_cannot_be_read_is_no_variant(
    tmp_path: Path,
) -> None:
    save(tmp_path / "model.safetensors", a=1)
    save(tmp_path / "model.fp16.safetensors", a=2, b=3)
    assert contents(tmp_path) == {"model.a": 1, "model.fp16.a": 2, "model.fp16.b": 3}
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "model.fp16.safetensors")
    assert contents(tmp_path) == {"model.a": 1, "model.fp16.a": 1}
    for path in tmp_path.iterdir():
        path.unlink()
    np.savez(tmp_path / "model.npz", a=np.ones(1, np.float32))
    np.savez(tmp_path / "model.fp16.npz", a=np.ones(1, np.float16), b=np.array([{}]))
    assert contents(tmp_path) == {"model.a": 1, "model.fp16.a": 1}


def test_folders_named_after_types_are_both_examined(tmp_path: Path) -> None:
    save(tmp_path / "unet" / "model.safetensors", a=1)
    half(tmp_path / "unet_fp16" / "model.safetensors", a=2)
    assert contents(tmp_path) == {"unet.a": 1, "unet_fp16.a": 2}


def test_every_shard_of_a_variant_is_named(tmp_path: Path) -> None:
    for number, values in enumerate([{"a": 1.0}, {"b": 2.0}], start=1):
        save(tmp_path / f"x.BF16-0000{number}-of-00002.safetensors", **values)
        half(tmp_path / f"x.Q8_0-0000{number}-of-00002.safetensors", **values)
    assert contents(tmp_path) == {"a": 1, "b": 2}
    assert left_out(tmp_path).keys() == {f"x.Q8_0-0000{number}-of-00002.safetensors" for number in (1, 2)}


def test_a_damaged_variant_does_not_pass_in_silence(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", a=1)
    cut = half(tmp_path / "model.fp16.safetensors", a=2)
    cut.write_bytes(cut.read_bytes()[:-1])
    assert refusal(tmp_path).reason is UnreadableReason.TRUNCATED


def test_variants_beside_and_below_the_chosen_files_are_left_out_too(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", a=1)
    for name, keep in (("x-f32.npz", np.float32), ("x-f16.npz", np.float16)):
        np.savez(tmp_path / name, a=np.full(2, 3, keep))
    save(tmp_path / "vae" / "model.safetensors", a=5)
    half(tmp_path / "vae" / "model.fp16.safetensors", a=6)
    assert contents(tmp_path) == {"a": 1, "x-f32.a": 3, "vae.a": 5}
    assert left_out(tmp_path).keys() == {"x-f16.npz", "vae/model.fp16.safetensors"}


def test_files_that_cannot_be_read_beside_the_weights_are_named_and_do_not_hide_the_weights(
    tmp_path: Path,
) -> None:
    save(tmp_path / "model.safetensors", a=1)
    (tmp_path / "model.gguf").write_bytes(b"GGUF\1\0\0\0" + bytes(40))
    (tmp_path / "vocabulary.bin").write_bytes(b"words")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"x" * 8)
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "openvino_model.bin").write_bytes(bytes(64))
    cut = save(tmp_path / "vae" / "model.safetensors", b=1)
    cut.write_bytes(cut.read_bytes()[:-1])
    save(tmp_path / "head-00001-of-00002.pt", c=1)

    assert contents(tmp_path) == {"a": 1}
    found = unexamined(tmp_path)
    # An incomplete series makes it unclear what belongs together: its whole folder is named.
    assert found == {
        "empty.pt": UnreadableReason.MISSING_SHARD,
        "head-00001-of-00002.pt": UnreadableReason.MISSING_SHARD,
        "model.gguf": UnreadableReason.MISSING_SHARD,
        "vocabulary.bin": UnreadableReason.MISSING_SHARD,
        "onnx/model.onnx": UnreadableReason.BAD_HEADER,
        "openvino/openvino_model.bin": UnreadableReason.UNKNOWN_FORMAT,
        "vae/model.safetensors": UnreadableReason.TRUNCATED,
    }
    (tmp_path / "head-00001-of-00002.pt").unlink()
    found = unexamined(tmp_path)
    assert found["empty.pt"] is UnreadableReason.EMPTY_FILE
    assert found["model.gguf"] is found["vocabulary.bin"] is UnreadableReason.UNKNOWN_FORMAT


def test_every_shard_of_a_series_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", a=1)
    names = {f"big-0000{number}-of-00002.gguf" for number in (1, 2)}
    for name in names:
        (tmp_path / name).write_bytes(b"GGUF" + bytes(40))
    assert unexamined(tmp_path).keys() == names


def test_a_file_name_that_is_no_text_is_shown_with_its_bytes_escaped(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", a=1)
    (tmp_path / "w\udcff.gguf").write_bytes(b"GGUF" + bytes(40))
    (name,) = unexamined(tmp_path)
    assert name == "w\\udcff.gguf"
