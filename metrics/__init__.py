"""Numbers: readers, spectra, rules, judgement, Prometheus export. No network, no database, no clock.

In a notebook or script::

    from layerwatch.metrics import measure_model, compare_models

These names are imported when they are first used: the daemon imports this package too and does without the solvers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerwatch.metrics.api import compare_models, measure_model
    from layerwatch.metrics.delta import delta_numbers, low_rank_delta_numbers
    from layerwatch.metrics.nearest import nearest_parent
    from layerwatch.metrics.options import Device, MeasureOptions, Precision
    from layerwatch.metrics.readers.memory import InputError
    from layerwatch.metrics.recipe import model_recipe
    from layerwatch.metrics.results import (
        LayerComparison,
        LayerMeasurement,
        ModelComparison,
        ModelMeasurement,
    )

__all__ = [
    "Device",
    "InputError",
    "LayerComparison",
    "LayerMeasurement",
    "MeasureOptions",
    "ModelComparison",
    "ModelMeasurement",
    "Precision",
    "compare_models",
    "delta_numbers",
    "low_rank_delta_numbers",
    "measure_model",
    "model_recipe",
    "nearest_parent",
]

_MODULES = {
    "measure_model": "api",
    "compare_models": "api",
    "delta_numbers": "delta",
    "low_rank_delta_numbers": "delta",
    "model_recipe": "recipe",
    "nearest_parent": "nearest",
    "Device": "options",
    "MeasureOptions": "options",
    "Precision": "options",
    "InputError": "readers.memory",
    "LayerComparison": "results",
    "LayerMeasurement": "results",
    "ModelComparison": "results",
    "ModelMeasurement": "results",
}
"""Where each public name is defined, below this package."""

# Type checkers read the imports above; a __getattr__ that they see would make every misspelt name valid.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
