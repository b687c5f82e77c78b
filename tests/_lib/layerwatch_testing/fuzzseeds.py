"""Small valid files of every format, written by the libraries that own the formats, for fuzzing to begin with."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import gguf
import h5py
import numpy as np
import onnx
import safetensors.numpy
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from layerwatch.metrics.tensors import Array

BESIDE = "beside"
"""Folder in the corpus with the files that belong beside an input, by target."""


def write_corpus(folder: Path) -> Path:
    """Write ``folder/<target>/<file>`` for every target of ``fuzzing.py``."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _safetensors(_new(folder, "safetensors"))
        _index(_new(folder, "index"))
        _torch(folder)
        _torchscript(_new(folder, "torchscript"))
        _distributed(folder)
        _numpy(folder)
        _keras(folder)
        _gguf(_new(folder, "gguf"))
        _onnx(_new(folder, "onnx"))
    archives = _new(folder, "zip")
    for path in (folder / "npz" / "packed.npz", folder / "torch-zip" / "checkpoint.pt"):
        shutil.copy(path, archives)
    return folder


def _new(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    return path


def _safetensors(folder: Path) -> None:
    values: dict[str, Array] = {
        "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
        "b": np.ones(2, np.int8),
    }
    safetensors.numpy.save_file(values, folder / "small.safetensors", metadata={"format": "pt"})


def _index(folder: Path) -> None:
    index = {"metadata": {"total_size": 8}, "weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
    (folder / "index.json").write_text(json.dumps(index))


def _torch(folder: Path) -> None:
    linear = nn.Linear(3, 2)
    checkpoint = {
        "state_dict": {
            **linear.state_dict(),
            "half": torch.ones(2, dtype=torch.bfloat16),
            "t": torch.ones(3, 2).t(),
        },
        "optimizer": torch.optim.SGD(linear.parameters(), lr=0.1).state_dict(),
        "epoch": 3,
    }
    zipped, legacy, pickles = _new(folder, "torch-zip"), _new(folder, "torch-legacy"), _new(folder, "pickle")
    for name, value in (
        ("checkpoint", checkpoint),
        ("module", linear),
        ("f8", torch.ones(2, dtype=torch.float8_e5m2)),
    ):
        torch.save(value, zipped / f"{name}.pt")
        with zipfile.ZipFile(zipped / f"{name}.pt") as archive:
            (pickles / f"{name}.pkl").write_bytes(archive.read(f"{name}/data.pkl"))
    torch.save(checkpoint, legacy / "checkpoint.pth", _use_new_zipfile_serialization=False)
    torch.save(linear, legacy / "module.pth", _use_new_zipfile_serialization=False)
    plain = {"a": [1, 2.5, None, True, (1, 2)], "b": {b"bytes", 3}, "c": np.float32(1)}
    for protocol in (0, 2, 4):
        (pickles / f"plain{protocol}.pkl").write_bytes(pickle.dumps(plain, protocol))


def _torchscript(folder: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.Conv1d(1, 2, 1)).eval()
    script: Any = torch.jit.script
    script(net).save(folder / "net.jit")
    torch.jit.freeze(script(nn.Sequential(nn.Linear(3, 2)).eval())).save(folder / "frozen.jit")


def _distributed(folder: Path) -> None:
    beside = _new(folder / BESIDE, "distcp")
    state: dict[str, Any] = {"model": nn.Linear(3, 2).state_dict(), "epoch": 3}
    save_distributed(state, checkpoint_id=str(beside))
    shutil.move(beside / ".metadata", _new(folder, "distcp") / "metadata")


def _numpy(folder: Path) -> None:
    single, archives = _new(folder, "npy"), _new(folder, "npz")
    np.save(single / "rows.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    np.save(single / "columns.npy", np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3)))
    values: dict[str, Any] = {
        "w": np.arange(12.0).reshape(3, 4),
        "b": np.ones(2, np.float16),
        "text": np.array(["a"]),
    }
    np.savez(archives / "stored.npz", **values)
    np.savez_compressed(archives / "packed.npz", **values)


def _keras(folder: Path) -> None:
    def write(target: Any) -> None:
        with h5py.File(target, "w") as file:
            variables = file.create_group("layers/dense/vars")
            variables.attrs["name"] = "head"
            variables["0"] = np.arange(6.0).reshape(2, 3)
            variables["1"] = np.ones(3, np.float32)

    plain, archives = _new(folder, "hdf5"), _new(folder, "keras")
    write(plain / "keras3.h5")
    with h5py.File(plain / "legacy.h5", "w") as file:
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"dense"]
        layer = weights.create_group("dense")
        layer.attrs["weight_names"] = [b"dense/kernel:0"]
        layer.create_dataset("dense/kernel:0", data=np.ones((4, 2)), compression="gzip")
    stream = io.BytesIO()
    write(stream)
    config = {
        "class_name": "Sequential",
        "config": {"layers": [{"class_name": "Dense", "config": {"name": "head"}}]},
    }
    for name, compression in (("stored", zipfile.ZIP_STORED), ("packed", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(archives / f"{name}.keras", "w", compression) as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("model.weights.h5", stream.getvalue())


def _gguf(folder: Path) -> None:
    writer = gguf.GGUFWriter(folder / "small.gguf", "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.add_array("tokenizer.ggml.tokens", ["<s>", "a"])
    writer.add_tensor("blk.0.attn_q.weight", np.arange(64, dtype=np.float32).reshape(2, 32))
    packed = gguf.quantize(np.arange(64, dtype=np.float32).reshape(2, 32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("output.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _onnx(folder: Path) -> None:
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [weight, helper.make_tensor("listed", TensorProto.FLOAT16, [2], [1.0, 2.0])],
    )
    onnx.save(helper.make_model(graph), folder / "small.onnx")
