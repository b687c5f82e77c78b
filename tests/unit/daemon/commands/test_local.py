"""From arguments to paths and from reports to files: what was not understood ends with exit code 2."""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from layerwatch.daemon import cli
from layerwatch.daemon.commands.local import PlainProgress, model_path, output_path, write_output
from layerwatch.daemon.gate.severalmodels import (
    SeveralModelsError,
    SeveralModelsReason,
    require_one_model,
)
from layerwatch.daemon.scan.content import Progress
from layerwatch_testing.models import write_safetensors


def test_a_model_is_a_path_or_a_file_uri(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.touch()

    for argument in (str(file), f"file:{file}", f"file://{file}"):
        assert model_path(argument) == file
    assert model_path(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("", "the name of a model is empty"),
        ("missing.pt", "missing.pt: there is no such file or directory"),
        ("a\0b", "embedded null byte"),
        ("x" * 5000, "File name too long"),
        ("\x1b[2Jx", "?[2Jx: there is no such file"),
        ("hf:owner/name@main", "hf: models cannot be read yet"),
        ("s3://bucket/key", "s3: models cannot be read yet"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_anything_else_is_a_usage_error(
    argument: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught:
        model_path(argument)

    assert caught.value.exit_code == 2
    assert sentence in capsys.readouterr().err


def test_a_report_replaces_the_file_whole_and_follows_a_link(tmp_path: Path) -> None:
    real = tmp_path / "reports" / "today.json"
    real.parent.mkdir()
    real.write_text("old and longer than the new one")
    link = tmp_path / "latest.json"
    link.symlink_to(real)

    write_output("new ±", link)

    assert link.is_symlink()
    assert real.read_text(encoding="utf-8") == "new ±"
    assert stat.S_IMODE(real.stat().st_mode) == 0o644
    assert [path.name for path in real.parent.iterdir()] == ["today.json"]


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    link = tmp_path / "nowhere"
    link.symlink_to("/dev/null")

    write_output("text", link)

    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert link.is_symlink()


@pytest.mark.parametrize("place", ["missing/report.txt", "."])
def test_a_place_where_nothing_can_be_written_is_refused_before_any_work(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught:
        output_path(tmp_path / place)

    assert caught.value.exit_code == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught:
        write_output("text", tmp_path / "gone" / "report.txt")

    assert caught.value.exit_code == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_a_name_that_the_terminal_cannot_show_does_not_cost_the_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))

    write_output("alpha 2.5 ±0.1 层", None)
    sys.stdout.flush()

    assert raw.getvalue() == b"alpha 2.5 \\xb10.1 \\u5c42"


def test_a_defect_of_the_program_is_told_by_an_exit_code_that_no_command_uses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def defect() -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(cli, "app", defect)

    with pytest.raises(SystemExit) as caught:
        cli.main()

    assert caught.value.code == os.EX_SOFTWARE
    assert "ZeroDivisionError: a defect" in capsys.readouterr().err


def weights(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


@pytest.mark.parametrize(
    "names",
    [
        ["1/model.safetensors", "2/model.safetensors"],
        ["v9/fraud-9.pt", "v10/fraud-10.pt", "notes/other.bin"],
        ["fraud/v9/model.pt", "fraud/v10/model.pt"],
        ["a/model-00001-of-00002.bin", "a/model-00002-of-00002.bin", "b/model-00001-of-00001.bin"],
    ],
)
def test_a_folder_of_versions_is_refused_naming_them(
    names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights(tmp_path, *names)

    with pytest.raises(typer.Exit) as caught:
        model_path(str(tmp_path))

    assert caught.value.exit_code == 2
    versions = list(dict.fromkeys(name.rsplit("/", 1)[0] for name in names if not name.startswith("notes")))
    told = capsys.readouterr().err
    assert f"several models or versions ({', '.join(versions)})" in told
    assert (
        f"name one, for example {tmp_path}/{versions[-1]}, with --baseline {tmp_path}/{versions[-2]}" in told
    )


@pytest.mark.parametrize("beside", ["v1/optimizer.pt", "v2/notes.txt", None])
def test_a_folder_of_models_with_the_same_tensors_is_refused_whatever_their_files_are_called(
    beside: str | None, tmp_path: Path
) -> None:
    state = {"fc.weight": np.ones((3, 2), np.float32), "fc.bias": np.ones(3, np.float32)}
    (tmp_path / "v1").mkdir()
    (tmp_path / "v2").mkdir()
    write_safetensors(tmp_path / "v1" / "model.safetensors", state)
    write_safetensors(tmp_path / "v2" / "fraud.safetensors", state)
    if beside is not None:
        (tmp_path / beside).touch()

    with pytest.raises(SeveralModelsError) as caught:
        require_one_model(tmp_path)

    assert caught.value.reason is SeveralModelsReason.SAME_TENSORS
    assert caught.value.models == ("v1", "v2")


def test_folders_with_other_tensors_are_the_parts_of_one_model(tmp_path: Path) -> None:
    for part in ("unet", "vae"):
        (tmp_path / part).mkdir()
        write_safetensors(
            tmp_path / part / f"{part}.safetensors", {f"{part}.weight": np.ones((3, 2), np.float32)}
        )

    require_one_model(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["unet/unet.safetensors", "vae/vae.safetensors"],
        ["unet/model.safetensors", "vae/model.safetensors", "model_index.json"],
        ["encoder/model.pt", "decoder/model.pt", "config.json"],
        ["model.safetensors", "checkpoint-1/model.safetensors", "checkpoint-2/model.safetensors"],
        ["pipe/unet/model.pt", "pipe/vae/model.pt", "pipe/model_index.json"],
        ["artifacts/data/model.pth"],
    ],
)
def test_a_folder_whose_subfolders_are_parts_of_one_model_is_a_model(
    names: list[str], tmp_path: Path
) -> None:
    weights(tmp_path, *names)

    assert model_path(str(tmp_path)) == tmp_path


def test_where_nobody_watches_progress_is_a_line_every_thirty_seconds() -> None:
    seconds = iter([0.0, 1.0, 29.0, 31.0, 32.0, 60.0, 61.5])
    told: list[str] = []

    progress = PlainProgress(lambda: next(seconds), told.append)
    for done in range(1, 7):
        progress("model", Progress(done, 6, "fc"))

    assert told == ["model: 3 of 6 tensors", "model: 6 of 6 tensors"]


def test_a_short_scan_says_nothing_about_its_progress() -> None:
    told: list[str] = []

    progress = PlainProgress(lambda: 0.0, told.append)
    for done in range(1, 5):
        progress("model", Progress(done, 4, "fc"))

    assert told == []
