"""The network that acceptance tests share."""

from __future__ import annotations

import pytest

from calibrated import TrainedMixture, trained_mixture


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> TrainedMixture:
    """A transformer with experts, trained here (half a minute), and stored in full precision."""
    return trained_mixture(tmp_path_factory.mktemp("parent") / "model")
