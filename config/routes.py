"""Routes: which receiver gets which alerts, together with which others, and how often.

A tree as in Alertmanager (https://prometheus.io/docs/alerting/latest/configuration/#route).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer

from layerwatch.config.base import SettingsModel
from layerwatch.config.crosschecks import Fault, raise_faults
from layerwatch.config.matchers import ALL_LABELS, CHANGING_LABELS
from layerwatch.config.matchertext import MatcherText
from layerwatch.config.quantities import Duration, PositiveDuration


def _checked_group_by(labels: tuple[str, ...]) -> tuple[str, ...]:
    if ALL_LABELS in labels and len(labels) > 1:
        raise ValueError('must be ["..."], for all labels, or a list of labels without ...')
    for position, label in enumerate(labels):
        if label in CHANGING_LABELS:
            raise ValueError(
                f"must not hold {label}, which changes while an alert fires; tell alerts apart by routes with matchers"
            )
        if label in labels[:position]:
            raise ValueError(f"names the same label twice, at {labels.index(label)} and {position}")
    return labels


GroupBy = Annotated[tuple[str, ...], AfterValidator(_checked_group_by)]
"""Names of labels, or ``...`` alone."""


def _reachable(routes: tuple[ChildRouteSettings, ...]) -> tuple[ChildRouteSettings, ...]:
    raise_faults("routes", _never_reached(routes))
    return routes


def _never_reached(routes: Sequence[ChildRouteSettings]) -> list[Fault]:
    for position, route in enumerate(routes):
        if not route.matchers and not route.goes_on:
            message = (
                f"is never reached, because routes[{position}] beside it takes every alert; give that one matchers, or "
                "continue: true"
            )
            return [Fault((later,), message) for later in range(position + 1, len(routes))]
    return []


class ChildRouteSettings(SettingsModel):
    """Where some of a route's alerts go instead. What is not given is as in the route above it, but for mute times."""

    matchers: tuple[MatcherText, ...] = ()
    """Which alerts: all matchers must match; with none, every alert that comes here."""

    receiver: str | None = None
    """Name of the receiver."""

    goes_on: Annotated[bool, Field(alias="continue")] = False
    """Whether an alert that came here also tries the routes after this one."""

    group_by: GroupBy | None = None
    """Labels whose values alerts that are told together have in common; ["..."] for all labels, [] for one group."""

    group_wait: Duration | None = None
    """How long the first alert of a group waits for others."""

    group_interval: Duration | None = None
    """Least time between two messages about a group."""

    repeat_interval: PositiveDuration | None = None
    """How often an alert that goes on is told again; no sooner than `group_interval`."""

    mute_times: tuple[str, ...] = ()
    """Names of mute times during which nothing is told here."""

    routes: Annotated[tuple[ChildRouteSettings, ...], AfterValidator(_reachable)] = ()
    """Where some of these alerts go instead."""

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"continue" if key == "goes_on" else key: value for key, value in handler(self).items()}


class RouteSettings(SettingsModel):
    """The root of the routes, which takes every alert that no route below it takes."""

    receiver: str
    """Name of one of the receivers."""

    group_by: GroupBy = ("registry", "model")
    """Labels whose values alerts that are told together have in common; ["..."] for all labels, [] for one group."""

    group_wait: Duration = timedelta(seconds=30)
    """How long the first alert of a group waits for others."""

    group_interval: Duration = timedelta(minutes=5)
    """Least time between two messages about a group."""

    repeat_interval: PositiveDuration = timedelta(hours=12)
    """How often an alert that goes on is told again; no sooner than `group_interval`."""

    mute_times: tuple[str, ...] = ()
    """Names of mute times during which nothing is told here; routes below do not take them over."""

    routes: Annotated[tuple[ChildRouteSettings, ...], AfterValidator(_reachable)] = ()
    """Where some alerts go instead: the first that matches, and those after it where it has `continue`."""
