"""``layerwatch scan``: what it is told, and what it does when it cannot run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAYERWATCH_SCAN__NICENESS", "0")
    monkeypatch.setenv("LAYERWATCH_SCAN__THREADS", "1")
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / "old.safetensors", network())
    write_safetensors(tmp_path / "new.safetensors", finetuned(network()))


def test_a_declared_relation_is_what_the_version_is_judged_by(call: Call) -> None:
    arguments = ("scan", "new.safetensors", "--baseline", "old.safetensors", "--format", "json")

    plain = json.loads(call(*arguments).stdout)
    reexported = json.loads(call(*arguments, "--relation", "reexported").stdout)

    assert plain["baseline"]["relation"] is None
    assert reexported["baseline"]["relation"] == "reexported"
    # A re-export must hold the same bits, which a fine-tune does not.
    assert (plain["verdict"], reexported["verdict"]) == ("pass", "fail")


def test_a_machine_that_starts_no_scan_process_is_told(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    result = call("scan", "new.safetensors")

    assert result.exit_code == 3
    assert "the scan process cannot be started: No such file or directory" in result.stderr
    assert result.stdout == ""


def test_a_scan_ends_with_alpha_by_depth_and_advice_unless_it_is_to_be_quiet(call: Call) -> None:
    told, quiet = call("scan", "new.safetensors").stdout, call("scan", "new.safetensors", "-q").stdout

    assert "\nalpha by depth, 3 layers\n" in told
    assert "\nadvice from the theory of heavy-tailed spectra, no part of the verdict\n" in told
    assert told.endswith("\n\nverdict: pass\n")
    without = [line for line in quiet.splitlines() if not line.startswith("new.safetensors: ")]
    assert [line for line in without if line not in told.splitlines()] == []
    assert "alpha by depth" not in quiet
    assert "advice" not in quiet


@pytest.mark.parametrize("format_", ["json", "csv"])
def test_formats_for_programs_have_neither_picture_nor_advice(call: Call, format_: str) -> None:
    written = call("scan", "new.safetensors", "--format", format_).stdout

    assert "advice" not in written
    assert "alpha by depth" not in written


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "give a MODEL to examine, or --watch to follow a running daemon"),
        (("new.safetensors", "--daemon", "http://127.0.0.1:1"), "--daemon goes with --watch"),
        (("--watch", "--baseline", "old.safetensors", "-q"), "it does not go with --baseline, --quiet"),
        (("--watch", "--format", "json", "-o", "x"), "it does not go with --format, --output"),
        (("--watch", "--relation", "cast", "--plots", "x"), "it does not go with --relation, --plots"),
        (("--watch", "--daemon", "ftp://host"), '"ftp://host": must be the address of a daemon'),
        (("--watch", "http://host:99999"), "Port out of range"),
        (("--watch", "http://a", "--daemon", "http://b"), "the address of the daemon is given twice"),
        (("--watch", "fraud"), "fraud: must be REGISTRY/MODEL"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(call: Call, arguments: tuple[str, ...], why: str) -> None:
    result = call("scan", *arguments)

    assert result.exit_code == 2
    assert why in result.stderr
    assert result.stdout == ""


def test_a_daemon_whose_port_nobody_knows_is_a_usage_error(call: Call, tmp_path: Path) -> None:
    (tmp_path / "layerwatch.yaml").write_text("server: {listen: 127.0.0.1:0}\n")

    result = call("scan", "--watch")

    assert result.exit_code == 2
    assert "give the address with --daemon" in result.stderr
