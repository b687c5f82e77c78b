"""Making every version of the story in a staging folder: training, compressing, and testing what was stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import nn

from layerwatch.daemon.demo.compression import Tensors, prune, quantise, spoil
from layerwatch.daemon.demo.data import Digits, load_digits
from layerwatch.daemon.demo.errors import DemoError, DemoReason
from layerwatch.daemon.demo.networks import NETWORKS
from layerwatch.daemon.demo.prepared import PreparedVersion
from layerwatch.daemon.demo.story import STORIES, Action, Step, Story
from layerwatch.daemon.demo.training import FINETUNE, FROM_SCRATCH, RECOVERY, Recipe, reproducible, train
from layerwatch.daemon.demo.version_files import (
    load_network,
    read_weights,
    stored_accuracy,
    write_accuracy,
    write_checkpoint,
    write_compressed,
    write_lineage,
)

SEED = 20250801

Progress = Callable[[PreparedVersion], None]
"""Told about each version as soon as it is ready."""


def prepare(
    staging: Path,
    seed: int = SEED,
    stories: Sequence[Story] = STORIES,
    progress: Progress | None = None,
) -> list[PreparedVersion]:
    """Make all versions under ``<staging>/<model>/<version>``. The same seed gives the same bytes on one machine.

    Args:
        staging: created where missing; must not hold these versions yet.
        seed: of the data split, the initial weights and the training.
        stories: what to make, one story per model.
        progress: called after each version.

    Returns:
        The versions, story by story, each in the order of publishing.

    Raises:
        DemoError: ``missing_package`` without scikit-learn, ``cannot_write``.
    """
    digits = load_digits(seed)
    prepared: list[PreparedVersion] = []
    for story in stories:
        accuracies: dict[str, float] = {}
        for step in story.steps:
            folder = staging / story.model / step.version
            try:
                folder.mkdir(parents=True)
                # Seeded anew for every version, so that v5 differs from v4 in nothing but its defect.
                with reproducible(seed):
                    _write_weights(story.model, step, folder, digits)
                    accuracies[step.version] = stored_accuracy(story.model, folder, digits)
                write_lineage(folder, step)
                write_accuracy(folder, accuracies[step.version], len(digits.test_labels))
            except OSError as error:
                raise DemoError(
                    DemoReason.CANNOT_WRITE,
                    f"{folder} cannot be written: {error.strerror or error}; choose an empty folder with room",
                ) from error
            version = PreparedVersion(
                model=story.model,
                version=step.version,
                step=step,
                accuracy=accuracies[step.version],
                parent_accuracy=accuracies[step.parent] if step.parent else None,
                folder=folder,
            )
            prepared.append(version)
            if progress is not None:
                progress(version)
    return prepared


def _write_weights(model: str, step: Step, folder: Path, digits: Digits) -> None:
    match step.action:
        case Action.TRAIN:
            _write_trained(NETWORKS[model](), FROM_SCRATCH, folder, digits)
        case Action.FINETUNE:
            _write_trained(load_network(model, _parent_weights(step, folder)), FINETUNE, folder, digits)
        case Action.COMPRESS:
            weights = _parent_weights(step, folder)
            if step.pruned_share > 0.0:
                weights = _pruned_and_recovered(model, weights, step.pruned_share, digits)
            stored = quantise(weights)
            if step.defect is not None:
                stored = spoil(stored, step.defect.layer, step.defect.fault)
            write_compressed(folder, stored)


def _write_trained(network: nn.Module, recipe: Recipe, folder: Path, digits: Digits) -> None:
    train(network, digits, recipe)
    write_checkpoint(folder, network.state_dict(), recipe.epochs)


def _parent_weights(step: Step, folder: Path) -> dict[str, NDArray[Any]]:
    if step.parent is None:
        raise ValueError(f"{step.version}: {step.action} needs a parent")
    return read_weights(folder.parent / step.parent)


def _pruned_and_recovered(
    model: str, weights: Tensors, share: float, digits: Digits
) -> dict[str, NDArray[Any]]:
    network = load_network(model, prune(weights, share))
    masks = {name: weight == 0.0 for name, weight in network.named_parameters() if weight.ndim >= 2}
    train(network, digits, RECOVERY, masks)
    return {name: values.numpy() for name, values in network.state_dict().items()}
