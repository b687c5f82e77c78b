"""Composites: names, members, and registries that exist."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from layerwatch.config.composites import CompositeSettings, Member, parse_member
from layerwatch.config.settings import Settings

REGISTRIES = [{"name": "local", "kind": "directory", "path": "/models"}]


def settings(*composites: dict[str, Any]) -> Settings:
    return Settings.model_validate({"registries": REGISTRIES, "composites": composites})


def test_members_are_taken_apart() -> None:
    found = settings({"name": "search", "members": ["local/encoder@latest", "local/team/ranker@prod"]})

    assert found.composites[0].parsed == (
        Member("local", "encoder", "latest"),
        Member("local", "team/ranker", "prod"),
    )
    assert found.composites[0].parsed[1].name == "local/team/ranker@prod"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "encoder",
        "local/encoder",
        "encoder@latest",
        "local/@latest",
        "local/encoder@",
        "Local/a@b",
        "local/a@b/c",
    ],
)
def test_anything_but_registry_model_and_ref_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="registry/model@ref"):
        parse_member(text)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([], "must not be empty"),
        (["local/a@x", "local/a@x"], "same member twice"),
        (["nowhere"], "registry/model@ref"),
    ],
)
def test_a_list_without_sense_is_refused(members: list[str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        CompositeSettings.model_validate({"name": "search", "members": members})


def test_an_unknown_registry_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(ValidationError, match=r"unknown registry .locale., did you mean .local."):
        settings({"name": "search", "members": ["locale/encoder@latest"]})


def test_two_composites_of_one_name_are_refused() -> None:
    one = {"name": "search", "members": ["local/encoder@latest"]}

    with pytest.raises(ValidationError, match="already used by composites"):
        settings(one, one)


def test_no_registry_may_take_the_name_of_the_composites() -> None:
    registries = [{"name": "composites", "kind": "directory", "path": "/models"}]
    one = {"name": "search", "members": ["composites/encoder@latest"]}

    with pytest.raises(ValidationError, match="that of the registry of composites"):
        Settings.model_validate({"registries": registries, "composites": [one]})
    assert Settings.model_validate({"registries": registries}).registries[0].name == "composites"
