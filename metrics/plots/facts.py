"""The numbers beside a layer's panels."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from layerwatch.metrics.measurement import FitStatus, Measurement, SpectralNumbers
from layerwatch.metrics.plots import look
from layerwatch.metrics.plots.spectrum import Spectrum, shown_range
from layerwatch.metrics.plots.wording import FIT_REASONS, FIT_WORDS, counted, dimensions, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOTE_WIDTH = 42
_COLUMNS = (0.0, 0.31, 0.68)
_ROWS = ("alpha", "D", "tail", "fit", "stable rank", "spikes", "traps")


def draw_facts(axes: Axes, measurement: Measurement, baseline: Measurement | None, notes: list[str]) -> None:
    """A small table (with a second column for the baseline) and notes below it, in place of the axes."""
    axes.set_axis_off()
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.0)
    columns = [("", *_ROWS), ("this layer", *_values(measurement))]
    if baseline is not None:
        columns.append(("baseline", *_values(baseline)))
    colours = (look.FAINT_TEXT, look.LAYER, look.BASELINE)
    for at, column, colour in zip(_COLUMNS, columns, colours, strict=False):
        for row, text in enumerate(column):
            heading = row == 0
            axes.text(
                at,
                1.0 - row * 0.08,
                text,
                color=colour if heading or at == 0.0 else look.TEXT,
                weight="bold" if heading else "normal",
                verticalalignment="top",
                fontsize=9.5,
            )
    text = "\n".join(
        textwrap.fill(note, _NOTE_WIDTH, initial_indent="• ", subsequent_indent="   ") for note in notes
    )
    axes.text(0.0, 0.31, text, color=look.FAINT_TEXT, verticalalignment="top", fontsize=8.5, parse_math=False)


def notes_on(
    measurement: Measurement,
    spectrum: Spectrum,
    baseline: Measurement | None,
    before: Spectrum | None,
) -> list[str]:
    """What a reader must know to read the panels rightly, in full sentences."""
    notes = []
    if (reason := FIT_REASONS.get(spectrum.numbers.fit_status)) is not None:
        notes.append(reason)
    low, _ = shown_range([spectrum, *([before] if before else [])])
    outside = int(np.searchsorted(spectrum.values, low))
    if outside:
        zeros = min(outside, spectrum.numbers.rank_loss or 0)
        which = f" ({zeros} of them zero up to rounding)" if zeros else ""
        notes.append(f"Left of the axis: {outside} of {len(spectrum.values)} eigenvalues{which}.")
    if 2 * (spectrum.numbers.num_spikes or 0) >= len(spectrum.values):
        notes.append("No bulk is drawn: half of the eigenvalues or more are spikes.")
    if measurement.largest_trap is not None:
        notes.append(f"The largest trap is {number(measurement.largest_trap, 2)} times the edge of noise.")
    if baseline is None:
        return notes
    if baseline.digest == measurement.digest:
        notes.append("Unchanged: the baseline's layer has the same bytes.")
    elif before is None:
        notes.append(f"The baseline's layer has no spectrum: {why_no_spectrum(baseline)}")
    elif baseline.shape != measurement.shape:
        notes.append(f"The baseline's layer is {dimensions(baseline.shape)}.")
    return notes


def why_no_spectrum(measurement: Measurement) -> str:
    """The reason, as a sentence, that a measured layer has nothing to draw."""
    if measurement.non_finite:
        verb = "is" if measurement.non_finite == 1 else "are"
        return f"{counted(measurement.non_finite, 'element')} {verb} NaN or infinite."
    if len(measurement.shape) < 2:
        return "a vector has no spectrum."
    if measurement.spectrum is None or measurement.numbers is None or len(measurement.spectrum) == 0:
        return "none was kept."
    if measurement.norm == 0.0:
        return "every element is zero."
    size = "small" if measurement.norm < 1.0 else "large"
    return f"its eigenvalues are too {size} for float32, in which spectra are kept."


def _values(measurement: Measurement) -> tuple[str, ...]:
    numbers = measurement.numbers
    if numbers is None:
        return ("-",) * len(_ROWS)
    tail = "-" if numbers.tail_size is None else f"{numbers.tail_size} of {numbers.num_eigenvalues}"
    return (
        _alpha(numbers),
        number(numbers.ks_distance, 3),
        tail,
        FIT_WORDS[FitStatus(numbers.fit_status)],
        number(numbers.stable_rank, 1),
        "-" if numbers.num_spikes is None else str(numbers.num_spikes),
        "-" if measurement.traps is None else str(measurement.traps),
    )


def _alpha(numbers: SpectralNumbers) -> str:
    if numbers.alpha is None:
        return "-"
    sigma = "" if numbers.alpha_sigma is None else f" ± {number(numbers.alpha_sigma, 2)}"
    return number(numbers.alpha, 2) + sigma
