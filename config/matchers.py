"""Matchers: the conditions that routes, silences and inhibitions put on the labels of an alert.

Written as in Alertmanager (https://prometheus.io/docs/alerting/latest/configuration/#matcher): a label, one of
``= != =~ !~``, and a value, in double quotes or without. In quotes ``\\"``, ``\\\\`` and ``\\n`` mean a quote, a
backslash and a new line; every other backslash stands for itself, so ``version=~"v\\d+"`` needs no second one.
Regular expressions must match the whole value, and their ``.`` matches new lines too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

Labels = Mapping[str, tuple[str, ...]]
"""What an alert is called by. A label may have several values, as an alert breaks several rules; a missing one none."""

BUILT_IN_LABELS = ("registry", "model", "ref", "rule_group", "severity", "version", "rule")
"""Labels that every alert has; the configuration adds those of owners."""

CHANGING_LABELS = ("severity", "version", "rule")
"""Labels whose values may become others while an alert fires: a group that is known by them would never see its end."""

ALL_LABELS = "..."
"""In place of labels to group by: all of them but `CHANGING_LABELS`."""

LABEL_NAME = r"[a-zA-Z_][a-zA-Z0-9_]*"
"""Regular expression of a label's name, as in Prometheus."""

_LONGEST_LABEL = 100
_LONGEST_VALUE = 500
_LONGEST = 2_000

_MATCHER = re.compile(rf"({LABEL_NAME})\s*(=~|!~|!=|=)\s*(.*)", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_MEANT = {"n": "\n", '"': '"', "\\": "\\"}
# Without quotes these are signs of something else: two matchers in one text, == for =, another kind of quotes.
_NEEDS_QUOTES = re.compile(r"[\s\"'`,=!~]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Operator(StrEnum):
    """How a value is compared."""

    EQUAL = "="
    NOT_EQUAL = "!="
    MATCHES = "=~"
    DOES_NOT_MATCH = "!~"

    @property
    def is_pattern(self) -> bool:
        """Whether the value is a regular expression."""
        return self in (Operator.MATCHES, Operator.DOES_NOT_MATCH)

    @property
    def is_negative(self) -> bool:
        """Whether no value may fit."""
        return self in (Operator.NOT_EQUAL, Operator.DOES_NOT_MATCH)


class MatcherError(ValueError):
    """A text is no matcher; the message says what to write instead."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition, for example ``severity="critical"``. Made by `parse_matcher`, which reads its text back.

    Attributes:
        label: name of the label.
        operator: how it is compared.
        value: with what; a regular expression for ``=~`` and ``!~``.
    """

    label: str
    operator: Operator
    value: str

    def __str__(self) -> str:
        written = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.label}{self.operator}"{written}"'

    def matches(self, labels: Labels) -> bool:
        """Whether the labels fulfil it. A label without a value counts as empty text.

        ``=`` and ``=~`` ask for one value that fits, ``!=`` and ``!~`` that none does.
        """
        values = labels.get(self.label) or ("",)
        if self.operator.is_pattern:
            pattern = re.compile(self.value, re.DOTALL)
            found = any(pattern.fullmatch(value) is not None for value in values)
        else:
            found = self.value in values
        return found is not self.operator.is_negative


def parse_matcher(text: str) -> Matcher:
    """The matcher that a text describes.

    Raises:
        MatcherError: for anything else.
    """
    if len(text) > _LONGEST:
        raise MatcherError(f"a matcher has at most {_LONGEST} characters")
    found = _MATCHER.fullmatch(text.strip())
    if found is None:
        raise MatcherError('must be a label, one of = != =~ !~, and a value: model=~"fraud-.*"')
    label, operator, written = found.groups()
    matcher = Matcher(label, Operator(operator), _value(written))
    _check(matcher)
    return matcher


def all_match(matchers: Collection[Matcher], labels: Labels) -> bool:
    """Whether every matcher matches; true for none."""
    return all(matcher.matches(labels) for matcher in matchers)


def parsed(matchers: Sequence[str]) -> tuple[Matcher, ...]:
    """The matchers of checked texts."""
    return tuple(map(parse_matcher, matchers))


def _value(written: str) -> str:
    if not written.startswith('"'):
        if _NEEDS_QUOTES.search(written):
            raise MatcherError(
                "must be one label, one operator and one value; a value with spaces or any of \" ' ` , = ! ~ "
                'in it is written in double quotes: team="a, b"'
            )
        return written
    quoted = _QUOTED.fullmatch(written)
    if quoted is None:
        raise MatcherError(
            'must end with the double quote that its value begins with; a " within the value is written \\", '
            "and each further matcher is an entry of its own"
        )
    return _ESCAPE.sub(lambda escape: _MEANT.get(escape[1], escape[0]), quoted[1])


def _check(matcher: Matcher) -> None:
    if len(matcher.label) > _LONGEST_LABEL:
        raise MatcherError(f"a label has at most {_LONGEST_LABEL} characters")
    if len(matcher.value) > _LONGEST_VALUE:
        raise MatcherError(f"a matcher's value has at most {_LONGEST_VALUE} characters")
    if _UNSTORABLE.search(matcher.value):
        raise MatcherError("its value holds a character that is no text")
    if matcher.operator.is_pattern:
        try:
            re.compile(matcher.value, re.DOTALL)
        except (re.error, RecursionError, OverflowError) as error:
            raise MatcherError(f"its regular expression is not valid: {error}") from None
