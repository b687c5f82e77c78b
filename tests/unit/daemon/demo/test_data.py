"""The digits and their split."""

from __future__ import annotations

import sys

import pytest
import torch

from layerwatch.daemon.demo.data import load_digits
from layerwatch.daemon.demo.errors import DemoError, DemoReason


def test_all_1797_images_are_used_a_third_of_them_for_testing() -> None:
    digits = load_digits(seed=1)
    assert len(digits.train_images) + len(digits.test_images) == 1797
    assert len(digits.test_images) == pytest.approx(1797 / 3, abs=5)
    assert len(digits.train_labels) == len(digits.train_images)
    assert len(digits.test_labels) == len(digits.test_images)


def test_images_are_one_channel_of_8_by_8_between_0_and_1() -> None:
    images = load_digits(seed=1).train_images
    assert images.shape[1:] == (1, 8, 8)
    assert images.dtype == torch.float32
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)


def test_every_class_gives_a_third_of_its_images() -> None:
    digits = load_digits(seed=1)
    for label in range(10):
        tested = int((digits.test_labels == label).sum())
        trained = int((digits.train_labels == label).sum())
        assert tested == pytest.approx((tested + trained) / 3, abs=1)


def test_the_seed_decides_the_split() -> None:
    first, same, other = load_digits(seed=1), load_digits(seed=1), load_digits(seed=2)
    assert torch.equal(first.test_images, same.test_images)
    assert not torch.equal(first.test_images, other.test_images)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DemoError, match=r'pip install "layerwatch\[demo\]"') as caught:
        load_digits(seed=1)
    assert caught.value.reason is DemoReason.MISSING_PACKAGE
