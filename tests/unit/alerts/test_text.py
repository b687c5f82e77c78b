"""Foreign text becomes one short printable line."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwatch.alerts.text import plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fc2", "fc2"),
        ("line one\nline two", "line one line two"),
        ("a\x1b[31mred\x00", "a[31mred"),
        ("evil\u202egnp.exe", "evilgnp.exe"),
        ("zero\u200bwidth", "zerowidth"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("para\u2029graph", "para graph"),
        ("Größe 模型", "Größe 模型"),
    ],
)
def test_control_and_hidden_characters_are_removed(text: str, expected: str) -> None:
    assert plain(text, 50) == expected


def test_long_text_is_cut_with_an_ellipsis() -> None:
    assert plain("abcdefghij", 5) == "abcd…"
    assert plain("abcde", 5) == "abcde"


def test_text_that_is_cut_unread_shows_it() -> None:
    assert plain("\x00" * 1_000_000 + "name", 5) == "…"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())), st.integers(1, 40))
def test_the_result_is_printable_short_and_stable(text: str, limit: int) -> None:
    line = plain(text, limit)

    assert len(line) <= limit
    assert not any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for character in line)
    assert plain(line, limit) == line
    line.encode("utf-8")
