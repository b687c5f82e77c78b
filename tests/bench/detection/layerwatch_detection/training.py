"""Training and testing, the same on every run of one machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from layerwatch.daemon.demo.training import reproducible
from layerwatch_detection.architectures import Architecture
from layerwatch_detection.corpora import ALPHABET, CONTEXT
from layerwatch_detection.states import State, Values, load_into, state_of


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how hard to train.

    Attributes:
        steps: of AdamW.
        learning_rate: rises over the first twentieth, then falls to zero along half a cosine.
        batch_size: images or sequences of a step.
        noise: standard deviation of the noise on the pixels, which run from 0 to 1.
        wrong_labels: share of labels (or next characters) that are replaced by random ones, 0..1.
        weight_decay: of AdamW.
        share: of the training examples that are used, 0..1; which ones depends on the seed.
    """

    steps: int
    learning_rate: float
    batch_size: int
    noise: float = 0.0
    wrong_labels: float = 0.0
    weight_decay: float = 0.01
    share: float = 1.0

    def longer(self, factor: float) -> Recipe:
        """The same with another number of steps."""
        return replace(self, steps=max(1, round(self.steps * factor)))


def trained(architecture: Architecture, begin: State | None, recipe: Recipe, seed: int) -> dict[str, Values]:
    """A network after training.

    Args:
        begin: where to go on from; None begins with the random weights of the seed.
        seed: of everything random.
    """
    with reproducible(seed):
        network = architecture.build()
        if begin is not None:
            load_into(network, begin)
        _train(architecture, network, recipe)
        return state_of(network)


def _train(architecture: Architecture, network: nn.Module, recipe: Recipe) -> None:
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.learning_rate, recipe.steps + 1, pct_start=0.05, cycle_momentum=False
    )
    examples = architecture.examples()
    chosen = torch.randperm(len(examples.inputs))[: max(1, round(recipe.share * len(examples.inputs)))]
    network.train()
    for _ in range(recipe.steps):
        if architecture.is_language_model:
            begins = torch.randint(len(examples.inputs) - CONTEXT - 1, (recipe.batch_size,))
            sequences = examples.inputs[begins[:, None] + torch.arange(CONTEXT + 1)]
            inputs, targets = sequences[:, :-1], sequences[:, 1:]
            classes = len(ALPHABET)
        else:
            batch = chosen[torch.randint(len(chosen), (recipe.batch_size,))]
            inputs, targets, classes = examples.inputs[batch], examples.targets[batch], 10
            inputs = inputs + recipe.noise * torch.randn_like(inputs)
        wrong = torch.rand(targets.shape) < recipe.wrong_labels
        targets = torch.where(wrong, torch.randint_like(targets, classes), targets)
        loss = nn.functional.cross_entropy(network(inputs).flatten(0, -2), targets.flatten())
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    network.eval()


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a network does on what was held out.

    Attributes:
        accuracy: share of right answers, 0..1.
        loss: mean cross entropy in nats; infinite where it is not a number.
    """

    accuracy: float
    loss: float


class Examiner:
    """Tests states of one architecture."""

    def __init__(self, architecture: Architecture) -> None:
        self._examples = architecture.examples()
        with reproducible(0):
            self._network = architecture.build()
        self._network.eval()

    def quality(self, state: State) -> Quality:
        """Accuracy and loss of one version."""
        load_into(self._network, state)
        targets = self._examples.test_targets.flatten()
        with torch.inference_mode():
            logits = self._network(self._examples.test_inputs).flatten(0, -2)
            # Where a logit is not a number there is no answer.
            answered = torch.isfinite(logits).all(dim=1)
            right = (logits.argmax(dim=1) == targets) & answered
            loss = nn.functional.cross_entropy(logits.double(), targets)
        return Quality(
            float(right.double().mean()), float(loss) if bool(torch.isfinite(loss)) else float("inf")
        )
