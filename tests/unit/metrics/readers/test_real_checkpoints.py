"""Checkpoints of published networks. Origin: ``checkpoints/README.md`` in the shared directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from layerwatch.metrics.openmodel import open_layers
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.tensors import Array

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


# Tensors of both nets in the file, by torch.jit.load(...).state_dict() of torch 2.13.
TORCHSCRIPT = {"v4_silero_vad.jit": 124, "v5_silero_vad.jit": 30}


@pytest.mark.filterwarnings("ignore:`torch.jit.load`")
@pytest.mark.parametrize("name", TORCHSCRIPT)
def test_a_published_torchscript_archive_gives_the_tensors_of_its_state_dict(name: str) -> None:
    path = CHECKPOINTS / "silero" / name
    reader = open_model(path)
    load: Any = torch.jit.load
    expected = load(path).state_dict()
    assert [info.name for info in reader.tensors()] == list(expected)
    assert len(expected) == TORCHSCRIPT[name]
    for key, tensor in expected.items():
        assert np.array_equal(reader.load(key), tensor.numpy()), key
    # The nets for two sample rates, with recurrent layers and one-dimensional convolutions.
    shapes = {info.name: info.shape for info in reader.tensors()}
    for net in ("_model", "_model_8k"):
        assert any(key.startswith(f"{net}.decoder.rnn.weight_hh") for key in shapes)
        assert any(key.startswith(f"{net}.encoder") and len(shape) == 3 for key, shape in shapes.items())
    # States that are filled when the network runs, lists of parameters that are listed, and empty constants.
    assert not any(key in shapes for key, _ in reader.left_out)


@pytest.mark.parametrize(("name", "count"), [("v5_silero_vad.onnx", 30), ("v5_silero_vad_half.onnx", 15)])
def test_an_onnx_file_gives_all_its_tensors(name: str, count: int) -> None:
    """Each of the two sample rates has six convolutions and a recurrent cell, 15 tensors as in the script's file."""
    reader = open_model(CHECKPOINTS / "silero" / name)
    assert reader.format == "onnx"
    assert len(reader.tensors()) == count


@pytest.mark.parametrize("name", ["v5_silero_vad.onnx", "v5_silero_vad_half.onnx"])
def test_the_values_are_those_that_onnx_reads(name: str) -> None:
    """Among all constants of all branches, weights are told from shapes and limits by having several floats."""
    path = CHECKPOINTS / "silero" / name
    constants = [(one.dtype, one.shape, one.tobytes()) for one in _constants(onnx.load(path).graph)]
    reader = open_model(path)
    read = [
        (one.dtype, one.shape, one.tobytes()) for info in reader.tensors() for one in [reader.load(info.name)]
    ]
    large = [one for one in constants if one[0] == np.float32 and np.prod(one[1]) > 1]
    assert sorted(one[1:] for one in read if one[1] != (1,)) == sorted(one[1:] for one in large)
    # The bias of the last convolution is a single number.
    assert set(read) <= set(constants)


def _constants(graph: onnx.GraphProto) -> Iterator[Array]:
    yield from map(onnx.numpy_helper.to_array, graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield onnx.numpy_helper.to_array(attribute.t)
            if attribute.HasField("g"):
                yield from _constants(attribute.g)


def digests(name: str) -> dict[str, str]:
    """The digest of every layer and vector, by its name."""
    model = open_layers(CHECKPOINTS / "silero" / name)
    planned = (*model.plan.layers, *model.plan.vectors)
    return {layer.name: model.read(layer).digest for layer in planned}


def test_the_three_files_of_a_release_hold_the_same_layers_under_other_names() -> None:
    """The net for 16 kHz is in all of them, that for 8 kHz in the two that hold both."""
    script, both, half = (digests(f"v5_silero_vad{ending}") for ending in (".jit", ".onnx", "_half.onnx"))
    assert not script.keys() & (both.keys() | half.keys())
    assert not both.keys() & half.keys()
    wide = {digest for name, digest in script.items() if name.startswith("_model.")}
    assert len(script) == len(set(script.values())) == 2 * len(wide)
    assert set(both.values()) == set(script.values())
    assert set(half.values()) == wide
    assert len(both) == len(script)
    assert len(half) == len(wide)
    # With another release of the network it shares but its Fourier bases, which are computed and not trained.
    earlier = digests("v4_silero_vad.jit").values()
    assert {name.rpartition(".")[2] for name, digest in script.items() if digest in earlier} == {
        "forward_basis_buffer"
    }
