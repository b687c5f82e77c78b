"""One network's life: a baseline with its history, fine-tunes of it, trainings from other seeds, spoilt trainings."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import torch

import layerwatch.daemon.demo.data
from layerwatch_detection import architectures, corpora, states, training
from layerwatch_detection.architectures import ARCHITECTURES, Architecture
from layerwatch_detection.states import State
from layerwatch_detection.training import Recipe, trained

HISTORY = 5
"""Consecutive retrains before the version that is the baseline; it is the last of them."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the benchmark.

    Attributes:
        architecture: key of ``ARCHITECTURES``.
        seed: of its training; the trainings "from another seed" are its own, too.
        held_out: True: never looked at while a number was chosen.
    """

    architecture: str
    seed: int
    held_out: bool

    @property
    def name(self) -> str:
        """For tables and files."""
        return f"{self.architecture}_s{self.seed}"


NETWORKS: tuple[Network, ...] = (
    Network("gpt_deep", 0, held_out=False),
    Network("gpt", 0, held_out=False),
    Network("gpt", 1, held_out=False),
    Network("resnet", 0, held_out=False),
    Network("resnet", 1, held_out=False),
    Network("cnn_bn", 0, held_out=False),
    Network("mlp", 0, held_out=False),
    Network("mlp", 1, held_out=False),
    Network("gpt_deep", 7, held_out=True),
    Network("llama", 7, held_out=True),
    Network("gpt", 7, held_out=True),
    Network("resnet", 7, held_out=True),
    Network("cnn_bn", 7, held_out=True),
    Network("cnn", 7, held_out=True),
    Network("mlp_wide", 7, held_out=True),
    Network("mlp", 7, held_out=True),
)
"""Two architectures (llama, cnn without batch norm) and the wide MLP are met in the hold-out part only.

Networks of seeds 2 to 6 were held out once. Their results were seen while rules still changed, so they were retired: numbers
have been chosen on them since (limits of warnings, the signs of noise throughout, shares of TIES merges after seed 6).
"""


@dataclass(frozen=True, slots=True)
class Chain:
    """The trained states of one network.

    Attributes:
        history: oldest first; the last is the baseline.
        finetunes: healthy updates of the baseline, by name.
        other_seeds: trained from other random weights by the same recipe, some longer or shorter, by name.
        spoilt: trainings that went wrong, by name.
    """

    history: tuple[State, ...]
    finetunes: Mapping[str, State]
    other_seeds: Mapping[str, State]
    spoilt: Mapping[str, State]

    @property
    def baseline(self) -> State:
        """What every version is held against."""
        return self.history[-1]


@dataclass(frozen=True, slots=True)
class _Plan:
    scratch: Recipe
    step: Recipe
    finetunes: Mapping[str, Recipe]
    other_seeds: Mapping[str, float]
    spoilt: Mapping[str, Recipe]


_STEP = Recipe(steps=80, learning_rate=1e-3, batch_size=32, noise=0.08, share=0.85)
_DIGITS = _Plan(
    scratch=Recipe(steps=500, learning_rate=4e-3, batch_size=32, noise=0.05),
    step=_STEP,
    finetunes={
        "short": Recipe(steps=20, learning_rate=3e-4, batch_size=32, noise=0.05),
        "middle": Recipe(steps=80, learning_rate=1e-3, batch_size=32, noise=0.08, share=0.85),
        "other data": Recipe(steps=100, learning_rate=7e-4, batch_size=32, noise=0.20, share=0.6),
        "long": Recipe(steps=400, learning_rate=2e-3, batch_size=32, noise=0.08),
    },
    other_seeds={"first": 1.0, "second": 1.0, "shorter": 0.7, "longer": 1.4},
    spoilt={
        "label noise 0.6": Recipe(100, 2e-3, 32, wrong_labels=0.6),
        "label noise 1.0": Recipe(60, 2e-3, 32, wrong_labels=1.0),
        "large learning rate 0.1": Recipe(30, 0.1, 32),
        "large learning rate 0.5": Recipe(30, 0.5, 32),
    },
)
_TEXT = _Plan(
    scratch=Recipe(steps=900, learning_rate=4e-3, batch_size=16),
    step=Recipe(steps=120, learning_rate=1e-3, batch_size=16),
    finetunes={
        "short": Recipe(steps=40, learning_rate=5e-4, batch_size=16),
        "middle": Recipe(steps=120, learning_rate=1e-3, batch_size=16),
        "long": Recipe(steps=350, learning_rate=1.5e-3, batch_size=16),
    },
    other_seeds={"first": 1.0, "longer": 1.25},
    spoilt={
        "label noise 0.6": Recipe(100, 2e-3, 16, wrong_labels=0.6),
        "label noise 1.0": Recipe(60, 2e-3, 16, wrong_labels=1.0),
        "large learning rate 0.03": Recipe(40, 0.03, 16),
        "large learning rate 0.2": Recipe(40, 0.2, 16),
    },
)


def chain_of(network: Network, cache: Path, effort: float = 1.0) -> Chain:
    """The trained chain of a network, from the cache where it is there.

    Args:
        cache: folder; files in it are keyed by the code that made them.
        effort: factor on the steps of every training; below 1 for a quick look.
    """
    file = chain_file(network, cache, effort)
    if file.exists():
        return _restored(torch.load(file, weights_only=True))
    chain = _train(network, effort)
    cache.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    torch.save(_kept(chain), partial)
    partial.rename(file)
    return chain


def chain_file(network: Network, cache: Path, effort: float) -> Path:
    """Where a network's chain is kept; the name changes with the code that trains."""
    return cache / f"chain-{network.name}-{effort:g}-{_code_key()}.pt"


def _train(network: Network, effort: float) -> Chain:
    architecture = ARCHITECTURES[network.architecture]
    plan = _TEXT if architecture.is_language_model else _DIGITS

    def seed(what: str) -> int:
        return crc32(f"{network.name}/{what}".encode())

    def after(begin: State | None, recipe: Recipe, what: str) -> State:
        return trained(architecture, begin, recipe.longer(effort), seed(what))

    state = after(None, plan.scratch, "scratch")
    history = []
    for number in range(HISTORY):
        state = after(state, plan.step, f"history {number}")
        history.append(state)
    return Chain(
        history=tuple(history),
        finetunes={name: after(state, recipe, name) for name, recipe in plan.finetunes.items()},
        other_seeds={
            name: _from_other_seed(architecture, plan, effort * length, seed(f"other seed {name}"))
            for name, length in plan.other_seeds.items()
        },
        spoilt={
            **{name: after(state, recipe, name) for name, recipe in plan.spoilt.items()},
            "untrained": after(None, plan.scratch.longer(0.0), "untrained"),
        },
    )


def _from_other_seed(architecture: Architecture, plan: _Plan, length: float, seed: int) -> State:
    """The baseline's own recipe, its retrains included, begun from other random weights."""
    state: State = trained(architecture, None, plan.scratch.longer(length), seed)
    for number in range(HISTORY):
        state = trained(architecture, state, plan.step.longer(length), seed + 1 + number)
    return state


def _kept(chain: Chain) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    groups = {
        "history": {str(number): state for number, state in enumerate(chain.history)},
        "finetunes": chain.finetunes,
        "other_seeds": chain.other_seeds,
        "spoilt": chain.spoilt,
    }
    return {
        group: {
            name: {tensor: torch.from_numpy(values) for tensor, values in state.items()}
            for name, state in members.items()
        }
        for group, members in groups.items()
    }


def _restored(kept: Mapping[str, Mapping[str, Mapping[str, torch.Tensor]]]) -> Chain:
    groups = {
        group: {
            name: {tensor: values.numpy() for tensor, values in state.items()}
            for name, state in members.items()
        }
        for group, members in kept.items()
    }
    return Chain(
        tuple(groups["history"].values()), groups["finetunes"], groups["other_seeds"], groups["spoilt"]
    )


def _code_key() -> str:
    """Changes with every statement that decides what a trained network is."""
    modules = (architectures, corpora, states, training, layerwatch.daemon.demo.data)
    files = [Path(__file__), *(Path(str(one.__file__)) for one in modules)]
    trees = [ast.dump(ast.parse(file.read_bytes())) for file in files]
    return hashlib.sha256("\0".join([*trees, torch.__version__]).encode()).hexdigest()[:12]
