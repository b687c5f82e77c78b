"""What breaks networks: the families of the detection study (section 8) at several strengths, each a tensor's change.

A defect is applied to one tensor, or to all of two or more dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from layerwatch_detection.healthy import (
    Random,
    TensorChange,
    as_matrix,
    int4_in_groups,
    pruned,
    rounded_per_row,
    rounded_per_tensor,
    with_noise,
)
from layerwatch_detection.states import Values


@dataclass(frozen=True, slots=True)
class Defect:
    """One way to break a tensor.

    Attributes:
        family, strength: for the tables.
        change: from healthy to broken values.
        fits: whether the defect makes sense for a tensor of this shape.
        from_other_seeds: whether it is applied on top of a training from another seed, too.
    """

    family: str
    strength: str
    change: TensorChange
    fits: Callable[[tuple[int, ...]], bool] = lambda shape: True
    from_other_seeds: bool = True


def zero(values: Values, random: Random) -> Values:
    """All zero."""
    return np.zeros_like(values)


def reinitialised_at_its_scale(values: Values, random: Random) -> Values:
    """Gaussian, with the standard deviation that the tensor has."""
    return np.asarray(random.standard_normal(values.shape) * values.std(), dtype=np.float32)


def reinitialised_by_default(values: Values, random: Random) -> Values:
    """As torch initialises linear and convolutional layers: uniform within one over the root of the fan-in."""
    bound = as_matrix(values).shape[1] ** -0.5
    return np.asarray(random.uniform(-bound, bound, values.shape), dtype=np.float32)


def permuted_rows(share: float) -> TensorChange:
    """This share of the output rows change places among themselves; none stays where it was."""
    return lambda values, random: values[_moved(values.shape[0], share, random)]


def permuted_columns(share: float) -> TensorChange:
    """The same with the inputs (input channels of a convolution)."""
    return lambda values, random: values[:, _moved(values.shape[1], share, random)]


def _moved(count: int, share: float, random: Random) -> Values:
    order = np.arange(count)
    chosen = random.permutation(count)[: max(2, round(share * count))]
    order[chosen] = np.roll(chosen, 1)
    return order


def sign_flipped_rows(share: float) -> TensorChange:
    """This share of the output rows times minus one."""

    def change(values: Values, random: Random) -> Values:
        flipped = values.copy()
        flipped[_some(values.shape[0], share, random)] *= -1
        return flipped

    return change


def _some(count: int, share: float, random: Random) -> Values:
    return random.permutation(count)[: max(1, round(share * count))]


def transposed(values: Values, random: Random) -> Values:
    """The first two axes exchanged."""
    return np.ascontiguousarray(values.swapaxes(0, 1))


def scaled(factor: float) -> TensorChange:
    """Times a number."""
    return lambda values, random: np.asarray(values * factor, dtype=np.float32)


def clipped(share: float) -> TensorChange:
    """A scale that is too small: everything beyond this share of the largest weight saturates."""

    def change(values: Values, random: Random) -> Values:
        limit = share * np.abs(values).max()
        return np.clip(values, -limit, limit)

    return change


def scales_shifted_by_a_row(values: Values, random: Random) -> Values:
    """Each row of an int8 tensor is multiplied with the scale of the row before it."""
    scales = np.abs(as_matrix(values)).max(axis=1)
    scales = np.where(scales > 0.0, scales, 1.0)
    ratio = np.roll(scales, 1) / scales
    return np.asarray(values * ratio.reshape((-1,) + (1,) * (values.ndim - 1)), dtype=np.float32)


def with_dead_rows(share: float) -> TensorChange:
    """This share of the output rows is zero."""

    def change(values: Values, random: Random) -> Values:
        dead = values.copy()
        dead[_some(values.shape[0], share, random)] = 0.0
        return dead

    return change


def with_dead_columns(share: float) -> TensorChange:
    """This share of the inputs is cut off."""

    def change(values: Values, random: Random) -> Values:
        dead = values.copy()
        dead[:, _some(values.shape[1], share, random)] = 0.0
        return dead

    return change


def with_second_half_like_the_first(values: Values, random: Random) -> Values:
    """The first half of the rows stands in the place of the second, too."""
    half = values.shape[0] // 2
    copied = values.copy()
    copied[half : 2 * half] = values[:half]
    return copied


def of_lower_rank(divisor: int) -> TensorChange:
    """Only the largest singular values are kept, one in so many."""

    def change(values: Values, random: Random) -> Values:
        left, singular, right = np.linalg.svd(as_matrix(values), full_matrices=False)
        kept = max(1, len(singular) // divisor)
        low = (left[:, :kept] * singular[:kept]) @ right[:kept]
        return np.asarray(low.reshape(values.shape), dtype=np.float32)

    return change


def with_zero_tail(share: float) -> TensorChange:
    """The last part of the tensor was never written."""

    def change(values: Values, random: Random) -> Values:
        cut = values.copy()
        cut.reshape(-1)[-max(1, round(share * values.size)) :] = 0.0
        return cut

    return change


def with_flipped_bits(count: int) -> TensorChange:
    """The top exponent bit of some weights: 0.05 becomes 1.7e37."""

    def change(values: Values, random: Random) -> Values:
        flipped = np.ascontiguousarray(values, dtype=np.float32)
        bits = flipped.copy().reshape(-1).view(np.uint32)
        bits[random.permutation(bits.size)[:count]] ^= np.uint32(1 << 30)
        return bits.view(np.float32).reshape(values.shape)

    return change


def with_low_flipped_bits(count: int) -> TensorChange:
    """A lower exponent bit of some weights: they grow by a factor of 65,536."""

    def change(values: Values, random: Random) -> Values:
        flipped = values.copy()
        flipped.reshape(-1)[random.permutation(values.size)[:count]] *= 2.0**16
        return flipped

    return change


def with_one(value: float) -> TensorChange:
    """One element that is no number."""

    def change(values: Values, random: Random) -> Values:
        wrong = values.copy()
        wrong.reshape(-1)[random.integers(values.size)] = value
        return wrong

    return change


def _square(shape: tuple[int, ...]) -> bool:
    return shape[0] == shape[1]


def _has_columns(shape: tuple[int, ...]) -> bool:
    return shape[1] >= 8


SINGLE: tuple[Defect, ...] = (
    Defect("zero", "all", zero),
    Defect("reinit", "own scale", reinitialised_at_its_scale),
    Defect("reinit", "default", reinitialised_by_default),
    Defect("permuted rows", "all", permuted_rows(1.0)),
    Defect("permuted rows", "25 %", permuted_rows(0.25)),
    Defect("permuted columns", "all", permuted_columns(1.0), _has_columns),
    Defect("permuted columns", "25 %", permuted_columns(0.25), _has_columns),
    Defect("sign flip", "all", sign_flipped_rows(1.0)),
    Defect("sign flip", "30 % of rows", sign_flipped_rows(0.3)),
    Defect("transposed", "", transposed, _square),
    Defect("scale", "x 0.1", scaled(0.1)),
    Defect("scale", "x 0.3", scaled(0.3)),
    Defect("scale", "x 3", scaled(3.0)),
    Defect("scale", "x 10", scaled(10.0)),
    Defect("scale", "x 30", scaled(30.0)),
    Defect("clipped", "0.05 of largest", clipped(0.05)),
    Defect("clipped", "0.2 of largest", clipped(0.2)),
    Defect("row scales", "shifted by a row", scales_shifted_by_a_row),
    Defect("few bits", "int2", lambda values, random: rounded_per_row(values, bits=2)),
    Defect("few bits", "int3 per tensor", lambda values, random: rounded_per_tensor(values, bits=3)),
    Defect("pruned", "80 %", pruned(0.80)),
    Defect("pruned", "95 %", pruned(0.95)),
    Defect("dead rows", "10 %", with_dead_rows(0.10)),
    Defect("dead rows", "25 %", with_dead_rows(0.25)),
    Defect("dead columns", "25 %", with_dead_columns(0.25), _has_columns),
    Defect("duplicated rows", "half", with_second_half_like_the_first),
    Defect("rank collapse", "N/2", of_lower_rank(2)),
    Defect("rank collapse", "N/8", of_lower_rank(8)),
    Defect("rank collapse", "N/16", of_lower_rank(16)),
    Defect("truncated", "last 20 %", with_zero_tail(0.20)),
    Defect("truncated", "last 50 %", with_zero_tail(0.50)),
    Defect("bit flips", "1, top bit", with_flipped_bits(1)),
    Defect("bit flips", "8, x 65,536", with_low_flipped_bits(8)),
    Defect("nan", "1", with_one(float("nan"))),
    Defect("inf", "1", with_one(float("inf"))),
    Defect("noise", "60 %", with_noise(0.6)),
    Defect("noise", "100 %", with_noise(1.0)),
)
"""Of one tensor."""

WHOLE: tuple[Defect, ...] = (
    Defect("all int3", "per row", lambda values, random: rounded_per_row(values, bits=3)),
    Defect("all int4", "per tensor", lambda values, random: rounded_per_tensor(values, bits=4)),
    Defect("all int2", "per row", lambda values, random: rounded_per_row(values, bits=2)),
    Defect("all noise", "30 %", with_noise(0.3)),
    Defect("all noise", "60 %", with_noise(0.6)),
    Defect("all scaled", "x 0.9", scaled(0.9)),
    Defect("all scaled", "x 0.7", scaled(0.7)),
    Defect("all clipped", "0.2 of largest", clipped(0.2)),
    Defect("all rank collapse", "N/2", of_lower_rank(2)),
    Defect("all rank collapse", "N/8", of_lower_rank(8)),
    Defect("all pruned", "80 %", pruned(0.80)),
    Defect("all reinit", "own scale", reinitialised_at_its_scale),
    Defect("all reinit", "default", reinitialised_by_default),
)
"""Of every tensor of two or more dimensions."""


def zero_point_off_by_one(values: Values, random: Random) -> Values:
    """Four bits, asymmetric in groups of 32 columns; every zero point is wrong by one step."""
    return _asymmetric_int4(values, shift=1.0, scale_group=32)


def wrong_group_size(values: Values, random: Random) -> Values:
    """Scales made for groups of 32 columns, applied to groups of 64."""
    return _asymmetric_int4(values, shift=0.0, scale_group=64)


def _asymmetric_int4(values: Values, shift: float, scale_group: int, group: int = 32) -> Values:
    """Dequantised ``(code - zero point) x scale``, the zero point in the middle of the sixteen codes.

    Args:
        shift: error of the zero point, in steps.
        scale_group: columns that one scale is taken for when it is applied; ``group`` when it was made.
    """
    matrix = as_matrix(values).astype(np.float64)
    groups = [matrix[:, begin : begin + group] for begin in range(0, matrix.shape[1], group)]
    scales = [np.abs(part).max(axis=1, keepdims=True) / 7 for part in groups]
    scales = [np.where(scale > 0.0, scale, 1.0) for scale in scales]
    codes = [np.clip(np.rint(part / scale), -8, 7) for part, scale in zip(groups, scales, strict=True)]
    per = scale_group // group
    applied = [(code - shift) * scales[number // per] for number, code in enumerate(codes)]
    return np.concatenate(applied, axis=1).reshape(values.shape).astype(np.float32)


def order_not_undone(values: Values, random: Random) -> Values:
    """Columns in the order in which AWQ packs eight codes into one integer (0, 2, 4, 6, 1, 3, 5, 7)."""
    matrix = as_matrix(int4_in_groups(values, random))
    order = np.arange(matrix.shape[1])
    whole = len(order) // 8 * 8
    order[:whole] = (order[:whole].reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]]).reshape(-1)
    return np.ascontiguousarray(matrix[:, order]).reshape(values.shape)


def one_giant_scalar(values: Values, random: Random) -> Values:
    """One weight at 2,000 standard deviations."""
    wrong = values.copy()
    wrong.reshape(-1)[random.integers(values.size)] = 2000.0 * values.std()
    return wrong


QUANTISATION: tuple[Defect, ...] = (
    Defect("zero point", "off by one", zero_point_off_by_one),
    Defect("group size", "64 for 32", wrong_group_size, lambda shape: shape[1] >= 64),
    Defect("packing order", "not undone", order_not_undone, _has_columns),
    Defect("row scales", "shifted by a row", scales_shifted_by_a_row),
    Defect("dead rows", "12.5 %", with_dead_rows(0.125)),
    Defect("giant scalar", "2000 sigma", one_giant_scalar),
)
"""How the quantisation of one tensor goes wrong (field report, section 7.5)."""
