"""A line for each event."""

from __future__ import annotations

from layerwatch.daemon.following.lines import Lines
from layerwatch.daemon.following.seen import Look
from layerwatch_testing.looks import NOON, a_look, seen_alert, seen_model, seen_version


def told(*looks: Look | str) -> list[str]:
    """What is written about these looks; a text is why one found nothing."""
    written: list[str] = []
    lines = Lines("http://d", written.append, lambda: NOON)
    for look in looks:
        if isinstance(look, str):
            lines.lost(look, 4.0)
        else:
            lines.found(look)
    assert all(line.startswith("2026-03-02T12:00:00Z ") for line in written)
    return [line.removeprefix("2026-03-02T12:00:00Z ") for line in written]


EMPTY = a_look()


def test_the_first_look_tells_what_there_is() -> None:
    first = a_look(
        seen_version(2, state="pending", verdict=None),
        seen_version(1),
        alerts=[seen_alert()],
        models=[seen_model()],
    )

    assert told(first) == [
        "following http://d",
        "1 model, 1 alert firing, 1 version to be judged",
        "alert fires since 2026-03-02 12:00 UTC: critical weights in reg/m latest v1: fc2",
    ]


def test_a_version_is_told_when_it_is_found_scanned_and_judged() -> None:
    looks = (
        EMPTY,
        a_look(seen_version(1, state="pending", verdict=None)),
        a_look(seen_version(1, state="scanning", verdict=None)),
        a_look(seen_version(1, verdict="fail"), words="fc2: wrong scale"),
        a_look(seen_version(1, verdict="fail"), words="fc2: wrong scale"),
    )

    assert told(*looks)[2:] == [
        "reg/m v1: found",
        "reg/m v1: being scanned",
        "reg/m v1: fail; fc2: wrong scale",
    ]


def test_a_version_that_is_judged_again_is_told_again() -> None:
    looks = (
        a_look(seen_version(1)),
        a_look(seen_version(1, state="scanning")),
        a_look(seen_version(1, verdict="warn", minutes=5)),
    )

    assert told(*looks)[2:] == ["reg/m v1: being scanned", "reg/m v1: warn; no layer stands out"]


def test_versions_that_came_together_are_told_oldest_first() -> None:
    assert [line.split(":")[0] for line in told(EMPTY, a_look(seen_version(3), seen_version(2)))[2:]] == [
        "reg/m v2",
        "reg/m v3",
    ]


def test_an_alert_is_told_when_it_comes_changes_is_taken_held_back_and_over() -> None:
    many = tuple(f"l{number}" for number in range(9))
    looks = (
        EMPTY,
        a_look(alerts=[seen_alert(severity="warning")]),
        a_look(alerts=[seen_alert(layers=many)]),
        a_look(alerts=[seen_alert(layers=many, acknowledged_by="ann")]),
        a_look(alerts=[seen_alert(layers=many, muted_by="silence 3")]),
        EMPTY,
    )

    assert told(*looks)[2:] == [
        "alert fires: warning weights in reg/m latest v1: fc2",
        "alert changed: critical weights in reg/m latest v1: l0, l1, l2 and 6 more",
        "alert of reg/m latest v1 (weights): ann is on it",
        "alert of reg/m latest v1 (weights): nobody is on it any more",
        "alert of reg/m latest v1 (weights): held back: silence 3",
        "alert over: critical weights in reg/m latest v1: l0, l1, l2 and 6 more",
    ]


def test_a_daemon_that_is_lost_is_told_once_for_each_reason_and_when_it_is_back() -> None:
    lost = "http://d cannot be followed now: {}; trying again from time to time"

    assert told("refused", "refused", "no answer", EMPTY, EMPTY, "refused")[0:2] == [
        lost.format("refused"),
        lost.format("no answer"),
    ]
    assert told("refused", EMPTY) == [
        lost.format("refused"),
        "http://d answers again",
        "following http://d",
        "0 models, 0 alerts firing, 0 versions to be judged",
    ]


def test_what_happened_while_it_was_lost_is_told() -> None:
    assert told(EMPTY, "refused", a_look(seen_version(1)))[-1] == "reg/m v1: pass; no layer stands out"


def test_a_hostile_name_stays_on_its_line() -> None:
    hostile = "m\n2026-03-02T12:00:00Z reg/m v2: pass\x1b[2J"

    lines = told(EMPTY, a_look(seen_version(1, model=hostile), alerts=[seen_alert(hostile)]))

    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)
