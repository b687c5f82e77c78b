"""The data set: 1,797 hand-written digits of 8 x 8 pixels that scikit-learn ships, split once for all versions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from layerwatch.daemon.demo.errors import DemoError, DemoReason

TEST_SHARE = 1.0 / 3.0
_BRIGHTEST = 16.0


@dataclass(frozen=True, slots=True)
class Digits:
    """Images: float32, shape (n, 1, 8, 8), 0..1. Labels: int64, shape (n,), 0..9."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


def load_digits(seed: int) -> Digits:
    """Load and split the digits; every class gives a third of its images to the test set.

    Raises:
        DemoError: ``missing_package`` when scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as load_bundled
    except ImportError as error:
        raise DemoError(
            DemoReason.MISSING_PACKAGE,
            "the demonstration trains on the digits that scikit-learn ships, and scikit-learn cannot be imported "
            f'({error}): pip install "layerwatch[demo]"',
        ) from error
    bundle = load_bundled()
    images = torch.from_numpy(np.asarray(bundle.images / _BRIGHTEST, dtype=np.float32)[:, None])
    labels = np.asarray(bundle.target, dtype=np.int64)
    train, test = _split(labels, np.random.default_rng(seed))
    targets = torch.from_numpy(labels)
    return Digits(images[train], targets[train], images[test], targets[test])


def _split(labels: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    train: list[np.ndarray] = []
    test: list[np.ndarray] = []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        cut = round(TEST_SHARE * len(members))
        test.append(members[:cut])
        train.append(members[cut:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))
