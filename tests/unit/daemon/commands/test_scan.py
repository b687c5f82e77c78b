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
