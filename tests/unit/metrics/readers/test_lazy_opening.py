"""What opening a model and loading one tensor reads of its files, as the kernel counts the pages of their maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import h5py
import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.tensors import Array
from layerwatch_testing.bigmodels import LlamaSizes, llama, write_shards

SMAPS = Path("/proc/self/smaps")

pytestmark = [
    pytest.mark.skipif(not SMAPS.exists(), reason="only Linux tells which pages of a map were touched"),
    pytest.mark.filterwarnings("ignore"),
]

MIB = 2**20

AROUND = 8 * MIB
"""Less than any tensor here. The kernel maps up to 2 MiB around each of the few places that are touched."""


def touched(folder: Path) -> int:
    """Bytes of the files below a folder that are mapped into this process and were touched."""
    total, counts = 0, False
    for line in SMAPS.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.endswith(" kB") or "-" in key.partition(" ")[0]:
            counts = str(folder) in line
        elif key == "Rss" and counts:
            total += int(value.split()[0]) * 1024
    return total


def read_calls() -> int:
    """Bytes that this process asked the kernel for by reading, other than through maps."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


def test_a_sharded_model_of_ten_gigabytes_is_listed_from_its_headers_alone(tmp_path: Path) -> None:
    tensors = llama(LlamaSizes(), {})
    model = write_shards(tmp_path / "model", [tensors[:150], tensors[150:]])
    before = read_calls()
    reader = open_model(model)
    infos = reader.tensors()
    assert read_calls() - before < MIB
    assert {info.name for info in infos} == {tensor.name for tensor in tensors}
    assert sum(info.size_bytes for info in infos) > 10e9
    assert touched(tmp_path) <= AROUND

    one = next(info for info in infos if info.name == "model.layers.7.mlp.up_proj.weight")
    values = reader.load(one.name)
    assert touched(tmp_path) <= AROUND
    assert not values.view(np.uint16).any()
    assert one.size_bytes <= touched(tmp_path) <= one.size_bytes + AROUND

    reader.release()
    assert touched(tmp_path) <= AROUND
    reader.close()


def _pytorch(path: Path, values: dict[str, Array]) -> None:
    torch.save({name: torch.from_numpy(array) for name, array in values.items()}, path)


def _distributed(path: Path, values: dict[str, Array]) -> None:
    state: dict[str, Any] = {name: torch.from_numpy(array) for name, array in values.items()}
    save_distributed(state, checkpoint_id=str(path.parent), no_dist=True)


def _hdf5(path: Path, values: dict[str, Array]) -> None:
    with h5py.File(path, "w") as file:
        for name, array in values.items():
            # Keras has inputs first, and is read with outputs first.
            file[name] = array.T


def _gguf(path: Path, values: dict[str, Array]) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    for name, array in values.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _onnx(path: Path, values: dict[str, Array]) -> None:
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in values.items()]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), path)


FORMATS: dict[str, Callable[[Path, dict[str, Array]], None]] = {
    "m.safetensors": lambda path, values: safetensors.numpy.save_file(values, path),
    "m.pt": _pytorch,
    "distributed": _distributed,
    "m.npz": lambda path, values: np.savez(path, **values),  # type: ignore[arg-type]
    "m.h5": _hdf5,
    "m.gguf": _gguf,
    "m.onnx": _onnx,
}


@pytest.mark.parametrize("name", FORMATS)
def test_loading_one_tensor_reads_no_other_one(tmp_path: Path, name: str) -> None:
    generator = np.random.default_rng(0)
    values: dict[str, Array] = {
        one: generator.standard_normal((1024, 4096), dtype=np.float32) for one in ("first", "second", "third")
    }
    FORMATS[name](tmp_path / name, values)
    reader = open_model(tmp_path)
    assert {info.name for info in reader.tensors()} == values.keys()
    assert touched(tmp_path) <= AROUND
    loaded = reader.load("second")
    assert np.array_equal(loaded, values["second"])
    assert loaded.nbytes <= touched(tmp_path) <= loaded.nbytes + AROUND
    reader.close()
