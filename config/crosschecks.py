"""Checks that concern more than one key: names used twice, references to nothing.

They read settings that are already validated and raw mappings alike, so that these mistakes are reported
together with all others and not one round later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from layerwatch.config.composites import COMPOSITES
from layerwatch.config.wording import nearest, quote

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the root of a value to a part of it."""


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
        *(_taken_name(registries) if isinstance(composites, list | tuple) and composites else ()),
    ]


def alert_faults(alerts: object) -> list[Fault]:
    """Mistakes between the receivers and the route of ``alerts`` (an ``AlertsSettings`` or a mapping like it)."""
    receivers = _part(alerts, "receivers")
    faults = list(_repeated_names(("receivers",), "alerts.receivers", receivers))
    names = [name for _, name in _names(receivers)]
    route = _part(alerts, "route")
    if route is None:
        if names:
            example = f"route: {{receiver: {names[0]}}}"
            faults.append(Fault(("route",), f"is missing, so no receiver would get an alert; add {example}"))
        return faults
    receiver = _part(route, "receiver")
    if isinstance(receiver, str) and receiver not in names:
        known = f", did you mean {quote(near)}?" if (near := nearest(receiver, names)) else _listed(names)
        faults.append(Fault(("route", "receiver"), f"unknown receiver {quote(receiver)}{known}"))
    return faults


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
    if not isinstance(composites, list | tuple):
        return
    for position, composite in enumerate(composites):
        members = _part(composite, "members")
        for number, member in enumerate(members if isinstance(members, list | tuple) else ()):
            registry = member.split("/", 1)[0] if isinstance(member, str) and "/" in member else None
            if registry is not None and registry not in known:
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


def _listed(names: Sequence[str]) -> str:
    return f"; known: {', '.join(names)}" if names else "; there are no receivers"


def _repeated_names(path: KeyPath, shown: str, items: object) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for position, name in _names(items):
        if name in first:
            yield Fault(
                (*path, position, "name"), f"the name {quote(name)} is already used by {shown}[{first[name]}]"
            )
        first.setdefault(name, position)


def _names(items: object) -> Iterator[tuple[int, str]]:
    if isinstance(items, list | tuple):
        for position, item in enumerate(items):
            name = _part(item, "name")
            if isinstance(name, str):
                yield position, name


def _part(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
