"""Draws the README's pictures of spectra (SVG) from a network that the demonstration trains.

``layer_spectrum.svg``: the layer that version 5 of the digits MLP spoils, over the fine-tuned version it was made
from. ``alpha_profile.svg``: a ResNet-20 trained on the demonstration's digits, over the same network before its
training.

From the repository's folder: ``.venv/bin/python .github/pictures/make_spectrum_pictures.py``; the same seed gives
the same pictures. With the path of a model, and perhaps of a baseline, all plots of that model are written to
``--output`` instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from layerwatch.daemon.demo.data import load_digits
from layerwatch.daemon.demo.preparing import SEED, prepare
from layerwatch.daemon.demo.story import MLP, STORIES
from layerwatch.daemon.demo.training import FROM_SCRATCH, accuracy, reproducible, train
from layerwatch.daemon.demo.version_files import write_checkpoint
from layerwatch.metrics import LayerMeasurement, MeasureOptions, measure_model
from layerwatch.metrics.plots import plot_alpha_profile, plot_layer, rendered, write_plots

GOOD, SPOILED = "v2", "v5"


def main() -> None:
    """Draw the two pictures of the README, or all plots of a given model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?", help="a file or directory of weights")
    parser.add_argument("baseline", type=Path, nargs="?", help="another one to draw below it")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder of the pictures")
    arguments = parser.parse_args()
    if arguments.model is None:
        written = draw_demo(arguments.output)
    else:
        before = measured(arguments.baseline) if arguments.baseline else None
        title = arguments.model.absolute().name
        written = write_plots(arguments.output, measured(arguments.model), before, "svg", title)
    for path in written:
        print(f"wrote {path}")


def draw_demo(folder: Path) -> list[Path]:
    """Train the demonstration's MLP and draw the README's pictures into the folder."""
    with TemporaryDirectory() as staging:
        story = next(story for story in STORIES if story.model == MLP)
        versions = {one.version: one for one in prepare(Path(staging), stories=[story])}
        good, spoiled = (measured(versions[name].folder) for name in (GOOD, SPOILED))
        before, after = Path(staging) / "before", Path(staging) / "after"
        percent = train_resnet20(before, after)
        layers_before, layers_after = measured(before), measured(after)
    broken = versions[SPOILED].step.broken_layer
    new, old = (next(one.measurement for one in layers if one.name == broken) for layers in (spoiled, good))
    assert new is not None
    print(f"the ResNet-20 gets {percent:.1f} % of the test images right")
    pictures = {
        "layer_spectrum.svg": plot_layer(new, f"{MLP} {SPOILED}: {broken}", old),
        "alpha_profile.svg": plot_alpha_profile(
            layers_after, layers_before, "ResNet-20, baseline: before training"
        ),
    }
    for name, figure in pictures.items():
        (folder / name).write_bytes(rendered(figure, "svg"))
    return [folder / name for name in pictures]


def train_resnet20(before: Path, after: Path) -> float:
    """Write a ResNet-20 before and after its training on the digits; the percentage of test images it gets right."""
    digits = load_digits(SEED)
    with reproducible(SEED):
        network = ResNet20()
        for folder, epochs in ((before, 0), (after, FROM_SCRATCH.epochs)):
            folder.mkdir()
            if epochs:
                train(network, digits, FROM_SCRATCH)
            write_checkpoint(folder, network.state_dict(), epochs=epochs)
        return 100.0 * accuracy(network, digits.test_images, digits.test_labels)


class Block(nn.Module):
    """Two 3 x 3 convolutions with BatchNorm beside a shortcut (He et al. 2015, arXiv:1512.03385, section 4.2)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.added = channels - channels_in

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, channels_in, side, side) to (n, channels, side / stride, side / stride)."""
        hidden = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(images)))))
        shortcut = images[:, :, :: self.stride, :: self.stride]
        # The shortcut without weights: channels that are new are zero.
        return torch.relu(hidden + nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.added)))


class ResNet20(nn.Module):
    """One convolution, nine blocks of 16, 32 and 64 channels, a linear layer: 20 layers with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(2)))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(2)))
        self.linear = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 1, 8, 8) to logits (n, 10)."""
        hidden = torch.relu(self.bn1(self.conv1(images)))
        logits: torch.Tensor = self.linear(self.layer3(self.layer2(self.layer1(hidden))).mean((2, 3)))
        return logits


def measured(path: Path) -> tuple[LayerMeasurement, ...]:
    """The layers of a model with their measurements, randomised spectra included."""
    return measure_model(path, options=MeasureOptions(shuffled=True)).layers


if __name__ == "__main__":
    main()
