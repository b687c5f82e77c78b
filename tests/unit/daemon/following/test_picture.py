"""The screen about a daemon, at the sizes that terminals have."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from layerwatch.daemon.following.live import LivePicture
from layerwatch.daemon.following.picture import header, picture
from layerwatch.daemon.following.seen import Look
from layerwatch.daemon.terminal.screen import Screen
from layerwatch_testing.expectedtexts import assert_as_in
from layerwatch_testing.looks import NOON, a_look, seen_alert, seen_model, seen_version

EXPECTED = Path(__file__).parent / "expected"
LATER = NOON + timedelta(minutes=30)


def console(width: int, encoding: str = "utf-8", height: int = 24, **other: bool) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(
        width=width,
        height=height,
        file=file,
        force_terminal=True,
        color_system=None,
        emoji=False,
        highlight=False,
    )


def a_busy_daemon() -> Look:
    worst = "model.layers.0.mlp.up_proj: one layer multiplied by a wrong factor (alpha 3.10 ± 0.30)"
    return a_look(
        seen_version(9, "vision", state="pending", verdict=None),
        seen_version(8, "a-very-long-name-of-a-language-model", state="scanning", verdict=None),
        seen_version(7, "fraud", verdict="fail", minutes=7),
        seen_version(6, "a-very-long-name-of-a-language-model", verdict="undecided", minutes=6),
        seen_version(5, "vision", minutes=-60 * 24),
        alerts=[
            seen_alert("vision", "warning", acknowledged_by="ann"),
            seen_alert("fraud", layers=("fc1", "fc2", "fc3"), muted_by="silence 3"),
        ],
        models=[
            seen_model("a-very-long-name-of-a-language-model", "undecided", "v6"),
            seen_model("fraud", "fail", "v7"),
            seen_model("new", None, "v1"),
            seen_model("vision", "pass", "v5"),
        ],
        words=worst,
    )


def drawn(look: Look, width: int, height: int = 40, encoding: str = "utf-8", trouble: str = "") -> list[str]:
    screen = Screen.of(console(width, encoding))
    head = header("http://127.0.0.1:9466", LATER, trouble, screen)
    return [line.plain.rstrip() for line in (*head, *picture(look, screen, height - len(head), LATER))]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_busy_daemon_looks_so(width: int) -> None:
    assert_as_in(EXPECTED / f"busy_{width}.txt", "\n".join([*drawn(a_busy_daemon(), width), ""]))


def test_a_busy_daemon_looks_so_where_there_is_only_ascii() -> None:
    lines = drawn(a_busy_daemon(), 80, encoding="ascii")

    assert "\n".join(lines).isascii()
    assert_as_in(EXPECTED / "busy_80_ascii.txt", "\n".join([*lines, ""]))


def test_a_daemon_with_nothing_to_do_says_so() -> None:
    assert drawn(a_look(), 60)[2:] == [
        "firing alerts",
        "  none",
        "",
        "being scanned",
        "  nothing",
        "",
        "newest verdicts (UTC)",
        "  none yet",
        "",
        "models",
        "  none yet",
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("height", [24, 50])
def test_hundreds_of_models_fit_on_the_screen_the_worst_of_them_first(width: int, height: int) -> None:
    models = [seen_model(f"m{number}") for number in range(300)]
    models[200] = seen_model("broken", "fail")
    versions = [seen_version(number, minutes=number) for number in range(1, 9)]
    alerts = [seen_alert(f"m{number}", "warning") for number in range(20)] + [seen_alert("broken")]

    lines = drawn(a_look(*versions, alerts=alerts, models=models), width, height)

    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[3].split()[:2] == ["critical", "reg/broken"]
    assert "  and 15 more" in lines
    first = lines.index("models") + 1
    assert lines[first].split()[:2] == ["fail", "reg/broken"]
    assert lines[-1].endswith("more, none of them worse")
    shown = len(lines) - first - 1
    assert lines[-1].split()[1] == str(300 - shown)


def test_why_the_picture_is_old_stands_above_it() -> None:
    lines = drawn(a_busy_daemon(), 60, trouble="cannot be reached: connection refused; trying again in 4 s")

    assert lines[1] == "cannot be reached: connection refused; trying again in 4 s"


@settings(max_examples=30)
@given(st.text(max_size=40), st.integers(40, 120))
def test_hostile_names_are_harmless_text_in_lines_that_fit(name: str, width: int) -> None:
    look = a_look(
        seen_version(1, name, verdict="fail"),
        alerts=[seen_alert(name, layers=(name,), acknowledged_by=name, muted_by=name)],
        models=[seen_model(name, "fail", name)],
        words=name,
    )

    for line in drawn(look, width):
        assert line.isprintable()


def test_a_terminal_is_drawn_anew_in_its_place_and_keeps_the_last_picture() -> None:
    on = console(80)

    with LivePicture("http://d", on, lambda: LATER) as live:
        live.found(a_busy_daemon())
        live.lost("connection refused", 8.0)
    on.file.flush()
    assert isinstance(on.file, io.TextIOWrapper)
    raw = on.file.buffer
    assert isinstance(raw, io.BytesIO)
    text = raw.getvalue().decode()

    # ECMA-48: cursor up, erase line; the cursor is hidden and shown again.
    assert "\x1b[1A\x1b[2K" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    last = text[text.rindex("layerwatch at http://d") :]
    assert "cannot be reached: connection refused; what follows is old; trying again in 8 s" in last
    assert "reg/fraud v7" in last
