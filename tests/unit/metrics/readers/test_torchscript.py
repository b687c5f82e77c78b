"""TorchScript archives written by torch.jit.save, compared with what torch.jit.load's state_dict says."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from forge import dict_pickle, tensor_opcodes
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.tensors import Reader

pytestmark = pytest.mark.filterwarnings("ignore")


class Inner(nn.Module):
    """Names that mean other things in training checkpoints, buffers of both kinds, a list and a plain tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(4, 3)
        self.optimizer = nn.Conv1d(3, 2, 3, bias=False)
        self.register_buffer("window", torch.arange(5.0))
        self.register_buffer("transient", torch.arange(2.0), persistent=False)
        self.plain = torch.full((2, 2), 7.0)
        self.state = torch.zeros(0)
        self.pieces = [torch.ones(3), torch.zeros(2)]

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Use everything."""
        used = values @ self.model.weight.t()
        window = self.window.sum()  # type: ignore[operator]
        total: torch.Tensor = used.sum() + window + self.plain.sum() + self.state.sum() + self.pieces[0].sum()
        return total


class Outer(nn.Module):
    """Two variants of a network in one file, and recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Inner()
        self.net_8k = Inner()
        self.rnn = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
        self.cell = nn.GRUCell(3, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Use everything."""
        out, _ = self.rnn(torch.zeros(1, 1, 3))
        cell = self.cell(torch.zeros(1, 3)).sum()
        total: torch.Tensor = self.net(values) + self.net_8k(values) + out.sum() + cell
        return total


def saved(path: Path, module: nn.Module) -> Path:
    torch.jit.save(torch.jit.script(module.eval()), path)
    return path


def expected_of(path: Path) -> dict[str, torch.Tensor]:
    """What torch itself reads."""
    load: Any = torch.jit.load
    state: dict[str, torch.Tensor] = load(path).state_dict()
    return state


def assert_same(reader: Reader, expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in expected.items():
        loaded = reader.load(name)
        assert loaded.shape == tuple(tensor.shape)
        assert np.array_equal(loaded, tensor.detach().numpy()), name


def test_parameters_and_buffers_are_those_of_the_state_dict(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = saved(tmp_path / "net.pt", Outer())
    expected = expected_of(path)
    reader = open_model(path)
    names = [info.name for info in reader.tensors()]
    assert_same(reader, expected)
    beside = {f"{net}.{name}" for net in ("net", "net_8k") for name in ("plain", "pieces.0", "pieces.1")}
    assert set(names) == set(expected) | beside
    assert reader.load("net.plain").tolist() == [[7, 7], [7, 7]]
    left_out = {name for name, _ in reader.left_out}
    assert {"net.state", "net_8k.state"} <= left_out
    assert not any(name.startswith("rnn._flat_weights") for name in names)


def test_a_traced_module_is_read_as_a_scripted_one(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).eval()
    trace: Any = torch.jit.trace
    trace(net, torch.zeros(1, 1, 5, 5)).save(tmp_path / "net.pt")
    reader = open_model(tmp_path / "net.pt")
    assert [info.name for info in reader.tensors()] == list(net.state_dict())
    assert_same(reader, net.state_dict())


def test_the_weights_of_a_frozen_module_are_its_constants(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).eval()
    torch.jit.freeze(torch.jit.script(net)).save(tmp_path / "frozen.pt")
    reader = open_model(tmp_path / "frozen.pt")
    found = {info.name: reader.load(info.name) for info in reader.tensors()}
    assert set(found) == {f"CONSTANTS.c{number}" for number in range(4)}
    for tensor in net.state_dict().values():
        assert sum(np.array_equal(values, tensor.numpy()) for values in found.values()) == 1


def test_a_shared_submodule_has_both_names_as_in_the_state_dict(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(2, 2))
    net.add_module("again", net[0])
    path = saved(tmp_path / "net.pt", net)
    assert [info.name for info in open_model(path).tensors()] == list(expected_of(path))


def test_the_code_in_an_archive_is_never_looked_at(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pt", nn.Linear(3, 2))
    replaced = tmp_path / "replaced.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(replaced, "w") as target:
        for entry in source.infolist():
            is_code = "/code/" in entry.filename
            target.writestr(entry.filename, b"import os; os.abort()" if is_code else source.read(entry))
    reader = open_model(replaced)
    assert [info.name for info in reader.tensors()] == ["weight", "bias"]


def test_modules_with_a_state_of_their_own_are_read_and_not_dropped(tmp_path: Path) -> None:
    """torch's dynamic quantisation packs weights into an object whose state is (quantised tensor, bias)."""
    quantise: Any = torch.ao.quantization.quantize_dynamic
    net = quantise(nn.Sequential(nn.Linear(8, 4)), dtype=torch.qint8)
    reader = open_model(saved(tmp_path / "net.pt", net))
    packed = [info for info in reader.tensors() if info.shape == (4, 8)]
    assert [(info.name, info.dtype) for info in packed] == [("0.weight", "QINT8")]
    assert np.array_equal(reader.load("0.weight"), net[0].weight().dequantize().numpy())


def test_damaged_constants_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", dict_pickle({"w": tensor_opcodes()}))
        archive.writestr("net/data/0", bytes(24))
        archive.writestr("net/constants.pkl", b"\x80\x02(K\1")
    with pytest.raises(UnreadableError) as caught:
        open_model(path)
    assert caught.value.reason is UnreadableReason.TRUNCATED


def test_storages_of_constants_and_attributes_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    constants = b"\x80\x02" + tensor_opcodes() + b"\x85."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", dict_pickle({"w": tensor_opcodes()}))
        archive.writestr("net/data/0", np.full(6, 1, np.float32).tobytes())
        archive.writestr("net/constants.pkl", constants)
        archive.writestr("net/constants/0", np.full(6, 2, np.float32).tobytes())
    reader = open_model(path)
    sums = {info.name: float(reader.load(info.name).sum()) for info in reader.tensors()}
    assert sorted(sums.values()) == [6.0, 12.0]
    assert sums[next(name for name in sums if name.endswith("CONSTANTS.c0"))] == 12.0
