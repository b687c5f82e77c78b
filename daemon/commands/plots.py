"""``--plots DIR``: the plots of a scanned model beside its report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from layerwatch.daemon.gate.printable import printable

if TYPE_CHECKING:
    from layerwatch.daemon.store.records import ContentRecord
    from layerwatch.metrics.layerentry import LayerEntry
    from layerwatch.metrics.measurement import Measurement
    from layerwatch.metrics.plots import PlottedLayer


def plots_directory(directory: Path | None) -> Path | None:
    """The same directory, made where missing; exits with a usage error, before any work, when no plot can be
    drawn or written there."""
    if directory is None:
        return None
    from layerwatch.metrics.plots import PlotError, require_matplotlib

    try:
        require_matplotlib()
        directory.mkdir(parents=True, exist_ok=True)
        # Only writing tells: rights, a full disk and a read-only file system are asked for at once.
        with tempfile.TemporaryFile(dir=directory):
            pass
    except PlotError as error:
        _usage_error(str(error))
    except FileExistsError:
        _usage_error(f"{directory}: is not a directory")
    except (OSError, ValueError) as error:
        _usage_error(f"{directory}: cannot be written: {getattr(error, 'strerror', None) or error}")
    return directory


def plotted_layers(
    entries: Iterable[LayerEntry], find: Callable[[str], Measurement | None]
) -> list[PlottedLayer]:
    """The layers of a content that have, or should have, a spectrum: vectors are left out.

    Args:
        entries: of the content's record, in file order.
        find: measurement by digest.
    """
    from layerwatch.metrics.plots import PlottedLayer

    return [
        PlottedLayer(
            name=entry.name,
            shape=entry.shape,
            dtype=entry.dtype,
            measurement=find(entry.digest) if entry.digest else None,
            problem=entry.problem_detail,
        )
        for entry in entries
        if len(entry.shape) > 1
    ]


@dataclass(slots=True)
class KeptLayers:
    """Keeps, when an examination hands them out, the layers that are to be drawn: in plots, or in an HTML report.

    Attributes:
        layers: of the model.
        baseline: of the baseline, or None without one.
    """

    layers: list[PlottedLayer] = field(default_factory=list)
    baseline: list[PlottedLayer] | None = None

    def keep(
        self,
        content: ContentRecord,
        baseline: ContentRecord | None,
        find: Callable[[str], Measurement | None],
    ) -> None:
        """Take the layers of both contents; ``find`` gives measurements by digest."""
        self.layers = plotted_layers(content.layers, find)
        self.baseline = None if baseline is None else plotted_layers(baseline.layers, find)

    def spectra(self, name: str) -> tuple[Measurement | None, Measurement | None]:
        """The measurements of the layer of this name, and of the baseline's; None where there is none."""
        sides = self.layers, self.baseline or ()
        here, before = (
            next((one.measurement for one in layers if one.name == name), None) for layers in sides
        )
        return here, before


def title_of(model: Path) -> str:
    """A file's name; of a directory, which mostly is a version, its parent's name as well."""
    absolute = model.absolute()
    return "/".join(absolute.parts[-2:]) if absolute.is_dir() else absolute.name


def write_scan_plots(
    directory: Path,
    layers: Sequence[PlottedLayer],
    baseline: Sequence[PlottedLayer] | None = None,
    title: str = "model",
) -> None:
    """Write the plots of a model and tell on standard error how many there are and where.

    Exits with a usage error when they cannot be written.

    Args:
        directory: from :func:`plots_directory`.
        layers: of the model, in file order.
        baseline: layers of the baseline, drawn over the model's.
        title: name of the model.
    """
    from layerwatch.metrics.plots import PlotError, write_plots

    if not layers:
        typer.echo("no plots: the model has no layer with a spectrum", err=True)
        return
    try:
        written = write_plots(directory, layers, baseline, title=title)
    except PlotError as error:
        _usage_error(str(error))
    layer_plots = "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
    message = f"wrote {len(written)} plots of {layer_plots} to {directory}: begin with {written[0].name}"
    typer.echo(printable(message), err=True)


def _usage_error(message: str) -> NoReturn:
    typer.echo(printable(message), err=True)
    raise typer.Exit(2)
