"""Layers as the plots see them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from layerwatch.metrics.measurement import Measurement


class Plottable(Protocol):
    """A named layer of a model, such as those of ``measure_model(...)``.

    ``measurement`` is None where there is none; then ``problem``, shown as text, says why.
    """

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def measurement(self) -> Measurement | None: ...
    @property
    def problem(self) -> object: ...


@dataclass(frozen=True, slots=True)
class PlottedLayer:
    """The plainest :class:`Plottable`.

    Attributes:
        name: of the layer, unique within the model.
        shape: dimensions as stored.
        dtype: type as stored.
        measurement: None when there is none.
        problem: why there is no measurement, or None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    measurement: Measurement | None
    problem: str | None = None


def with_spectrum(layers: Iterable[Plottable] | None) -> list[Plottable]:
    """Those that have, or should have, a spectrum, in the same order: vectors are left out. None has no layers."""
    return [layer for layer in layers or () if len(layer.shape) > 1]


def by_name(layers: Iterable[Plottable]) -> dict[str, Plottable]:
    """The layers by name."""
    return {layer.name: layer for layer in layers}


def alphas_of(layers: Iterable[Plottable]) -> list[float]:
    """Exponents of those that have a fit."""
    return [alpha for layer in layers if (alpha := alpha_of(layer)) is not None]


def alpha_of(layer: Plottable) -> float | None:
    """Exponent of the raw matrix' tail, or None without a fit."""
    numbers = layer.measurement.numbers if layer.measurement else None
    return numbers.alpha if numbers else None
