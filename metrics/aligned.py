"""From numpy to torch, into memory of one alignment."""

from __future__ import annotations

import numpy as np
import torch

from layerwatch.metrics.tensors import Array


def aligned(array: Array, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """A copy of the array as a tensor of the same shape, contiguous, on the processor.

    The order in which MKL sums, hence the last digit, depends on the alignment of its operands in memory. numpy's
    varies from run to run, torch's does not: the same bytes give the same numbers.

    Args:
        array: any shape, real.
        dtype: ``torch.float64`` or ``torch.float32``.
    """
    tensor = torch.empty(array.shape, dtype=dtype)
    np.copyto(tensor.numpy(), array, casting="unsafe")
    return tensor
