"""Durations (``30s``, ``1h30m``) and sizes (``4GiB``): text to value and back, and their pydantic types."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema

from layerwatch.config.wording import quote

LONGEST_DURATION = timedelta(days=36_500)
"""Upper limit of a duration: ``now - duration`` must stay a date that ``datetime`` can hold."""

LARGEST_SIZE = 2**63 - 1
"""Upper limit of a size in bytes: what the operating system's limits can hold."""

_DURATION_FORMS = (
    "write whole numbers with the units d, h, m, s, ms, largest first, such as 30s, 5m, 1h30m or 7d"
)
_SIZE_FORMS = "write a whole number with a unit, such as 512KiB, 4GiB or 100MB (B, KiB to TiB, KB to TB)"

_DURATION_PATTERN = (
    r"^(?=[0-9])([0-9]{1,12}d)?([0-9]{1,12}h)?([0-9]{1,12}m(?!s))?([0-9]{1,12}s)?([0-9]{1,12}ms)?$"
)
_DURATION = re.compile(_DURATION_PATTERN)
_DURATION_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))

_SIZE_PATTERN = r"^[0-9]{1,19} ?([KkMmGgTt][Ii][Bb]?|[KkMmGgTt]?[Bb])?$"
_SIZE = re.compile(r"([0-9]{1,19}) ?([a-z]*)")
_SIZE_UNITS = {
    "TiB": 2**40,
    "TB": 10**12,
    "GiB": 2**30,
    "GB": 10**9,
    "MiB": 2**20,
    "MB": 10**6,
    "KiB": 2**10,
    "KB": 10**3,
    "B": 1,
}
_SIZE_FACTORS = {
    **{unit.lower(): factor for unit, factor in _SIZE_UNITS.items()},
    **{unit.lower().removesuffix("b"): factor for unit, factor in _SIZE_UNITS.items() if "i" in unit},
    "": 1,
}


def parse_duration(text: str) -> timedelta:
    """The duration that ``text`` says, from 0 to 36500 days in whole milliseconds.

    Accepted: whole numbers with the units ``d h m s ms``, each at most once and largest first
    (``30s``, ``1h30m``, ``500ms``).

    Raises:
        ValueError: with a sentence that says what is accepted.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"is not a duration: {quote(text)}; {_DURATION_FORMS}")
    milliseconds = sum(
        int(part.removesuffix(unit)) * factor
        for part, (unit, factor) in zip(match.groups(), _DURATION_UNITS, strict=True)
        if part is not None
    )
    if milliseconds > LONGEST_DURATION // timedelta(milliseconds=1):
        raise ValueError(
            f"is too long a duration: {quote(text)}; at most {format_duration(LONGEST_DURATION)}"
        )
    return timedelta(milliseconds=milliseconds)


def format_duration(duration: timedelta) -> str:
    """The shortest text that :func:`parse_duration` reads back as ``duration``: ``1h30m``, ``0s``.

    Raises:
        ValueError: for a duration that no such text can say (negative, beyond 36500 days, or with a fraction
            of a millisecond).
    """
    milliseconds, rest = divmod(duration, timedelta(milliseconds=1))
    if rest or not timedelta(0) <= duration <= LONGEST_DURATION:
        raise ValueError(
            f"{duration!r} cannot be written as a duration: it must be a whole number of milliseconds "
            "from 0s to 36500d"
        )
    text = ""
    for unit, factor in _DURATION_UNITS:
        count, milliseconds = divmod(milliseconds, factor)
        if count:
            text += f"{count}{unit}"
    return text or "0s"


def parse_size(text: str) -> int:
    """The number of bytes that ``text`` says, from 0 to 2^63 - 1.

    Accepted: a whole number with ``KiB MiB GiB TiB`` (powers of 1024), ``KB MB GB TB`` (powers of 1000), ``B``
    or no unit (bytes), in upper or lower case; ``Ki Mi Gi Ti``, as Kubernetes writes them, mean the same as
    ``KiB`` and so on.

    Raises:
        ValueError: with a sentence that says what is accepted.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    factor = _SIZE_FACTORS.get(match[2]) if match else None
    if match is None or factor is None:
        raise ValueError(f"is not a size: {quote(text)}; {_SIZE_FORMS}")
    size = int(match[1]) * factor
    if size > LARGEST_SIZE:
        raise ValueError(f"is too large a size: {quote(text)}; at most {LARGEST_SIZE} bytes")
    return size


def format_size(size: int) -> str:
    """The shortest exact text for ``size`` bytes: ``4GiB``, ``100MB``, ``1001B``.

    Raises:
        ValueError: for a negative size.
    """
    if size < 0:
        raise ValueError(f"{size} is no size: it must not be negative")
    for unit, factor in sorted(_SIZE_UNITS.items(), key=lambda item: -item[1]):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def _to_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        format_duration(value)
        return value
    if isinstance(value, str):
        return parse_duration(value)
    unitless = isinstance(value, int | float) and not isinstance(value, bool)
    mistake = "is a number without a unit" if unitless else "is not a duration"
    raise ValueError(f"{mistake}; {_DURATION_FORMS}")


def _to_size(value: object) -> int:
    if isinstance(value, str):
        return parse_size(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_SIZE:
        return value
    raise ValueError(f"is not a size; {_SIZE_FORMS}")


def _longer_than_zero(duration: timedelta) -> timedelta:
    if not duration:
        raise ValueError("must be longer than 0s")
    return duration


def _more_than_zero(size: int) -> int:
    if not size:
        raise ValueError("must be more than 0 bytes")
    return size


Duration = Annotated[
    timedelta,
    PlainValidator(_to_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": _DURATION_PATTERN, "examples": ["30s", "1h30m", "7d"]}),
]
"""A duration of 0 to 36500 days. Read from text with units, written to JSON and YAML as such text."""

PositiveDuration = Annotated[Duration, AfterValidator(_longer_than_zero)]
"""A :data:`Duration` longer than zero."""

ByteSize = Annotated[
    int,
    PlainValidator(_to_size),
    PlainSerializer(format_size, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": _SIZE_PATTERN}, {"type": "integer", "minimum": 0}],
            "examples": ["512KiB", "4GiB", "100MB"],
        }
    ),
]
"""A number of bytes. Read from text with a unit or from a whole number, written as text with a unit."""

PositiveByteSize = Annotated[ByteSize, AfterValidator(_more_than_zero)]
"""A :data:`ByteSize` above zero."""
