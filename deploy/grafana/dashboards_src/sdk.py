"""The builders of grafana-foundation-sdk that the dashboards are made with, of the classic dashboard model.

The newer resource model is imported by the newest Grafana alone.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import (
    barchart,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder

__all__ = [
    "Builder",
    "barchart",
    "common",
    "dashboard",
    "heatmap",
    "prometheus",
    "stat",
    "statetimeline",
    "table",
    "timeseries",
]
