"""``layerwatch scan --plots DIR`` as a command."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from layerwatch.daemon.cli import app
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network, with_wrong_scale

QUICK = {"LAYERWATCH_SCAN__NICENESS": "0", "LAYERWATCH_SCAN__THREADS": "1"}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    return CliRunner(env=QUICK)


def test_the_plots_of_model_and_baseline_are_written_beside_the_report(runner: CliRunner) -> None:
    write_safetensors(Path("good.safetensors"), network())
    write_safetensors(Path("bad.safetensors"), with_wrong_scale(finetuned(network())))
    arguments = ["scan", "bad.safetensors", "--baseline", "good.safetensors"]

    plain = runner.invoke(app, arguments)
    plotted = runner.invoke(app, [*arguments, "--plots", "out/plots"])
    alone = runner.invoke(app, ["scan", "bad.safetensors", "--plots", "alone"])

    assert plotted.exit_code == alone.exit_code == 0, plotted.stderr + alone.stderr
    assert plotted.stdout.splitlines()[:5] == plain.stdout.splitlines()[:5]
    assert "wrote 5 plots of 3 layers to out/plots" in plotted.stderr
    names = {
        "alpha_profile.png",
        "alpha_histogram.png",
        "layer_001_fc1.png",
        "layer_002_fc2.png",
        "layer_003_fc3.png",
    }
    with_baseline, without = digests(Path("out/plots")), digests(Path("alone"))
    assert set(with_baseline) == set(without) == names
    assert all(with_baseline[name] != without[name] for name in names)


def test_the_same_bytes_give_the_same_plots(runner: CliRunner) -> None:
    write_safetensors(Path("good.safetensors"), network())

    for folder in ("a", "b"):
        assert runner.invoke(app, ["scan", "good.safetensors", "--plots", folder]).exit_code == 0

    assert digests(Path("a")) == digests(Path("b"))


def test_a_usage_error_comes_before_any_work(runner: CliRunner) -> None:
    write_safetensors(Path("good.safetensors"), network())
    Path("file").touch()

    blocked = runner.invoke(app, ["scan", "good.safetensors", "--plots", "file"])
    missing = runner.invoke(app, ["scan", "missing.safetensors", "--plots", "new"])

    assert blocked.exit_code == missing.exit_code == 2
    assert (blocked.stdout, blocked.stderr) == ("", "file: is not a directory\n")
    assert not Path("new").exists()
