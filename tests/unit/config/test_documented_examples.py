"""Every example of a configuration in the pages that people read can be loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerwatch.alerts.mutetimes import build_mute_time
from layerwatch.alerts.routing import build_routes, routes_for
from layerwatch.config.loading import load_settings
from layerwatch.config.owners import owner_labels
from layerwatch.config.settings import Settings

Writer = Callable[[str], Path]

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
ALERTS = ROOT / "alerts" / "README.md"

_OTHERS = {"containers", "ignore"}
"""Keys of examples that configure something else: a pod, an ignore file."""

_LOCAL = {"registries": [{"name": "local", "kind": "directory", "path": "models"}]}


def yaml_blocks(page: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each YAML block of a page."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"(?ms)^```yaml\n(.*?)^```$", text):
        yield text.count("\n", 0, found.start()) + 1, found[1]


def whole(example: object) -> dict[str, Any] | None:
    """The configuration that an example is a part of; None for one of something else.

    A list is one of receivers, which need a route. Composites need the registry that they name.
    """
    if isinstance(example, list):
        if "kind" not in example[0]:
            return None
        told = [one["name"] for one in example if one["kind"] != "heartbeat"]
        return {"alerts": {"receivers": example, "route": {"receiver": told[0]}}}
    assert isinstance(example, Mapping)
    if _OTHERS & set(example):
        return None
    return {**(_LOCAL if "composites" in example else {}), **example}


EXAMPLES = {
    f"{page.relative_to(ROOT)}:{line}": config
    for page in (README, ALERTS)
    for line, text in yaml_blocks(page)
    if (config := whole(yaml.safe_load(text))) is not None
}


@pytest.mark.parametrize("where", EXAMPLES)
def test_the_example_is_a_configuration(where: str, write_config: Writer) -> None:
    load_settings(write_config(yaml.safe_dump(EXAMPLES[where], sort_keys=False)), {})


def test_the_pages_have_examples_of_every_kind_of_receiver(example_yaml: str) -> None:
    shown = {
        receiver["kind"]
        for config in EXAMPLES.values()
        for receiver in config.get("alerts", {}).get("receivers", ())
    }
    known = {receiver["kind"] for receiver in yaml.safe_load(example_yaml)["alerts"]["receivers"]}
    assert shown == known


# --- the worked example ------------------------------------------------------------------------------------------


@pytest.fixture
def two_teams(write_config: Writer) -> Settings:
    (text,) = (text for _, text in yaml_blocks(ALERTS) if "fraud-pager" in text)
    return load_settings(write_config(text), {})


def test_alerts_take_the_ways_that_the_table_below_the_example_says(two_teams: Settings) -> None:
    page = ALERTS.read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| `prod/([\w-]+)`, (\w+) \| (.*) \|$", page)
    assert len(rows) >= 4
    root = build_routes(two_teams.alerts)
    assert root is not None
    for model, severity, told in rows:
        labels = {
            **owner_labels(two_teams.alerts.owners, "prod", model),
            "registry": ("prod",),
            "model": (model,),
            "severity": (severity,),
        }
        assert [route.receiver for route in routes_for(root, labels)] == told.split(", "), (model, severity)


def test_in_the_example_only_chat_is_muted_at_night(two_teams: Settings) -> None:
    root = build_routes(two_teams.alerts)
    assert root is not None
    (nights,) = map(build_mute_time, two_teams.alerts.mute_times)
    waiting = [root]
    muted = set()
    while waiting:
        route = waiting.pop()
        waiting.extend(route.routes)
        muted |= {route.receiver} if nights in route.mute_times else set()
    assert muted == {"fraud-chat", "search-chat"}
