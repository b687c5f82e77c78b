"""Training and testing, the same on every run of one machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from layerwatch.daemon.demo.data import Digits

_THREADS = 1
"""Sums over such small matrices gain nothing from threads, and their order decides the last bits."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how hard to train.

    Attributes:
        epochs: passes over the training images.
        learning_rate: of Adam; falls to zero along half a cosine.
        noise: standard deviation of the Gaussian noise on the pixels (which run from 0 to 1).
        batch_size: images per step.
    """

    epochs: int
    learning_rate: float
    noise: float
    batch_size: int = 64


FROM_SCRATCH = Recipe(epochs=20, learning_rate=5e-3, noise=0.05)
FINETUNE = Recipe(epochs=10, learning_rate=5e-4, noise=0.10)
RECOVERY = Recipe(epochs=3, learning_rate=3e-4, noise=0.05)


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed torch, pin its threads and refuse non-deterministic kernels; everything is restored afterwards."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(_THREADS)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def train(
    network: nn.Module, digits: Digits, recipe: Recipe, pruned: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Train in place, on noisy copies of the training images; draws from torch's global generator.

    Args:
        network: changed; in evaluation mode afterwards.
        digits: the data.
        recipe: how long and how hard.
        pruned: parameter name -> bool mask of the parameter's shape, True where it must stay zero.
    """
    images, labels = digits.train_images, digits.train_labels
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    steps = recipe.epochs * -(-len(images) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    network.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(images))
        for begin in range(0, len(images), recipe.batch_size):
            batch = order[begin : begin + recipe.batch_size]
            noisy = images[batch] + recipe.noise * torch.randn_like(images[batch])
            loss = nn.functional.cross_entropy(network(noisy), labels[batch])
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            with torch.no_grad():
                for name, mask in (pruned or {}).items():
                    network.get_parameter(name).masked_fill_(mask, 0.0)
            schedule.step()
    network.eval()


def accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images whose largest logit is at their label, 0..1."""
    network.eval()
    with torch.inference_mode():
        right = network(images).argmax(dim=1) == labels
    return float(right.double().mean())
