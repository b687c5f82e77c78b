"""Networks as state dicts whose layers are in step as training leaves them, without any training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.coupling import Coupling
from layerwatch.metrics.couplings import find_couplings
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.readers.memory import MemoryReader

State = dict[str, NDArray[np.float32]]


def couplings_of(state: State) -> tuple[Coupling, ...]:
    """What its layers share."""
    return find_couplings(OpenModel(MemoryReader(dict(state)), "state"))


def by_key(couplings: tuple[Coupling, ...]) -> dict[tuple[str, ...], Coupling]:
    """The same, to look up."""
    return {one.key: one for one in couplings}


def _low_rank(generator: np.random.Generator, rows: int, columns: int, rank: int = 6) -> NDArray[np.float64]:
    made = generator.standard_normal((rows, rank)) @ generator.standard_normal((rank, columns))
    values: NDArray[np.float64] = made / np.sqrt(rank) + 0.3 * generator.standard_normal((rows, columns))
    return values


def mlp(seed: int = 0) -> State:
    """Three linear layers; units that are made alike are read alike, large ones large; all seeds do the same."""
    generator, meaning = np.random.default_rng(seed), np.random.default_rng(99)
    state: State = {}
    units = generator.standard_normal((96, 6)) * np.exp(0.4 * generator.standard_normal((96, 1)))
    more = generator.standard_normal((64, 6)) * np.exp(0.4 * generator.standard_normal((64, 1)))
    layers = {
        "fc1": units @ meaning.standard_normal((6, 48)),
        "fc2": more @ units.T,
        "fc3": meaning.standard_normal((10, 6)) @ more.T,
    }
    for name, values in layers.items():
        noise = 0.3 * values.std() * generator.standard_normal(values.shape)
        state[f"{name}.weight"] = (values + noise).astype(np.float32)
        state[f"{name}.bias"] = (0.1 * generator.standard_normal(len(values))).astype(np.float32)
    return state


def transformer(seed: int = 0, blocks: int = 2, width: int = 48) -> State:
    """A pre-norm transformer with biases; all layers look at the same few directions of the stream."""
    generator, meaning = np.random.default_rng(seed), np.random.default_rng(99)
    shared = generator.standard_normal((6, width)) * np.exp(0.4 * generator.standard_normal(width))

    def reader(rows: NDArray[np.float64]) -> NDArray[np.float32]:
        values = rows @ shared
        noisy = values + 0.3 * values.std() * generator.standard_normal(values.shape)
        return np.asarray(noisy, dtype=np.float32)

    def loose(rows: int) -> NDArray[np.float64]:
        return generator.standard_normal((rows, 6)) * np.exp(0.4 * generator.standard_normal((rows, 1)))

    # Tokens and positions, and what the hidden units say on the whole, mean the same in every training.
    tokens, said = meaning.standard_normal((60, 6)), 0.5 * meaning.standard_normal(6)
    positions = np.cumsum(meaning.standard_normal((32, 6)), axis=0)
    state: State = {"wte.weight": reader(tokens), "wpe.weight": reader(positions)}
    for block in range(blocks):
        prefix = f"h.{block}"
        asked, given, hidden = loose(width), loose(width), loose(3 * width) + said
        state |= {
            f"{prefix}.ln_1.weight": np.exp(0.2 * generator.standard_normal(width)).astype(np.float32),
            f"{prefix}.attn.q_proj.weight": reader(asked),
            f"{prefix}.attn.k_proj.weight": reader(asked),
            f"{prefix}.attn.v_proj.weight": reader(given),
            f"{prefix}.attn.o_proj.weight": np.ascontiguousarray(reader(given).T),
            f"{prefix}.ln_2.weight": np.exp(0.2 * generator.standard_normal(width)).astype(np.float32),
            f"{prefix}.mlp.fc1.weight": reader(hidden),
            f"{prefix}.mlp.fc1.bias": (0.1 * generator.standard_normal(3 * width)).astype(np.float32),
            f"{prefix}.mlp.fc2.weight": np.ascontiguousarray(-reader(hidden).T),
            f"{prefix}.mlp.fc2.bias": (0.1 * generator.standard_normal(width)).astype(np.float32),
        }
    state["ln_f.weight"] = np.ones(width, dtype=np.float32)
    state["lm_head.weight"] = reader(tokens)
    return state


def batchnormed(seed: int = 0) -> State:
    """Three convolutions whose batch norms have stored the means that their weights give."""
    generator = np.random.default_rng(seed)
    state: State = {}
    means = None
    channels = 3
    for number, outputs in enumerate((24, 32, 40), 1):
        weight = generator.standard_normal((outputs, channels, 3, 3)) / np.sqrt(9 * channels)
        gain, bias = (
            np.exp(0.3 * generator.standard_normal(outputs)),
            0.5 * generator.standard_normal(outputs),
        )
        sums = weight.sum(axis=(2, 3))
        stored = generator.standard_normal(outputs) if means is None else sums @ means
        state |= {
            f"conv{number}.weight": weight.astype(np.float32),
            f"bn{number}.weight": gain.astype(np.float32),
            f"bn{number}.bias": bias.astype(np.float32),
            f"bn{number}.running_mean": (stored * 0.95).astype(np.float32),
            f"bn{number}.running_var": np.ones(outputs, dtype=np.float32),
        }
        means = _relu_means(bias, gain)
        channels = outputs
    state["fc.weight"] = _low_rank(generator, 10, channels).astype(np.float32)
    return state


def _relu_means(bias: NDArray[np.float64], gain: NDArray[np.float64]) -> NDArray[np.float64]:
    """E ReLU(N(bias, gain^2)) by quadrature: an independent way to the number that is predicted in closed form."""
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    values = np.maximum(bias[:, None] + gain[:, None] * points, 0.0)
    means: NDArray[np.float64] = values @ weights / np.sqrt(2.0 * np.pi)
    return means
