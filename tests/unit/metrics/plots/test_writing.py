"""Plots as files: how many, where, the same bytes every time, and nothing outside the folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from layerwatch.metrics.plots import PlotError, PlotReason, PlottedLayer, write_plots
from layerwatch_testing.networks import finetuned, network
from layerwatch_testing.plotting import plotted
from layerwatch_testing.processes import environment
from layerwatch_testing.rights import forbidden

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> list[PlottedLayer]:
    return plotted(tmp_path_factory.mktemp("model"), network())


def test_a_model_gives_two_plots_and_one_per_layer(tmp_path: Path, layers: list[PlottedLayer]) -> None:
    written = write_plots(tmp_path / "new" / "plots", layers)

    assert [path.name for path in written] == [
        "alpha_profile.png",
        "alpha_histogram.png",
        "layer_001_fc1.png",
        "layer_002_fc2.png",
        "layer_003_fc3.png",
    ]
    assert sorted((tmp_path / "new" / "plots").iterdir()) == sorted(written)
    assert all(path.read_bytes().startswith(PNG) for path in written)


def test_the_same_measurements_give_the_same_bytes(tmp_path: Path, layers: list[PlottedLayer]) -> None:
    for file_format in ("png", "svg"):
        first = write_plots(tmp_path / "a", layers[-1:], layers[-1:], file_format)
        second = write_plots(tmp_path / "b", layers[-1:], layers[-1:], file_format)

        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


_SCRIPT = """
import hashlib, sys
from pathlib import Path
import matplotlib
before = matplotlib.rcParams.copy()
from layerwatch.metrics.plots import write_plots
from layerwatch_testing.networks import network
from layerwatch_testing.plotting import plotted
folder = Path(sys.argv[1])
layers = plotted(folder, network())[-1:]
for file_format in ("png", "svg"):
    for path in write_plots(folder / "plots", layers, None, file_format):
        print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
assert matplotlib.rcParams.copy() == before, "settings changed"
assert "matplotlib.pyplot" not in sys.modules, "pyplot was imported"
"""


def test_two_processes_write_the_same_bytes_without_pyplot_and_leave_the_settings_alone(
    tmp_path: Path,
) -> None:
    answers = []
    for seed, settings in (("1", ""), ("2", "font.size: 30\nlines.linewidth: 9\nsvg.fonttype: none\n")):
        folder = tmp_path / seed
        folder.mkdir()
        (folder / "matplotlibrc").write_text(settings)
        finished = subprocess.run(
            [sys.executable, "-P", "-c", _SCRIPT, str(folder)],
            cwd=folder,
            env=environment(PYTHONHASHSEED=seed, MPLCONFIGDIR=str(folder), OMP_NUM_THREADS="1"),
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        answers.append(finished.stdout)

    assert len(answers[0].splitlines()) == 6
    assert answers[0] == answers[1]


def test_an_svg_is_well_formed_and_carries_no_date(tmp_path: Path, layers: list[PlottedLayer]) -> None:
    for path in write_plots(tmp_path, layers[-1:], format="svg"):
        text = path.read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert "<dc:date>" not in text


def test_names_from_hostile_files_write_nothing_outside_the_folder(
    tmp_path: Path, layers: list[PlottedLayer]
) -> None:
    names = ["../../out", "/etc/cron.d/x", "a/b", "a_b", "A_B", "..", "\udcff", "x" * 5000, "CON", "-rf"]
    found = layers[-1].measurement
    hostile = [PlottedLayer(name, (8, 4), "F32", found) for name in names]
    folder = tmp_path / "inside" / "plots"

    written = write_plots(folder, hostile)

    assert len(set(written)) == len(names) + 2
    assert {path.parent for path in written} == {folder}
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(everything) == sorted(written)


def test_a_layer_that_could_not_be_examined_has_its_file_too(
    tmp_path: Path, layers: list[PlottedLayer]
) -> None:
    written = write_plots(tmp_path, [*layers, PlottedLayer("q", (8, 8), "I4", None, "packed")])

    assert written[-1].name == "layer_004_q.png"
    assert written[-1].read_bytes().startswith(PNG)


def test_the_baseline_is_drawn_into_the_layers_of_the_same_name(
    tmp_path: Path, layers: list[PlottedLayer]
) -> None:
    baseline = plotted(tmp_path, finetuned(network()))
    without = write_plots(tmp_path / "a", layers)
    with_it = write_plots(tmp_path / "b", layers, [one for one in baseline if one.name != "fc2"])

    same = [old.read_bytes() == new.read_bytes() for old, new in zip(without, with_it, strict=True)]

    assert same == [False, False, False, True, False]


def test_a_folder_that_is_a_file_is_a_typed_error(tmp_path: Path, layers: list[PlottedLayer]) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(PlotError, match="cannot be written to") as caught:
        write_plots(tmp_path / "file", layers)

    assert caught.value.reason is PlotReason.CANNOT_WRITE


def test_an_unknown_format_is_refused_before_anything_is_written(
    tmp_path: Path, layers: list[PlottedLayer]
) -> None:
    with pytest.raises(PlotError, match="png or svg, not as 'pdf'") as caught:
        write_plots(tmp_path / "plots", layers, format="pdf")

    assert caught.value.reason is PlotReason.UNKNOWN_FORMAT
    assert not (tmp_path / "plots").exists()


def test_without_matplotlib_the_error_tells_what_to_install(
    tmp_path: Path, layers: list[PlottedLayer], monkeypatch: pytest.MonkeyPatch
) -> None:
    # None in sys.modules is how Python itself marks a module that must not be imported.
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(PlotError, match="pip install matplotlib") as caught:
        write_plots(tmp_path / "plots", layers)

    assert caught.value.reason is PlotReason.MISSING_PACKAGE
    assert not (tmp_path / "plots").exists()


def test_a_users_style_is_back_after_drawing(tmp_path: Path, layers: list[PlottedLayer]) -> None:
    with matplotlib.rc_context({"font.size": 33.0, "svg.hashsalt": "mine"}):
        write_plots(tmp_path, layers[-1:])

        assert matplotlib.rcParams["font.size"] == 33.0
        assert matplotlib.rcParams["svg.hashsalt"] == "mine"


def test_pixels_are_not_empty(tmp_path: Path, layers: list[PlottedLayer]) -> None:
    from matplotlib.image import imread

    for path in write_plots(tmp_path, layers[-1:]):
        pixels = imread(path)
        assert pixels.shape[1] > 900
        assert 0.02 < np.mean(pixels[..., :3].min(axis=2) < 0.95) < 0.9


def test_a_folder_without_the_right_to_write_is_a_typed_error(
    tmp_path: Path, layers: list[PlottedLayer]
) -> None:
    folder = tmp_path / "plots"
    folder.mkdir()

    with forbidden(folder), pytest.raises(PlotError, match="Permission denied") as caught:
        write_plots(folder, layers[-1:])

    assert caught.value.reason is PlotReason.CANNOT_WRITE
