"""Numbers as pages show them, and who is answered with a page."""

from __future__ import annotations

import pytest

from layerwatch.daemon.web.pages.accepting import prefers_html
from layerwatch.daemon.web.pages.numbertext import seconds, short, size, with_error


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (127.0, "127"),
        (0.0021522, "0.00215"),
        (6.98, "6.98"),
        (1539.23, "1539"),
        (-0.5, "-0.5"),
        (12_345_678.0, "1.23e+07"),
        (1.2468e-06, "1.25e-06"),
    ],
)
def test_numbers_of_any_size_are_short(value: float | None, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(3.214, 0.836, "3.21 ± 0.84"), (3.214, None, "3.21"), (3.214, 0.0, "3.21"), (None, 0.1, "-")],
)
def test_an_error_stands_beside_its_number(value: float | None, error: float | None, text: str) -> None:
    assert with_error(value, error, 2) == text


def test_sizes_and_durations_have_a_unit_that_fits() -> None:
    assert [size(count) for count in (0, 1023, 36_952, 3 * 2**30, 2**60)] == [
        *("0 B", "1023 B", "36.1 KiB", "3.0 GiB", "1048576.0 TiB"),
    ]
    assert [seconds(duration) for duration in (0.1212, 9.5, 75.4)] == ["0.12 s", "9.50 s", "75 s"]


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("text/*", True),
        ("TEXT/HTML; q=0.3", True),
        ("text/html;level=1;q=0.7, application/json;q=0.4", True),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/html, application/json", False),
        ("text/html;q=0.2, */*", False),
        ("text/html;q=high", False),
        ("text/plain", False),
        (";,,=q", False),
    ],
)
def test_a_page_is_for_who_would_rather_have_one(accept: str, page: bool) -> None:
    assert prefers_html(accept) is page
