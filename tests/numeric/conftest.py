"""One thread for many small matrices, and no time limit per example: a busy machine is no failure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("layerwatch", deadline=None, derandomize=True)
settings.load_profile("layerwatch")


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
