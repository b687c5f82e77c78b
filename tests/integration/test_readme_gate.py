"""The README's section on pipelines: its commands run, and its ignore file is one."""

from __future__ import annotations

import re
import shlex
from datetime import date
from pathlib import Path

import pytest

from layerwatch.daemon.gate.ignorefile import LONGEST, read_ignore_file
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import network, with_wrong_scale
from layerwatch_testing.processes import layerwatch

README = Path(__file__).parents[2] / "README.md"
_EXPECTED = {"gate": 1, "convert": 0}


@pytest.fixture(scope="module")
def section() -> str:
    found = re.search(r"^## In a pipeline\n(.*?)(?=^## |\Z)", README.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None, "the README has no section on pipelines"
    return found[1]


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def test_the_commands_run_on_a_broken_version(section: str, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "old.safetensors", network())
    write_safetensors(tmp_path / "new.safetensors", with_wrong_scale(network()))
    (commands,) = blocks(section, "")

    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "layerwatch"
        done = layerwatch(arguments, tmp_path, {"LAYERWATCH_SCAN__THREADS": "1"})
        assert done.returncode == _EXPECTED[arguments[0]], done.stderr

    assert {path.name for path in tmp_path.iterdir()} >= {
        "report.json",
        "report.sarif",
        "report.xml",
        "report.md",
    }


def test_the_ignore_file_is_one(section: str, tmp_path: Path) -> None:
    assert "at most a year ahead" in section
    (text,) = blocks(section, "yaml")
    (tmp_path / "ignore.yaml").write_text(text)

    # On a day on which the README's date is the last that is taken: dates of the text pass, its form stays.
    shown = re.search(r"expires: (\d{4}-\d\d-\d\d)", text)
    assert shown is not None
    today = date.fromisoformat(shown[1]) - LONGEST

    (entry,) = read_ignore_file(tmp_path / "ignore.yaml", today).entries

    assert (entry.rule, entry.layer, entry.model) == ("zero_rows", "embed_tokens", "fraud-*")
