"""What the dashboards share: colours, words for the values of statuses, variables, queries, panels, links."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard, prometheus

from dashboards_src import sdk

FLEET_UID = "layerwatch-fleet"
MODEL_UID = "layerwatch-model"
TAG = "layerwatch"

DATA_SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")

# Okabe and Ito's colours, with Tol's darker purple, which the colour-blind can tell apart. No state is green: what could not be examined
# must never look like what is well, and what is well need not shine.
BLUE = "#0072B2"
SKY = "#56B4E9"
ORANGE = "#E69F00"
VERMILION = "#D55E00"
PURPLE = "#AA4499"
GREY = "#5A6270"

STATUSES = (
    (0, "ok", BLUE),
    (1, "info", SKY),
    (2, "suspect", ORANGE),
    (3, "broken", VERMILION),
    (4, "undecided", PURPLE),
)
"""Values of ``layerwatch_layer_status``, with the word and the colour for each."""

VERDICTS = ((0, "pass", BLUE), (1, "warn", ORANGE), (2, "fail", VERMILION), (3, "undecided", PURPLE))
"""Values of ``layerwatch_model_verdict``, with the word and the colour for each."""

REF = "job, instance, registry, model, ref"
"""Labels of one row of what a daemon watches; the daemons of sidecars may use the same names for different models."""

AnyPanel = sdk.Builder[dashboard.Panel] | sdk.dashboard.Row
Variable = sdk.Builder[dashboard.VariableModel]
_Panel = TypeVar("_Panel", sdk.stat.Panel, sdk.table.Panel, sdk.timeseries.Panel)


def words(values: Iterable[tuple[int, str, str]]) -> list[Any]:
    """A value mapping: number -> word and colour."""
    results = {
        str(value): dashboard.ValueMappingResult(text=text, color=color, index=index)
        for index, (value, text, color) in enumerate(values)
    }
    return [dashboard.ValueMap(options=results)]


def steps(base: str, *others: tuple[float, str]) -> sdk.dashboard.ThresholdsConfig:
    """Colour by value: ``base`` below the first of ``others``, each of which begins at its number."""
    found = [dashboard.Threshold(value=None, color=base)]
    found += [dashboard.Threshold(value=value, color=color) for value, color in others]
    return sdk.dashboard.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(found)


def by_thresholds() -> sdk.dashboard.FieldColor:
    """Colour by the panel's thresholds."""
    return sdk.dashboard.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS)


def query(expr: str, legend: str = "", ref_id: str = "A") -> sdk.prometheus.Dataquery:
    """What a graph shows: values over time."""
    return (
        sdk.prometheus.Dataquery()
        .datasource(DATA_SOURCE)
        .expr(expr)
        .legend_format(legend)
        .range()
        .ref_id(ref_id)
    )


def now(expr: str, legend: str = "", ref_id: str = "A") -> sdk.prometheus.Dataquery:
    """What a single number shows: the value at the end of the time range."""
    return (
        sdk.prometheus.Dataquery()
        .datasource(DATA_SOURCE)
        .expr(expr)
        .legend_format(legend)
        .instant()
        .ref_id(ref_id)
    )


def rows(expr: str, ref_id: str = "A") -> sdk.prometheus.Dataquery:
    """What a table shows: one row per series, at the end of the time range."""
    return now(expr, ref_id=ref_id).format(prometheus.PromQueryFormat.TABLE)


def any_values(name: str, title: str, selector: str, about: str) -> sdk.dashboard.QueryVariable:
    """A variable with any number of values of the label of its name; all of them at first."""
    return (
        _label_values(name, title, selector, about)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def one_value(name: str, title: str, selector: str, about: str) -> sdk.dashboard.QueryVariable:
    """A variable with exactly one value of the label of its name."""
    return _label_values(name, title, selector, about).multi(False).include_all(False)


def _label_values(name: str, title: str, selector: str, about: str) -> sdk.dashboard.QueryVariable:
    text = f"label_values({selector}, {name})"
    return (
        sdk.dashboard.QueryVariable(name)
        .label(title)
        .description(about)
        .datasource(DATA_SOURCE)
        .query({"query": text, "refId": f"Variable-{name}"})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.NATURAL_ASC)
    )


def data_source() -> sdk.dashboard.DatasourceVariable:
    """Which Prometheus is asked."""
    return (
        sdk.dashboard.DatasourceVariable("datasource")
        .label("Data source")
        .description("The Prometheus (or compatible) data source that scrapes layerwatch.")
        .type("prometheus")
    )


def stat(title: str, about: str, unit: str, width: int, *queries: sdk.prometheus.Dataquery) -> sdk.stat.Panel:
    """A number in a coloured box."""
    panel = _titled(sdk.stat.Panel(), title, about, unit, width, 4, queries)
    return (
        panel.color_mode(common.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(sdk.common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(by_thresholds())
        .thresholds(steps(GREY))
    )


def graph(
    title: str, about: str, unit: str, width: int, *queries: sdk.prometheus.Dataquery
) -> sdk.timeseries.Panel:
    """Lines over time, none of them filled, none of them joined over gaps."""
    panel = _titled(sdk.timeseries.Panel(), title, about, unit, width, 8, queries)
    return (
        panel.line_width(2)
        .fill_opacity(0)
        .show_points(common.VisibilityMode.AUTO)
        .line_interpolation(common.LineInterpolation.STEP_AFTER)
        .legend(
            sdk.common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
        )
        .tooltip(
            sdk.common.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
    )


def stacked(panel: sdk.timeseries.Panel, states: Iterable[tuple[int, str, str]]) -> sdk.timeseries.Panel:
    """Areas on each other in the colours of the states; without lines, for that of a state that is 0 would hide others."""
    panel = (
        panel.min(0)
        .decimals(0)
        .line_width(0)
        .fill_opacity(80)
        .stacking(sdk.common.StackingConfig().mode(common.StackingMode.NORMAL))
    )
    for _, word, color in states:
        panel = panel.override_by_name(word, coloured(color))
    return panel


def table(
    title: str, about: str, width: int, height: int, *queries: sdk.prometheus.Dataquery
) -> sdk.table.Panel:
    """Rows and columns; the columns get their units by name."""
    panel = _titled(sdk.table.Panel(), title, about, "none", width, height, queries)
    return (
        panel.show_header(True)
        .cell_height(common.TableCellHeight.SM)
        .filterable(True)
        .color_scheme(by_thresholds())
        .thresholds(steps(GREY))
    )


def _titled(
    panel: _Panel,
    title: str,
    about: str,
    unit: str,
    width: int,
    height: int,
    queries: Sequence[sdk.prometheus.Dataquery],
) -> _Panel:
    panel = (
        panel.title(title).description(about).datasource(DATA_SOURCE).unit(unit).span(width).height(height)
    )
    for one in queries:
        panel = panel.with_target(one)
    return panel


def row(title: str) -> sdk.dashboard.Row:
    """A heading over the panels that follow."""
    return sdk.dashboard.Row(title)


def transformation(name: str, **options: Any) -> dashboard.DataTransformerConfig:
    """One step from what the queries return to what the panel shows."""
    return dashboard.DataTransformerConfig(id_val=name, options=options)


def columns(names: Mapping[str, str], *hidden: str) -> dashboard.DataTransformerConfig:
    """Columns in this order under these names; ``hidden`` ones and the time of the query are left out.

    Grafana calls the value of a query ``Value #NAME``, but ``Value`` when no other query of the panel returned anything.
    """
    return transformation(
        "organize",
        excludeByName=dict.fromkeys(("Time", *hidden), True),
        indexByName={name: index for index, name in enumerate(names)},
        renameByName=dict(names),
        includeByName={},
    )


def sort(by: str, descending: bool = False) -> dashboard.DataTransformerConfig:
    """Rows in the order of a column."""
    return transformation("sortBy", fields={}, sort=[{"field": by, "desc": descending}])


def prop(name: str, value: object) -> dashboard.DynamicConfigValue:
    """One setting of an override."""
    return dashboard.DynamicConfigValue(id_val=name, value=value)


def width(pixels: int) -> dashboard.DynamicConfigValue:
    """A column of this width."""
    return prop("custom.width", pixels)


def coloured_words(values: Iterable[tuple[int, str, str]]) -> list[dashboard.DynamicConfigValue]:
    """A column that shows words on their colours."""
    return [
        prop("mappings", words(values)),
        prop("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
    ]


def coloured_from(*others: tuple[float, str], unit: str = "none") -> list[dashboard.DynamicConfigValue]:
    """A column whose numbers get a background from the first of ``others`` on, and none below."""
    limits = {
        "mode": "absolute",
        "steps": [{"value": None, "color": "transparent"}]
        + [{"value": value, "color": color} for value, color in others],
    }
    background = {"type": "color-background", "mode": "basic"}
    return [prop("unit", unit), prop("thresholds", limits), prop("custom.cellOptions", background)]


def number(
    unit: str, decimals: int | None = None, width: int | None = None
) -> list[dashboard.DynamicConfigValue]:
    """A column of numbers."""
    found = [prop("unit", unit)]
    if decimals is not None:
        found.append(prop("decimals", decimals))
    if width is not None:
        found.append(prop("custom.width", width))
    return found


def link(title: str, url: str, blank: bool = False) -> dashboard.DynamicConfigValue:
    """What a click on a cell opens."""
    return prop("links", [{"title": title, "url": url, "targetBlank": blank}])


def shown_as(text: str) -> dashboard.DynamicConfigValue:
    """The same word for every value of a column that is there."""
    result = {"text": text, "index": 0}
    return prop("mappings", [{"type": "regex", "options": {"pattern": "(.+)", "result": result}}])


def coloured(color: str) -> list[dashboard.DynamicConfigValue]:
    """A line of this colour."""
    return [prop("color", {"mode": "fixed", "fixedColor": color})]


def titled_link(title: str, url: str, about: str) -> sdk.dashboard.DashboardLink:
    """A link above the panels that takes the time range and the data source along."""
    return (
        sdk.dashboard.DashboardLink(title)
        .type(dashboard.DashboardLinkType.LINK)
        .url(url)
        .tooltip(about)
        .icon("dashboard")
        .keep_time(True)
        .include_vars(False)
    )


def in_order_of_depth(expr: str) -> str:
    """``expr`` with a label ``depth`` that sorts as the layers are numbered: the first two numbers of the name padded.

    Grafana and Prometheus sort text letter by letter, which puts ``layers.10`` before ``layers.2``. Prometheus returns
    series over time in the order of their labels, the label whose name comes first in the alphabet first: ``depth``
    comes before ``layer``.
    """
    expr = f'label_replace({expr}, "depth", "$1", "layer", "(.*)")'
    for before in ("[^0-9]*", "[^0-9]*[0-9]+[^0-9]+"):
        for digits, zeros in ("[0-9]", "00"), ("[0-9]{2}", "0"):
            pattern = f"({before})({digits})([^0-9].*|)"
            expr = f'label_replace({expr}, "depth", "${{1}}{zeros}${{2}}${{3}}", "depth", "{pattern}")'
    return expr


def as_json(built: dashboard.Dashboard) -> str:
    """The file that Grafana imports.

    Every panel gets an id of its own, in the order in which they stand. What the builders add of their own accord and
    the model does not know, or what hides things that are meant to be seen, is taken out again.
    """
    found = json.loads(json.dumps(built, cls=JSONEncoder))
    panels = [inner for panel in found["panels"] for inner in (panel, *panel.get("panels", ()))]
    for number_, panel in enumerate(panels, 1):
        panel["id"] = number_
        panel.get("options", {}).pop("footer", None)
    for variable in found["templating"]["list"]:
        for of_intervals in ("auto", "auto_min", "auto_count"):
            variable.pop(of_intervals, None)
    for shown in (*found.get("links", ()), *found["annotations"].get("list", ())):
        shown.pop("placement", None)
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
