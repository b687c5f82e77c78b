"""The two networks. Small enough to train in seconds, large enough that their layers have a spectrum to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from layerwatch.daemon.demo.story import CNN, MLP


class DigitsMlp(nn.Module):
    """Four linear layers, 64-128-128-64-10, with ReLU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 128)
        self.fc2 = nn.Linear(128, 128)
        self.fc3 = nn.Linear(128, 64)
        self.fc4 = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 1, 8, 8) to logits (n, 10)."""
        hidden = torch.relu(self.fc1(images.flatten(1)))
        hidden = torch.relu(self.fc2(hidden))
        hidden = torch.relu(self.fc3(hidden))
        logits: torch.Tensor = self.fc4(hidden)
        return logits


class DigitsCnn(nn.Module):
    """Three conv-BatchNorm-ReLU blocks of 3 x 3 kernels, average pooling, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(24, 48, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(48)
        self.conv3 = nn.Conv2d(48, 64, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.fc = nn.Linear(64 * 2 * 2, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 1, 8, 8) to logits (n, 10)."""
        hidden = torch.relu(self.bn1(self.conv1(images)))
        hidden = nn.functional.avg_pool2d(torch.relu(self.bn2(self.conv2(hidden))), 2)
        hidden = nn.functional.avg_pool2d(torch.relu(self.bn3(self.conv3(hidden))), 2)
        logits: torch.Tensor = self.fc(hidden.flatten(1))
        return logits


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {MLP: DigitsMlp, CNN: DigitsCnn}
"""Model name -> how to build it."""
