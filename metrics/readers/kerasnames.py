"""Keras's names and axes: what a variable is, and how the layers here want it.

Keras stores outputs last: a dense kernel is (in, out), a convolution (height, width, in, out). Everything else here
counts rows as outputs, as torch stores them. :func:`orient` says how an array has to be turned; like the sizes of
weights, it is a matter of the class of the layer, as far as the file tells it, and of the variable's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from layerwatch.metrics.tensors import Array

_RECURRENT = ("kernel", "recurrent_kernel", "bias")
_STATISTICS = ("moving_mean", "moving_variance")

_VARIABLES: tuple[tuple[re.Pattern[str], dict[int, tuple[str, ...]]], ...] = tuple(
    (re.compile(pattern), {len(names): names for names in lists})
    for pattern, lists in (
        (r"separable_conv\dd", (("depthwise_kernel", "pointwise_kernel"),)),
        (r"separable_conv\dd", (("depthwise_kernel", "pointwise_kernel", "bias"),)),
        (
            r"(depthwise_)?conv\dd(_transpose)?|dense|einsum_dense|(query|key|value|output)_dense",
            (("kernel",), ("kernel", "bias")),
        ),
        (r"(reversible_)?embedding", (("embeddings",),)),
        (r"batch_normalization", (_STATISTICS, ("gamma", "beta", *_STATISTICS))),
        (r"(layer|group)_normalization", (("gamma", "beta"),)),
        (r"(lstm|gru|simple_rnn)_cell|cell", (_RECURRENT[:2], _RECURRENT)),
    )
)
"""Variables of Keras's own layers in the order in which they are saved, by class and by how many there are."""

_QUERY = re.compile(r"(query|key|value)(_dense)?")
_OUTPUT = re.compile(r"(attention_output|output_dense)(_dense)?")
_COUNTED = re.compile(r"(.*?)(_\d+)?")


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of a Keras file.

    Attributes:
        name: as Keras calls it (``head/kernel``, ``head/kernel:0``), or the path in the file where it is not told.
        classes: what may tell the class of its layer: groups of the file, the name of the layer, its class in the
            config; in snake case, without numbers.
        shape: as stored.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def role(self) -> str:
        """The last part of the name, without ``:0``."""
        return self.name.rpartition("/")[2].partition(":")[0]


def variable_names(layer_classes: Sequence[str], count: int) -> Sequence[str] | None:
    """What the ``count`` variables of a layer are called, or None where none of its possible classes tells."""
    for layer_class in layer_classes:
        for pattern, names in _VARIABLES:
            if pattern.fullmatch(layer_class) and count in names:
                return names[count]
    return None


def without_number(name: str) -> str:
    """``conv2d`` for ``conv2d_3``: Keras numbers layers of one class."""
    found = _COUNTED.fullmatch(name)
    return found[1] if found else name


def snake_case(name: str) -> str:
    """``conv2d_transpose`` for ``Conv2DTranspose``, as Keras itself names layers."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def oriented_shape(variable: Variable) -> tuple[int, ...]:
    """The shape with outputs first, as torch has it."""
    return _turned(variable)[1]


def orient(variable: Variable, values: Array) -> Array:
    """The array with outputs first: a view, unless its elements lie in another order than that of their axes.

    * dense and recurrent kernels (in, out): (out, in)
    * convolutions (..., in, out), transposed ones (..., out, in): last two axes first, last first
    * depthwise convolutions (..., channels, multiplier): (channels * multiplier, 1, ...)
    * projections of attention (in, heads, size): (heads * size, in); back (heads, size, out): (out, heads * size)
    * biases of two axes: one axis; embeddings and everything else: as stored
    """
    axes, shape = _turned(variable)
    joined = values.reshape(_joined(variable))
    turned: Any = joined if axes is None else joined.transpose(axes)
    return turned.reshape(shape)  # type: ignore[no-any-return]


def _joined(variable: Variable) -> tuple[int, ...]:
    """The stored shape with the axes of attention heads taken together."""
    shape = variable.shape
    if variable.role == "bias":
        return (prod(shape),) if len(shape) > 1 else shape
    if variable.role == "kernel" and len(shape) == 3:
        if any(map(_OUTPUT.fullmatch, variable.classes)):
            return (shape[0] * shape[1], shape[2])
        if any(map(_QUERY.fullmatch, variable.classes)):
            return (shape[0], shape[1] * shape[2])
    return shape


def _turned(variable: Variable) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """How the axes of the joined shape are ordered (None: as they are), and the shape that this gives."""
    shape = _joined(variable)
    rank = len(shape)
    if rank < 2 or variable.role == "embeddings" or "embedding" in variable.classes:
        return None, shape
    if rank == 2:
        return (1, 0), shape[::-1]
    if rank > 5 or "einsum_dense" in variable.classes:
        return None, shape
    axes = (rank - 1, rank - 2, *range(rank - 2))
    if _is_depthwise(variable):
        channels_first = (rank - 2, rank - 1, *range(rank - 2))
        return channels_first, (shape[-2] * shape[-1], 1, *shape[:-2])
    return axes, tuple(shape[axis] for axis in axes)


def _is_depthwise(variable: Variable) -> bool:
    if variable.role == "depthwise_kernel":
        return True
    return variable.role == "kernel" and any(one.startswith("depthwise_conv") for one in variable.classes)
