"""The files of one version: trained versions as PyTorch checkpoints, compressed ones as safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from layerwatch.daemon.demo.compression import Tensors, dequantise
from layerwatch.daemon.demo.data import Digits
from layerwatch.daemon.demo.networks import NETWORKS
from layerwatch.daemon.demo.safetensors_file import read_safetensors, write_safetensors
from layerwatch.daemon.demo.story import Step
from layerwatch.daemon.demo.training import accuracy
from layerwatch.daemon.registries.lineagefile import LINEAGE_FILE

CHECKPOINT_FILE = "model.pt"
SAFETENSORS_FILE = "model.safetensors"
ACCURACY_FILE = "accuracy.json"


def write_checkpoint(folder: Path, state: dict[str, torch.Tensor], epochs: int) -> None:
    """Write ``model.pt`` as training scripts do: the state dict beside the number of epochs."""
    torch.save({"epoch": epochs, "state_dict": state}, folder / CHECKPOINT_FILE)


def write_compressed(folder: Path, stored: Tensors) -> None:
    """Write ``model.safetensors``: int8 weights, their scales, and the other tensors as they are."""
    write_safetensors(folder / SAFETENSORS_FILE, stored)


def write_lineage(folder: Path, step: Step) -> None:
    """Write ``lineage.json`` for a step that has a parent; a first version has none and declares nothing."""
    if step.parent is not None:
        declaration = {"parent": step.parent, "relation": step.relation}
        (folder / LINEAGE_FILE).write_text(json.dumps(declaration) + "\n", encoding="utf-8")


def write_accuracy(folder: Path, value: float, images: int) -> None:
    """Write ``accuracy.json``: the share of test images told right, and how many there were."""
    text = json.dumps({"test_accuracy": round(value, 6), "test_images": images})
    (folder / ACCURACY_FILE).write_text(text + "\n", encoding="utf-8")


def read_weights(folder: Path) -> dict[str, NDArray[Any]]:
    """The tensors that a network computes with, from whichever weight file the folder holds."""
    checkpoint = folder / CHECKPOINT_FILE
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        return {name: values.numpy() for name, values in state.items()}
    return dequantise(read_safetensors(folder / SAFETENSORS_FILE))


def stored_accuracy(model: str, folder: Path, digits: Digits) -> float:
    """Test accuracy, 0..1, of the bytes in the folder, loaded back into the network as a user would."""
    network = load_network(model, read_weights(folder))
    return accuracy(network, digits.test_images, digits.test_labels)


def load_network(model: str, weights: Tensors) -> nn.Module:
    """The model's network with these tensors, copied; raises RuntimeError when they do not fit."""
    network = NETWORKS[model]()
    network.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in weights.items()})
    return network
