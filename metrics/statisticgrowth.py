"""How much of the change of a running statistic the weights in front of the batch norm explain.

A convolution that grows by a factor makes the mean of its outputs grow by the same factor and their variance by its
square; the batch norm divides both out again. On the real long fine-tune of ``../shared/checkpoints`` (channel
regularised to fine-tuned) running variances grow up to 111 times and none more than 3.2 times, as standard
deviations, beyond what the weights explain; those of the untrained file beside it do in every layer.
"""

from __future__ import annotations

from collections.abc import Mapping

from layerwatch.metrics.examination import Examination, ExaminedLayer
from layerwatch.metrics.measurement import LayerKind

_SOUND = 1e3


def growth_in_front(examination: Examination) -> dict[str, float]:
    """Raw norm over the baseline's, of the layer in front of each batch norm, by the batch norm's name; 1e-3..1e3."""
    growth: dict[str, float] = {}
    for layer in examination.layers:
        measured, baseline = layer.measurement, layer.baseline
        if measured is None or baseline is None or measured.folded_by is None or measured.non_finite:
            continue
        if measured.norm > 0.0 and baseline.norm > 0.0:
            factor = measured.norm / baseline.norm
            # Beyond that the weights are damaged, and explain nothing.
            if 1.0 / _SOUND < factor < _SOUND:
                growth[measured.folded_by] = factor
    return growth


def explained_growth(vector: ExaminedLayer, growth: Mapping[str, float]) -> float:
    """The factor by which a vector's norm would change with the weights in front of it; 1 for what is no statistic."""
    module = vector.name.rpartition(".")[0]
    if vector.kind is not LayerKind.STATISTIC or module not in growth:
        return 1.0
    return growth[module] ** 2 if is_variance(vector) else growth[module]


def is_variance(vector: ExaminedLayer) -> bool:
    """True for a running variance, the square of what the layer in front puts out."""
    return vector.name.rpartition(".")[2] == "running_var"
