from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.alerts.routing import Route, build_routes, group_labels, routes_for
from layerwatch.config.alerts import AlertsSettings
from layerwatch.config.matchers import Labels, all_match, parsed


def tree(route: str | Mapping[str, Any], *labels: str) -> Route:
    """The routes of a configuration in which owners give these labels."""
    given_route = yaml.safe_load(route) if isinstance(route, str) else route
    owners = [{"models": ["*"], "labels": dict.fromkeys(labels, "any")}] if labels else []
    mute_times = [{"name": name, "times": [{"weekdays": ["sat"]}]} for name in ("nights", "weekends")]
    names = sorted(set(_receivers(given_route)))
    built = build_routes(
        AlertsSettings.model_validate(
            {
                "owners": owners,
                "receivers": [{"name": name, "kind": "log"} for name in names],
                "route": given_route,
                "mute_times": mute_times,
            }
        )
    )
    assert built is not None
    return built


def _receivers(route: Mapping[str, Any]) -> Iterator[str]:
    if "receiver" in route:
        yield route["receiver"]
    for child in route.get("routes", ()):
        yield from _receivers(child)


def alert(**labels: str) -> dict[str, tuple[str, ...]]:
    return {name: (value,) for name, value in labels.items()}


# The tree and the expectations of Alertmanager's own TestRouteMatch (dispatch/route_test.go).
ALERTMANAGERS = """
receiver: notify-def
group_by: []
routes:
  - matchers: ['owner="team-A"']
    receiver: notify-a
    routes:
      - {matchers: ['env="testing"'], receiver: notify-testing, group_by: ["..."]}
      - {matchers: ['env="production"'], receiver: notify-production-a, group_wait: 1m, continue: true}
      - matchers: ['env=~"produ.*"', 'job=~".*"']
        receiver: notify-production-b
        group_wait: 30s
        group_interval: 5m
        repeat_interval: 1h
  - {matchers: ['owner=~"team-(B|C)"'], group_by: [foo, bar], group_wait: 2m, receiver: notify-bc}
  - matchers: ['group_by="role"']
    group_by: [role]
    routes:
      - matchers: ['env="testing"']
        receiver: notify-testing
        routes:
          - {matchers: ['wait="long"'], group_wait: 2m}
"""


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"owner": "team-A"}, [("notify-a", (), 30)]),
        ({"owner": "team-A", "env": "unset"}, [("notify-a", (), 30)]),
        ({"owner": "team-C"}, [("notify-bc", ("foo", "bar"), 120)]),
        ({"owner": "team-A", "env": "testing"}, [("notify-testing", None, 30)]),
        (
            {"owner": "team-A", "env": "production"},
            [("notify-production-a", (), 60), ("notify-production-b", (), 30)],
        ),
        ({"group_by": "role"}, [("notify-def", ("role",), 30)]),
        ({"env": "testing", "group_by": "role"}, [("notify-testing", ("role",), 30)]),
        ({"env": "testing", "group_by": "role", "wait": "long"}, [("notify-testing", ("role",), 120)]),
        ({"env": "testing"}, [("notify-def", (), 30)]),
    ],
)
def test_alerts_take_the_routes_that_they_take_in_alertmanager(
    labels: dict[str, str], expected: list[tuple[str, tuple[str, ...] | None, int]]
) -> None:
    root = tree(ALERTMANAGERS, "owner", "env", "job", "foo", "bar", "group_by", "role", "wait")
    assert [
        (route.receiver, route.group_by, route.group_wait.total_seconds())
        for route in routes_for(root, alert(**labels))
    ] == expected


def test_a_route_has_what_it_leaves_out_from_the_one_above_but_for_mute_times() -> None:
    root = tree(
        """
        receiver: a
        group_by: [model]
        group_wait: 1s
        group_interval: 2s
        repeat_interval: 3s
        mute_times: [weekends]
        routes:
          - matchers: [severity=critical]
            continue: true
            mute_times: [nights]
            routes:
              - {receiver: b, group_by: [], group_wait: 0s, group_interval: 0s}
        """
    )
    (child,) = root.routes
    (grandchild,) = child.routes
    assert (child.path, child.receiver, child.matchers, child.goes_on, child.group_by) == (
        "alerts.route.routes[0]",
        "a",
        parsed(["severity=critical"]),
        True,
        ("model",),
    )
    assert grandchild == Route(
        path="alerts.route.routes[0].routes[0]",
        receiver="b",
        matchers=(),
        goes_on=False,
        group_by=(),
        group_wait=timedelta(0),
        group_interval=timedelta(0),
        repeat_interval=timedelta(seconds=3),
        mute_times=(),
        routes=(),
    )
    assert [[one.name for one in route.mute_times] for route in (root, child)] == [["weekends"], ["nights"]]
    assert (root.path, root.matchers, root.goes_on) == ("alerts.route", (), False)


def test_without_a_route_nobody_is_told() -> None:
    assert build_routes(AlertsSettings()) is None


def test_a_sibling_after_a_match_is_tried_only_where_the_match_goes_on() -> None:
    route = """
    receiver: rest
    routes:
      - {matchers: [severity=critical], receiver: pager, continue: %s}
      - {matchers: [team=fraud], receiver: team}
      - {matchers: [model=~".*"], receiver: archive}
    """
    told = alert(severity="critical", team="fraud", model="m")
    assert [one.receiver for one in routes_for(tree(route % "false", "team"), told)] == ["pager"]
    assert [one.receiver for one in routes_for(tree(route % "true", "team"), told)] == ["pager", "team"]


def test_an_alert_of_several_rules_takes_the_route_of_any_of_them() -> None:
    root = tree("{receiver: a, routes: [{matchers: [rule=scaled, rule!=permuted], receiver: b}]}")
    assert routes_for(root, {"rule": ("swapped", "scaled")})[0].receiver == "b"
    assert routes_for(root, {"rule": ("scaled", "permuted")})[0].receiver == "a"


# A declarative reference: an alert comes to a route when all matchers from the root down to it match, and no route
# beside it or beside one above it is before it, takes the alert, and does not go on. It is told where it comes to
# nothing further below.

LABELS = st.dictionaries(
    st.sampled_from(["model", "ref", "version"]), st.lists(st.sampled_from("xy"), max_size=2).map(tuple)
)
MATCHERS = st.lists(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["model", "ref", "version"]),
        st.sampled_from(["=", "!=", "=~", "!~"]),
        st.sampled_from(["x", "y", ""]),
    ),
    max_size=2,
)


def child_routes(deeper: st.SearchStrategy[list[dict[str, Any]]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(
        st.fixed_dictionaries(
            {"matchers": MATCHERS, "continue": st.booleans(), "routes": deeper},
            optional={"receiver": st.sampled_from(["b", "c"])},
        ),
        max_size=4,
    ).map(_reachable)


def _reachable(routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the routes behind one that takes everything, which no configuration may hold."""
    ends = [n for n, route in enumerate(routes) if not route["matchers"] and not route["continue"]]
    return routes[: ends[0] + 1] if ends else routes


TREES = st.recursive(st.just([]), child_routes, max_leaves=12).map(
    lambda routes: {"receiver": "a", "routes": routes}
)


def expected_paths(root: Route, labels: Labels) -> list[str]:
    lines: list[tuple[Route, ...]] = [(root,)]  # each from the root down to a route
    for line in lines:
        lines.extend((*line, child) for child in line[-1].routes)

    def all_on(line: tuple[Route, ...]) -> bool:
        return all(all_match(route.matchers, labels) for route in line)

    def comes(line: tuple[Route, ...]) -> bool:
        barred = any(
            all_match(earlier.matchers, labels) and not earlier.goes_on
            for above, route in pairwise(line)
            for earlier in above.routes[: above.routes.index(route)]
        )
        return all_on(line) and not barred

    reached = {line[-1].path for line in lines if comes(line)}
    return sorted(
        path for path in reached if not any(other.startswith(f"{path}.routes[") for other in reached)
    )


@given(TREES, LABELS)
@settings(max_examples=300, deadline=None)
def test_every_alert_takes_the_routes_that_the_tree_says(route: dict[str, Any], labels: Labels) -> None:
    root = tree(route)
    found = routes_for(root, labels)
    assert found
    assert [one.path for one in found] == expected_paths(root, labels)


@given(TREES, LABELS)
@settings(max_examples=100, deadline=None)
def test_a_copy_of_everything_changes_no_other_route(route: dict[str, Any], labels: Labels) -> None:
    copy = {"receiver": "archive", "continue": True}
    with_copy = {**route, "routes": [copy, *route["routes"]]}
    before = [one.receiver for one in routes_for(tree(route), labels)]
    first, *after = (one.receiver for one in routes_for(tree(with_copy), labels))
    assert first == "archive"
    # The root itself is told only where no route below takes the alert.
    assert after == before or (after == [] and before == ["a"])


def grouped_by(*labels: str) -> Route:
    return tree({"receiver": "a", "group_by": list(labels)}, "team")


def test_a_group_is_known_by_the_labels_that_its_route_asks_for() -> None:
    labels = {"model": ("m",), "registry": ("r",), "rule": ("scaled", "emptied_layer"), "version": ("3",)}
    assert group_labels(grouped_by("registry", "model"), labels) == (("model", ("m",)), ("registry", ("r",)))
    assert group_labels(grouped_by(), labels) == ()


def test_all_labels_are_those_that_stay_while_an_alert_fires() -> None:
    labels = {
        "model": ("m",),
        "team": ("fraud",),
        "rule": ("scaled",),
        "version": ("3",),
        "severity": ("critical",),
    }
    assert [name for name, _ in group_labels(grouped_by("..."), labels)] == ["model", "team"]


@pytest.mark.parametrize("label", ["severity", "version", "rule"])
def test_a_group_is_not_known_by_what_changes_while_an_alert_fires(label: str) -> None:
    with pytest.raises(ValueError, match=f"must not hold {label}, which changes while an alert fires"):
        grouped_by(label)


def test_alerts_without_a_label_share_a_group() -> None:
    by_team = grouped_by("team")
    assert group_labels(by_team, {"team": ("fraud",)}) == (("team", ("fraud",)),)
    missing: list[Labels] = [{}, {"team": ()}, {"team": ("",)}]
    assert [group_labels(by_team, labels) for labels in missing] == [(), (), ()]


@given(LABELS, st.permutations(["model", "ref", "registry"]), st.randoms(use_true_random=False))
def test_a_group_does_not_depend_on_the_order_of_labels_or_values(
    labels: Labels, names: list[str], random: Random
) -> None:
    shuffled: Labels = {
        name: tuple(random.sample(labels[name], len(labels[name]))) for name in sorted(labels)
    }
    for route in (grouped_by(*names), grouped_by("...")):
        assert group_labels(route, labels) == group_labels(route, shuffled)
    assert group_labels(grouped_by(*names), labels) == group_labels(grouped_by(*sorted(names)), labels)
