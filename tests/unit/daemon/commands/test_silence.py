"""``layerwatch silence``: what its transcript in ``tests/golden`` does not show, because alerts fire."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import Result

from firedalerts import ended, fired
from layerwatch.daemon.store import silences
from layerwatch.daemon.store.database import Database
from layerwatch_testing.daemons import write_config

Call = Callable[..., Result]
REASON = ("--reason", "planned")


@pytest.fixture
def config(database: Database, tmp_path: Path) -> Path:
    """Of a store in which prod/fraud and prod/spam fire, and prod/over did."""
    with database.write() as connection:
        fired(connection)
        fired(connection, "prod/spam", ref="champion", version="v\u202e7\x1b[31m")
        ended(connection, fired(connection, "prod/over"))
    owners = [{"models": ["*/fraud*"], "labels": {"team": "risk"}}]
    return write_config(tmp_path / "layerwatch.yaml", alerts={"owners": owners})


@pytest.mark.parametrize(
    ("matchers", "held"),
    [
        (["model=fraud"], ["prod/fraud latest v3 (weights, critical)"]),
        (['registry="prod"', "severity=critical"], ["prod/fraud latest v3", "prod/spam champion v?7?[31m"]),
        (["team=risk"], ["prod/fraud latest v3"]),
        (["model=over"], []),
        (["rule=dead_rows"], []),
    ],
    ids=str,
)
def test_the_alerts_that_it_holds_back_now_are_printed(
    config: Path, call: Call, matchers: list[str], held: list[str]
) -> None:
    result = call("silence", "add", *matchers, "--for", "2h", *REASON, "--config", config)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()[2:]
    if not held:
        assert lines == ["  no alert that fires now matches it"]
        return
    assert len(lines) == len(held)
    for line, name in zip(lines, held, strict=True):
        assert line.startswith(f"  holds back {name}")


def test_one_that_begins_later_will_hold_back(config: Path, call: Call, database: Database) -> None:
    start = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    arguments = ("add", "model=fraud", "--start", start.isoformat(), "--for", "30m", *REASON)
    result = call("silence", *arguments, "--config", config)
    assert result.exit_code == 0, result.output
    first, _, held = result.stdout.splitlines()
    assert re.fullmatch(r"silence 1: begins .* UTC, until .* UTC; \S+: planned", first)
    assert held.startswith("  will hold back prod/fraud")
    with database.read() as connection:
        kept = silences.get(connection, 1)
    assert (kept.starts_at, kept.ends_at) == (start, start + timedelta(minutes=30))
    assert call("silence", "list", "--config", config).stdout.startswith("silence 1: begins")
    assert call("silence", "expire", "1", "--config", config).stdout.startswith("silence 1: ended")


def test_the_end_may_be_a_time_in_any_zone(config: Path, call: Call, database: Database) -> None:
    end = (datetime.now(UTC) + timedelta(days=2)).replace(second=0, microsecond=0)
    elsewhere = f"{end + timedelta(hours=9):%Y-%m-%dT%H:%M}+09:00"
    result = call("silence", "add", "model=fraud", "--until", elsewhere, *REASON, "--config", config)
    assert result.exit_code == 0, result.output
    assert f"active until {end:%Y-%m-%d %H:%M} UTC" in result.stdout
    with database.read() as connection:
        assert silences.get(connection, 1).ends_at == end


def test_the_list_as_json_is_what_the_api_answers(config: Path, call: Call) -> None:
    call("silence", "add", "model=fraud", "--for", "2h", "--author", "ann", *REASON, "--config", config)
    call("silence", "add", "model=spam", "--for", "2h", *REASON, "--config", config)
    call("silence", "expire", "2", "--author", "bob", "--config", config)
    (one,) = json.loads(call("silence", "list", "--format", "json", "--config", config).stdout)
    assert (one["id"], one["state"], one["matchers"]) == (1, "active", ['model="fraud"'])
    assert (one["author"], one["reason"], one["expired_by"]) == ("ann", "planned", None)
    everything = json.loads(call("silence", "list", "--all", "--format", "json", "--config", config).stdout)
    assert [(row["id"], row["state"], row["expired_by"]) for row in everything] == [
        (2, "expired", "bob"),
        (1, "active", None),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--for", "2h", "--until", "2026-12-01T08:00Z"),
        ("--for", "36500d", "--start", "9990-01-01T00:00Z"),
        ("--start", "noon", "--for", "2h"),
        ("--start", "2026-12-01T08:00", "--for", "2h"),
        ("--for", "2h", "--author", "\u200b"),
        ("--for", "2h", "--author", "a" * 101),
    ],
    ids=str,
)
def test_what_cannot_be_kept_ends_with_code_2_and_keeps_nothing(
    config: Path, call: Call, database: Database, arguments: tuple[str, ...]
) -> None:
    result = call("silence", "add", "model=fraud", *arguments, *REASON, "--config", config)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    with database.read() as connection:
        assert silences.list_(connection, datetime.now(UTC)) == []


def test_hostile_text_reaches_no_terminal(config: Path, call: Call) -> None:
    hostile = "x\u202ey\x1b[31mz"
    matcher = f'model="{hostile}"'
    added = call(
        "silence", "add", matcher, "--for", "2h", "--reason", hostile, "--author", hostile, "--config", config
    )
    assert added.exit_code == 0, added.output
    for text in (added.stdout, call("silence", "list", "--config", config).stdout):
        assert text.replace("\n", "").isprintable()
        assert 'model="x\\u202ey\\u001b[31mz"' in text
        assert "x?y?[31mz: x?y?[31mz" in text
