"""Axes: numbers to places, ticks that can be read, and the frame of a plot."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from layerwatch.daemon.web.charts.drawing import tag, units

_PLAIN = (-3, 3)
"""Powers of ten that are written out: 0.001 to 1000."""

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers from ``low`` to ``high`` along an axis from ``start`` to ``end``, ``low`` below ``high``.

    Attributes:
        logarithmic: then both ends are above zero.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """The place of a finite number; of one beyond the axis, its end."""
        return float(self.along(np.array([value]))[0])

    def along(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The places of numbers; NaN stays NaN, those beyond the axis are put to its ends."""
        inside, low, high = np.clip(values, self.low, self.high), self.low, self.high
        if self.logarithmic:
            inside, low, high = np.log10(inside), log10(low), log10(high)
        # By shares: the range of huge numbers may be no number any more.
        share = (inside / 2 - low / 2) / (high / 2 - low / 2)
        return np.asarray(self.start + share * (self.end - self.start), dtype=np.float64)

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Round numbers on the axis with their labels, between 2 and about ``most`` of them."""
        return (self._powers(most) if self.logarithmic else []) or self._steps(most)

    def _powers(self, most: int) -> list[tuple[float, str]]:
        first, last = ceil(log10(self.low) - 1e-9), floor(log10(self.high) + 1e-9)
        if last - first >= 2:
            chosen = range(first, last + 1, ceil((last - first + 1) / most))
            is_plain = _PLAIN[0] <= first and last <= _PLAIN[1]
            return [(10.0**power, f"{10.0**power:g}" if is_plain else _raised(power)) for power in chosen]
        fine = [
            (digit * 10.0**power, _digits(digit, power))
            for power in range(first - 1, last + 1)
            for digit in (1, 2, 5)
            if self.low <= digit * 10.0**power <= self.high
        ]
        return fine if len(fine) > 1 else []

    def _steps(self, most: int) -> list[tuple[float, str]]:
        rough = (self.high / most) - (self.low / most)
        power = floor(log10(rough))
        step = next(
            digit * 10.0**power for digit in (1, 2, 5, 10) if digit * 10.0**power >= rough * (1 - 1e-9)
        )
        decimals = max(0, -floor(log10(step) + 1e-9))
        largest = max(abs(self.low), abs(self.high))
        is_plain = largest < 1e6 and decimals <= 4
        digits = floor(log10(largest)) - power + 1
        return [
            (place * step, f"{place * step:.{decimals}f}" if is_plain else f"{place * step:.{digits}g}")
            for place in range(ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9) + 1)
        ]


def frame(x: Scale, y: Scale, x_name: str, y_name: str) -> list[Markup]:
    """Grid, ticks and names of both axes; the origin is below on the left, so ``y`` starts below its end."""
    across, upward = x.ticks(7), y.ticks()
    left, right, bottom, top = x.start, x.end, y.start, y.end
    grid = "".join(
        [f"M{units(x.at(value))} {units(bottom)}V{units(top)}" for value, _ in across]
        + [f"M{units(left)} {units(y.at(value))}H{units(right)}" for value, _ in upward]
    )
    return [
        tag("path", class_="grid", d=grid),
        tag("path", class_="axis", d=f"M{units(left)} {units(top)}V{units(bottom)}H{units(right)}"),
        *(tag("text", label, class_="tick middle", x=x.at(value), y=bottom + 17) for value, label in across),
        *(tag("text", label, class_="tick end", x=left - 7, y=y.at(value) + 4) for value, label in upward),
        tag("text", x_name, class_="axis-name middle", x=(left + right) / 2, y=bottom + 38),
        upright(y_name, left - 64, (bottom + top) / 2),
    ]


def upright(name: str, x: float, y: float) -> Markup:
    """The name of an axis along it, centred."""
    turned = f"rotate(-90 {units(x)} {units(y)})"
    return tag("text", name, class_="axis-name middle", x=x, y=y, transform=turned)


def _raised(power: int) -> str:
    return "10" + str(power).translate(_RAISED)


def _digits(digit: int, power: int) -> str:
    if _PLAIN[0] <= power <= _PLAIN[1]:
        return f"{digit * 10.0**power:g}"
    return _raised(power) if digit == 1 else f"{digit}·{_raised(power)}"
