"""The natural order of version names."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from layerwatch.daemon.store.ordering import sort_key


def _natural(text: str) -> list[tuple[int, int | str]]:
    """The usual key for natural sorting of names that begin with text."""
    return [(1, int(piece)) if piece.isdigit() else (0, piece) for piece in re.split("([0-9]+)", text)]


def test_numbers_compare_as_numbers_wherever_they_stand() -> None:
    ordered = [
        "",
        "1",
        "2",
        "10",
        "10.1",
        "10.9",
        "10.10",
        "99999999999999999999",
        "v1",
        "v1.1",
        "v2",
        "v10",
        "va",
    ]
    shuffled = ordered[1::2] + ordered[::2]
    assert sorted(shuffled, key=sort_key) == ordered


def test_time_stamps_compare_as_times() -> None:
    ordered = ["2024-12-31T23:59:59Z", "2025-01-01T00:00:00Z", "2025-01-01T00:00:09Z", "2025-10-01T00:00:00Z"]
    shuffled = ordered[1::2] + ordered[::2]
    assert sorted(shuffled, key=sort_key) == ordered


def test_leading_zeros_do_not_count() -> None:
    assert sort_key("v007") == sort_key("v7")
    assert sort_key("v0") == sort_key("v000")
    assert sort_key("v0") < sort_key("v1")


def test_names_that_utf8_cannot_hold_have_a_key() -> None:
    assert sort_key("a\udc80") != sort_key("a")


@given(st.lists(st.from_regex(r"\A[a-z]([a-z]|[0-9]{1,3})*\Z"), max_size=8))
def test_names_of_letters_and_digits_sort_as_natural_sorting_does(names: list[str]) -> None:
    # Digits stand before letters in ASCII, and a name before its own continuation.
    assert [_natural(name) for name in sorted(names, key=sort_key)] == sorted(
        (_natural(name) for name in names), key=_comparable
    )


def _comparable(pieces: list[tuple[int, int | str]]) -> list[tuple[int, int, str]]:
    comparable: list[tuple[int, int, str]] = []
    for is_number, piece in pieces:
        if is_number:
            comparable.append((0, int(piece), ""))
        else:
            comparable.extend((1, 0, letter) for letter in str(piece))
    return comparable
