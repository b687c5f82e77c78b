"""Trouble with the couplings is told, and costs nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from layerwatch.metrics.couplings import find_couplings
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.guardedcouplings import couplings_or_problem
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.readers.memory import MemoryReader
from layerwatch.metrics.tensors import Array
from layerwatch_testing.coupled import mlp


class _Failing(MemoryReader):
    """Reads nothing, for the reason that is given."""

    reason: Exception

    def load(self, name: str) -> Array:
        raise self.reason


def _model(reason: Exception) -> OpenModel:
    reader = _Failing(dict(mlp()))
    reader.reason = reason
    return OpenModel(reader, "state")


def test_without_trouble_they_are_those_that_are_found() -> None:
    model = OpenModel(MemoryReader(dict(mlp())), "state")

    assert couplings_or_problem(model) == (find_couplings(model), None)


@pytest.mark.parametrize(
    "reason",
    [
        ValueError("array must not contain infs or NaNs"),
        FloatingPointError("overflow encountered in multiply"),
        np.linalg.LinAlgError("SVD did not converge"),
        torch.linalg.LinAlgError("the algorithm failed to converge"),  # type: ignore[attr-defined]
    ],
)
def test_numerics_that_give_up_leave_no_couplings_and_a_reason(reason: Exception) -> None:
    found, problem = couplings_or_problem(_model(reason))

    assert found == ()
    assert problem is not None
    assert str(reason) in problem


def test_a_lack_of_memory_is_not_taken_for_trouble_with_the_numbers() -> None:
    with pytest.raises(MemoryError):
        couplings_or_problem(_model(MemoryError()))


def test_layers_that_cannot_be_read_take_part_in_none() -> None:
    reason = UnreadableError(UnreadableReason.IO_ERROR, "state", "the disk failed")

    assert couplings_or_problem(_model(reason)) == ((), None)
