"""Lists a page at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Paging:
    """One page of a list.

    Attributes:
        page, pages: from 1; an empty list has one page.
        offset: items before it.
        first, last: places of its items, from 1; 0 and 0 for an empty list.
        total: items of the list.
    """

    page: int
    pages: int
    offset: int
    first: int
    last: int
    total: int

    @classmethod
    def of(cls, wanted: int, per_page: int, total: int) -> Paging:
        """The wanted page, or the nearest one there is."""
        pages = max(1, -(-total // per_page))
        page = min(max(1, wanted), pages)
        offset = (page - 1) * per_page
        return cls(page, pages, offset, min(offset + 1, total), min(offset + per_page, total), total)
