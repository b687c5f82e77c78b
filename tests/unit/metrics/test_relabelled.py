"""Classes that stand in each other's places."""

from __future__ import annotations

import numpy as np
import pytest

from layerwatch.metrics.association import Floats, gram
from layerwatch.metrics.relabelled import relabelling

CLASSES = 10


def trained(seed: int, order: np.ndarray | None = None, signs: Floats | None = None) -> Floats:
    """Relations between classes: the same in every training but for a little."""
    meaning = np.random.default_rng(5).standard_normal((CLASSES, 6))
    rows = meaning + 0.15 * np.random.default_rng(seed).standard_normal((CLASSES, 6))
    rows = rows if order is None else rows[order]
    return gram(rows if signs is None else rows * signs[:, None])


def test_two_trainings_call_their_classes_alike() -> None:
    found = relabelling(trained(1), trained(0))
    assert (found.moved, found.turned, found.evidence) == (0, 0, 0.0)
    assert found.own == found.best > 0.8


@pytest.mark.parametrize("pair", [(0, 1), (3, 9), (2, 7)])
def test_two_classes_that_were_exchanged_are_found(pair: tuple[int, int]) -> None:
    order = np.arange(CLASSES)
    order[list(pair)] = order[list(pair[::-1])]
    found = relabelling(trained(1, order), trained(0))
    assert (found.moved, found.turned) == (2, 0)
    assert found.evidence > 7.0


@pytest.mark.parametrize("turned", [2, 6])
def test_a_class_whose_sign_was_turned_is_found(turned: int) -> None:
    signs = np.ones(CLASSES)
    signs[turned] = -1.0
    found = relabelling(trained(1, signs=signs), trained(0))
    assert (found.moved, found.turned) == (0, 1)
    assert found.evidence > 7.0


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_many_names_for_unrelated_classes_is_no_evidence(seed: int) -> None:
    random = gram(np.random.default_rng(seed).standard_normal((CLASSES, 32)))
    assert relabelling(random, trained(0)).evidence < 4.0
