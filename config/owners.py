"""Owners: labels that the configuration gives to models, so that alerts find the people who look after them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from layerwatch.config.base import NonBlank, SettingsModel
from layerwatch.config.crosschecks import Fault, raise_faults
from layerwatch.config.lists import NotEmpty
from layerwatch.config.matchers import BUILT_IN_LABELS, LABEL_NAME
from layerwatch.config.wording import quote

_NAME = re.compile(LABEL_NAME)
_RESERVED = {*BUILT_IN_LABELS, "alertname"}


def _checked_pattern(pattern: str) -> str:
    if "/" not in pattern and pattern != "*":
        raise ValueError(
            "must be REGISTRY/MODEL, each with * and ? where needed: prod/fraud-*, */fraud-*, or * for all"
        )
    return pattern


def _checked_labels(given: object) -> object:
    if not isinstance(given, Mapping) or not given:
        raise ValueError("must be labels with their values, such as {team: fraud}")
    raise_faults(
        "labels", [Fault((name,), wrong) for name, value in given.items() if (wrong := _wrong(name, value))]
    )
    return dict(given)


def _wrong(name: str, value: object) -> str | None:
    if name in _RESERVED:
        return f"every alert has a label {quote(name)} already; choose another name"
    if not _NAME.fullmatch(name) or name.startswith("__"):
        return "is no name of a label: it must start with a letter and go on with letters, digits and _ only"
    if not isinstance(value, str):
        return "must be text; put it in quotes"
    return None if value.strip() else "must not be empty"


ModelPattern = Annotated[NonBlank, AfterValidator(_checked_pattern)]
"""A shell pattern of REGISTRY/MODEL, upper and lower case told apart; its ``*`` matches ``/`` too."""

OwnerLabels = Annotated[
    dict[str, str],
    BeforeValidator(_checked_labels),
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": f"^{LABEL_NAME}$"},
            "additionalProperties": {"type": "string", "pattern": r"\S"},
            "minProperties": 1,
        }
    ),
]
"""Labels, each with one value; none of them built in."""


class OwnerSettings(SettingsModel):
    """Labels of some models."""

    models: Annotated[tuple[ModelPattern, ...], NotEmpty()]
    """Which models: shell patterns of REGISTRY/MODEL."""

    labels: OwnerLabels
    """What their alerts are labelled with besides the built-in labels."""


def owner_labels(owners: Iterable[OwnerSettings], registry: str, model: str) -> dict[str, tuple[str, ...]]:
    """The labels that owners give to a model: later entries add to earlier ones, and win for the same label."""
    name = f"{registry}/{model}"
    labels: dict[str, tuple[str, ...]] = {}
    for owner in owners:
        if any(fnmatchcase(name, pattern) for pattern in owner.models):
            labels.update((label, (value,)) for label, value in owner.labels.items())
    return labels
