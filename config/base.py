"""What every group of settings has in common: the base model, severities, names, kinds of numbers."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

SeverityName = Literal["info", "warning", "critical"]
"""Severity of a finding as it is written in the configuration."""

_NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]*$"
_NAME = re.compile(_NAME_PATTERN)


class SettingsModel(BaseModel):
    """Base of all settings: immutable, unknown keys are errors, and no error text repeats what was given."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


def _refuse_switch(value: object) -> object:
    if value is True or value is False:
        raise ValueError("must be a number, not true or false")
    return value


NO_SWITCH = BeforeValidator(_refuse_switch)
"""For numbers: ``workers: yes`` must not mean 1, as it would in Python, where a bool is an int."""


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("must start with a-z or 0-9 and go on with a-z, 0-9, _ and - only")
    return name


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _not_empty(items: tuple[str, ...]) -> tuple[str, ...]:
    if not items:
        raise ValueError("must not be empty")
    return items


Name = Annotated[
    str, AfterValidator(_checked_name), WithJsonSchema({"type": "string", "pattern": _NAME_PATTERN})
]
"""Name of a registry or receiver: it becomes a metric label and a part of URLs."""

NonBlank = Annotated[str, AfterValidator(_not_blank), WithJsonSchema({"type": "string", "pattern": r"\S"})]
"""Text with at least one character that is not white space."""

NonBlankList = Annotated[
    tuple[NonBlank, ...],
    AfterValidator(_not_empty),
    WithJsonSchema({"type": "array", "items": {"type": "string", "pattern": r"\S"}, "minItems": 1}),
]
"""A list of at least one such text."""

PositiveNumber = Annotated[float, Field(gt=0, allow_inf_nan=False), NO_SWITCH]
"""A finite number above zero."""

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), NO_SWITCH]
"""A share of a whole, above 0 and at most 1."""
