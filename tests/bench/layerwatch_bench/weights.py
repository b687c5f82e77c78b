"""The matrices that are measured: seeded, with heavy-tailed spectra like those of trained layers; and real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from layerwatch_testing.models import State, write_safetensors

REAL_NETWORK = Path(__file__).resolve().parents[4] / "shared" / "checkpoints" / "resnet20-12fca82f.th"
"""ResNet-20 trained on CIFAR-10 (akamaster/pytorch_resnet_cifar10, BSD-2-Clause)."""

_TAIL_EXPONENTS = (2.2, 4.5)
_BULK = 0.5


def heavy_tailed(shapes: Sequence[tuple[int, int]], seed: int) -> dict[str, NDArray[np.float32]]:
    """Layers ``layer0.weight`` ...: W = U diag(s) V^T with Pareto-distributed s^2, on a Gaussian bulk.

    Args:
        shapes: (rows, columns), rows >= columns. Layers of equal shape share U and V, not s.
    """
    random = torch.Generator().manual_seed(seed)
    bases: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
    layers: dict[str, NDArray[np.float32]] = {}
    exponents = np.linspace(*_TAIL_EXPONENTS, len(shapes))
    for number, (shape, exponent) in enumerate(zip(shapes, exponents, strict=True)):
        rows, columns = shape
        if shape not in bases:
            bases[shape] = _orthonormal(rows, columns, random), _orthonormal(columns, columns, random)
        left, right = bases[shape]
        uniform = torch.rand(columns, generator=random, dtype=torch.float64)
        eigenvalues = (1.0 - uniform) ** (-1.0 / (exponent - 1.0))
        planted = (left * eigenvalues.sqrt().float()) @ right.T
        bulk = torch.randn(rows, columns, generator=random) * (_BULK / rows**0.5)
        layers[f"layer{number}.weight"] = (planted + bulk).numpy()
    return layers


def _orthonormal(rows: int, columns: int, random: torch.Generator) -> torch.Tensor:
    basis: torch.Tensor = torch.linalg.qr(torch.randn(rows, columns, generator=random))[0]
    return basis


def resnet20() -> tuple[State, str]:
    """The tensors of a ResNet-20, and where they are from."""
    if not REAL_NETWORK.exists():
        return _generated_resnet20(), "generated: the trained network does not lie beside the repository"
    state = torch.load(REAL_NETWORK, weights_only=True, map_location="cpu")["state_dict"]
    tensors = {name.removeprefix("module."): values.numpy() for name, values in state.items()}
    return tensors, REAL_NETWORK.name


def _generated_resnet20() -> State:
    """Random tensors with the names and shapes of He et al., arXiv:1512.03385, section 4.2, n = 3."""
    random = np.random.default_rng(0)
    state: dict[str, NDArray[np.float32]] = {}

    def convolution(name: str, norm: str, outputs: int, inputs: int) -> None:
        scale = (2.0 / (9 * inputs)) ** 0.5
        weights = random.standard_normal((outputs, inputs, 3, 3)) * scale
        state[f"{name}.weight"] = weights.astype(np.float32)
        for part, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            state[f"{norm}.{part}"] = np.full(outputs, value, np.float32)

    convolution("conv1", "bn1", 16, 3)
    inputs = 16
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(3):
            prefix = f"layer{stage}.{block}"
            convolution(f"{prefix}.conv1", f"{prefix}.bn1", width, inputs)
            convolution(f"{prefix}.conv2", f"{prefix}.bn2", width, width)
            inputs = width
    state["linear.weight"] = (random.standard_normal((10, 64)) * 0.1).astype(np.float32)
    state["linear.bias"] = np.zeros(10, np.float32)
    return state


def write(path: Path, state: State) -> Path:
    """Write a file and read it once, so that every tool finds it in the page cache."""
    write_safetensors(path, state)
    with path.open("rb") as file:
        while file.read(2**22):
            pass
    return path
