"""From state dicts to examinations, through real safetensors files, readers and measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from layerwatch.config.rules import RulesSettings
from layerwatch.daemon.store.records import ContentRecord
from layerwatch.metrics.change import AlignedChange
from layerwatch.metrics.examination import Examination
from layerwatch.metrics.joining import examine
from layerwatch.metrics.judge import Judgement, judge
from layerwatch.metrics.layerentry import entry_of
from layerwatch.metrics.measure import measure_layers
from layerwatch.metrics.measurement import METRIC_SET, Measurement
from layerwatch.metrics.openmodel import OpenModel
from layerwatch.metrics.readers.detect import open_model

State = Mapping[str, NDArray[Any]]
"""Tensor name -> values in the type in which they are to be stored."""

_STORED_TYPES = {
    np.dtype(np.float64): "F64",
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(ml_dtypes.float8_e4m3fn): "F8_E4M3",
    np.dtype(np.int8): "I8",
    np.dtype(np.uint8): "U8",
    np.dtype(np.int32): "I32",
    np.dtype(np.int64): "I64",
}


def write_safetensors(path: Path, state: State) -> Path:
    """Write a safetensors file (https://huggingface.co/docs/safetensors, "Format"), tensors in given order."""
    header: dict[str, Any] = {}
    chunks: list[bytes] = []
    end = 0
    for name, values in state.items():
        chunk = np.ascontiguousarray(values).tobytes()
        header[name] = {
            "dtype": _STORED_TYPES[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [end, end + len(chunk)],
        }
        end += len(chunk)
        chunks.append(chunk)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(chunks))
    return path


def read_state(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a model file, as writable copies."""
    reader = open_model(path)
    try:
        return {info.name: np.array(reader.load(info.name)) for info in reader.tensors()}
    finally:
        reader.close()


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found in one model: the record, the measurements by digest, the exact comparisons by layer."""

    content: ContentRecord
    measurements: Mapping[str, Measurement]
    exact: Mapping[str, AlignedChange]


def scan(
    path: Path, baseline_path: Path | None = None, kept: Mapping[str, Measurement] | None = None
) -> Scan:
    """Open and measure a model.

    Args:
        baseline_path: a model to compare with element by element, or None.
        kept: measurements that need not be taken again, by digest.
    """
    kept = kept or {}
    model = OpenModel(open_model(path), str(path))
    baseline = OpenModel(open_model(baseline_path), str(baseline_path)) if baseline_path else None
    try:
        measured = list(measure_layers(model, kept.__contains__, baseline))
    finally:
        model.close()
        if baseline is not None:
            baseline.close()
    content = ContentRecord(
        fingerprint=path.name,
        metric_set=METRIC_SET,
        format=model.format,
        size_bytes=path.stat().st_size,
        layers=tuple(entry_of(one) for one in measured),
        skipped=(),
        file_problem=None,
        measure_seconds=0.0,
    )
    return Scan(
        content,
        {**kept, **{one.measurement.digest: one.measurement for one in measured if one.measurement}},
        {one.layer.name: one.exact for one in measured if one.exact is not None},
    )


def examination_of(new: Scan, baseline: Scan | None = None) -> Examination:
    """Join two scans, as the daemon does."""
    kept = {**(baseline.measurements if baseline else {}), **new.measurements}
    return examine(new.content, baseline.content if baseline else None, kept.get, new.exact)


def examine_states(
    folder: Path, new: State, baseline: State | None = None, exact: bool = False
) -> Examination:
    """Write state dicts to files in ``folder``, measure both, and join them.

    Args:
        exact: compare the files element by element, as the gate does; from sketches otherwise.
    """
    baseline_path = write_safetensors(folder / "baseline.safetensors", baseline) if baseline else None
    new_scan = scan(
        write_safetensors(folder / "new.safetensors", new), baseline_path=baseline_path if exact else None
    )
    return examination_of(new_scan, scan(baseline_path) if baseline_path else None)


def judge_states(
    folder: Path,
    new: State,
    baseline: State | None = None,
    exact: bool = False,
    rules: RulesSettings | None = None,
) -> Judgement:
    """:func:`examine_states`, judged; with the default rules unless others are given."""
    return judge(examine_states(folder, new, baseline, exact), rules or RulesSettings())
