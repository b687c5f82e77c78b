"""What steps of an arrangement speak of: tensors by name, and what each is to be replaced with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from layerwatch.metrics.architecture.facts import Facts
from layerwatch.metrics.tensors import Array, TensorInfo

Take = Callable[[Array], Array]
"""From the values of a tensor to those of a part of it: a view where that is possible. The input is not changed."""


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor that is handed out in the place of another one.

    Attributes:
        name: what it is called.
        shape: what :attr:`take` gives.
        take: how its values come from those of the tensor it replaces; None: they are the same.
    """

    name: str
    shape: tuple[int, ...]
    take: Take | None = None


Group = Mapping[str, tuple[Part, ...]]
"""By the names of tensors what stands in their place. All of a group is done, or nothing, where a name is taken."""

Tensors = Mapping[str, TensorInfo]
"""In the order of the file."""


class Step(Protocol):
    """One convention that is undone. Pure: decides by names, shapes and what is declared, never by values."""

    def __call__(self, tensors: Tensors, facts: Facts) -> Sequence[Group]:
        """What is to be replaced; nothing where the convention does not apply, or not with certainty."""


def rows(begin: int, end: int) -> Take:
    """Entries ``begin`` to ``end`` of the first axis: a view."""

    def take(values: Array) -> Array:
        return values[begin:end]

    return take


def transposed(values: Array) -> Array:
    """The last two axes swapped: a view."""
    return values.swapaxes(-1, -2)
