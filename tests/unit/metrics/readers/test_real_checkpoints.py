"""Checkpoints of published networks. Origin: ``checkpoints/README.md`` in the shared directory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.detect import open_model

CHECKPOINTS = Path(__file__).resolve().parents[5] / "shared" / "checkpoints"

pytestmark = pytest.mark.skipif(not CHECKPOINTS.is_dir(), reason=f"{CHECKPOINTS} is not there")

DISTILLER = "distiller/checkpoint_trained_channel_regularized_resnet20"

# A CIFAR ResNet of depth 6n+2 has 6n+1 convolutions with 5 batch-norm tensors each and weight and bias of the
# classifier: (6n+1)*(1+4)+2 tensors, before num_batches_tracked came with torch 0.4.1. The distiller networks
# add two projection shortcuts of 1+4 tensors (resnet20: 97+10); the untrained one also counts 21 batches.
COUNTS = {
    "resnet20-12fca82f.th": 97,
    "resnet32-d509ac18.th": 157,
    f"{DISTILLER}.pth.tar": 107,
    f"{DISTILLER}_finetuned.pth.tar": 107,
    "distiller/checkpoint_trained_dense.pth.tar": 107,
    "distiller/resnet20_cifar10_checkpoint.pth.tar": 128,
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_published_checkpoint_gives_all_its_tensors(name: str) -> None:
    reader = open_model(CHECKPOINTS / name)
    infos = reader.tensors()
    assert len(infos) == COUNTS[name]
    assert not any(info.name.startswith("module.") for info in infos)
    shapes = {info.name: info.shape for info in infos}
    assert len(shapes["conv1.weight"]) == 4
    assert shapes["conv1.weight"][1:] == (3, 3, 3)
    assert 10 in next(shape for key, shape in shapes.items() if key in ("linear.weight", "fc.weight"))
    for info in infos:
        loaded = reader.load(info.name)
        assert loaded.shape == info.shape
        assert np.isfinite(loaded).all(), info.name


@pytest.mark.parametrize(
    "name", ["resnet20-12fca82f.th", "resnet32-d509ac18.th", "distiller/checkpoint_trained_dense.pth.tar"]
)
def test_the_values_are_those_that_torch_reads(name: str) -> None:
    expected = torch.load(CHECKPOINTS / name, weights_only=True, map_location="cpu")["state_dict"]
    reader = open_model(CHECKPOINTS / name)
    assert [info.name for info in reader.tensors()] == [key.removeprefix("module.") for key in expected]
    for key, tensor in expected.items():
        assert np.array_equal(reader.load(key.removeprefix("module.")), tensor.numpy()), key


@pytest.mark.parametrize("name", ["v4_silero_vad.jit", "v5_silero_vad.jit"])
def test_a_torchscript_archive_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(UnreadableError, match="TorchScript") as caught:
        open_model(CHECKPOINTS / "silero" / name)
    assert caught.value.reason is UnreadableReason.UNKNOWN_FORMAT


def test_an_onnx_file_is_refused_by_its_name() -> None:
    with pytest.raises(UnreadableError, match="ONNX") as caught:
        open_model(CHECKPOINTS / "silero" / "v5_silero_vad.onnx")
    assert caught.value.reason is UnreadableReason.UNKNOWN_FORMAT
