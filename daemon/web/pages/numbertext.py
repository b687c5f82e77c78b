"""Numbers as pages show them; ``-`` for what is not defined, as in pictures."""

from __future__ import annotations

from layerwatch.metrics.plots.wording import number as fixed

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def short(value: float | None) -> str:
    """To three digits; whole numbers in full."""
    if value is None:
        return "-"
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def with_error(value: float | None, error: float | None, digits: int) -> str:
    """Such as ``3.21 ± 0.84``; without the error where there is none."""
    shown = fixed(value, digits)
    return shown if value is None or not error else f"{shown} ± {fixed(error, digits)}"


def seconds(duration: float) -> str:
    """Such as ``0.12 s``, ``75 s``."""
    return f"{duration:.2f} s" if duration < 10 else f"{duration:.0f} s"


def size(count: int) -> str:
    """Bytes in the largest unit that fits: ``36.1 KiB``."""
    value, place = float(count), 0
    while value >= 1024 and place + 1 < len(_UNITS):
        value, place = value / 1024, place + 1
    return f"{value:.{1 if place else 0}f} {_UNITS[place]}"
