from __future__ import annotations

import pytest
from pydantic import ValidationError

from layerwatch.config.owners import OwnerSettings, owner_labels


def owner(labels: dict[str, str], *models: str) -> OwnerSettings:
    return OwnerSettings(models=models, labels=labels)


OWNERS = (
    owner({"team": "platform", "pager": "low"}, "*"),
    owner({"team": "fraud"}, "prod/fraud-*", "hf/acme/*"),
    owner({"tier": "1"}, "*/fraud-scoring"),
)


@pytest.mark.parametrize(
    ("registry", "model", "labels"),
    [
        ("prod", "churn", {"team": "platform", "pager": "low"}),
        ("prod", "fraud-text", {"team": "fraud", "pager": "low"}),
        ("prod", "fraud-scoring", {"team": "fraud", "pager": "low", "tier": "1"}),
        ("hf", "acme/bert", {"team": "fraud", "pager": "low"}),
        ("hf", "acme/fraud-scoring", {"team": "fraud", "pager": "low", "tier": "1"}),
        ("local", "fraud-text", {"team": "platform", "pager": "low"}),
        ("prod", "Fraud-text", {"team": "platform", "pager": "low"}),
    ],
)
def test_later_owners_add_labels_and_win_for_the_same(
    registry: str, model: str, labels: dict[str, str]
) -> None:
    assert owner_labels(OWNERS, registry, model) == {label: (value,) for label, value in labels.items()}


def test_a_model_without_owner_has_no_labels() -> None:
    assert owner_labels(OWNERS[1:], "local", "churn") == {}
    assert owner_labels((), "local", "churn") == {}


@pytest.mark.parametrize("pattern", ["fraud-scoring", "fraud-*", ""])
def test_a_pattern_that_names_no_registry_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match=r"REGISTRY/MODEL|must not be empty"):
        owner({"team": "fraud"}, pattern)


@pytest.mark.parametrize(
    ("labels", "name", "why"),
    [
        ({"model": "x"}, "model", 'every alert has a label "model" already'),
        ({"rule_group": "x"}, "rule_group", "already"),
        ({"alertname": "x"}, "alertname", "already"),
        ({"my-team": "x"}, "my-team", "is no name of a label"),
        ({"": "x"}, "", "is no name of a label"),
        ({"__team": "x"}, "__team", "is no name of a label"),
        ({"team": 5}, "team", "must be text; put it in quotes"),
        ({"team": None}, "team", "must be text"),
        ({"team": " "}, "team", "must not be empty"),
    ],
)
def test_a_label_that_cannot_be_given_is_refused_by_name(
    labels: dict[str, object], name: str, why: str
) -> None:
    with pytest.raises(ValidationError, match=why) as caught:
        OwnerSettings.model_validate({"models": ["*"], "labels": {"fine": "x", **labels}})
    assert [detail["loc"] for detail in caught.value.errors()] == [("labels", name)]


@pytest.mark.parametrize("labels", [{}, [], "team", None])
def test_labels_are_a_group_with_at_least_one(labels: object) -> None:
    with pytest.raises(ValidationError, match=r"must be labels with their values, such as \{team: fraud\}"):
        OwnerSettings.model_validate({"models": ["*"], "labels": labels})
