"""Which routes an alert takes, and with which other alerts it is told: pure functions.

The rules are Alertmanager's (https://prometheus.io/docs/alerting/latest/configuration/#route).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from layerwatch.alerts.mutetimes import MuteTime, build_mute_time
from layerwatch.config.alerts import AlertsSettings
from layerwatch.config.matchers import ALL_LABELS, CHANGING_LABELS, Labels, Matcher, all_match, parsed
from layerwatch.config.routes import ChildRouteSettings

GroupLabels = tuple[tuple[str, tuple[str, ...]], ...]
"""Names and values of the labels that the alerts of a group have in common, sorted."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route with everything filled in that it has from the routes above it.

    Attributes:
        path: where it stands in the configuration: ``alerts.route.routes[1]``.
        receiver: name of the receiver.
        matchers: its own; those of the routes above it must match, too.
        goes_on: whether an alert that came here also tries the routes after this one (``continue``).
        group_by: labels that the alerts of a group have in common; None for all that do not change.
        group_wait: how long the first alert of a group waits for others.
        group_interval: least time between two messages about a group.
        repeat_interval: how often an alert that goes on is told again.
        mute_times: when nothing is told here.
        routes: where some of its alerts go instead.
    """

    path: str
    receiver: str
    matchers: tuple[Matcher, ...]
    goes_on: bool
    group_by: tuple[str, ...] | None
    group_wait: timedelta
    group_interval: timedelta
    repeat_interval: timedelta
    mute_times: tuple[MuteTime, ...]
    routes: tuple[Route, ...]


def build_routes(settings: AlertsSettings) -> Route | None:
    """The tree of routes; None without a route, which is a configuration that tells nobody."""
    root = settings.route
    if root is None:
        return None
    mute_times = {one.name: build_mute_time(one) for one in settings.mute_times}
    bare = Route(
        path="alerts.route",
        receiver=root.receiver,
        matchers=(),
        goes_on=False,
        group_by=_group_by(root.group_by),
        group_wait=root.group_wait,
        group_interval=root.group_interval,
        repeat_interval=root.repeat_interval,
        mute_times=tuple(mute_times[name] for name in root.mute_times),
        routes=(),
    )
    return _with_routes(bare, root.routes, mute_times)


def routes_for(root: Route, labels: Labels) -> tuple[Route, ...]:
    """The routes by which an alert with these labels is told, at least one, in the order of the configuration.

    An alert comes to the root, and from each route that it comes to tries the routes below in their order: it comes to
    those whose matchers all match, up to the first that does not go on. Where it comes to none, it is told there.
    """
    return _found(root, labels) or (root,)


def group_labels(route: Route, labels: Labels) -> GroupLabels:
    """What an alert has in common with those that are told together with it by this route; a group is known by it.

    Labels that the alert does not have are left out.
    """
    names = labels.keys() - CHANGING_LABELS if route.group_by is None else set(route.group_by)
    values = {name: tuple(sorted(set(labels.get(name, ())))) for name in names}
    return tuple(sorted((name, value) for name, value in values.items() if value not in ((), ("",))))


def _with_routes(
    above: Route, children: tuple[ChildRouteSettings, ...], mute_times: Mapping[str, MuteTime]
) -> Route:
    """``above`` with the routes below it."""
    routes = tuple(
        _with_routes(_child(above, position, child, mute_times), child.routes, mute_times)
        for position, child in enumerate(children)
    )
    return replace(above, routes=routes)


def _child(
    above: Route, position: int, settings: ChildRouteSettings, mute_times: Mapping[str, MuteTime]
) -> Route:
    def given(value: timedelta | None, inherited: timedelta) -> timedelta:
        return inherited if value is None else value

    return Route(
        path=f"{above.path}.routes[{position}]",
        receiver=above.receiver if settings.receiver is None else settings.receiver,
        matchers=parsed(settings.matchers),
        goes_on=settings.goes_on,
        group_by=above.group_by if settings.group_by is None else _group_by(settings.group_by),
        group_wait=given(settings.group_wait, above.group_wait),
        group_interval=given(settings.group_interval, above.group_interval),
        repeat_interval=given(settings.repeat_interval, above.repeat_interval),
        mute_times=tuple(mute_times[name] for name in settings.mute_times),
        routes=(),
    )


def _group_by(labels: tuple[str, ...]) -> tuple[str, ...] | None:
    return None if labels == (ALL_LABELS,) else labels


def _found(route: Route, labels: Labels) -> tuple[Route, ...]:
    """The routes below this one, or itself; none when the alert does not come here."""
    if not all_match(route.matchers, labels):
        return ()
    found: list[Route] = []
    for child in route.routes:
        below = _found(child, labels)
        found.extend(below)
        if below and not child.goes_on:
            break
    return tuple(found) or (route,)
