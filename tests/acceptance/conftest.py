"""What acceptance tests share: a network, and a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from calibrated import TrainedMixture, trained_mixture
from layerwatch_testing.browser import chromium
from layerwatch_testing.servers import ServerMissing


@pytest.fixture(scope="session")
def parent(tmp_path_factory: pytest.TempPathFactory) -> TrainedMixture:
    """A transformer with experts, trained here (half a minute), and stored in full precision."""
    return trained_mixture(tmp_path_factory.mktemp("parent") / "model")


# Not for the session: while playwright runs, no other test of this thread could run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; skips where it is not installed."""
    try:
        with chromium() as running:
            yield running
    except ServerMissing as missing:
        pytest.skip(str(missing))
