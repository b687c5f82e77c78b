"""``--format html`` of scan, gate and convert: a file with pictures where the weights are at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from wholedocuments import assert_whole

Call = Callable[..., Result]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setenv("LAYERWATCH_SCAN__NICENESS", "0")
    monkeypatch.setenv("LAYERWATCH_SCAN__THREADS", "1")
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / "old.safetensors", network())
    write_safetensors(tmp_path / "new.safetensors", with_wrong_scale(finetuned(network())))
    return "new.safetensors", "old.safetensors"


@pytest.mark.parametrize("command", ["scan", "gate"])
def test_scan_and_gate_write_pictures_of_every_layer(
    call: Call, models: tuple[str, str], tmp_path: Path, command: str
) -> None:
    new, old = models
    result = call(command, new, "--baseline", old, "--format", "html", "-o", "report.html")

    assert (result.exit_code, result.stdout) == (0 if command == "scan" else 1, "")
    found = assert_whole((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "fc2 is broken" in found.text
    assert found.text.count("Spectral density") >= 3
    assert found.text.count("baseline") >= 3


def test_measurements_out_of_the_cache_give_the_same_pictures(
    call: Call, models: tuple[str, str], tmp_path: Path
) -> None:
    new, old = models
    first, again = (
        call("gate", new, "--baseline", old, "--format", "html", "--cache", tmp_path / "cache").stdout
        for _ in range(2)
    )

    def pictures(html: str) -> str:
        return html[html.index('<article class="layer-block"') : html.rindex("What could not have been seen")]

    assert pictures(first) == pictures(again)


def test_a_converted_report_is_the_same_without_pictures(
    call: Call, models: tuple[str, str], tmp_path: Path
) -> None:
    new, old = models
    call("gate", new, "--baseline", old, "--format", "json", "-o", "report.json")
    result = call("convert", "report.json", "--format", "html")

    assert result.exit_code == 0
    found = assert_whole(result.stdout)
    assert "fc2 is broken" in found.text
    assert "made from a stored report" in found.text
