"""Reports for spreadsheets: one line per layer."""

from __future__ import annotations

import csv
import io

from layerwatch.daemon.gate.printable import printable
from layerwatch.metrics.report import ChangePart, LayerMetrics, Report


def to_csv(report: Report) -> str:
    """CSV with a header; empty fields for undefined numbers; column names as in the report."""
    metrics, change = list(LayerMetrics.model_fields), list(ChangePart.model_fields)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "kind", "shape", "dtype", "status", *metrics, *change])
    for layer in report.layers:
        shape = "x".join(map(str, layer.shape))
        row: list[object] = [
            _unarmed(layer.name),
            layer.kind,
            shape,
            _unarmed(layer.dtype),
            str(layer.status),
        ]
        row += [getattr(layer.metrics, name) for name in metrics]
        row += [getattr(layer.change, name) if layer.change else None for name in change]
        writer.writerow(row)
    return text.getvalue()


def _unarmed(text: str) -> str:
    """Names and types are foreign text; neither a spreadsheet nor a terminal must take one for a command.

    Characters that begin a formula: https://owasp.org/www-community/attacks/CSV_Injection .
    """
    shown = printable(text)
    return "'" + shown if shown.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else shown
