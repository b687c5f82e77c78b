"""How many threads linear algebra may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import ThreadpoolController

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


def use_threads(count: int) -> None:
    """Let torch use this many threads for what the calling thread computes, whatever others set for themselves."""
    # A thread takes over the number that any thread set last when it first asks; only what is set after that stays.
    torch.get_num_threads()
    torch.set_num_threads(count)


@contextmanager
def numpy_on_one_thread() -> Iterator[None]:
    """Keep numpy's own BLAS to one thread inside the block; torch's is another library and stays as it is.

    OpenBLAS starts threads for every product, whatever thread it is called from: beside torch's they would fight
    for the same cores.
    """
    with ThreadpoolController().select(internal_api="openblas").limit(limits=1):
        yield
