"""The story as data: nothing in it contradicts itself."""

from __future__ import annotations

import pytest

from layerwatch.daemon.demo.networks import NETWORKS
from layerwatch.daemon.demo.story import STORIES, Action, Step, Story
from layerwatch.metrics.findings import Verdict

every_story = pytest.mark.parametrize("story", STORIES, ids=lambda story: story.model)


@every_story
def test_every_parent_is_published_before_its_child(story: Story) -> None:
    published: set[str] = set()
    for step in story.steps:
        assert step.parent is None or step.parent in published
        published.add(step.version)
    assert len(published) == len(story.steps) == 6


@every_story
def test_only_the_first_version_has_no_parent_and_no_relation(story: Story) -> None:
    assert [step.version for step in story.steps if step.parent is None] == ["v1"]
    assert [step.version for step in story.steps if step.relation is None] == ["v1"]
    assert story.steps[0].action is Action.TRAIN


@every_story
def test_a_failure_is_expected_of_the_defective_version_alone(story: Story) -> None:
    failing = [step for step in story.steps if step.expected is Verdict.FAIL]
    assert [step.version for step in failing] == ["v5"]
    assert [step for step in story.steps if step.defect is not None] == failing


@every_story
def test_the_defective_version_repeats_the_recipe_of_the_one_before(story: Story) -> None:
    def recipe(step: Step) -> tuple[object, ...]:
        return step.action, step.parent, step.relation, step.pruned_share

    by_version = {step.version: step for step in story.steps}
    assert recipe(by_version["v5"]) == recipe(by_version["v4"])
    assert recipe(by_version["v6"])[:3] == recipe(by_version["v4"])[:3]


@every_story
def test_the_broken_layer_exists_in_the_network(story: Story) -> None:
    parameters = dict(NETWORKS[story.model]().named_parameters())
    broken = [step.broken_layer for step in story.steps if step.broken_layer is not None]
    assert broken
    for layer in broken:
        assert parameters[f"{layer}.weight"].ndim >= 2
