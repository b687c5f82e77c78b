"""What is normal around one layer: the median of all the others."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping


def medians_of_others(values: Mapping[str, float]) -> dict[str, float]:
    """The median of all values but a layer's own, for each layer; 0 for a layer that is alone.

    Sorted once: mixtures of experts have tens of thousands of layers.

    Args:
        values: by layer name, none of them NaN.
    """
    others = len(values) - 1
    if others < 1:
        return dict.fromkeys(values, 0.0)
    in_order = sorted(values.values())
    middle = ((others - 1) // 2, others // 2)
    medians = {}
    for name, value in values.items():
        own = bisect_left(in_order, value)
        low, high = (in_order[place if place < own else place + 1] for place in middle)
        medians[name] = (low + high) / 2.0
    return medians
