"""How weights are opened and measured."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from layerwatch.config.base import NO_SWITCH, SettingsModel
from layerwatch.config.quantities import PositiveByteSize, PositiveDuration


class ScanSettings(SettingsModel):
    """The child processes that open and measure weights."""

    workers: Annotated[int, Field(ge=1, le=64), NO_SWITCH] = 1
    """How many versions are scanned at the same time, each in its own process."""

    memory_limit: PositiveByteSize = 4 * 2**30
    """Memory that one scan may use; a scan that needs more is stopped and the version is undecided."""

    timeout: PositiveDuration = timedelta(hours=1)
    """Time that one scan may take; a scan that needs more is stopped and the version is undecided."""

    attempts: Annotated[int, Field(ge=1, le=100), NO_SWITCH] = 3
    """How often a scan that failed for a passing reason is tried in all."""

    niceness: Annotated[int, Field(ge=0, le=19), NO_SWITCH] = 10
    """How far scans stand back behind other processes: 0 not at all, 19 as far as possible."""

    threads: Annotated[int, Field(ge=1), NO_SWITCH] | None = None
    """Computing threads of each worker; null shares the processor cores out among the workers."""

    precision: Literal["auto", "float64", "float32"] = "auto"
    """Floating-point type of spectra; auto takes float64 for layers up to 1024 wide and float32 for wider ones."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where spectra are computed; auto takes a GPU where torch finds one."""
