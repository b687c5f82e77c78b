"""Fleet overview: is anything wrong with any model, and does the watching itself work?"""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard

from dashboards_src import parts, sdk, watching
from dashboards_src.parts import BLUE, GREY, ORANGE, PURPLE, REF, VERMILION
from dashboards_src.selections import DAEMON, MODEL, REGISTRY

_MODEL_PAGE = (
    f"/d/{parts.MODEL_UID}?${{datasource:queryparam}}&var-job=${{__data.fields.job:percentencode}}"
    "&var-instance=${__data.fields.Daemon:percentencode}&var-registry=${__data.fields.Registry:percentencode}"
    "&var-model=${__data.fields.Model:percentencode}&var-ref=${__data.fields.Ref:percentencode}&${__url_time_range}"
)

_WORST_FIRST = (
    f"max by ({REF}) ((layerwatch_model_verdict{{{MODEL}}} == bool 2) * 3"
    f" + (layerwatch_model_verdict{{{MODEL}}} == bool 3) * 2 + (layerwatch_model_verdict{{{MODEL}}} == bool 1))"
    f' + max by ({REF}) (clamp_max(layerwatch_model_layers{{{MODEL}, status="broken"}}, 999999)) / 1e6'
)
"""fail, then undecided, then warn, then pass; among equals those with more broken layers first."""


def build() -> sdk.dashboard.Dashboard:
    """The whole dashboard."""
    found = (
        sdk.dashboard.Dashboard("layerwatch / Fleet")
        .uid(parts.FLEET_UID)
        .description(
            "All models that layerwatch watches, the worst first, and whether the watching itself works."
        )
        .tags([parts.TAG])
        .refresh("1m")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .editable()
        .link(
            parts.titled_link(
                "One model", f"/d/{parts.MODEL_UID}?${{datasource:queryparam}}", "The layers of one model."
            )
        )
    )
    for variable in _variables():
        found = found.with_variable(variable)
    panels = (
        *_verdict_counts(),
        _daemons_up(),
        _longest_since_listed(),
        _models(),
        _verdicts_over_time(),
        _alerts(),
        parts.row("Registries"),
        watching.registries(),
        parts.row("Scans"),
        *watching.scans(),
        parts.row("Alerts and their delivery"),
        *watching.delivery(),
        parts.row("The daemons themselves"),
        *watching.daemons(),
    )
    for panel in panels:
        found = found.with_row(panel) if isinstance(panel, sdk.dashboard.Row) else found.with_panel(panel)
    return found


def _variables() -> tuple[parts.Variable, ...]:
    registries = f'{{__name__=~"layerwatch_registry_up|layerwatch_model_verdict", {DAEMON}}}'
    return (
        parts.data_source(),
        parts.any_values("job", "Job", "layerwatch_build_info", "Scrape job of the daemons."),
        parts.any_values(
            "instance", "Daemon", 'layerwatch_build_info{job=~"$job"}', "Address of the daemon."
        ),
        parts.any_values(
            "registry", "Registry", registries, "Registry, as the daemon's configuration names it."
        ),
        parts.any_values(
            "model", "Model", f"layerwatch_model_verdict{{{REGISTRY}}}", "Model in the registry."
        ),
    )


def _verdict_counts() -> list[parts.AnyPanel]:
    counts = (
        (
            2,
            "fail",
            "Failed",
            VERMILION,
            "Open the first rows of the table: the model's page names the layers.",
        ),
        (
            3,
            "undecided",
            "Undecided",
            PURPLE,
            (
                "Something that had to be examined could not be, so nothing good is known of these: see the failed scans "
                "below and the skipped tensors in the report."
            ),
        ),
        (
            1,
            "warn",
            "Warned",
            ORANGE,
            "Look at them before they are promoted; nobody needs to get up for it.",
        ),
        (0, "pass", "Passed", BLUE, "Nothing to do. A sudden fall means that refs disappeared."),
    )
    return [
        parts.stat(
            title,
            f"Refs whose version has the verdict {word}. {advice}",
            "none",
            4,
            parts.now(f"sum(layerwatch_model_verdict{{{MODEL}}} == bool {value})"),
        )
        .thresholds(parts.steps(GREY, (1, color)))
        .no_value("nothing watched")
        for value, word, title, color, advice in counts
    ]


def _daemons_up() -> parts.AnyPanel:
    return parts.stat(
        "Daemons",
        "Daemons that are scraped. When there are none, look at the targets page of Prometheus: every other panel is "
        "empty for that reason alone.",
        "none",
        4,
        parts.now(f"count(layerwatch_build_info{{{DAEMON}}})"),
    ).no_value("none is scraped")


def _longest_since_listed() -> parts.AnyPanel:
    return (
        parts.stat(
            "Longest without a look",
            "Time since the last good look at a registry, the worst one; since the daemon's start where there was none. What "
            "was published there since is not known. The table of registries below says which it is.",
            "s",
            4,
            parts.now(f"max({watching.SINCE_A_LOOK})"),
        )
        .decimals(0)
        .thresholds(parts.steps(GREY, (3600, ORANGE), (6 * 3600, VERMILION)))
        .no_value("no registry")
    )


def _models() -> parts.AnyPanel:
    def layers(status: str) -> str:
        return f'max by ({REF}) (layerwatch_model_layers{{{MODEL}, status="{status}"}})'

    return (
        parts.table(
            "Models, the worst first",
            "One row per ref: the version it points at now, and how many of its layers are broken. Click on a model for "
            "its layers. The report is linked where the daemon knows its own address (server.external_url).",
            24,
            10,
            parts.rows(f"max by ({REF}) (layerwatch_model_verdict{{{MODEL}}})", "verdict"),
            parts.rows(layers("broken"), "broken"),
            parts.rows(layers("suspect"), "suspect"),
            parts.rows(layers("undecided"), "undecided"),
            parts.rows(f"sum by ({REF}) (layerwatch_model_layers{{{MODEL}}})", "layers"),
            parts.rows(
                f"max by ({REF}) (layerwatch_model_judged_timestamp_seconds{{{MODEL}}}) * 1000", "judged"
            ),
            parts.rows(
                f"max by ({REF}, version, baseline, relation) (layerwatch_model_info{{{MODEL}}})", "info"
            ),
            parts.rows(f"max by ({REF}, url) (layerwatch_model_report_info{{{MODEL}}})", "report"),
            parts.rows(_WORST_FIRST, "order"),
        )
        .with_transformation(parts.transformation("merge"))
        .with_transformation(parts.sort("Value #order", descending=True))
        .with_transformation(
            parts.columns(
                {
                    "registry": "Registry",
                    "model": "Model",
                    "ref": "Ref",
                    "version": "Version",
                    "Value #verdict": "Verdict",
                    "Value #broken": "Broken",
                    "Value #suspect": "Suspect",
                    "Value #undecided": "Undecided",
                    "Value #layers": "Layers",
                    "Value #judged": "Judged",
                    "baseline": "Against",
                    "relation": "Relation",
                    "url": "Report",
                    "instance": "Daemon",
                    "job": "job",
                },
                "Value #info",
                "Value #report",
                "Value #order",
            )
        )
        .override_by_name("Model", [parts.link("The layers of this model", _MODEL_PAGE)])
        .override_by_name("Verdict", [*parts.coloured_words(parts.VERDICTS), parts.width(100)])
        .override_by_name("Broken", [*parts.coloured_from((1, VERMILION)), parts.width(90)])
        .override_by_name("Suspect", [*parts.coloured_from((1, ORANGE)), parts.width(90)])
        .override_by_name("Undecided", [*parts.coloured_from((1, PURPLE)), parts.width(100)])
        .override_by_name("Layers", [parts.width(80)])
        .override_by_name("Judged", parts.number("dateTimeFromNow", width=140))
        .override_by_name(
            "Report",
            [
                parts.link("layerwatch's report", "${__value.raw}", blank=True),
                parts.shown_as("open"),
                parts.width(80),
            ],
        )
        .override_by_name("job", [parts.prop("custom.hidden", True)])
    )


def _verdicts_over_time() -> parts.AnyPanel:
    panel = parts.graph(
        "Verdicts over time",
        "Refs by verdict. A step up of fail or undecided is a new version, a moved ref or a registry that broke: the "
        "model's page marks each new version.",
        "none",
        12,
        *(
            parts.query(f"sum(layerwatch_model_verdict{{{MODEL}}} == bool {value})", word, word)
            for value, word, _ in parts.VERDICTS
        ),
    )
    return parts.stacked(panel, parts.VERDICTS)


def _alerts() -> parts.AnyPanel:
    return (
        parts.table(
            "Alerts of Prometheus that fire",
            "Alerts of the rules in deploy/prometheus, where they are loaded; empty when none fires, and when the rules "
            "are not loaded. Each rule's runbook says what to do.",
            12,
            8,
            parts.rows(
                'max by (alertname, severity, registry, model, ref) (ALERTS{alertname=~"Layerwatch.+", '
                'alertname!="LayerwatchHeartbeat", alertstate="firing"})',
                "alerts",
            ),
        )
        .with_transformation(
            parts.columns(
                {
                    "severity": "Severity",
                    "alertname": "Alert",
                    "registry": "Registry",
                    "model": "Model",
                    "ref": "Ref",
                },
                "Value",
            )
        )
        .override_by_name("Severity", [parts.width(90)])
        .override_by_name("Alert", [parts.prop("custom.minWidth", 260)])
        .no_value("-")
    )
