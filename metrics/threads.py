"""How many threads small linear algebra may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 256
"""Up to this side one thread is as fast as several, to within a few milliseconds, and never waits for another."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread inside the block.

    Several threads gain nothing on small eigenvalue problems, and on a busy machine now and then wait for one
    another for seconds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
