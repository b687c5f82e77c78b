"""What the schemes share: comparing what is declared with what is stored, and looking at parts' values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.quantised.declared import Configuration, Declared
from layerwatch.metrics.quantised.layer import Parts, RemarkKind, Remarks
from layerwatch.metrics.tensors import Array

_STEP_BESIDE = 0.25
"""A mean this near to one whole step beside the zero points counts as one step."""


def say_method(config: Configuration, methods: frozenset[str], shown: str, remarks: Remarks) -> None:
    """A remark where the declared method is another one than the tensors'."""
    if config.method is not None and config.method not in methods:
        remarks.compare(RemarkKind.FORMAT, "the method", config.method, shown)


def say_excluded(declared: Declared, remarks: Remarks) -> None:
    """A remark where the layer was to be left alone."""
    if declared.excluded:
        remarks.add(
            RemarkKind.EXCLUDED,
            "the configuration lists this layer among those left in full precision, and it is stored quantised",
            declared="full precision",
            stored="quantised",
        )


def group_size_of(inputs: int, groups: int, declared: int | None, remarks: Remarks) -> int:
    """Inputs per group by the shapes, with a remark where another number is declared.

    Args:
        inputs, groups: as stored, both > 0.
        declared: inputs per group, -1 for all of them, or None; taken where it gives that many groups.
        remarks: takes the remark.
    """
    size = inputs if declared == -1 else declared
    if size is not None and size > 0 and -(-inputs // size) == groups:
        return size
    stored = -(-inputs // groups)
    remarks.compare(RemarkKind.GROUP_SIZE, "a group size of", declared, stored)
    return stored


def groups_fit(inputs: int, groups: int, size: int | None) -> bool:
    """Whether runs of this size give that many groups."""
    return size is not None and size > 0 and -(-inputs // size) == groups


def misfit(parts: Parts) -> str:
    """The sentence for parts whose shapes contradict each other."""
    shapes = ", ".join(f"{role} {list(part.shape)}" for role, part in sorted(parts.items()))
    return f"its parts do not fit each other: {shapes}; export the model again"


def check_scales(
    role: str, scales: Array, remarks: Remarks, *, may_be_zero: bool, largest: float | None = None
) -> None:
    """Every factor is finite; none is zero where the format has none for groups of zeros; none is above ``largest``."""
    with np.errstate(invalid="ignore"):
        values = np.asarray(scales, np.float32)
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        remarks.add(
            RemarkKind.SCALES,
            f"{bad} of {values.size} numbers in {role} are not finite",
            declared=0,
            stored=bad,
        )
    if largest is not None and not bad and values.size:
        highest = max(float(values.max()), -float(values.min()))
        if highest > largest:
            remarks.add(
                RemarkKind.SCALES,
                f"the largest number in {role} is {highest:.3g}: steps between weights are below 1, and half precision "
                "overflows soon",
                declared=f"up to {largest:g}",
                stored=f"{highest:.3g}",
            )
    zeros = values.size - int(np.count_nonzero(values))
    if zeros and not may_be_zero:
        remarks.add(
            RemarkKind.SCALES,
            f"{zeros} of {values.size} numbers in {role} are zero: what they scale is lost",
            declared=0,
            stored=zeros,
        )


def check_centre(
    codes: NDArray[np.uint8],
    zeros: NDArray[np.float32],
    group_of: NDArray[np.intp],
    bits: int,
    remarks: Remarks,
) -> None:
    """Stored numbers lie around their zero points, because weights lie around 0: not a whole step beside them.

    Up to 4 bits, where a step is a sizeable part of the spread of the weights.

    Args:
        codes: shape (rows, inputs).
        zeros: shape (rows, groups), as they are subtracted.
        group_of: group of each input.
        bits: per code.
        remarks: takes the remark.
    """
    if bits > 4 or not codes.size:
        return
    mean = float(codes.mean(dtype=np.float64) - np.take(zeros, group_of, axis=1).mean(dtype=np.float64))
    if abs(abs(mean) - 1.0) <= _STEP_BESIDE:
        remarks.add(
            RemarkKind.ZERO_POINT,
            f"the stored numbers lie {mean:+.2f} steps beside their zero points on average, as they do when zero "
            "points are read in another convention (GPTQ's first version stores them less one, its second as they "
            "are): every weight is off by one step",
            declared=0,
            stored=f"{mean:+.2f}",
        )
