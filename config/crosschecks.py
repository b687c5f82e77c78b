"""Checks that concern more than one key: names used twice, references to nothing.

They read settings that are already validated and raw mappings alike, so that these mistakes are reported
together with all others and not one round later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from layerwatch.config.base import SeverityName
from layerwatch.config.composites import COMPOSITES
from layerwatch.config.matchers import ALL_LABELS, BUILT_IN_LABELS, Matcher, MatcherError, parse_matcher
from layerwatch.config.wording import nearest, quote

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the root of a value to a part of it."""

HEARTBEAT = "heartbeat"
"""Kind of the receivers that are told of no alerts."""

SEVERITIES: tuple[str, ...] = get_args(SeverityName)
"""Values of the label of this name."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A mistake at ``path``, relative to the value that was checked."""

    path: KeyPath
    message: str


def registry_faults(settings: object) -> list[Fault]:
    """Mistakes between the registries and composites of ``settings`` (a ``Settings`` or a mapping like it)."""
    registries, composites = _part(settings, "registries"), _part(settings, "composites")
    return [
        *_repeated_names(("registries",), "registries", registries),
        *_repeated_names(("composites",), "composites", composites),
        *_unknown_registries(composites, [name for _, name in _names(registries)]),
        *(_taken_name(registries) if _items(composites) else ()),
    ]


def alert_faults(alerts: object) -> list[Fault]:
    """Mistakes between the parts of ``alerts`` (an ``AlertsSettings`` or a mapping like it)."""
    receivers, mute_times = _part(alerts, "receivers"), _part(alerts, "mute_times")
    return [
        *_repeated_names(("receivers",), "alerts.receivers", receivers),
        *_repeated_names(("mute_times",), "alerts.mute_times", mute_times),
        *_route_faults(
            _part(alerts, "route"),
            list(_told_of_alerts(receivers)),
            {name for _, name in _names(receivers)},
            [name for _, name in _names(mute_times)],
        ),
        *_label_faults(alerts, known_labels(_part(alerts, "owners"))),
    ]


def known_labels(owners: object) -> tuple[str, ...]:
    """All labels that an alert may have, where ``owners`` is that key of the alert settings, or a list like it."""
    given = [label for owner in _items(owners) for label in _keys(_part(owner, "labels"))]
    return tuple(dict.fromkeys((*BUILT_IN_LABELS, *given)))


def label_mistake(label: str, known: Sequence[str]) -> str | None:
    """What is wrong with a reference to a label, if anything is."""
    return None if label in known else _unknown("label", label, known)


def matcher_mistake(matcher: Matcher, known: Sequence[str]) -> str | None:
    """Why a matcher can match no alert, or all of them, whatever happens; None where it may be right.

    Args:
        known: the labels that alerts may have, from `known_labels`.
    """
    # Values of owners' labels are not checked: one routing tree may serve daemons that watch the models of other teams.
    if matcher.label == "severity" and not matcher.operator.is_pattern and matcher.value not in SEVERITIES:
        return _unknown("severity", matcher.value, SEVERITIES)
    return label_mistake(matcher.label, known)


def raise_faults(title: str, faults: Sequence[Fault]) -> None:
    """Raise a pydantic ValidationError with one entry per fault; do nothing when there is none."""
    if faults:
        raise ValidationError.from_exception_data(
            title,
            [
                InitErrorDetails(
                    type="value_error", loc=fault.path, input=None, ctx={"error": ValueError(fault.message)}
                )
                for fault in faults
            ],
            hide_input=True,
        )


def _unknown_registries(composites: object, known: list[str]) -> Iterator[Fault]:
    for position, composite in enumerate(_items(composites)):
        for number, member in _texts(_part(composite, "members")):
            registry, slash, _ = member.partition("/")
            if slash and registry not in known:
                near = nearest(registry, known)
                hint = f", did you mean {quote(near)}?" if near else ""
                yield Fault(
                    ("composites", position, "members", number), f"unknown registry {quote(registry)}{hint}"
                )


def _taken_name(registries: object) -> Iterator[Fault]:
    for position, name in _names(registries):
        if name == COMPOSITES:
            message = f"the name {quote(name)} is that of the registry of composites; choose another"
            yield Fault(("registries", position, "name"), message)


def _route_faults(
    root: object, receivers: Sequence[str], all_receivers: Collection[str], mute_times: Sequence[str]
) -> Iterator[Fault]:
    """Routes that are missing, or lead to receivers or mute times that cannot be told or are not there."""
    if root is None and receivers:
        example = f"route: {{receiver: {receivers[0]}}}"
        yield Fault(("route",), f"is missing, so no receiver would get an alert; add {example}")
    for path, route in _routes(root):
        receiver = _part(route, "receiver")
        if isinstance(receiver, str) and receiver not in receivers:
            message = (
                f"{quote(receiver)} is a heartbeat, which is told of no alerts; choose another receiver"
                if receiver in all_receivers
                else _unknown("receiver", receiver, receivers)
            )
            yield Fault((*path, "receiver"), message)
        for position, name in _texts(_part(route, "mute_times")):
            if name not in mute_times:
                message = _unknown("mute time", name, mute_times)
                yield Fault((*path, "mute_times", position), message)


def _label_faults(alerts: object, known: Sequence[str]) -> Iterator[Fault]:
    """Labels that no alert has, where routes and inhibitions ask for them."""
    asked = list(_routes(_part(alerts, "route")))
    asked += [
        (("inhibitions", number), one) for number, one in enumerate(_items(_part(alerts, "inhibitions")))
    ]
    for path, one in asked:
        for key in ("matchers", "source", "target"):
            for position, text in _texts(_part(one, key)):
                if mistake := _text_mistake(text, known):
                    yield Fault((*path, key, position), mistake)
        for key, words in (("group_by", (*known, ALL_LABELS)), ("equal", known)):
            for position, label in _texts(_part(one, key)):
                if mistake := label_mistake(label, words):
                    yield Fault((*path, key, position), mistake)


def _text_mistake(text: str, known: Sequence[str]) -> str | None:
    try:
        matcher = parse_matcher(text)
    except MatcherError:
        return None  # told where the text itself is checked
    return matcher_mistake(matcher, known)


def _routes(root: object) -> Iterator[tuple[KeyPath, object]]:
    """Every route of the tree with its path, each before those below it."""
    waiting: list[tuple[KeyPath, object]] = [(("route",), root)]
    while waiting:
        path, route = waiting.pop()
        yield path, route
        below = list(enumerate(_items(_part(route, "routes"))))
        waiting.extend(((*path, "routes", number), child) for number, child in reversed(below))


def _told_of_alerts(receivers: object) -> Iterator[str]:
    for receiver in _items(receivers):
        name = _part(receiver, "name")
        if isinstance(name, str) and _part(receiver, "kind") != HEARTBEAT:
            yield name


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    if near:
        return f"unknown {what} {quote(name)}, did you mean {quote(near)}?"
    listed = f"known: {', '.join(known)}" if known else f"there are no {what}s"
    return f"unknown {what} {quote(name)}; {listed}"


def _repeated_names(path: KeyPath, shown: str, items: object) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for position, name in _names(items):
        if name in first:
            yield Fault(
                (*path, position, "name"), f"the name {quote(name)} is already used by {shown}[{first[name]}]"
            )
        first.setdefault(name, position)


def _names(items: object) -> Iterator[tuple[int, str]]:
    for position, item in enumerate(_items(items)):
        name = _part(item, "name")
        if isinstance(name, str):
            yield position, name


def _texts(items: object) -> Iterator[tuple[int, str]]:
    return ((position, item) for position, item in enumerate(_items(items)) if isinstance(item, str))


def _items(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else ()


def _keys(value: object) -> Iterator[str]:
    return (key for key in value if isinstance(key, str)) if isinstance(value, Mapping) else iter(())


def _part(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
