"""The tree of routes, mute times and inhibitions as they are configured."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from layerwatch.config.crosschecks import known_labels, matcher_mistake
from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings
from layerwatch.config.matchers import parse_matcher
from layerwatch.config.redaction import dump_redacted

Writer = Callable[[str], Path]

FULL = """
alerts:
  owners:
    - {models: ["prod/*"], labels: {team: fraud}}
  receivers:
    - {name: oncall, kind: log}
    - {name: pager, kind: log}
    - {name: beat, kind: heartbeat, url: "https://example.org/ping"}
  route:
    receiver: oncall
    group_by: []
    group_wait: 0s
    group_interval: 0s
    routes:
      - matchers: ['severity="critical"', team=fraud]
        receiver: pager
        continue: true
        mute_times: [nights]
        routes:
          - {matchers: ["rule=scaled"], group_by: ["..."], repeat_interval: 1h}
          - group_by:
            routes:
  mute_times:
    - {name: nights, times: [{weekdays: [sat]}]}
  inhibitions:
    - {source: ['rule_group="integrity"'], target: ['rule_group="weights"']}
"""


def alerts_with(route: str) -> str:
    """FULL with another route, given as a flow mapping."""
    above, below = FULL.index("  route:"), FULL.index("  mute_times:\n    -")
    return f"{FULL[:above]}  route: {route}\n{FULL[below:]}"


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


def test_a_tree_of_routes_is_read(write_config: Writer) -> None:
    alerts = load_settings(write_config(FULL), {}).alerts
    assert alerts.route is not None
    assert (alerts.route.group_by, alerts.route.repeat_interval) == ((), timedelta(hours=12))
    assert (alerts.route.group_wait, alerts.route.group_interval) == (timedelta(0), timedelta(0))
    (child,) = alerts.route.routes
    assert (child.receiver, child.goes_on, child.mute_times) == ("pager", True, ("nights",))
    first, second = child.routes
    assert (first.receiver, first.goes_on, first.group_by) == (None, False, ("...",))
    assert (second.matchers, second.group_by, second.routes) == ((), None, ())
    assert alerts.inhibitions[0].equal == ("registry", "model", "ref")
    assert (alerts.mute_times[0].zone, alerts.mute_times[0].times[0].hours) == ("UTC", ())


def test_the_defaults_of_the_root_are_those_of_the_documentation(write_config: Writer) -> None:
    route = load_settings(write_config(alerts_with("{receiver: oncall}")), {}).alerts.route
    assert route is not None
    assert (route.group_by, route.mute_times, route.routes) == (("registry", "model"), (), ())
    assert (route.group_wait, route.group_interval, route.repeat_interval) == (
        timedelta(seconds=30),
        timedelta(minutes=5),
        timedelta(hours=12),
    )


def test_what_is_printed_can_be_loaded_again(write_config: Writer) -> None:
    settings = load_settings(write_config(FULL), {})
    printed = yaml.safe_load(dump_redacted(settings))["alerts"]
    (child,) = printed["route"]["routes"]
    assert (child["continue"], child["group_wait"]) == (True, None)
    assert "goes_on" not in child
    printed["receivers"] = [{"name": name, "kind": "log"} for name in ("oncall", "pager")]
    again = load_settings(write_config(yaml.safe_dump({"alerts": printed})), {}).alerts
    assert (again.route, again.mute_times, again.inhibitions, again.owners) == (
        settings.alerts.route,
        settings.alerts.mute_times,
        settings.alerts.inhibitions,
        settings.alerts.owners,
    )


def test_routes_can_be_set_by_the_environment(write_config: Writer) -> None:
    env = {
        "LAYERWATCH_ALERTS__ROUTE__GROUP_WAIT": "1m",
        "LAYERWATCH_ALERTS__ROUTE__ROUTES": '[{"matchers": ["team=fraud"], "continue": true}]',
    }
    route = load_settings(write_config(FULL), env).alerts.route
    assert route is not None
    assert (route.receiver, route.group_wait) == ("oncall", timedelta(minutes=1))
    assert [(child.matchers, child.goes_on) for child in route.routes] == [(("team=fraud",), True)]


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ("{receiver: pagr}", 'alerts.route.receiver: unknown receiver "pagr", did you mean "pager"?'),
        (
            "{receiver: beat}",
            'alerts.route.receiver: "beat" is a heartbeat, which is told of no alerts; choose another receiver',
        ),
        (
            "{receiver: pager, routes: [{matchers: [team=fraud]}, {receiver: zzz}]}",
            'alerts.route.routes[1].receiver: unknown receiver "zzz"; known: oncall, pager',
        ),
        (
            "{receiver: pager, routes: [{routes: [{mute_times: [nigts]}]}]}",
            'alerts.route.routes[0].routes[0].mute_times[0]: unknown mute time "nigts", did you mean "nights"?',
        ),
        (
            "{receiver: pager, routes: [{matchers: [teem=fraud]}]}",
            'alerts.route.routes[0].matchers[0]: unknown label "teem", did you mean "team"?',
        ),
        (
            "{receiver: pager, routes: [{matchers: ['severity=\"crit\"']}]}",
            'alerts.route.routes[0].matchers[0]: unknown severity "crit", did you mean "critical"?',
        ),
        (
            "{receiver: pager, group_by: [registry, modle]}",
            'alerts.route.group_by[1]: unknown label "modle", did you mean "model"?',
        ),
        (
            "{receiver: pager, group_by: [model, ...]}",
            'alerts.route.group_by: must be ["..."], for all labels, or a list of labels without ...',
        ),
        (
            "{receiver: pager, group_by: [model, ref, model]}",
            "alerts.route.group_by: names the same label twice, at 0 and 2",
        ),
        (
            "{receiver: pager, routes: [{matchers: [team=fraud]}, {}, {receiver: oncall}]}",
            (
                "alerts.route.routes[2]: is never reached, because routes[1] beside it takes every alert; give that "
                "one matchers, or continue: true"
            ),
        ),
        ("{receiver: pager, repeat_interval: 0s}", "alerts.route.repeat_interval: must be longer than 0s"),
    ],
)
def test_a_mistake_in_a_route_is_told_with_its_place(write_config: Writer, route: str, problem: str) -> None:
    assert problems(write_config(alerts_with(route))) == [problem]
    # Together with a mistake that keeps the settings from being built, it is told as well.
    elsewhere = "\nscan: {workers: 0}\n"
    assert set(problems(write_config(alerts_with(route) + elsewhere))) == {
        problem,
        "scan.workers: must be at least 1",
    }


def test_mistakes_of_one_kind_are_told_from_the_top_down(write_config: Writer) -> None:
    route = "{receiver: u, routes: [{matchers: [ref=a], routes: [{receiver: v}]}, {receiver: w}]}"
    env = {"LAYERWATCH_ALERTS__ROUTE": str(yaml.safe_load(route)).replace("'", '"')}
    with pytest.raises(ConfigError) as caught:
        load_settings(write_config(FULL), env)
    assert [problem.path for problem in caught.value.problems] == [
        "alerts.route.receiver",
        "alerts.route.routes[0].routes[0].receiver",
        "alerts.route.routes[1].receiver",
    ]


def test_the_root_takes_every_alert(write_config: Writer) -> None:
    told = problems(write_config(alerts_with("{receiver: pager, matchers: [team=fraud], continue: false}")))
    assert [problem.partition(";")[0] for problem in told] == [
        "alerts.route.matchers: unknown key",
        "alerts.route.continue: unknown key",
    ]


def test_a_receiver_that_no_route_leads_to_is_no_mistake(write_config: Writer) -> None:
    load_settings(write_config(alerts_with("{receiver: oncall}")), {})


def test_heartbeats_alone_need_no_route(write_config: Writer) -> None:
    receiver = '{name: beat, kind: heartbeat, url: "https://example.org/ping"}'
    load_settings(write_config(f"alerts: {{receivers: [{receiver}]}}"), {})


@pytest.mark.parametrize(
    ("inhibition", "problem"),
    [
        ("{source: [], target: [a]}", "source: must not be empty"),
        ("{source: [rule=scaled], target: [rul=a]}", 'target[0]: unknown label "rul", did you mean "rule"?'),
        ("{source: [rule=a], target: [rule=b], equal: [modl]}", 'equal[0]: unknown label "modl"'),
        ("{source: [rule=a], target: [rule=b], equal: ['...']}", 'equal[0]: unknown label "..."'),
        ("{target: [rule=b]}", "source: is missing"),
    ],
)
def test_a_mistake_in_an_inhibition_is_told_with_its_place(
    write_config: Writer, inhibition: str, problem: str
) -> None:
    text = FULL[: FULL.index("  inhibitions:")] + f"  inhibitions: [{inhibition}]\n"
    assert any(one.startswith(f"alerts.inhibitions[0].{problem}") for one in problems(write_config(text)))


def test_what_a_silence_asks_for_can_be_checked_by_the_same_words(write_config: Writer) -> None:
    known = known_labels(load_settings(write_config(FULL), {}).alerts.owners)
    assert list(known) == ["registry", "model", "ref", "rule_group", "severity", "version", "rule", "team"]
    assert matcher_mistake(parse_matcher("team=fraud"), known) is None
    assert matcher_mistake(parse_matcher("team=another"), known) is None
    assert matcher_mistake(parse_matcher("severity=~crit.*"), known) is None
    assert matcher_mistake(parse_matcher("severity!=crit"), known) == (
        'unknown severity "crit", did you mean "critical"?'
    )
    assert matcher_mistake(parse_matcher("tier=1"), known) == (
        'unknown label "tier"; known: registry, model, ref, rule_group, severity, version, rule, team'
    )


def test_mistakes_of_routing_are_told_beside_all_others(write_config: Writer) -> None:
    text = """
alerts:
  owners: [{models: [fraud-*], labels: {team: 5}}]
  receivers: [{name: a, kind: lgo}]
  route: {receiver: b, routes: [5, {matchers: ["team=(", tem=x]}]}
  mute_times: [{name: n, times: []}, {name: n, times: [{}]}]
"""
    assert [problem.partition(": ")[0] for problem in problems(write_config(text))] == [
        "alerts.owners[0].models[0]",
        "alerts.owners[0].labels.team",
        "alerts.receivers[0].kind",
        "alerts.route.routes[0]",
        "alerts.route.receiver",
        "alerts.route.routes[1].matchers[1]",
        "alerts.mute_times[0].times",
        "alerts.mute_times[1].times[0]",
        "alerts.mute_times[1].name",
    ]
