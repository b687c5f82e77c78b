"""Names and numbers as text in a figure. Names come from untrusted files."""

from __future__ import annotations

from functools import cache

from layerwatch.metrics.measurement import FitStatus

FIT_WORDS = {
    FitStatus.OK: "ok",
    FitStatus.TOO_SMALL: "too small",
    FitStatus.SHORT_TAIL: "short tail",
    FitStatus.POOR_FIT: "poor fit",
    FitStatus.DEGENERATE: "no fit",
}

FIT_REASONS = {
    FitStatus.TOO_SMALL: "Fewer than 50 eigenvalues: alpha is no more than a hint.",
    FitStatus.SHORT_TAIL: "Fewer than 10 eigenvalues in the tail: alpha is no more than a hint.",
    FitStatus.POOR_FIT: "D is above 1.63/√tail: the tail is hardly a power law.",
    FitStatus.DEGENERATE: "No power law can be fitted: the non-zero eigenvalues have no spread.",
}


def shown(name: str, width: int) -> str:
    """A name that can be drawn: one line, only characters that the font has, shortened in its middle.

    Args:
        width: most characters, at least 3.
    """
    drawn = "".join(character if _drawable(character) else "?" for character in name)
    if len(drawn) <= width:
        return drawn
    end = (width - 1) // 2
    return drawn[: width - 1 - end] + "…" + drawn[-end:]


def dimensions(shape: tuple[int, ...]) -> str:
    """Such as ``64 × 32 × 3 × 3``; "scalar" without dimensions."""
    return " × ".join(map(str, shape)) if shape else "scalar"


def number(value: float | None, digits: int) -> str:
    """With this many digits after the point, or in powers of ten where that says nothing; "-" for None."""
    if value is None:
        return "-"
    plain = value == 0.0 or 10.0**-digits <= abs(value) < 1e6
    return f"{value:.{digits}f}" if plain else f"{value:.1e}"


def counted(count: int, noun: str) -> str:
    """Such as "1 layer", "2 layers"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@cache
def _drawable(character: str) -> bool:
    if not character.isprintable():
        return False
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont("DejaVu Sans")).get_char_index(ord(character)) != 0
