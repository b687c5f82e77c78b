"""Model page: what one ref points at now, layer by layer, against its baseline and against its own past."""

from __future__ import annotations

from grafana_foundation_sdk.models import common, dashboard, heatmap

from dashboards_src import parts, sdk
from dashboards_src.parts import BLUE, GREY, ORANGE, PURPLE, SKY, VERMILION

DAEMON = 'job=~"$job", instance=~"$instance"'
REF = f'{DAEMON}, registry="$registry", model="$model", ref="$ref"'
LAYER = f'{REF}, layer=~"$layer"'

_QUANTITIES = (
    ("alpha", "layerwatch_layer_alpha"),
    ("log10 of the squared norm", "layerwatch_layer_log_norm"),
    ("log10 of the largest eigenvalue", "layerwatch_layer_log_spectral_norm"),
    ("stable rank", "layerwatch_layer_stable_rank"),
    ("standard error of alpha", "layerwatch_layer_alpha_sigma"),
)
"""What the history may show: word and name of the metric."""

_ALPHA = "now"
_BASELINE = "baseline"


def build() -> sdk.dashboard.Dashboard:
    """The whole dashboard."""
    found = (
        sdk.dashboard.Dashboard("layerwatch / Model")
        .uid(parts.MODEL_UID)
        .description("One ref of one model: every layer now, against its baseline, and over time.")
        .tags([parts.TAG])
        .refresh("1m")
        .time("now-7d", "now")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .editable()
        .link(
            parts.titled_link(
                "All models",
                f"/d/{parts.FLEET_UID}?${{datasource:queryparam}}",
                "Back to the overview of the fleet.",
            )
        )
        .annotation(_new_versions())
    )
    for variable in _variables():
        found = found.with_variable(variable)
    panels = (
        *_summary(),
        _version(),
        _alpha_by_depth(),
        _layers(),
        parts.row("History"),
        _history(),
        _status_history(),
        _alpha_quantiles(),
        _layers_by_status(),
        _experts(),
    )
    for panel in panels:
        found = found.with_row(panel) if isinstance(panel, sdk.dashboard.Row) else found.with_panel(panel)
    return found


def _variables() -> tuple[parts.Variable, ...]:
    verdict = "layerwatch_model_verdict"
    of_registry = f'{DAEMON}, registry="$registry"'
    of_model = f'{of_registry}, model="$model"'
    return (
        parts.data_source(),
        parts.any_values("job", "Job", "layerwatch_build_info", "Scrape job of the daemons."),
        parts.any_values(
            "instance", "Daemon", 'layerwatch_build_info{job=~"$job"}', "Address of the daemon."
        ),
        parts.one_value("registry", "Registry", f"{verdict}{{{DAEMON}}}", "Registry the model is in."),
        parts.one_value("model", "Model", f"{verdict}{{{of_registry}}}", "Model in the registry."),
        parts.one_value("ref", "Ref", f"{verdict}{{{of_model}}}", "Name that points at the version."),
        sdk.dashboard.TextBoxVariable("layer")
        .label("Layers")
        .description("Regular expression that the whole name of a layer must match.")
        .default_value(".*"),
        sdk.dashboard.CustomVariable("quantity")
        .label("History of")
        .description("What the history of the layers shows.")
        .values(", ".join(f"{word} : {metric}" for word, metric in _QUANTITIES))
        .multi(False)
        .include_all(False)
        .options(
            [
                dashboard.VariableOption(selected=index == 0, text=word, value=metric)
                for index, (word, metric) in enumerate(_QUANTITIES)
            ]
        )
        .current(dashboard.VariableOption(selected=True, text=_QUANTITIES[0][0], value=_QUANTITIES[0][1])),
    )


def _new_versions() -> sdk.dashboard.AnnotationQuery:
    matched = "job, instance, registry, model, ref"
    return (
        sdk.dashboard.AnnotationQuery()
        .name("New versions")
        .datasource(parts.DATA_SOURCE)
        .enable(True)
        .icon_color(SKY)
        .expr(
            f"max by (version, relation) (1000 * layerwatch_model_judged_timestamp_seconds{{{REF}}} "
            f"* on ({matched}) group_left (version, relation) layerwatch_model_info{{{REF}}})"
        )
        .use_value_for_time(True)
        .title_format("version {{version}}")
        .text_format("judged here {{relation}}")
        .step("60s")
    )


def _summary() -> list[parts.AnyPanel]:
    def layers(title: str, status: str, color: str, advice: str) -> parts.AnyPanel:
        return parts.stat(
            title,
            f"Layers with the status {status}. {advice}",
            "none",
            3,
            parts.now(f'max(layerwatch_model_layers{{{REF}, status="{status}"}})'),
        ).thresholds(parts.steps(GREY, (1, color)))

    verdict_colors = [(float(value), color) for value, _, color in parts.VERDICTS]
    return [
        parts.stat(
            "Verdict",
            "Verdict of the version that the ref points at. fail: keep it from being served and point the ref back at the "
            "last version that passed. undecided: nothing is known of it; the report says what could not be examined.",
            "none",
            4,
            parts.now(f"max(layerwatch_model_verdict{{{REF}}})"),
        )
        .mappings(parts.words(parts.VERDICTS))
        .thresholds(parts.steps(GREY, *verdict_colors)),
        layers("Broken", "broken", VERMILION, "They do not work any more; the table below names them."),
        layers(
            "Suspect",
            "suspect",
            ORANGE,
            "Look at their findings in the report before the version is promoted.",
        ),
        layers(
            "Undecided",
            "undecided",
            PURPLE,
            "They could not be examined, which is not the same as being well.",
        ),
        parts.stat(
            "Layers",
            "All layers of the version, the ones left out of the gauges among them.",
            "none",
            3,
            parts.now(f"sum(max by (status) (layerwatch_model_layers{{{REF}}}))"),
        ),
        parts.stat(
            "Median alpha",
            "Median over the layers. In a well-trained model it is between 2 and 4; above 6 little was learned. It never "
            "raises an alarm by itself.",
            "none",
            3,
            parts.now(f'max(layerwatch_model_alpha{{{REF}, quantile="0.5"}})'),
        )
        .decimals(2)
        .no_value("no fit"),
        parts.stat(
            "Judged",
            "When the version was judged. A later push that is not here yet has not been seen: look at the registries on "
            "the overview.",
            "dateTimeFromNow",
            3,
            parts.now(f"max(layerwatch_model_judged_timestamp_seconds{{{REF}}}) * 1000"),
        ),
        parts.stat(
            "Left out",
            "Layer series that are not exported because of the cap per model (server.max_series_per_model). If there are "
            "any, the layers below are not all: the report has them.",
            "none",
            2,
            parts.now(f"max(layerwatch_series_dropped{{{REF}}})"),
        ).thresholds(parts.steps(GREY, (1, ORANGE))),
    ]


def _version() -> parts.AnyPanel:
    by = "registry, model, ref"
    return (
        parts.table(
            "What the ref points at",
            "Version, fingerprint of its weights, and what it was judged against. A version that was judged against "
            "nothing can only be faulted for missing numbers and empty layers: give it a baseline. The report is linked "
            "where the daemon knows its own address (server.external_url).",
            24,
            4,
            parts.rows(
                f"max by ({by}, version, fingerprint, baseline, relation) (layerwatch_model_info{{{REF}}})",
                "info",
            ),
            parts.rows(f"max by ({by}, url) (layerwatch_model_report_info{{{REF}}})", "report"),
        )
        .override_by_name("Fingerprint", [parts.prop("custom.minWidth", 540)])
        .with_transformation(parts.transformation("merge"))
        .with_transformation(
            parts.columns(
                {
                    "version": "Version",
                    "fingerprint": "Fingerprint",
                    "baseline": "Judged against",
                    "relation": "Relation",
                    "url": "Report",
                },
                "registry",
                "model",
                "ref",
                "Value #info",
                "Value #report",
                "Value",
            )
        )
        .override_by_name(
            "Report",
            [parts.link("layerwatch's report", "${__value.raw}", blank=True), parts.shown_as("open")],
        )
    )


def _alpha_by_depth() -> parts.AnyPanel:
    ordered = parts.in_order_of_depth(f"max by (layer) (layerwatch_layer_alpha{{{LAYER}}})")
    return (
        sdk.barchart.Panel()
        .title("Alpha by depth: now against the baseline")
        .description(
            "Alpha of each layer, in the order in which the layers are numbered, beside the same layer of the baseline. "
            "A single bar that stands out is worth a look at its findings; all of them higher means that training undid "
            "itself or was cut short. A layer without a bar has no tail to fit."
        )
        .datasource(parts.DATA_SOURCE)
        .unit("none")
        .decimals(2)
        .span(24)
        .height(10)
        .with_target(parts.rows(ordered, _ALPHA))
        .with_target(parts.rows(f"max by (layer) (layerwatch_layer_alpha_baseline{{{LAYER}}})", _BASELINE))
        .with_transformation(parts.transformation("joinByField", byField="layer", mode="outer"))
        .with_transformation(parts.sort("depth"))
        .with_transformation(
            parts.columns(
                {
                    "layer": "Layer",
                    f"Value #{_ALPHA}": "alpha now",
                    "Value": "alpha now",
                    f"Value #{_BASELINE}": "alpha of the baseline",
                },
                "depth",
                "Time 1",
                "Time 2",
            )
        )
        .x_field("Layer")
        .x_tick_label_rotation(-45)
        .x_tick_label_max_length(24)
        .x_tick_label_spacing(100)
        .orientation(common.VizOrientation.VERTICAL)
        .show_value(common.VisibilityMode.NEVER)
        .stacking(common.StackingMode.NONE)
        .group_width(0.8)
        .bar_width(0.95)
        .full_highlight(True)
        .fill_opacity(90)
        .line_width(0)
        .min(0)
        .axis_label("alpha")
        .legend(
            sdk.common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
        )
        .tooltip(sdk.common.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        .override_by_name("alpha now", parts.coloured(BLUE))
        .override_by_name("alpha of the baseline", parts.coloured(ORANGE))
    )


def _layers() -> parts.AnyPanel:
    def of(metric: str) -> str:
        return f"max by (layer) (layerwatch_layer_{metric}{{{LAYER}}})"

    worst_first = f"({of('status')} == 3) * 100 or ({of('status')} == 4) * 10 or {of('status')}"
    return (
        parts.table(
            "Layers, the worst first",
            "One row per layer. A wrong scale moves the norms and leaves alpha as it was; noise and pruning move alpha and "
            "the stable rank. `layerwatch explain RULE` says what a finding in the report means and what to do.",
            24,
            14,
            parts.rows(of("status"), "status"),
            parts.rows(of("alpha"), "alpha"),
            parts.rows(of("alpha_sigma"), "sigma"),
            parts.rows(of("alpha_baseline"), "baseline"),
            parts.rows(f"{of('alpha')} - {of('alpha_baseline')}", "difference"),
            parts.rows(of("log_norm"), "norm"),
            parts.rows(of("log_spectral_norm"), "spectral"),
            parts.rows(of("stable_rank"), "rank"),
            parts.rows(parts.in_order_of_depth(worst_first), "worst"),
        )
        .with_transformation(parts.transformation("merge"))
        .with_transformation(parts.sort("depth"))
        .with_transformation(parts.sort("Value #worst", descending=True))
        .with_transformation(
            parts.columns(
                {
                    "layer": "Layer",
                    "Value #status": "Status",
                    "Value #alpha": "Alpha",
                    "Value #sigma": "± sigma",
                    "Value #baseline": "Alpha of the baseline",
                    "Value #difference": "Difference",
                    "Value #norm": "log10 norm²",
                    "Value #spectral": "log10 largest eigenvalue",
                    "Value #rank": "Stable rank",
                },
                "depth",
                "Value #worst",
            )
        )
        .override_by_name("Layer", [parts.prop("custom.minWidth", 240)])
        .override_by_name("Status", [*parts.coloured_words(parts.STATUSES), parts.prop("custom.width", 110)])
        .override_by_name("Alpha", parts.number("none", 2))
        .override_by_name("± sigma", parts.number("none", 2))
        .override_by_name("Alpha of the baseline", parts.number("none", 2))
        .override_by_name("Difference", parts.number("none", 2))
        .override_by_name("log10 norm²", parts.number("none", 2))
        .override_by_name("log10 largest eigenvalue", parts.number("none", 2))
        .override_by_name("Stable rank", parts.number("none", 1))
    )


def _history() -> parts.AnyPanel:
    return (
        sdk.heatmap.Panel()
        .title("${quantity:text} of each layer over time")
        .description(
            "One row per layer, one colour per value; a vertical line is a new version. A row that changes its colour at a "
            "line changed with that version. Choose above what is shown, and which layers."
        )
        .datasource(parts.DATA_SOURCE)
        .unit("none")
        .span(12)
        .height(14)
        .max_data_points(300)
        .with_target(
            parts.query(parts.in_order_of_depth(f"max by (layer) ($quantity{{{LAYER}}})"), "{{layer}}")
        )
        .calculate(False)
        .rows_frame(sdk.heatmap.RowsHeatmapOptions().layout(common.HeatmapCellLayout.AUTO))
        .cell_gap(1)
        .show_value(common.VisibilityMode.NEVER)
        .color(
            sdk.heatmap.HeatmapColorOptions()
            .mode(heatmap.HeatmapColorMode.SCHEME)
            .scheme("Viridis")
            .scale(heatmap.HeatmapColorScale.LINEAR)
            .exponent(1)
            .fill(BLUE)
            .steps(64)
            .reverse(False)
        )
        .y_axis(
            sdk.heatmap.YAxisConfig().unit("none").reverse(True).axis_placement(common.AxisPlacement.LEFT)
        )
        .tooltip(
            sdk.heatmap.HeatmapTooltip()
            .mode(common.TooltipDisplayMode.SINGLE)
            .y_histogram(False)
            .show_color_scale(True)
        )
        .show_legend()
        .cell_values(sdk.heatmap.CellValues().decimals(2).unit("none"))
    )


def _status_history() -> parts.AnyPanel:
    return (
        sdk.statetimeline.Panel()
        .title("Status of each layer over time")
        .description(
            "One row per layer. What turned broken or undecided and when: compare with the versions marked above. Layers "
            "that were never anything but ok are shown, too; narrow them down by name above."
        )
        .datasource(parts.DATA_SOURCE)
        .unit("none")
        .span(12)
        .height(14)
        .with_target(
            parts.query(
                parts.in_order_of_depth(f"max by (layer) (layerwatch_layer_status{{{LAYER}}})"), "{{layer}}"
            )
        )
        .mappings(parts.words(parts.STATUSES))
        .thresholds(parts.steps(GREY))
        .color_scheme(parts.by_thresholds())
        .merge_values(True)
        .show_value(common.VisibilityMode.NEVER)
        .row_height(0.9)
        .line_width(0)
        .fill_opacity(90)
        .per_page(40)
        .legend(
            sdk.common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
        )
        .tooltip(sdk.common.VizTooltipOptions().mode(common.TooltipDisplayMode.SINGLE))
    )


def _alpha_quantiles() -> parts.AnyPanel:
    panel = parts.graph(
        "Alpha over all layers",
        "Lowest, quarter, median, three quarters and highest alpha of the model. All of them moving together is another "
        "training; only the highest moving is one layer: find it in the table.",
        "none",
        12,
        parts.query(f"max by (quantile) (layerwatch_model_alpha{{{REF}}})", "{{quantile}}"),
    ).decimals(2)
    words = {"0": "lowest", "0.25": "quarter", "0.5": "median", "0.75": "three quarters", "1": "highest"}
    colors = {"0": ORANGE, "0.25": SKY, "0.5": BLUE, "0.75": SKY, "1": VERMILION}
    for quantile, word in words.items():
        panel = panel.override_by_name(
            quantile, [*parts.coloured(colors[quantile]), parts.prop("displayName", word)]
        )
    return panel


def _layers_by_status() -> parts.AnyPanel:
    panel = parts.graph(
        "Layers by status",
        "How many layers have which status. One broken layer is a damaged file or step; many are another model under "
        "the same name.",
        "none",
        12,
        parts.query(f"max by (status) (layerwatch_model_layers{{{REF}}})", "{{status}}"),
    )
    return parts.stacked(panel, parts.STATUSES)


def _experts() -> parts.AnyPanel:
    """A closed row: most models have no experts, and a closed row asks nothing."""

    def alpha(quantile: str) -> str:
        return f'max by (layer) (layerwatch_experts_alpha{{{LAYER}, quantile="{quantile}"}})'

    def experts(*status: str) -> str:
        return f'sum by (layer) (max by (layer, status) (layerwatch_experts{{{LAYER}, status=~"{"|".join(status)}"}}))'

    table = (
        parts.table(
            "Experts by layer",
            "Experts of one layer are too many for a series each: here is how their alpha is spread, and how many have "
            "which status. A suspect, broken or undecided expert has its own row among the layers above. One expert far "
            "from the others learned something else, or nothing.",
            24,
            8,
            parts.rows(alpha("0"), "lowest"),
            parts.rows(alpha("0.5"), "median"),
            parts.rows(alpha("1"), "highest"),
            parts.rows(experts(".+"), "experts"),
            parts.rows(experts("suspect"), "suspect"),
            parts.rows(experts("broken"), "broken"),
            parts.rows(experts("undecided"), "undecided"),
            parts.rows(parts.in_order_of_depth(experts(".+")), "depth"),
        )
        .with_transformation(parts.transformation("merge"))
        .with_transformation(parts.sort("depth"))
        .with_transformation(
            parts.columns(
                {
                    "layer": "Layer",
                    "Value #experts": "Experts",
                    "Value #broken": "Broken",
                    "Value #suspect": "Suspect",
                    "Value #undecided": "Undecided",
                    "Value #lowest": "Lowest alpha",
                    "Value #median": "Median alpha",
                    "Value #highest": "Highest alpha",
                },
                "depth",
                "Value #depth",
            )
        )
        .override_by_name("Layer", [parts.prop("custom.minWidth", 240)])
        .override_by_name("Broken", parts.coloured_from((1, VERMILION)))
        .override_by_name("Suspect", parts.coloured_from((1, ORANGE)))
        .override_by_name("Undecided", parts.coloured_from((1, PURPLE)))
        .override_by_regexp(".* alpha", parts.number("none", 2))
        .no_value("this model has no experts")
    )
    graph = parts.graph(
        "Alpha of the experts over time",
        "Quantiles of alpha over the experts of all layers that match. A gap that opens between the lowest and the "
        "highest means that experts drift apart.",
        "none",
        24,
        parts.query(f"min(layerwatch_experts_alpha{{{LAYER}}})", "lowest", "lowest"),
        parts.query(
            f'quantile(0.5, layerwatch_experts_alpha{{{LAYER}, quantile="0.5"}})', "median", "median"
        ),
        parts.query(f"max(layerwatch_experts_alpha{{{LAYER}}})", "highest", "highest"),
    ).decimals(2)
    for word, color in (("lowest", ORANGE), ("median", BLUE), ("highest", VERMILION)):
        graph = graph.override_by_name(word, parts.coloured(color))
    return parts.row("Experts (mixtures of experts only)").with_panel(table).with_panel(graph)
