"""The lines that daemon and scan worker exchange: JSON, one message a line, arrays as base64.

Parent to worker: :class:`ScanRequest`, then one ``{"known": bool}`` per question. Worker to parent: ``plan`` and
``remarks``, then per layer ``known?`` and ``layer``, then ``couplings``, and at the end ``done`` or ``failed``. Nothing is pickled: the worker
handles untrusted files and is not trusted either.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layerwatch.metrics.census.remark import StorageRemark, remark_of, remark_to_json
from layerwatch.metrics.change import AlignedChange, Method
from layerwatch.metrics.coupling import Coupling, coupling_of, coupling_to_json
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.layers import Layer, LayerPlan, Skipped
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.measurement import ARRAYS, FitStatus, LayerKind, Measurement, SpectralNumbers
from layerwatch.metrics.rescaling import Factors, Rescaling
from layerwatch.metrics.rowchange import RowChange
from layerwatch.metrics.rowmatching import Axis, Reordering
from layerwatch.metrics.storagefaults import StorageFault, StorageFaultKind
from layerwatch.metrics.tensors import UnexaminedFile

MAX_LINE = 256 * 1024 * 1024
"""A longer line from a worker is treated as its death."""

MEMORY_ADVICE = "needs more memory than the limit allows: raise scan.memory_limit"


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """What a worker is asked to do.

    Attributes:
        path: file or directory to measure.
        baseline_path: a second one to compare with element by element, or None.
        shuffled: also take the spectra of the shuffled elements, for plots.
        baseline_digests: what is known of the second one: digests by layer name. Its layers that are equal are then
            not read.
    """

    path: str
    baseline_path: str | None = None
    shuffled: bool = False
    baseline_digests: dict[str, str] = field(default_factory=dict)


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":"), allow_nan=True).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The message of one line; raises ValueError or TypeError."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise TypeError("a message must be an object")
    return message


def plan_message(plan: LayerPlan, file_format: str) -> dict[str, Any]:
    """What the model consists of."""
    return {
        "type": "plan",
        "format": file_format,
        "total": len(plan.layers) + len(plan.vectors),
        "skipped": [[one.name, one.reason] for one in plan.skipped],
        "unexamined": [[one.name, one.reason, one.detail] for one in plan.unexamined],
    }


def skipped_of(message: dict[str, Any]) -> tuple[Skipped, ...]:
    """The skipped tensors of a ``plan`` message."""
    return tuple(Skipped(str(name), str(reason)) for name, reason in message["skipped"])


def unexamined_of(message: dict[str, Any]) -> tuple[UnexaminedFile, ...]:
    """The unexamined files of a ``plan`` message."""
    return tuple(
        UnexaminedFile(str(name), UnreadableReason(reason), str(detail))
        for name, reason, detail in message["unexamined"]
    )


def remarks_message(remarks: Sequence[StorageRemark]) -> dict[str, Any]:
    """What the storage of the model contradicts; before any layer."""
    return {"type": "remarks", "remarks": [remark_to_json(one) for one in remarks]}


def remarks_of(message: dict[str, Any]) -> tuple[StorageRemark, ...]:
    """The remarks of a ``remarks`` message; raises ValueError, LookupError or TypeError."""
    return tuple(remark_of(one) for one in message["remarks"])


def layer_message(measured: MeasuredLayer) -> dict[str, Any]:
    """One measured layer."""
    layer = measured.layer
    return {
        "type": "layer",
        "name": layer.name,
        "tensor": layer.tensor,
        "kind": layer.kind,
        "shape": layer.shape,
        "dtype": layer.dtype,
        "digest": measured.digest,
        "measurement": _measurement_to_json(measured.measurement) if measured.measurement else None,
        "problem": error_to_json(measured.problem) if measured.problem else None,
        "exact": exact_to_json(measured.exact) if measured.exact else None,
    }


def layer_of(message: dict[str, Any]) -> MeasuredLayer:
    """The measured layer of a ``layer`` message; raises ValueError, KeyError or TypeError."""
    layer = Layer(
        name=str(message["name"]),
        tensor=str(message["tensor"]),
        kind=LayerKind(message["kind"]),
        shape=tuple(int(side) for side in message["shape"]),
        dtype=str(message["dtype"]),
    )
    exact = message["exact"]
    return MeasuredLayer(
        layer=layer,
        digest=_text_or_none(message["digest"]),
        measurement=_measurement_of(message["measurement"]) if message["measurement"] else None,
        problem=error_of(message["problem"]) if message["problem"] else None,
        exact=exact_of(exact) if exact else None,
    )


def exact_to_json(exact: AlignedChange) -> dict[str, Any]:
    """An element-wise comparison as data; kept in the store in this form too."""
    return _with_text(asdict(exact))


def _with_text(data: dict[str, Any]) -> dict[str, Any]:
    """The same data with bytes as base64, at any depth."""
    return {
        name: _with_text(value)
        if isinstance(value, dict)
        else base64.b64encode(value).decode()
        if isinstance(value, bytes)
        else value
        for name, value in data.items()
    }


def exact_of(data: dict[str, Any]) -> AlignedChange:
    """The comparison of :func:`exact_to_json`; raises ValueError, LookupError or TypeError."""
    values = _numbers(dict(data), "method", "rows", "fault", "rescaling", "unscaled")
    values["method"] = Method(values["method"])
    values["rows"] = None if values["rows"] is None else _rows_of(values["rows"])
    values["fault"] = None if values["fault"] is None else _fault_of(values["fault"])
    # What was stored before rescalings were looked for has none.
    rescaling, unscaled = values.get("rescaling"), values.get("unscaled")
    values["rescaling"] = None if rescaling is None else _rescaling_of(rescaling)
    if unscaled is not None and unscaled["unscaled"] is not None:
        raise ValueError("what was undone cannot be undone again")
    values["unscaled"] = None if unscaled is None else exact_of(unscaled)
    return AlignedChange(**values)


def _rescaling_of(data: dict[str, Any]) -> Rescaling:
    values = _numbers(dict(data), "rows", "columns")
    for side in ("rows", "columns"):
        kept = values[side]
        values[side] = Factors(_bytes_of(kept["logarithms"]), _bytes_of(kept["errors"]))
    return Rescaling(**values)


def _bytes_of(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError("must be text")
    return base64.b64decode(text, validate=True)


def _rows_of(data: dict[str, Any]) -> RowChange:
    values = _counts(_numbers(dict(data), "reordering"), "rows", "live_rows", "low_rows", "flipped_rows")
    if values["reordering"] is not None:
        found = _counts(_numbers(dict(values["reordering"]), "axis"), "moved", "examined", "matched")
        values["reordering"] = Reordering(**{**found, "axis": Axis(found["axis"])})
    return RowChange(**values)


def _fault_of(data: dict[str, Any]) -> StorageFault:
    values = _numbers(dict(data), "kind", "axis")
    return StorageFault(**{**values, "kind": StorageFaultKind(values["kind"]), "axis": Axis(values["axis"])})


def _counts(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """The same values, after refusing anything but whole numbers from 0 on under the names."""
    for name in names:
        if type(values[name]) is not int or values[name] < 0:
            raise TypeError(f"{name} must be a count")
    return values


def couplings_message(couplings: Sequence[Coupling], problem: str | None = None) -> dict[str, Any]:
    """What the layers share, or why that is not known; after the last of them."""
    return {
        "type": "couplings",
        "couplings": [coupling_to_json(one) for one in couplings],
        "problem": problem,
    }


def couplings_of(message: dict[str, Any]) -> tuple[Coupling, ...]:
    """The couplings of a ``couplings`` message; raises ValueError, LookupError or TypeError."""
    return tuple(coupling_of(one) for one in message["couplings"])


def couplings_problem_of(message: dict[str, Any]) -> str | None:
    """Why the couplings of a ``couplings`` message are not known, or None; raises LookupError or TypeError."""
    return _text_or_none(message["problem"])


def error_to_json(error: UnreadableError) -> dict[str, Any]:
    """An error as data."""
    return {"reason": error.reason, "path": error.path, "detail": error.detail, "tensor": error.tensor}


def error_of(data: dict[str, Any]) -> UnreadableError:
    """The error of :func:`error_to_json`."""
    tensor = _text_or_none(data["tensor"])
    return UnreadableError(UnreadableReason(data["reason"]), str(data["path"]), str(data["detail"]), tensor)


def _measurement_to_json(measurement: Measurement) -> dict[str, Any]:
    data: dict[str, Any] = {one.name: getattr(measurement, one.name) for one in fields(measurement)}
    for name in ARRAYS:
        data[name] = _array_to_json(data[name])
    if measurement.folded_spectrum is measurement.spectrum:
        data["folded_spectrum"] = "same"
    for name in ("numbers", "folded"):
        data[name] = asdict(data[name]) if data[name] is not None else None
    return data


def _measurement_of(data: dict[str, Any]) -> Measurement:
    values = dict(data)
    same = values["folded_spectrum"] == "same"
    if same:
        values["folded_spectrum"] = None
    for name in ARRAYS:
        values[name] = _array_of(values[name])
    if same:
        values["folded_spectrum"] = values["spectrum"]
    for name in ("numbers", "folded"):
        numbers = values[name]
        if numbers is not None:
            status = FitStatus(numbers["fit_status"])
            values[name] = SpectralNumbers(**{**_numbers(numbers, "fit_status"), "fit_status": status})
    _numbers(values, "kind", "shape", "dtype", "digest", "folded_by", "numbers", "folded", *ARRAYS)
    values["digest"], values["dtype"] = str(values["digest"]), str(values["dtype"])
    values["folded_by"] = _text_or_none(values["folded_by"])
    values["kind"] = LayerKind(values["kind"])
    values["shape"] = tuple(int(side) for side in values["shape"])
    return Measurement(**values)


def _numbers(values: dict[str, Any], *others: str) -> dict[str, Any]:
    """The same values, after refusing anything but numbers, flags and None under all names but ``others``."""
    for name, value in dict(values).items():
        if name not in others and not isinstance(value, (int, float, type(None))):
            raise TypeError(f"{name} must be a number")
    return values


def _text_or_none(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError("must be text")


def _array_to_json(array: NDArray[np.float32] | None) -> list[Any] | None:
    if array is None:
        return None
    packed = base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode()
    return [list(array.shape), packed]


def _array_of(data: list[Any] | None) -> NDArray[np.float32] | None:
    if data is None:
        return None
    shape, packed = data
    return np.frombuffer(base64.b64decode(packed), dtype="<f4").reshape(shape).astype(np.float32)
