"""Results as pandas DataFrames, with the column names of the report. pandas is imported when a frame is made.

Columns: ``name``, ``kind``, ``shape``, ``dtype``, ``status`` and ``problem``; then every field of
:class:`~layerwatch.metrics.report.LayerMetrics`; of comparisons also ``change.`` + every field of
:class:`~layerwatch.metrics.report.ChangePart`, and with ``delta=True`` ``delta.`` + the fields of
:class:`~layerwatch.metrics.delta.DeltaNumbers` and of its spectral numbers.

Rows are those of the report: every layer with a spectrum; vectors and unexamined files where something is to be
said of them; layers that only the baseline has, with kind ``missing``. What is undefined is NaN in columns of floats
and NA in columns of integers and text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from layerwatch.metrics.errors import MetricsError
from layerwatch.metrics.measurement import SpectralNumbers
from layerwatch.metrics.report import ChangePart, LayerMetrics, LayerPart
from layerwatch.metrics.results import ModelComparison, ModelMeasurement

if TYPE_CHECKING:
    import pandas as pd

    from layerwatch.metrics.delta import DeltaNumbers

Columns = Mapping[str, str]
"""Column name -> pandas type."""

_TEXT, _FLOAT, _INTEGER, _OBJECT = "string", "float64", "Int64", "object"

LAYER_COLUMNS: Columns = {
    "name": _TEXT,
    "kind": _TEXT,
    "shape": _OBJECT,
    "dtype": _TEXT,
    "status": _TEXT,
    "problem": _TEXT,
}


class FrameReason(StrEnum):
    """Why there is no frame. ``missing_package``: pandas cannot be imported."""

    MISSING_PACKAGE = "missing_package"


class FrameError(MetricsError):
    """A frame cannot be made.

    Attributes:
        reason: member of the closed list.
        detail: one sentence for the user.
    """

    def __init__(self, reason: FrameReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.value}: {detail}")


def measurement_frame(model: ModelMeasurement) -> pd.DataFrame:
    """One row per layer; raises FrameError without pandas."""
    problems = {one.name: str(one.problem) for one in model.problems}
    problems |= {one.name: one.detail for one in model.unexamined}
    rows = [_row(part, problems) for part in model.report.layers]
    return to_frame(rows, {**LAYER_COLUMNS, **_metric_columns()})


def comparison_frame(comparison: ModelComparison) -> pd.DataFrame:
    """One row per layer of either model; raises FrameError without pandas."""
    compared = (*comparison.layers, *comparison.vectors)
    problems = {one.name: one.problem.detail for one in compared if one.problem is not None}
    problems |= {one.name: one.detail for one in comparison.new.unexamined}
    deltas = {one.name: one.delta for one in compared if one.delta is not None}
    rows = []
    for part in comparison.report.layers:
        change = {} if part.change is None else part.change.model_dump()
        row = _row(part, problems) | {f"change.{name}": value for name, value in change.items()}
        if part.name in deltas:
            row |= _delta_values(deltas[part.name])
        rows.append(row)
    columns = {**LAYER_COLUMNS, **_metric_columns(), **_change_columns()}
    return to_frame(rows, {**columns, **_delta_columns()} if comparison.with_delta else columns)


def to_frame(rows: Iterable[Mapping[str, Any]], columns: Columns) -> pd.DataFrame:
    """A frame of these columns in this order; a value that is absent or None is undefined.

    Raises:
        FrameError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise FrameError(
            FrameReason.MISSING_PACKAGE,
            "frames need pandas, which is not installed; run: pip install pandas",
        ) from error
    listed = list(rows)
    return pd.DataFrame(
        {name: pd.Series([row.get(name) for row in listed], dtype=type_) for name, type_ in columns.items()}
    )


def _row(part: LayerPart, problems: Mapping[str, str]) -> dict[str, Any]:
    values = {name: getattr(part, name) for name in LAYER_COLUMNS if name != "problem"}
    return values | {"problem": problems.get(part.name)} | part.metrics.model_dump()


@cache
def _metric_columns() -> Columns:
    return {name: _column_type(field.annotation) for name, field in LayerMetrics.model_fields.items()}


@cache
def _change_columns() -> Columns:
    parts = ChangePart.model_fields.items()
    return {f"change.{name}": _column_type(field.annotation) for name, field in parts}


@cache
def _delta_columns() -> Columns:
    from layerwatch.metrics.delta import DeltaNumbers

    hints = get_type_hints(DeltaNumbers) | get_type_hints(SpectralNumbers)
    return {f"delta.{name}": _column_type(hints[name]) for name in _delta_fields(DeltaNumbers)}


def _delta_fields(delta: type[DeltaNumbers]) -> tuple[str, ...]:
    own = [field.name for field in fields(delta) if field.name not in ("numbers", "spectrum")]
    return (*own, *(field.name for field in fields(SpectralNumbers)))


def _delta_values(delta: DeltaNumbers) -> dict[str, Any]:
    return {
        f"delta.{name}": getattr(delta if hasattr(delta, name) else delta.numbers, name)
        for name in _delta_fields(type(delta))
    }


def _column_type(annotation: Any) -> str:
    """The pandas type of ``float | None``, ``int``, ``str`` ..."""
    kinds = set(get_args(annotation) or (annotation,)) - {type(None)}
    if float in kinds:
        return _FLOAT
    return _INTEGER if kinds == {int} else _TEXT
