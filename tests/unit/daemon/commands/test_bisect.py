"""``layerwatch bisect`` over a store that real scans filled, and over files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from layerwatch_testing.worlds.directory import DirectoryWorld

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERWATCH_SCAN__NICENESS", "0")
    monkeypatch.setenv("LAYERWATCH_SCAN__THREADS", "1")


def test_the_step_is_named_with_its_evidence_and_what_to_do(config: Path, call: Call) -> None:
    result = call("bisect", "reg/m", "fc2", "--config", config)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "fc2 of reg/m, 3 versions from v1 to v3"
    assert [line.split()[:2] for line in lines[2:5]] == [["v1", "ok"], ["v2", "ok"], ["v3", "broken"]]
    assert "fc2 broke with v3 (quantized from v2); v2 is the last good version" in lines
    assert any(line.startswith("  critical scaled: ") for line in lines)
    assert any(line.startswith("  what to do: ") for line in lines)
    assert 'meant so: layerwatch baseline accept reg/m v3 --reason "..."' in lines


def test_a_layer_that_broke_nowhere_is_an_answer_too(config: Path, call: Call) -> None:
    result = call("bisect", "reg/m", "fc1", "--config", config)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "it broke nowhere along this line"


def test_the_line_can_be_cut_at_both_ends(config: Path, call: Call) -> None:
    result = call("bisect", "reg/m", "fc2", "--from", "v2", "--config", config)
    assert result.stdout.startswith("fc2 of reg/m, 2 versions from v2 to v3")
    result = call("bisect", "reg/m", "fc2", "--to", "v2", "--config", config)
    assert result.stdout.splitlines()[-1] == "it broke nowhere along this line"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["reg/m", "fc22.weight"], "no version of reg/m has a layer fc22.weight; did you mean fc2"),
        (["reg/m", "zzz"], "has a layer zzz; the first of"),
        (["reg/m", "fc2", "--from", "v9"], "v9 is no ancestor of v3, whose line is v1 v2 v3"),
        (["reg/m", "fc2", "--to", "v9"], "the store holds no judged version v9 of reg/m"),
        (["reg/n", "fc2"], "the store holds no model reg/n; did you mean reg/m?"),
        (["reg/m"], "give REGISTRY/MODEL and LAYER"),
        (["m", "fc2"], "must be REGISTRY/MODEL"),
    ],
)
def test_a_mistake_is_a_usage_error_with_a_suggestion(
    config: Path, call: Call, arguments: list[str], told: str
) -> None:
    result = call("bisect", *arguments, "--config", config)
    assert result.exit_code == 2
    assert told in result.stderr


def test_files_need_no_store(config: Path, call: Call, world: DirectoryWorld) -> None:
    folders = [world.folder("m", version) for version in ("v1", "v2", "v3")]
    result = call("bisect", "--files", *folders, "fc2")
    assert result.exit_code == 0, result.output
    assert "fc2 broke with v3; v2 is the last good version" in result.stdout
    assert "baseline accept" not in result.stdout
    whole = call("bisect", "--files", world.root / "m", "fc2")
    assert whole.stdout == result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["v1", "fc2"], "No such file or directory"),
        (["fc2"], "two versions or more"),
        (["--from", "v1", "a", "b", "fc2"], "--from and --to choose among the versions of a store"),
    ],
)
def test_wrong_files_are_a_usage_error(
    call: Call, arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("bisect", "--files", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_an_unknown_layer_of_files_is_a_usage_error_with_a_suggestion(
    config: Path, call: Call, world: DirectoryWorld
) -> None:
    result = call("bisect", "--files", world.root / "m", "fc22")
    assert result.exit_code == 2
    assert "no version of these files has a layer fc22; did you mean fc2" in result.stderr


def test_an_unknown_layer_is_told_before_any_file_is_measured(
    config: Path, call: Call, world: DirectoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A scan in so little memory fails, and says so.
    monkeypatch.setenv("LAYERWATCH_SCAN__MEMORY_LIMIT", "64MiB")
    result = call("bisect", "--files", world.root / "m", "fc22")
    assert result.exit_code == 2
    assert "no version of these files has a layer fc22" in result.stderr


def test_a_layer_may_be_called_by_the_name_of_its_tensor(
    config: Path, call: Call, world: DirectoryWorld
) -> None:
    by_layer = call("bisect", "reg/m", "fc2", "--config", config)
    by_tensor = call("bisect", "reg/m", "fc2.weight", "--config", config)
    assert (by_tensor.exit_code, by_tensor.stdout) == (0, by_layer.stdout)
    by_tensor = call("bisect", "--files", world.root / "m", "fc2.weight")
    assert by_tensor.stdout.startswith("fc2 of these files, 3 versions")
