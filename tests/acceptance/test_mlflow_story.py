"""A model's life in a real MLflow registry, watched by the installed daemon; the README shows the transcript."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from layerwatch_testing.mlflowstory import MlflowStory, mlflow_story
from layerwatch_testing.servers import ServerMissing

pytestmark = [pytest.mark.slow, pytest.mark.server]

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> MlflowStory:
    try:
        with mlflow_story(tmp_path_factory.mktemp("mlflow-story")) as tell:
            return tell()
    except ServerMissing as missing:
        pytest.skip(str(missing))


def test_each_version_gets_its_verdict_as_a_tag(story: MlflowStory) -> None:
    tags = [line for line in story.lines if "layerwatch.verdict" in line]
    assert [line.rpartition(" ")[2] for line in tags] == ["pass", "pass", "fail"]


def test_the_gauge_follows_the_alias_to_the_broken_version_and_back(story: MlflowStory) -> None:
    gauges = [line for line in story.lines if line.startswith("layerwatch_model_verdict")]
    assert [re.search(r"\((\w+)\)", line).group(1) for line in gauges] == ["pass", "pass", "fail", "pass"]  # type: ignore[union-attr]


def test_the_gate_says_before_the_promotion_which_alert_it_would_raise(story: MlflowStory) -> None:
    place = next(number for number, line in enumerate(story.lines) if "--as-if" in line)
    assert "would raise: critical alert about weights: fc2" in "\n".join(story.lines[place:])
    assert "(exit code 1)" in story.lines[place:]


def test_the_alert_names_the_layer_and_is_resolved_by_the_rollback(story: MlflowStory) -> None:
    fired, resolved = (line for line in story.lines if line.startswith("webhook: "))
    assert "firing" in fired
    assert "layer fc2 is broken" in fired
    assert "resolved" in resolved


def test_the_readme_shows_this_very_transcript(story: MlflowStory) -> None:
    assert "\n".join(story.lines) in README.read_text()
