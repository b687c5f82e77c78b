"""Conversions that look at activations, as GPTQ's and AWQ's own programs do: the benchmark's mixture on its own text.

GPTQ: Frantar et al., arXiv:2210.17323, algorithm 1 without its batching. AWQ: Lin et al., arXiv:2306.00978, section 3.2,
with the exponent 1/2 in place of the search; scales are folded where AutoAWQ folds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from layerwatch_detection.architectures import ARCHITECTURES, Architecture
from layerwatch_detection.corpora import CONTEXT
from layerwatch_detection.states import State, load_into
from layerwatch_detection.training import Recipe, trained
from packedmodels import GROUP, Weights, configuration, hugging_face, save
from quantisers import Stored, stored_as_gptq

_SEQUENCES = 64
_DAMPING = 0.01


@dataclass(frozen=True)
class TrainedMixture:
    """The trained network: its weights, what its layers read, and where it is stored."""

    weights: Weights
    inputs: dict[str, NDArray[np.float64]]
    folder: Path


def trained_mixture(folder: Path) -> TrainedMixture:
    """Train the benchmark's mixture of experts and save it as safetensors."""
    architecture = ARCHITECTURES["mixture"]
    state = trained(architecture, None, Recipe(steps=900, learning_rate=4e-3, batch_size=16), seed=0)
    weights = hugging_face(state)
    return TrainedMixture(
        weights, activations(architecture, state), save(folder, weights, configuration(weights))
    )


def activations(architecture: Architecture, state: State) -> dict[str, NDArray[np.float64]]:
    """What every linear layer reads on text of its training, shape (characters, inputs), by the layer's name as in
    :func:`packedmodels.hugging_face`."""
    network = architecture.build()
    load_into(network, state)
    network.eval()
    text = architecture.examples().inputs
    chosen = torch.randint(len(text) - CONTEXT - 1, (_SEQUENCES,), generator=torch.Generator().manual_seed(0))
    read: dict[str, NDArray[np.float64]] = {}

    def keep(name: str, inputs: torch.Tensor) -> None:
        read[name] = inputs.reshape(-1, inputs.shape[-1]).double().numpy()

    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: keep(name, inputs[0]))
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    with torch.inference_mode():
        network(text[chosen[:, None] + torch.arange(CONTEXT)])
    for hook in hooks:
        hook.remove()
    shown = {name: next(iter(hugging_face({f"{name}.weight": np.zeros(0)}))) for name in read}
    return {shown[name].removesuffix(".weight"): values for name, values in read.items()}


def gptq_with_feedback(weight: NDArray[np.float32], inputs: NDArray[np.float64], name: str) -> Stored:
    """Four bits, symmetric, in groups: the error of each column is moved into those behind it."""
    bits, half = 4, 8
    values = weight.astype(np.float64)
    columns = values.shape[1]
    hessian = 2.0 * inputs.T @ inputs
    hessian[np.diag_indices(columns)] += _DAMPING * float(np.mean(np.diag(hessian)))
    factor = np.linalg.cholesky(np.linalg.inv(hessian)).T
    codes = np.empty(values.shape, np.int64)
    scales = np.empty((len(values), columns // GROUP), np.float32)
    for column in range(columns):
        group = column // GROUP
        if column % GROUP == 0:
            largest = np.abs(values[:, column : column + GROUP]).max(1)
            scales[:, group] = np.maximum(largest / (half - 1), 1e-6).astype(np.float16)
        scale = scales[:, group].astype(np.float64)
        rounded = np.clip(np.round(values[:, column] / scale), -half, half - 1)
        codes[:, column] = rounded.astype(np.int64) + half
        error = (values[:, column] - rounded * scale) / factor[column, column]
        values[:, column:] -= np.outer(error, factor[column, column:])
    zero = np.full(scales.shape, half, np.int64)
    return stored_as_gptq(codes, zero, scales, np.arange(columns) // GROUP, bits=bits, name=name)


def scales_folded(weights: Weights, inputs: Mapping[str, NDArray[np.float64]]) -> Weights:
    """AWQ's scales on the columns of every layer, and their inverses where the inputs are made: the same function."""
    folded = dict(weights)

    def fold(source: str, readers: Sequence[str]) -> None:
        sizes = np.concatenate([np.abs(inputs[name.removesuffix(".weight")]) for name in readers]).mean(0)
        scale = np.sqrt(np.maximum(sizes, 1e-8))
        scale = (scale / np.sqrt(scale.max() * scale.min())).astype(np.float32)
        made = folded[source]
        folded[source] = made / (scale if made.ndim == 1 else scale[:, None])
        for name in readers:
            folded[name] = folded[name] * scale

    blocks = sorted({name.rpartition(".input_layernorm")[0] for name in weights if "input_layernorm" in name})
    for block in blocks:
        attention, mixture = f"{block}.self_attn", f"{block}.block_sparse_moe"
        experts = sorted(
            {
                name.split(".w1.")[0]
                for name in weights
                if name.startswith(f"{mixture}.experts.") and ".w1." in name
            }
        )
        fold(f"{block}.input_layernorm.weight", [f"{attention}.{one}_proj.weight" for one in "qkv"])
        fold(f"{attention}.v_proj.weight", [f"{attention}.o_proj.weight"])
        readers = [f"{expert}.{one}.weight" for expert in experts for one in ("w1", "w3")]
        fold(f"{block}.post_attention_layernorm.weight", [*readers, f"{mixture}.gate.weight"])
        for expert in experts:
            fold(f"{expert}.w3.weight", [f"{expert}.w2.weight"])
    return folded
