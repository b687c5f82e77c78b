"""Advice on networks whose training is known: published, production, untrained. Origin: ``checkpoints/README.md``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from layerwatch.config.settings import Settings
from layerwatch.daemon.gate.engine import examine_files
from layerwatch.metrics.advice import AdviceKind, advice_on, readable_layers
from layerwatch.metrics.report import Report
from layerwatch_testing.shared import shared_file

DISTILLER = "checkpoints/distiller"
TRAINED = (
    "checkpoints/resnet20-12fca82f.th",
    "checkpoints/resnet32-d509ac18.th",
    f"{DISTILLER}/checkpoint_trained_dense.pth.tar",
    f"{DISTILLER}/checkpoint_trained_channel_regularized_resnet20.pth.tar",
    f"{DISTILLER}/checkpoint_trained_channel_regularized_resnet20_finetuned.pth.tar",
)
PRODUCTION = "checkpoints/silero/v5_silero_vad.jit"
GONE_WRONG = f"{DISTILLER}/resnet20_cifar10_checkpoint.pth.tar"


def advised(report: Report) -> dict[AdviceKind, tuple[str, ...]]:
    return {one.kind: one.layers for one in advice_on(report)}


def examined(name: str) -> Report:
    return examine_files(shared_file(name), None, None, Settings(), lambda name, progress: None)


@pytest.mark.parametrize("name", TRAINED)
def test_trained_networks_are_neither_under_trained_nor_over_correlated_but_for_a_layer_or_two(
    name: str,
) -> None:
    report = examined(name)
    found = advised(report)

    assert len(readable_layers(report).layers) >= 15
    # Measured: 0, 1, 0, 1, 0 under-trained and 1, 0, 0, 2, 1 over-correlated, of 15 to 28 readable layers.
    assert len(found.get(AdviceKind.UNDER_TRAINED, ())) <= 1
    assert len(found.get(AdviceKind.OVER_CORRELATED, ())) <= 2
    assert AdviceKind.TRAPS not in found
    # Measured: 0.940 at most.
    assert not any(layer.is_like_noise for layer in readable_layers(report).layers)


def test_of_a_network_in_production_only_the_fixed_fourier_bases_look_untrained() -> None:
    found = advised(examined(PRODUCTION))

    assert sorted(found[AdviceKind.UNDER_TRAINED]) == [
        "_model.stft.forward_basis_buffer",
        "_model_8k.stft.forward_basis_buffer",
    ]
    assert len(found[AdviceKind.OVER_CORRELATED]) == 2


def test_a_checkpoint_with_chance_accuracy_is_over_correlated_in_every_readable_layer() -> None:
    report = examined(GONE_WRONG)

    assert len(advised(report)[AdviceKind.OVER_CORRELATED]) == len(readable_layers(report).layers) == 14


@pytest.mark.parametrize("seed", range(3))
def test_every_layer_of_an_untrained_network_looks_under_trained_and_none_can_be_frozen(
    seed: int, tmp_path: Path
) -> None:
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3),
        torch.nn.Conv2d(32, 64, 3),
        torch.nn.Conv2d(64, 64, 3),
        torch.nn.Flatten(),
        torch.nn.Linear(512, 256),
        torch.nn.Linear(256, 128),
        torch.nn.Linear(128, 64),
    )
    path = tmp_path / "untrained.pt"
    torch.save(network.state_dict(), path)

    report = examine_files(path, None, None, Settings(), lambda name, progress: None)
    found = advised(report)

    # The first convolution has 27 eigenvalues: too few to be read. Alpha alone names one of the other five at most.
    assert set(found[AdviceKind.UNDER_TRAINED]) == {"1", "2", "4", "5", "6"}
    assert found.keys() == {AdviceKind.UNDER_TRAINED}
