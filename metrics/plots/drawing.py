"""The way to matplotlib: imported late, dressed the same whatever the user's settings, saved without a date."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerwatch.metrics.plots.errors import PlotError, PlotReason
from layerwatch.metrics.plots.look import DOTS_PER_INCH, SETTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")

# Without these, the same picture would be other bytes tomorrow, or with another release of matplotlib's name.
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "svg": {"Creator": None, "Date": None},
}


def require_matplotlib() -> None:
    """Check that plots can be drawn.

    Raises:
        PlotError: ``missing_package``, with the command that installs it.
    """
    try:
        import matplotlib.figure  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise PlotError(
            PlotReason.MISSING_PACKAGE,
            f"plots are drawn with matplotlib, which cannot be imported ({error}): pip install matplotlib",
        ) from error


@contextmanager
def look() -> Iterator[None]:
    """Matplotlib's defaults with :data:`SETTINGS`, for the time of drawing or saving one figure.

    Everything is as before afterwards. Matplotlib's settings belong to the process: draw in one thread.
    """
    require_matplotlib()
    from matplotlib import style

    with style.context(["default", SETTINGS]):
        yield


def new_figure(width: float, height: float, fitted: bool = False) -> Figure:
    """An empty figure, width and height in inches.

    Args:
        fitted: whether its axes make room for long labels and for a legend outside of them.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1) if fitted else None
    return Figure(figsize=(width, height), layout=layout)


def legend_below(figure: Figure, axes: Axes, order: Sequence[str], columns: int) -> None:
    """A legend under the axes, where it covers no data, with the entries that are drawn, in the given order.

    Args:
        order: beginnings of the labels.
    """
    handles, labels = axes.get_legend_handles_labels()
    entries = {label: handle for handle, label in zip(handles, labels, strict=True)}
    chosen = [label for begin in order for label in entries if label.startswith(begin)]
    shown = [entries[label] for label in chosen]
    if figure.get_layout_engine() is None:
        figure.legend(shown, chosen, loc="lower left", ncols=columns)
    else:
        figure.legend(shown, chosen, loc="outside lower left", ncols=columns)


def rendered(figure: Figure, file_format: str) -> bytes:
    """The figure as a file; the same figure gives the same bytes with the same release of matplotlib.

    Raises:
        PlotError: ``unknown_format``.
    """
    require_format(file_format)
    buffer = io.BytesIO()
    with look():
        figure.savefig(buffer, format=file_format, dpi=DOTS_PER_INCH, metadata=_METADATA[file_format])
    return buffer.getvalue()


def require_format(file_format: str) -> None:
    """Check the format's name; raises PlotError ``unknown_format``."""
    if file_format not in FORMATS:
        raise PlotError(
            PlotReason.UNKNOWN_FORMAT,
            f"plots are written as {' or '.join(FORMATS)}, not as {file_format!r}: choose one of them",
        )
