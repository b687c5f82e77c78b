"""``--plots DIR``: plots beside the report, and usage errors before any work."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from layerwatch.daemon.commands.plots import (
    KeptLayers,
    plots_directory,
    plotted_layers,
    title_of,
    write_scan_plots,
)
from layerwatch.metrics.layerentry import LayerEntry
from layerwatch.metrics.measurement import LayerKind
from layerwatch_testing.models import scan, write_safetensors
from layerwatch_testing.networks import finetuned, network
from layerwatch_testing.rights import forbidden


def test_the_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"

    assert plots_directory(folder) == folder
    assert folder.is_dir()
    assert plots_directory(folder) == folder
    assert plots_directory(None) is None


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("file", "file: is not a directory"),
        ("file/inside", "cannot be written: Not a directory"),
        ("x" * 300, "cannot be written: File name too long"),
        ("nul\0byte", "embedded null byte"),
    ],
    ids=["a file", "below a file", "too long", "null byte"],
)
def test_a_folder_that_cannot_be_is_a_usage_error(
    tmp_path: Path, name: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(typer.Exit) as caught:
        plots_directory(tmp_path / name)

    assert caught.value.exit_code == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_without_the_right_to_write_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "plots"
    folder.mkdir()

    with forbidden(folder), pytest.raises(typer.Exit) as caught:
        plots_directory(folder)

    assert caught.value.exit_code == 2
    assert "Permission denied" in capsys.readouterr().err


def test_without_matplotlib_it_is_a_usage_error_that_tells_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # None in sys.modules is how Python itself marks a module that must not be imported.
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(typer.Exit) as caught:
        plots_directory(tmp_path / "plots")

    assert caught.value.exit_code == 2
    assert "pip install matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "plots").exists()


def test_a_scan_with_a_baseline_writes_a_file_per_layer_and_tells_how_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scan(write_safetensors(tmp_path / "a.safetensors", network()))
    found = scan(
        write_safetensors(tmp_path / "b.safetensors", finetuned(network())), kept=before.measurements
    )
    kept = KeptLayers()

    kept.keep(found.content, before.content, found.measurements.get)
    write_scan_plots(tmp_path / "plots", kept.layers, kept.baseline, "b")

    assert [layer.name for layer in kept.layers] == ["fc1", "fc2", "fc3"]
    assert kept.baseline is not None
    assert [layer.measurement for layer in kept.baseline] != [layer.measurement for layer in kept.layers]
    assert len(list((tmp_path / "plots").iterdir())) == 5
    told = capsys.readouterr()
    assert "wrote 5 plots of 3 layers to" in told.err
    assert not told.out


def test_a_layer_that_could_not_be_examined_keeps_its_reason_and_a_file_is_no_layer() -> None:
    entries = [
        LayerEntry("fc", LayerKind.LINEAR, (8, 8), "I4", None, "unsupported_dtype", "stored as I4"),
        LayerEntry("fc.bias", LayerKind.BIAS, (8,), "F32", "00"),
        LayerEntry("other.gguf", LayerKind.VECTOR, (), "", None, "unknown_format", "not examined"),
    ]

    (layer,) = plotted_layers(entries, lambda digest: None)

    assert (layer.name, layer.shape, layer.problem) == ("fc", (8, 8), "stored as I4")


def test_a_model_without_a_spectrum_writes_nothing_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scan(write_safetensors(tmp_path / "a.safetensors", {"bias": np.ones(4, np.float32)}))

    write_scan_plots(tmp_path / "plots", plotted_layers(found.content.layers, found.measurements.get))

    assert "no layer with a spectrum" in capsys.readouterr().err
    assert not (tmp_path / "plots").exists()


def test_plots_that_cannot_be_written_end_with_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scan(write_safetensors(tmp_path / "a.safetensors", network()))
    (tmp_path / "plots").touch()

    with pytest.raises(typer.Exit) as caught:
        write_scan_plots(tmp_path / "plots", plotted_layers(found.content.layers, found.measurements.get))

    assert caught.value.exit_code == 2
    assert "plots cannot be written to" in capsys.readouterr().err


def test_the_title_is_the_files_name_or_that_of_model_and_version(tmp_path: Path) -> None:
    version = tmp_path / "digits" / "v5"
    version.mkdir(parents=True)
    (version / "model.safetensors").touch()

    assert title_of(version) == "digits/v5"
    assert title_of(version / "model.safetensors") == "model.safetensors"
