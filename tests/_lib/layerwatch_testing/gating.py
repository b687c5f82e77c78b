"""Small parts of tests of the gate: broken layers, ignore files, a day."""

from __future__ import annotations

from datetime import date
from typing import Any

from layerwatch.daemon.gate.ignorefile import IgnoreEntry
from layerwatch.metrics.examination import ExaminedLayer
from layerwatch_testing.examinations import change, layer, measurement

TODAY = date(2026, 11, 22)


def broken(name: str = "broken") -> ExaminedLayer:
    """A layer with a critical finding: ``non_finite``."""
    return layer(name, measurement=measurement(non_finite=3), change=None)


def reshaped(name: str = "reshaped") -> ExaminedLayer:
    """A layer with a warning: ``structure_changed``."""
    return layer(name, shape=(64, 65), change=change(aligned=None))


def entry(**other: Any) -> IgnoreEntry:
    """An entry about ``non_finite``, in force for a month more."""
    values: dict[str, Any] = {
        "rule": "non_finite",
        "layer": None,
        "model": None,
        "reason": "known",
        "expires": date(2026, 12, 31),
        "line": 2,
    }
    return IgnoreEntry(**{**values, **other})
