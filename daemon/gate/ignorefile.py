"""The ignore file: which findings a team has looked at and accepts for a while.

``ignore:`` holds a list of entries. ``rule``, ``reason`` and ``expires`` are required: a finding is accepted by somebody,
for a reason, until a day within a year. ``layer`` and ``model`` are glob patterns.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ValidationError, ValidationInfo

from layerwatch.config.base import NonBlank, SettingsModel
from layerwatch.config.document import Document, FileKind, read_document
from layerwatch.config.errors import ConfigError, ConfigProblem
from layerwatch.config.plainwords import plain_message
from layerwatch.config.tree import Place, dotted, locate
from layerwatch.config.wording import nearest, quote
from layerwatch.metrics.findings import RuleGroup
from layerwatch.metrics.rules import RULES

_KIND = FileKind(
    name="an ignore file",
    write_one="an ignore file holds ignore: and a list of entries with rule, layer, reason and expires",
    holds="ignore: and a list of entries below it",
)
LONGEST = timedelta(days=366)
"""So far ahead may an entry expire: whoever accepts something for longer looks at it again once a year."""

_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")
"""Hangul fillers: letters for Unicode, and nothing to be seen."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TODAY = "today"
_RULES = {rule.name: rule for rule in RULES}


def _ignorable(name: str) -> str:
    rule = _RULES.get(name)
    if rule is None:
        near = nearest(name, _RULES)
        hint = f"did you mean {quote(near)}?" if near else "see layerwatch config print --default"
        raise ValueError(f"there is no rule {quote(name)}; {hint}")
    if rule.group is RuleGroup.EXAMINATION:
        raise ValueError(
            f"{name} says that something was not examined, which cannot be ignored; see gate --allow-undecided"
        )
    return name


def _day(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise ValueError("must be a day such as 2027-01-31")
    try:
        day = date.fromisoformat(value)
    except ValueError:
        raise ValueError("there is no such day") from None
    today: date = (info.context or {})[_TODAY]
    last = today + LONGEST
    if day > last:
        raise ValueError(
            f"must be at most {LONGEST.days} days ahead, {last} or earlier; renew the entry then"
        )
    return day


def _visible(text: str) -> str:
    if not any(character.isalnum() and character not in _BLANK_LETTERS for character in text):
        raise ValueError("must say something: letters or digits")
    return text


class _Entry(SettingsModel):
    rule: Annotated[str, AfterValidator(_ignorable)]
    layer: NonBlank | None = None
    model: NonBlank | None = None
    reason: Annotated[NonBlank, AfterValidator(_visible)]
    expires: Annotated[date, BeforeValidator(_day)]


class _File(SettingsModel):
    ignore: tuple[_Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class IgnoreEntry:
    """One entry.

    Attributes:
        rule: name of a rule.
        layer: glob pattern of layer names; None for every finding of the rule, those about the version included.
        model: glob pattern of the model's name or source; None for every model.
        reason: why the finding is accepted.
        expires: the last day, in UTC, on which the entry is in force.
        line: 1-based, where it begins.
    """

    rule: str
    layer: str | None
    model: str | None
    reason: str
    expires: date
    line: int | None


@dataclass(frozen=True, slots=True)
class IgnoreFile:
    """An ignore file as read.

    Attributes:
        name: as it was given.
        sha256: of its bytes, in hex.
        entries: in the order of the file.
    """

    name: str
    sha256: str
    entries: tuple[IgnoreEntry, ...]


def read_ignore_file(path: Path, today: date) -> IgnoreFile:
    """The entries of an ignore file.

    Args:
        today: in UTC; no entry may be in force for longer than :data:`LONGEST` from then on.

    Raises:
        ConfigError: everything that is wrong with it, with lines.
    """
    document = read_document(path, _KIND)
    if document.problems:
        raise ConfigError(document.problems)
    data = {key: value for key, value in document.data.items() if (key, value) != ("ignore", None)}
    try:
        found = _File.model_validate(data, context={_TODAY: today})
    except ValidationError as error:
        raise ConfigError(list(_problems(error, document, path))) from None
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError([ConfigProblem("", None, f"cannot be read: {error.strerror}", str(path))]) from None
    entries = tuple(
        IgnoreEntry(
            entry.rule,
            entry.layer,
            entry.model,
            " ".join(entry.reason.split()),
            entry.expires,
            document.lines.get(("ignore", position)),
        )
        for position, entry in enumerate(found.ignore)
    )
    return IgnoreFile(str(path), digest, entries)


def _problems(error: ValidationError, document: Document, path: Path) -> Iterator[ConfigProblem]:
    root = Place.of(_File)
    for detail in error.errors(include_url=False, include_input=False):
        spot = locate(detail["loc"], root)
        value: object = document.data
        for key in spot.path:
            if isinstance(value, dict):
                value = value.get(str(key))
            elif isinstance(value, list) and isinstance(key, int) and key < len(value):
                value = value[key]
            else:
                value = None
        lines = (document.lines.get(spot.path[:length]) for length in range(len(spot.path), 0, -1))
        line = next((one for one in lines if one is not None), None)
        yield ConfigProblem(dotted(spot.path), line, plain_message(detail, value, spot), str(path))
