"""Measurements of layers, kept by tensor digest and metric set.

Numbers are JSON columns, arrays little-endian float32. Both come back bit for bit: JSON writes the shortest text
that reads as the same float, and what JSON cannot write (infinities, NaN) is kept as the text ``inf``, ``-inf``
or ``nan``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.chunks import chunks
from layerwatch.daemon.store.errors import StoreError, StoreReason
from layerwatch.metrics.measurement import METRIC_SET, FitStatus, LayerKind, Measurement, SpectralNumbers

_TABLE = tables.measurements
_ARRAYS = ("spectrum", "folded_spectrum", "row_norms", "column_norms", "sketch", "raw_sketch")
_SCALARS = (
    "non_finite",
    "max_abs",
    "min_value",
    "norm",
    "zero_share",
    "zero_tail",
    "constant",
    "duplicate_rows",
    "levels_per_row",
    "kurtosis",
    "farms_alpha",
    "traps",
    "largest_trap",
    "folded_by",
    "row_concentration",
    "channel_concentration",
    "fold_statistics_empty",
)
_FLOATS = frozenset(
    {
        "max_abs",
        "min_value",
        "norm",
        "zero_share",
        "levels_per_row",
        "kurtosis",
        "farms_alpha",
        "largest_trap",
        "row_concentration",
        "channel_concentration",
    }
)
_SCALAR_COLUMNS = (_TABLE.c.digest, _TABLE.c.kind, _TABLE.c.shape, _TABLE.c.dtype, _TABLE.c.scalars)


def known(connection: sa.Connection, digest: str) -> bool:
    """True when a layer with this digest has been measured with the present metric set."""
    return connection.execute(sa.select(sa.literal(1)).where(*_key(digest))).first() is not None


def save(connection: sa.Connection, measurement: Measurement, now: datetime) -> None:
    """Keep a measurement. One that is known already stays as it is: equal bytes give equal numbers."""
    if known(connection, measurement.digest):
        return
    arrays = {name: getattr(measurement, name) for name in _ARRAYS}
    if arrays["folded_spectrum"] is arrays["spectrum"]:
        # Nothing is folded into most layers: one array instead of two.
        arrays["folded_spectrum"] = None
    shapes: dict[str, Any] = {name: list(array.shape) for name, array in arrays.items() if array is not None}
    shapes["folded_is_raw"] = measurement.folded_spectrum is measurement.spectrum
    connection.execute(
        sa.insert(_TABLE).values(
            digest=measurement.digest,
            metric_set=METRIC_SET,
            kind=measurement.kind.value,
            shape=list(measurement.shape),
            dtype=measurement.dtype,
            scalars=_encode(measurement),
            array_shapes=shapes,
            saved_at=now,
            **{name: None if array is None else _to_bytes(array) for name, array in arrays.items()},
        )
    )


def load(connection: sa.Connection, digest: str) -> Measurement | None:
    """The measurement of the present metric set with its arrays, or None.

    Raises:
        StoreError: ``damaged_record``.
    """
    row = connection.execute(sa.select(_TABLE).where(*_key(digest))).mappings().first()
    return None if row is None else _decode(row, with_arrays=True)


def load_scalars(connection: sa.Connection, digests: Iterable[str]) -> dict[str, Measurement]:
    """Measurements of the present metric set by digest, their arrays None. Unknown digests are left out.

    Raises:
        StoreError: ``damaged_record``.
    """
    found = {}
    for chunk in chunks(dict.fromkeys(digests)):
        query = sa.select(*_SCALAR_COLUMNS).where(
            _TABLE.c.digest.in_(chunk), _TABLE.c.metric_set == METRIC_SET
        )
        for row in connection.execute(query).mappings():
            found[row["digest"]] = _decode(row, with_arrays=False)
    return found


def _key(digest: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return _TABLE.c.digest == digest, _TABLE.c.metric_set == METRIC_SET


def _encode(measurement: Measurement) -> dict[str, Any]:
    encoded = {name: _to_json(getattr(measurement, name)) for name in _SCALARS}
    for name in ("numbers", "folded"):
        numbers: SpectralNumbers | None = getattr(measurement, name)
        encoded[name] = None if numbers is None else _encode_numbers(numbers)
    return encoded


def _encode_numbers(numbers: SpectralNumbers) -> dict[str, Any]:
    return {field.name: _to_json(getattr(numbers, field.name)) for field in fields(numbers)}


def _decode(row: sa.RowMapping, *, with_arrays: bool) -> Measurement:
    try:
        scalars = dict(row["scalars"])
        numbers: Any = {name: _decode_numbers(scalars.pop(name)) for name in ("numbers", "folded")}
        for name in _FLOATS:
            scalars[name] = _from_json(scalars[name])
        return Measurement(
            digest=row["digest"],
            kind=LayerKind(row["kind"]),
            shape=tuple(row["shape"]),
            dtype=row["dtype"],
            **scalars,
            **numbers,
            **(_arrays(row) if with_arrays else {}),
        )
    except (KeyError, TypeError, ValueError) as error:
        detail = (
            f"the measurement {row['digest']} cannot be read back ({error}); restore a backup of the database"
        )
        raise StoreError(StoreReason.DAMAGED_RECORD, detail) from error


def _decode_numbers(stored: Mapping[str, Any] | None) -> SpectralNumbers | None:
    if stored is None:
        return None
    values = {name: value if name == "fit_status" else _from_json(value) for name, value in stored.items()}
    values["fit_status"] = FitStatus(values["fit_status"])
    return SpectralNumbers(**values)


def _arrays(row: sa.RowMapping) -> dict[str, Any]:
    shapes = row["array_shapes"]
    arrays = {name: _from_bytes(row[name], shapes.get(name)) for name in _ARRAYS}
    if shapes["folded_is_raw"]:
        arrays["folded_spectrum"] = arrays["spectrum"]
    return arrays


def _to_json(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _from_json(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value


def _to_bytes(array: NDArray[np.float32]) -> bytes:
    return array.astype("<f4", copy=False).tobytes()


def _from_bytes(stored: bytes | None, shape: list[int] | None) -> NDArray[np.float32] | None:
    if stored is None:
        return None
    if shape is None:
        raise ValueError("an array has no shape")
    # A copy: an array over the row's own bytes could not be written to, unlike a fresh measurement's.
    return np.frombuffer(stored, dtype="<f4").reshape(shape).astype(np.float32)
