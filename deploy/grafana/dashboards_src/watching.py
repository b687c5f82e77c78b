"""Fleet overview, its lower half: whether the watching itself works."""

from __future__ import annotations

from grafana_foundation_sdk.models import common

from dashboards_src import parts, sdk
from dashboards_src.parts import BLUE, GREY, ORANGE, PURPLE, SKY, VERMILION
from dashboards_src.selections import DAEMON, MODEL, REGISTRY

_LAST = f"layerwatch_last_success_timestamp_seconds{{{REGISTRY}}}"
SINCE_A_LOOK = (
    f"time() - ({_LAST} > 0) or ({_LAST} == 0) + on (job, instance) group_left () "
    f"(time() - process_start_time_seconds{{{DAEMON}}})"
)
"""Seconds; since the daemon's start for a registry that was never listed."""


_ATTEMPTED = f'{DAEMON}, reason!~"expired|receiver_removed"'
"""Failures of attempts; for the other reasons events are given up without one."""

_ALERT_STATES = (
    ("firing", VERMILION),
    ("acknowledged", ORANGE),
    ("muted", PURPLE),
    ("pending", SKY),
)
"""Values of the label ``state`` of ``layerwatch_alerts``; with the first one people are still being told."""


def registries() -> parts.AnyPanel:
    """Every registry: is it reached, and what went wrong there."""
    by = "job, instance, registry"
    return (
        parts.table(
            "Registries",
            "One row per registry. Not reached: the server is down or refuses, the daemon goes on trying. "
            "Misconfigured: only a person can mend it (a wrong token, an untrusted certificate). Failures, changes in "
            "place, refused events and verdicts that could not be written are counted over the time range shown. A "
            "change in place means that other bytes stand under an old version's name: find out who overwrote it.",
            24,
            7,
            parts.rows(f"max by ({by}) (layerwatch_registry_up{{{REGISTRY}}})", "up"),
            parts.rows(f"max by ({by}) (layerwatch_registry_misconfigured{{{REGISTRY}}})", "misconfigured"),
            parts.rows(f"max by ({by}) ({SINCE_A_LOOK})", "age"),
            parts.rows(f"max by ({by}) (layerwatch_registry_poll_interval_seconds{{{REGISTRY}}})", "poll"),
            parts.rows(
                f"sum by ({by}) (increase(layerwatch_registry_failures_total{{{REGISTRY}}}[$__range]))",
                "failures",
            ),
            parts.rows(
                f"sum by ({by}) (increase(layerwatch_content_changes_total{{{REGISTRY}}}[$__range]))",
                "changes",
            ),
            parts.rows(
                f"sum by ({by}) (increase(layerwatch_hook_events_total"
                f'{{{REGISTRY}, result!~"accepted|ignored"}}[$__range]))',
                "refused",
            ),
            parts.rows(
                f"sum by ({by}) (increase(layerwatch_verdict_write_failures_total{{{REGISTRY}}}[$__range]))",
                "writes",
            ),
        )
        .with_transformation(parts.transformation("merge"))
        .with_transformation(parts.sort("Value #up"))
        .with_transformation(
            parts.columns(
                {
                    "registry": "Registry",
                    "Value #up": "Reached",
                    "Value #misconfigured": "Configured",
                    "Value #age": "Not seen for",
                    "Value #poll": "Looks every",
                    "Value #failures": "Failures",
                    "Value #changes": "Changed in place",
                    "Value #refused": "Events refused",
                    "Value #writes": "Verdicts not written",
                    "instance": "Daemon",
                },
                "job",
            )
        )
        .override_by_name("Reached", parts.coloured_words(((0, "no", VERMILION), (1, "yes", BLUE))))
        .override_by_name("Configured", parts.coloured_words(((0, "yes", BLUE), (1, "wrongly", VERMILION))))
        .override_by_name("Not seen for", parts.number("s", 0))
        .override_by_name("Looks every", parts.number("s", 0))
        .override_by_name("Failures", [*parts.coloured_from((0.5, ORANGE)), parts.prop("decimals", 0)])
        .override_by_name(
            "Changed in place", [*parts.coloured_from((0.5, VERMILION)), parts.prop("decimals", 0)]
        )
        .override_by_name("Events refused", [*parts.coloured_from((0.5, ORANGE)), parts.prop("decimals", 0)])
        .override_by_name(
            "Verdicts not written", [*parts.coloured_from((0.5, ORANGE)), parts.prop("decimals", 0)]
        )
    )


def scans() -> list[parts.AnyPanel]:
    """The queue, and what became of the scans."""
    durations = f"sum by (le) (increase(layerwatch_scan_duration_seconds_bucket{{{DAEMON}}}[1h]))"
    return [
        parts.stat(
            "Waiting",
            "Versions that wait for their scan. A queue that does not get shorter needs more workers (scan.workers), or "
            "a scan hangs: see how long the oldest has been waiting.",
            "none",
            4,
            parts.now(f"sum(layerwatch_scan_queue_length{{{DAEMON}}})"),
        )
        .height(8)
        .thresholds(parts.steps(GREY, (50, ORANGE))),
        parts.stat(
            "Oldest waits since",
            "How long the oldest waiting version has been waiting. Hours mean that scans hang or fail again and again: "
            "read the daemon's log for its name.",
            "s",
            4,
            parts.now(f"max(time() - layerwatch_scan_queue_oldest_timestamp_seconds{{{DAEMON}}})"),
        )
        .height(8)
        .decimals(0)
        .thresholds(parts.steps(GREY, (3600, ORANGE), (6 * 3600, VERMILION)))
        .no_value("nothing waits"),
        parts.graph(
            "Scans per hour",
            "Scans begun and scans that failed as a whole, in the hour before each moment. Failed ones make their "
            "version undecided; the reasons are in the table.",
            "none",
            8,
            parts.query(f"sum(increase(layerwatch_scans_total{{{DAEMON}}}[1h]))", "begun", "begun"),
            parts.query(f"sum(increase(layerwatch_scan_failures_total{{{DAEMON}}}[1h]))", "failed", "failed"),
        )
        .min(0)
        .height(8)
        .override_by_name("begun", parts.coloured(BLUE))
        .override_by_name("failed", parts.coloured(PURPLE)),
        parts.graph(
            "How long a scan takes",
            "From claiming a version to its verdict, in the hour before each moment. Times that grow towards "
            "scan.timeout end as undecided versions: give the scan more threads, or more time.",
            "s",
            8,
            parts.query(f"histogram_quantile(0.5, {durations})", "half are faster", "median"),
            parts.query(f"histogram_quantile(0.95, {durations})", "95 % are faster", "p95"),
        )
        .min(0)
        .override_by_name("half are faster", parts.coloured(SKY))
        .override_by_name("95 % are faster", parts.coloured(BLUE)),
        parts.table(
            "Why scans failed",
            "Scans that could not examine their version, by reason, over the time range shown. Each left a version "
            "undecided; `layerwatch scan` on the same files says more.",
            24,
            5,
            parts.rows(
                f"sum by (instance, reason) (increase(layerwatch_scan_failures_total{{{DAEMON}}}[$__range])) > 0",
                "failures",
            ),
        )
        .with_transformation(parts.columns({"reason": "Reason", "Value": "Scans", "instance": "Daemon"}))
        .with_transformation(parts.sort("Scans", descending=True))
        .override_by_name("Scans", parts.number("none", 0))
        .no_value("none failed"),
    ]


def delivery() -> list[parts.AnyPanel]:
    """What the receivers were told, and what they did not take."""
    return [
        parts.graph(
            "Delivered per hour",
            "Events that each receiver took, in the hour before each moment. Nothing while models fail means that nobody "
            "is told: see the failed attempts beside.",
            "none",
            8,
            parts.query(
                f"sum by (receiver) (increase(layerwatch_notifications_total{{{DAEMON}}}[1h]))"
                f" - sum by (receiver) (increase(layerwatch_notification_failures_total{{{_ATTEMPTED}}}[1h]))",
                "{{receiver}}",
            ),
        ).min(0),
        parts.graph(
            "Failed attempts per hour",
            "Attempts that a receiver did not take, by reason, in the hour before each moment. They are tried again, "
            "less and less often. Check the receiver's address, its secret and what it logged.",
            "none",
            8,
            parts.query(
                "sum by (receiver, reason) "
                f"(increase(layerwatch_notification_failures_total{{{_ATTEMPTED}}}[1h])) > 0",
                "{{receiver}}: {{reason}}",
            ),
        )
        .min(0)
        .no_value("none failed"),
        parts.graph(
            "Oldest undelivered event",
            "Age of the oldest event that is neither delivered nor given up; 0 when there is none. Above a quarter of "
            "an hour somebody is not being told.",
            "s",
            8,
            parts.query(f"layerwatch_outbox_oldest_age_seconds{{{DAEMON}}}", "{{instance}}"),
        )
        .min(0)
        .thresholds(parts.steps("transparent", (900, VERMILION)))
        .thresholds_style(sdk.common.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.LINE)),
        _alerts_by_state(),
        parts.graph(
            "Waiting by receiver",
            "Events that are neither delivered nor given up. They wait for a receiver that is down, or that is slower than "
            "alerts come up; the others are not delayed by it. A line that does not fall ends with events given up.",
            "none",
            8,
            parts.query(
                f"sum by (receiver) (layerwatch_outbox_waiting{{{DAEMON}}})",
                "{{receiver}}",
            ),
        )
        .min(0)
        .decimals(0),
        _receivers(),
    ]


def _alerts_by_state() -> parts.AnyPanel:
    """The daemon's own alerts."""
    panel = parts.graph(
        "layerwatch's own alerts",
        "Alerts by state. Of those that fire people are told; acknowledged ones are not repeated, muted ones (silenced or "
        "inhibited) are not told at all, pending ones wait for confirmation. `layerwatch alert list` names them.",
        "none",
        8,
        *(
            parts.query(f'sum(layerwatch_alerts{{{DAEMON}, state="{state}"}})', state, state)
            for state, _ in _ALERT_STATES
        ),
    )
    return parts.stacked(panel, tuple((index, *one) for index, one in enumerate(_ALERT_STATES)))


def _receivers() -> parts.AnyPanel:
    by = "job, instance, receiver"
    return (
        parts.table(
            "Receivers",
            "One row per receiver. No more asked: it answered 410 and is left alone until the configuration is loaded again. "
            "Given up: events, over the time range shown, that it never took; `layerwatch delivery list` says why, and "
            "`layerwatch delivery replay` sends them again.",
            8,
            8,
            parts.rows(f"max by ({by}) (layerwatch_receiver_disabled{{{DAEMON}}})", "disabled"),
            parts.rows(
                f"sum by ({by}) (increase(layerwatch_notifications_given_up_total{{{DAEMON}}}[$__range]))",
                "given_up",
            ),
        )
        .with_transformation(parts.transformation("merge"))
        .with_transformation(parts.sort("Value #given_up", descending=True))
        .with_transformation(
            parts.columns(
                {
                    "receiver": "Receiver",
                    "Value #disabled": "Asked",
                    "Value #given_up": "Given up",
                    "instance": "Daemon",
                },
                "job",
            )
        )
        .override_by_name("Asked", parts.coloured_words(((0, "yes", BLUE), (1, "no more", VERMILION))))
        .override_by_name("Given up", [*parts.coloured_from((0.5, VERMILION)), parts.prop("decimals", 0)])
    )


def daemons() -> list[parts.AnyPanel]:
    """The daemons: configuration, size, errors, loops."""
    by = "job, instance, loop"
    beat = f"max by ({by}) (layerwatch_loop_last_beat_timestamp_seconds{{{DAEMON}}})"
    limit = f"max by ({by}) (layerwatch_loop_limit_seconds{{{DAEMON}}})"
    return [
        parts.stat(
            "Configuration",
            "Whether the last attempt to load the configuration succeeded. If not, the daemon goes on with the old one: "
            "`layerwatch config check` lists everything that is wrong with the new one.",
            "none",
            4,
            parts.now(f"min(layerwatch_config_last_reload_successful{{{DAEMON}}})"),
        )
        .mappings(parts.words(((0, "refused", VERMILION), (1, "loaded", GREY))))
        .thresholds(parts.steps(VERMILION, (1, GREY))),
        parts.stat(
            "Series left out",
            "Layer series that are not exported because of the cap per model. Layers that are fine are left out first. "
            "Raise the cap (metrics in the configuration), or look at the report instead of these pages.",
            "none",
            4,
            parts.now(f"sum(layerwatch_series_dropped{{{MODEL}}})"),
        ).thresholds(parts.steps(GREY, (1, ORANGE))),
        parts.stat(
            "Unexpected errors",
            "Errors in a loop that nothing foresaw, over the time range shown. Each is a bug: please report it with the "
            "traceback in the daemon's log.",
            "none",
            4,
            parts.now(f"sum(increase(layerwatch_cycle_errors_total{{{DAEMON}}}[$__range]))"),
        )
        .decimals(0)
        .thresholds(parts.steps(GREY, (0.5, VERMILION))),
        parts.stat(
            "Series exported",
            "Series about models in the snapshot that Prometheus scrapes, all daemons together.",
            "none",
            4,
            parts.now(f"sum(layerwatch_exposition_series{{{DAEMON}}})"),
        ),
        parts.stat(
            "Size of a scrape",
            "Bytes of the largest snapshot before compression. Prometheus refuses what is beyond its body_size_limit.",
            "bytes",
            4,
            parts.now(f"max(layerwatch_exposition_bytes{{{DAEMON}}})"),
        ),
        parts.stat(
            "Time to render it",
            "What rendering the largest snapshot took; it is done once per change, not once per scrape.",
            "s",
            4,
            parts.now(f"max(layerwatch_exposition_render_seconds{{{DAEMON}}})"),
        ),
        parts.table(
            "Loops",
            "One row per loop of each daemon. A loop that has been silent for longer than its limit is stuck: "
            "/-/healthy says so too, and a liveness probe restarts the daemon.",
            12,
            9,
            parts.rows(f"time() - {beat}", "silent"),
            parts.rows(limit, "limit"),
            parts.rows(f"(time() - {beat}) / {limit}", "share"),
        )
        .with_transformation(parts.transformation("merge"))
        .with_transformation(parts.sort("Value #share", descending=True))
        .with_transformation(
            parts.columns(
                {
                    "loop": "Loop",
                    "Value #share": "Of its limit",
                    "Value #silent": "Silent for",
                    "Value #limit": "Limit",
                    "instance": "Daemon",
                },
                "job",
            )
        )
        .override_by_name(
            "Of its limit",
            [
                *parts.coloured_from((0.5, ORANGE), (1, VERMILION), unit="percentunit"),
                parts.prop("decimals", 0),
            ],
        )
        .override_by_name("Silent for", parts.number("s", 0))
        .override_by_name("Limit", parts.number("s", 0)),
        parts.graph(
            "Memory of the daemons",
            "Resident memory of the daemon itself; scans run in child processes and are not in it. A line that rises "
            "for days is a leak: please report it.",
            "bytes",
            6,
            parts.query(f"process_resident_memory_bytes{{{DAEMON}}}", "{{instance}}"),
        )
        .min(0)
        .height(9),
        parts.graph(
            "95 % of cycles are faster than",
            "How long one cycle of each kind of loop takes. A watch that takes longer than its poll interval looks less "
            "often than configured: raise the interval or narrow down the models.",
            "s",
            6,
            parts.query(
                "histogram_quantile(0.95, sum by (le, loop) "
                f"(rate(layerwatch_cycle_duration_seconds_bucket{{{DAEMON}}}[$__rate_interval])))",
                "{{loop}}",
            ),
        )
        .min(0)
        .height(9),
    ]
