"""What was measured once is not measured again: by the fingerprint of the weight files.

Kept are measurements and element-wise comparisons, never findings or verdicts: those are drawn anew each time, so that
other rules, another relation or another ignore file need no other entry. Of a model of which something could not be
examined only the measurements are kept: what ran out of time or memory is tried again, and gets further.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerwatch import __version__
from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.gate.cachefiles import CacheFiles
from layerwatch.daemon.scan.messages import exact_of, exact_to_json, layer_message, layer_of
from layerwatch.daemon.store.records import ContentRecord, SkippedTensor
from layerwatch.metrics.census.remark import remark_of, remark_to_json
from layerwatch.metrics.change import AlignedChange
from layerwatch.metrics.coupling import coupling_of, coupling_to_json
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.layers import Layer
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch.metrics.measurement import METRIC_SET, LayerKind, Measurement

SIZE_LIMIT = 2 * 2**30
"""Bytes that the cache may take. A model needs about 1 % of its size."""


@dataclass(frozen=True, slots=True)
class CachedModel:
    """What is known of a set of weight files.

    Attributes:
        content: the record; None where not all of it could be examined.
        measurements: by digest; all that the record needs, or those that were taken.
    """

    content: ContentRecord | None
    measurements: Mapping[str, Measurement]


class MeasurementCache:
    """Models and comparisons by fingerprint.

    Entries of other versions of layerwatch, other metric sets and other numerical settings are never found.

    Args:
        folder: where the entries lie.
        scan: how weights are measured.
        limit: bytes that all entries together may take.

    Attributes:
        trouble: why the last entry could not be kept, or None.
    """

    def __init__(self, folder: Path, scan: ScanSettings, limit: int = SIZE_LIMIT) -> None:
        self._files = CacheFiles(folder, limit)
        self._scan = scan
        self.trouble: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be found."""
        return self._files.is_empty

    def model(self, files: str, fingerprint: str) -> CachedModel | None:
        """What is known of these files, or None.

        Args:
            files: key of the files and of what says how they are read.
            fingerprint: of their bytes.
        """
        key = self._key(model=files)
        lines = self._files.read(key)
        if lines is None:
            return None
        try:
            return _model_of(lines, fingerprint)
        except (ValueError, LookupError, TypeError, ArithmeticError):
            self._files.drop(key)
            return None

    def keep_model(self, files: str, content: ContentRecord, measurements: Mapping[str, Measurement]) -> None:
        """Keep what a scan found, and its measurements by digest; see :attr:`trouble`."""
        self._write(self._key(model=files), _model_lines(content, measurements))

    def comparison(self, model: str, baseline: str) -> Mapping[str, AlignedChange] | None:
        """Element-wise comparisons of two sets of files by layer name, or None."""
        key = self._key(model=model, baseline=baseline)
        lines = self._files.read(key)
        if lines is None:
            return None
        try:
            return {str(line["layer"]): exact_of(line["exact"]) for line in lines}
        except (ValueError, LookupError, TypeError, ArithmeticError):
            self._files.drop(key)
            return None

    def keep_comparison(self, model: str, baseline: str, exact: Mapping[str, AlignedChange]) -> None:
        """Keep a comparison; see :attr:`trouble`."""
        lines = ({"layer": name, "exact": exact_to_json(change)} for name, change in exact.items())
        self._write(self._key(model=model, baseline=baseline), lines)

    def _key(self, **fingerprints: str) -> dict[str, str]:
        numerics = {"precision": self._scan.precision, "device": self._scan.device}
        return {"layerwatch": __version__, "metric_set": METRIC_SET, **numerics, **fingerprints}

    def _write(self, key: dict[str, str], lines: Iterable[dict[str, Any]]) -> None:
        try:
            self._files.write(key, lines)
        except OSError as error:
            self.trouble = f"{self._files.folder}: {error.strerror or type(error).__name__}"


def is_whole(content: ContentRecord) -> bool:
    """Whether everything in the files was examined."""
    return content.file_problem is None and all(entry.problem_reason is None for entry in content.layers)


def _model_lines(content: ContentRecord, measurements: Mapping[str, Measurement]) -> Iterable[dict[str, Any]]:
    yield {"content": _content_to_json(content) if is_whole(content) else None}
    for measurement in measurements.values():
        yield layer_message(_bare(measurement))


def _bare(measurement: Measurement) -> MeasuredLayer:
    """The measurement in the form that the scan process sends, without a name: several layers may share it."""
    layer = Layer("", "", measurement.kind, measurement.shape, measurement.dtype)
    return MeasuredLayer(layer, measurement.digest, measurement, None)


def _content_to_json(content: ContentRecord) -> dict[str, Any]:
    return {
        "format": content.format,
        "size_bytes": content.size_bytes,
        "layers": [[one.name, one.kind, one.shape, one.dtype, one.digest] for one in content.layers],
        "skipped": [[one.name, one.reason] for one in content.skipped],
        "couplings": [coupling_to_json(one) for one in content.couplings],
        "remarks": [remark_to_json(one) for one in content.remarks],
    }


def _model_of(lines: list[dict[str, Any]], fingerprint: str) -> CachedModel:
    first, *others = lines
    measured = [layer_of(line).measurement for line in others]
    measurements = {one.digest: one for one in measured if one is not None}
    data = first["content"]
    if data is None:
        return CachedModel(None, measurements)
    content = ContentRecord(
        fingerprint=fingerprint,
        metric_set=METRIC_SET,
        format=str(data["format"]),
        size_bytes=int(data["size_bytes"]),
        layers=tuple(
            LayerEntry(str(name), LayerKind(kind), tuple(map(int, shape)), str(dtype), str(digest))
            for name, kind, shape, dtype, digest in data["layers"]
        ),
        skipped=tuple(SkippedTensor(str(name), str(reason)) for name, reason in data["skipped"]),
        file_problem=None,
        measure_seconds=0.0,
        couplings=tuple(coupling_of(one) for one in data["couplings"]),
        remarks=tuple(remark_of(one) for one in data["remarks"]),
    )
    if any(layer.digest not in measurements for layer in content.layers):
        raise LookupError("a measurement is missing")
    return CachedModel(content, measurements)
