"""The writer against the reference implementation of the format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from layerwatch.daemon.demo.safetensors_file import read_safetensors, write_safetensors

TENSORS: dict[str, NDArray[Any]] = {
    "fc.weight": np.arange(-6, 6, dtype=np.int8).reshape(4, 3),
    "fc.weight_scale": np.array([0.5, 0.25, 1.0, 2.0], np.float32),
    "fc.bias": np.array([], np.float32),
    "bn.num_batches_tracked": np.array(2**40, np.int64),
}


def assert_same(found: dict[str, NDArray[Any]]) -> None:
    assert found.keys() == TENSORS.keys()
    for name, values in TENSORS.items():
        assert found[name].dtype == values.dtype
        assert found[name].shape == values.shape
        assert np.array_equal(found[name], values)


def test_the_reference_reader_reads_what_is_written(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", TENSORS)
    assert_same(load_file(tmp_path / "a.safetensors"))


def test_what_the_reference_writer_writes_is_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    assert_same(read_safetensors(tmp_path / "a.safetensors"))


def test_the_order_in_which_tensors_come_does_not_change_the_bytes(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", TENSORS)
    write_safetensors(tmp_path / "b.safetensors", dict(reversed(TENSORS.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_every_tensor_starts_at_a_multiple_of_its_item_size(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"a": np.ones(3, np.int8), "b": np.ones(3, np.float32)})
    found = read_safetensors(tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    assert content.index(found["b"].tobytes()) % 4 == 0


def test_a_transposed_array_is_written_as_it_reads(tmp_path: Path) -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write_safetensors(tmp_path / "a.safetensors", {"w": matrix})
    assert np.array_equal(load_file(tmp_path / "a.safetensors")["w"], matrix)


def test_a_type_that_the_demonstration_never_stores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_safetensors(tmp_path / "a.safetensors", {"w": np.ones(2, np.float64)})
