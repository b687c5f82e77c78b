"""Errors of the plots."""

from __future__ import annotations

from enum import StrEnum

from layerwatch.metrics.errors import MetricsError


class PlotReason(StrEnum):
    """Why no plot came about.

    ``missing_package``: matplotlib cannot be imported; ``cannot_write``: the file system refused;
    ``unknown_format``: neither png nor svg.
    """

    MISSING_PACKAGE = "missing_package"
    CANNOT_WRITE = "cannot_write"
    UNKNOWN_FORMAT = "unknown_format"


class PlotError(MetricsError):
    """A plot cannot be drawn or written.

    Attributes:
        reason: member of the closed list.
        detail: one sentence for the user: what was found and what to do about it.
    """

    def __init__(self, reason: PlotReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason.value}: {detail}")
