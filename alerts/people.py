"""What people write when they silence or acknowledge: who they are, and why."""

from __future__ import annotations

from layerwatch.alerts.text import plain

LONGEST_NAME = 100
LONGEST_REASON = 1000


class EntryError(ValueError):
    """What a person entered cannot be taken.

    Attributes:
        field: what is wrong: ``author`` or ``by``, ``reason``, ``matchers``, ``starts_at``, ``ends_at`` or ``duration``.
        detail: a sentence without its subject, such as ``must not be empty``.
    """

    def __init__(self, field: str, detail: str) -> None:
        self.field = field
        self.detail = detail
        super().__init__(f"{field}: {detail}")


def checked_name(name: str, field: str = "author") -> str:
    """The name without space around it; raises `EntryError` about ``field`` when it is blank or too long."""
    return _checked(field, name, LONGEST_NAME)


def checked_reason(reason: str) -> str:
    """The reason without space around it; raises `EntryError` when it is blank or too long."""
    return _checked("reason", reason, LONGEST_REASON)


def _checked(field: str, text: str, longest: int) -> str:
    text = text.strip()
    if len(text) > longest:
        raise EntryError(field, f"must have at most {longest} characters")
    # Characters that nobody sees are no name and no reason.
    if not plain(text, longest):
        raise EntryError(field, "must not be empty")
    return text
