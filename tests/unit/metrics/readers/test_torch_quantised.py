"""Networks that torch quantised itself, against torch's own ``dequantize``."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pytest
import torch

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.openmodel import open_layers
from layerwatch.metrics.readers.checkpoint import find_tensors
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.readers.dtypes import StoredType
from layerwatch.metrics.readers.picklevalues import Global, Opaque, Storage, StoredTensor

# torch's functions of quantisation have no types.
QUANTISATION: Any = torch.ao.quantization

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(
        "fbgemm" not in torch.backends.quantized.supported_engines, reason="torch has no engine for this"
    ),
]


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(64, 32)
        self.lstm = torch.nn.LSTM(32, 16)
        self.embedding = torch.nn.Embedding(50, 8)


@pytest.fixture
def dynamic() -> torch.nn.Module:
    torch.manual_seed(3)
    torch.backends.quantized.engine = "fbgemm"
    kinds = {torch.nn.Linear, torch.nn.LSTM}
    made = QUANTISATION.quantize_dynamic(Network(), kinds, dtype=torch.qint8)
    assert isinstance(made, torch.nn.Module)
    return made


def saved(folder: Path, value: Any) -> Path:
    torch.save(value, folder / "model.pt")
    return folder / "model.pt"


@pytest.mark.parametrize("whole", [False, True], ids=["state dict", "module"])
def test_a_dynamically_quantised_network_has_the_names_of_its_parent(
    tmp_path: Path, dynamic: Any, whole: bool
) -> None:
    reader = open_model(saved(tmp_path, dynamic if whole else dynamic.state_dict()))

    shapes = {info.name: (info.shape, info.dtype) for info in reader.tensors()}
    expected = dynamic.fc.weight().dequantize().numpy()
    assert shapes["fc.weight"] == ((32, 64), "QINT8")
    assert np.array_equal(reader.load("fc.weight"), expected)
    assert np.array_equal(reader.load("fc.bias"), dynamic.fc.bias().detach().numpy())
    assert np.array_equal(reader.load("embedding.weight"), dynamic.embedding.weight.detach().numpy())
    parts = dynamic.lstm._all_weight_values[0].param.__getstate__()[0][4]
    for suffix, part in zip(("ih", "hh"), parts, strict=True):
        weight, bias = part.__getstate__()[0]
        where = "lstm._all_weight_values.0.param"
        assert np.array_equal(reader.load(f"{where}.weight_{suffix}"), weight.dequantize().numpy())
        assert np.array_equal(reader.load(f"{where}.bias_{suffix}"), bias.detach().numpy())


def test_its_layers_are_examined(tmp_path: Path, dynamic: Any) -> None:
    model = open_layers(saved(tmp_path, dynamic.state_dict()))
    try:
        layers = {layer.name: layer for layer in model.plan.layers}
        assert {"fc", "embedding"} <= layers.keys()
        assert len(layers) == 4
        values = model.read(layers["fc"]).values()
    finally:
        model.close()
    assert np.array_equal(values, dynamic.fc.weight().dequantize().numpy())


WEIGHT = torch.from_numpy(np.random.default_rng(5).standard_normal((6, 10)).astype(np.float32))
FACTORS = torch.from_numpy(np.random.default_rng(6).uniform(0.01, 0.05, 10))


def by_channel(axis: int, dtype: torch.dtype, zeros: Any = None) -> torch.Tensor:
    scales = FACTORS[: WEIGHT.shape[axis]]
    points = torch.zeros(len(scales), dtype=torch.int64) if zeros is None else zeros
    return torch.quantize_per_channel(WEIGHT, scales, points, axis, dtype)


MADE: dict[str, Callable[[], torch.Tensor]] = {
    "QINT8 per tensor": lambda: torch.quantize_per_tensor(WEIGHT, 0.02, -3, torch.qint8),
    "QUINT8 per tensor": lambda: torch.quantize_per_tensor(WEIGHT, 0.02, 130, torch.quint8),
    "QINT32 per tensor": lambda: torch.quantize_per_tensor(WEIGHT, 1e-5, 7, torch.qint32),
    "QINT8 per row": lambda: by_channel(0, torch.qint8),
    "QINT8 per column": lambda: by_channel(1, torch.qint8),
    "QUINT8 per row": lambda: by_channel(0, torch.quint8, torch.arange(6) + 120),
    "QUINT8 with floating zero points": lambda: by_channel(
        0, torch.quint8, torch.linspace(120.25, 130.75, 6)
    ),
    "QINT8 turned round": lambda: torch.quantize_per_tensor(WEIGHT.T.contiguous(), 0.02, 1, torch.qint8).T,
}


@pytest.mark.parametrize("name", MADE)
def test_values_are_what_torch_restores(tmp_path: Path, name: str) -> None:
    tensor = MADE[name]()
    reader = open_model(saved(tmp_path, {"fc.weight": tensor}))

    (info,) = reader.tensors()
    values = reader.load("fc.weight")

    assert (info.shape, info.dtype) == (tuple(tensor.shape), name.split()[0])
    assert values.dtype == np.float32
    assert not values.flags.writeable
    # torch keeps scales per channel as float64 and some kernels multiply zero points in first.
    assert values == pytest.approx(tensor.dequantize().numpy(), rel=1e-6, abs=1e-7)


def test_numbers_of_four_bits_are_refused(tmp_path: Path) -> None:
    weight = torch.quantize_per_channel(WEIGHT, FACTORS[:6].float(), torch.zeros(6), 0, torch.quint4x2)
    reader = open_model(saved(tmp_path, {"fc.weight": weight}))
    with pytest.raises(UnreadableError, match="quantised by torch as QUINT4") as caught:
        reader.load("fc.weight")
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_TENSOR


class Calibrated(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QUANTISATION.QuantStub(), QUANTISATION.DeQuantStub()
        self.conv, self.fc = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> Any:
        return self.dequant(self.fc(self.conv(self.quant(x)).mean((2, 3))))


@pytest.fixture
def static() -> Any:
    torch.manual_seed(1)
    torch.backends.quantized.engine = "fbgemm"
    model: Any = Calibrated().eval()
    model.qconfig = QUANTISATION.get_default_qconfig("fbgemm")
    prepared = QUANTISATION.prepare(model)
    prepared(torch.randn(4, 3, 8, 8))
    return QUANTISATION.convert(prepared)


@pytest.mark.parametrize("form", ["state dict", "module", "script"])
def test_a_statically_quantised_network_keeps_no_weight_to_itself(
    tmp_path: Path, static: Any, form: str
) -> None:
    path = tmp_path / "model.pt"
    if form == "script":
        script: Any = torch.jit.script
        script(static).save(path)
    else:
        saved(tmp_path, static if form == "module" else static.state_dict())

    reader = open_model(path)

    conv, fc = static.conv.weight().dequantize().numpy(), static.fc.weight().dequantize().numpy()
    named = {info.shape: info.name for info in reader.tensors() if len(info.shape) > 1}
    assert named.keys() == {conv.shape, fc.shape}
    assert named[fc.shape] == "fc.weight"
    assert named[conv.shape] == ("conv.weight" if form == "state dict" else "conv.10")
    assert np.array_equal(reader.load(named[conv.shape]), conv)
    assert np.array_equal(reader.load("fc.weight"), fc)


def changed(folder: Path, old: bytes, new: bytes) -> Path:
    """A checkpoint with other bytes in its pickle, behind the name of the scheme."""
    source = saved(folder, {"fc.weight": MADE["QINT8 per row"]()})
    patched = folder / "changed.pt"
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(patched, "w") as after:
        for name in before.namelist():
            raw = before.read(name)
            if name.endswith("data.pkl"):
                head, mark, rest = raw.partition(b"per_channel_affine")
                assert (mark + rest).count(old) == 1
                raw = head + (mark + rest).replace(old, new)
            after.writestr(name, raw)
    return patched


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"K\x00t", b"K\x07t"), (b"per_channel_affine\n", b"per_channel_affina\n")],
    ids=["an axis that is not there", "another scheme"],
)
def test_what_torch_does_not_write_is_refused_when_loaded(tmp_path: Path, old: bytes, new: bytes) -> None:
    reader = open_model(changed(tmp_path, old, new))
    with pytest.raises(UnreadableError, match="not undone") as caught:
        reader.load("fc.weight")
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_TENSOR


def test_scales_of_another_count_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableError, match="one for each of 10"):
        open_model(changed(tmp_path, b"K\x00t", b"K\x01t"))


class Subclass(torch.Tensor):
    """A wrapper as torchao has them: no storage of its own, its parts in attributes."""

    @staticmethod
    def __new__(cls, parts: torch.Tensor) -> Self:
        make: Any = torch.Tensor._make_wrapper_subclass
        return cast("Self", make(cls, (4, 6), dtype=torch.float32))

    def __init__(self, parts: torch.Tensor) -> None:
        self.qdata = parts

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return args[0] if func is torch.ops.aten.detach.default else NotImplemented


def test_a_tensor_subclass_is_refused_by_its_name(tmp_path: Path) -> None:
    path = saved(tmp_path, {"fc.weight": Subclass(torch.ones(4, 6, dtype=torch.int8))})
    model = open_layers(path)
    try:
        (layer,) = model.plan.layers
        with pytest.raises(UnreadableError, match=r"class .*Subclass, whose parts") as caught:
            model.read(layer)
    finally:
        model.close()
    assert caught.value.reason is UnreadableReason.UNSUPPORTED_TENSOR


def test_packed_parameters_that_hold_themselves_end(tmp_path: Path) -> None:
    """A cell whose parts are the cell itself: a pickle may say so, torch never does."""
    cell = Opaque(Global("torch", "ScriptObject"))
    tensor = StoredTensor(
        Storage("0", StoredType("F32", 32, None), 4, 0, 4), StoredType("F32", 32, None), 0, (4,), (1,)
    )
    cell.state = (
        ("quantized_dynamic", [tensor], [], [1], [cell, cell]),
        "__torch__.torch.classes.rnn.CellParamsBase",
    )

    with pytest.raises(UnreadableError) as caught:
        find_tensors({"param": cell}, tmp_path)
    assert caught.value.reason is UnreadableReason.NO_TENSORS
