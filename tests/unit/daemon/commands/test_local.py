"""From arguments to paths and from reports to files: what was not understood ends with exit code 2."""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path

import pytest
import typer

from layerwatch.daemon import cli
from layerwatch.daemon.commands.local import model_path, output_path, write_output


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
    versions = ", ".join(sorted({name.split("/")[0] for name in names} - {"notes"}))
    assert f"several models or versions ({versions})" in capsys.readouterr().err


@pytest.mark.parametrize(
    "names",
    [
        ["unet/unet.safetensors", "vae/vae.safetensors"],
        ["unet/model.safetensors", "vae/model.safetensors", "model_index.json"],
        ["encoder/model.pt", "decoder/model.pt", "config.json"],
        ["model.safetensors", "checkpoint-1/model.safetensors", "checkpoint-2/model.safetensors"],
        ["artifacts/data/model.pth"],
    ],
)
def test_a_folder_whose_subfolders_are_parts_of_one_model_is_a_model(
    names: list[str], tmp_path: Path
) -> None:
    weights(tmp_path, *names)

    assert model_path(str(tmp_path)) == tmp_path
