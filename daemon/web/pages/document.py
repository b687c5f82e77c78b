"""A report as one HTML file that holds all it needs: the views of the daemon's pages, without scripts and addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from layerwatch.daemon.gate.facts import RULES_BY_NAME, counted
from layerwatch.daemon.web.charts.depth import alpha_by_depth
from layerwatch.daemon.web.pages.assets import asset
from layerwatch.daemon.web.pages.layerview import Pictures, pictures_of
from layerwatch.daemon.web.pages.rendering import rendered
from layerwatch.daemon.web.pages.reportview import LayerRow, ranked_layers, report_view, row_of
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.report import LayerPart, Report
from layerwatch.metrics.rules.base import Rule

MOST_PICTURED = 60
"""Layers with pictures, the most conspicuous first."""

MOST_ROWS = 2000
"""Of the table of layers and of each list."""

_STYLES = ("layerwatch.css", "charts.css", "report.css")

Spectra = Callable[[str], tuple[Measurement | None, Measurement | None]]


@dataclass(frozen=True, slots=True)
class PicturedLayer:
    """One layer with its pictures, as far as it was measured; ``anchor`` is its place in the document."""

    anchor: str
    row: LayerRow
    is_measured: bool
    pictures: Pictures


@dataclass(frozen=True, slots=True)
class _DocumentLinks:
    """Links within the document.

    Attributes:
        anchors: of the layers that have pictures.
    """

    anchors: Mapping[str, str]

    def layer(self, layer: str) -> str | None:
        anchor = self.anchors.get(layer)
        return None if anchor is None else f"#{anchor}"

    def rule(self, rule: str) -> str | None:
        return f"#rule-{rule}" if rule in RULES_BY_NAME else None


def document(report: Report, spectra: Spectra | None) -> str:
    """The whole file.

    Args:
        spectra: the measurements of a layer and of the baseline's, by the layer's name; None where none are at hand.
    """
    pictured = _pictured(report, spectra)
    links = _DocumentLinks({layer.name: f"layer-{place}" for place, layer in enumerate(pictured, 1)})
    view = report_view(report, links, MOST_ROWS)
    drawn = any(point.alpha is not None for point in view.points)
    title = "Alpha of every layer, in the order of the file, over its baseline's"
    return rendered(
        "document.html",
        view=view,
        style=Markup("\n".join(map(asset, _STYLES))),
        depth=alpha_by_depth(view.points, title) if drawn else Markup(""),
        layers=[] if spectra is None else [_with_pictures(one, links, spectra) for one in pictured],
        about_pictures=_about_pictures(report, pictured, spectra),
        rules=_rules(report),
    )


def _pictured(report: Report, spectra: Spectra | None) -> Sequence[LayerPart]:
    if spectra is None:
        return ()
    return [one for one in ranked_layers(report) if len(one.shape) > 1][:MOST_PICTURED]


def _with_pictures(layer: LayerPart, links: _DocumentLinks, spectra: Spectra) -> PicturedLayer:
    measurement, baseline = spectra(layer.name)
    return PicturedLayer(
        anchor=links.anchors[layer.name],
        row=row_of(layer, links),
        is_measured=measurement is not None,
        pictures=pictures_of(measurement, baseline),
    )


def _about_pictures(report: Report, pictured: Sequence[LayerPart], spectra: Spectra | None) -> str:
    if spectra is None:
        return (
            "This file was made from a stored report, which holds no spectra. layerwatch scan MODEL --format html and "
            "layerwatch gate MODEL --format html make one with pictures of them."
        )
    left = sum(len(one.shape) > 1 for one in report.layers) - len(pictured)
    if left:
        return f"Pictures of the {len(pictured)} most conspicuous layers; {counted(left, 'more layer')} without pictures."
    return ""


def _rules(report: Report) -> list[Rule]:
    """The rules that the report names, in the order in which it does."""
    names = dict.fromkeys(one.rule for one in report.findings)
    names.update(dict.fromkeys(rule for one in report.diagnoses for rule in (one.defect, *one.confirmed_by)))
    return [RULES_BY_NAME[name] for name in names if name in RULES_BY_NAME]
