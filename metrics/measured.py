"""What became of one layer that was to be measured."""

from __future__ import annotations

from dataclasses import dataclass

from layerwatch.metrics.change import AlignedChange
from layerwatch.metrics.errors import UnreadableError
from layerwatch.metrics.layers import Layer
from layerwatch.metrics.measurement import Measurement


@dataclass(frozen=True, slots=True)
class MeasuredLayer:
    """What became of one layer or vector.

    Stands apart from ``measure.py`` so that the daemon, which only receives it, does not import the solvers.

    Attributes:
        layer: the layer as planned.
        digest: key of its measurement; None when it could not be read.
        measurement: the measurement; None when it was known already or could not be taken.
        problem: why it could not be examined, or None.
        exact: element-wise comparison with the baseline file's layer, when one was given and it fits.
    """

    layer: Layer
    digest: str | None
    measurement: Measurement | None
    problem: UnreadableError | None
    exact: AlignedChange | None = None
