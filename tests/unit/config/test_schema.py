from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerwatch.config.defaults import default_yaml
from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings
from layerwatch.config.schema import DIALECT, json_schema

Writer = Callable[[str], Path]

NOTES = {"title", "description", "default", "examples", "discriminator", "format", "$schema", "$defs"}
"""Keywords that say nothing about validity (``discriminator`` is OpenAPI's)."""

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}


def violations(
    schema: Mapping[str, Any], value: Any, root: Mapping[str, Any], path: str = ""
) -> Iterator[str]:
    """What ``value`` violates, by the keywords of draft 2020-12 that the schema uses; others are an error."""
    for keyword, wanted in schema.items():
        if keyword in NOTES:
            continue
        if keyword == "$ref":
            yield from violations(root["$defs"][wanted.removeprefix("#/$defs/")], value, root, path)
        elif keyword in ("anyOf", "oneOf"):
            matching = [part for part in wanted if not list(violations(part, value, root, path))]
            if not matching or (keyword == "oneOf" and len(matching) > 1):
                yield f"{path}: {len(matching)} of {keyword} match"
        elif not _holds(keyword, wanted, schema, value):
            yield f"{path}: {keyword}"
        elif keyword == "additionalProperties" and isinstance(wanted, dict) and isinstance(value, dict):
            for key in value.keys() - schema.get("properties", {}).keys():
                yield from violations(wanted, value[key], root, f"{path}.{key}")
        elif keyword == "propertyNames" and isinstance(value, dict):
            for key in value:
                yield from violations(wanted, key, root, f"{path}.{key}")
        elif keyword == "properties" and isinstance(value, dict):
            for key in value.keys() & wanted.keys():
                yield from violations(wanted[key], value[key], root, f"{path}.{key}")
        elif keyword == "items" and isinstance(value, list):
            for position, item in enumerate(value):
                yield from violations(wanted, item, root, f"{path}[{position}]")


def _holds(keyword: str, wanted: Any, schema: Mapping[str, Any], value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    checks: dict[str, Callable[[], bool]] = {
        "type": lambda: (
            isinstance(value, TYPES[wanted]) and (wanted == "boolean" or not isinstance(value, bool))
        ),
        "enum": lambda: value in wanted,
        "const": lambda: value == wanted,
        "required": lambda: not isinstance(value, dict) or set(wanted) <= value.keys(),
        "additionalProperties": lambda: (
            wanted is not False or not isinstance(value, dict) or value.keys() <= schema["properties"].keys()
        ),
        "properties": lambda: True,
        "propertyNames": lambda: True,
        "minProperties": lambda: not isinstance(value, dict) or len(value) >= wanted,
        "items": lambda: True,
        "minItems": lambda: not isinstance(value, list) or len(value) >= wanted,
        "minLength": lambda: not isinstance(value, str) or len(value) >= wanted,
        "pattern": lambda: not isinstance(value, str) or re.search(wanted, value) is not None,
        "minimum": lambda: not number or value >= wanted,
        "maximum": lambda: not number or value <= wanted,
        "exclusiveMinimum": lambda: not number or value > wanted,
    }
    return checks[keyword]()


def mistakes(text: str) -> list[str]:
    schema = json_schema()
    return list(violations(schema, yaml.safe_load(text), schema))


def test_the_schema_accepts_the_default_file_and_its_examples(example_yaml: str) -> None:
    assert mistakes(default_yaml()) == []
    assert mistakes(example_yaml) == []


GOOD = [
    "{}",
    "server:\nrules:\n  scaled:\nalerts:\n  receivers:\n  route:\n",
    "server: {listen: '[::1]:0', token: {env: A}}",
    "server: {token: {file: A}}",
    "scan: {memory_limit: 1073741824, timeout: 1h30m}",
    "scan: {memory_limit: 4Gi, threads: 2}",
    "registries: [{name: a-b_1, kind: directory, path: m, complete_marker: _SUCCESS}]",
    "rules: {tail_exponent: {severity: warning}, zero_rows: {row_share: 1}}",
    "rules: {scaled: {for_scans: 3}}",
    "alerts: {owners: [{models: ['prod/*'], labels: {team: fraud}}]}",
    """
    alerts:
      receivers: [{name: a, kind: log}]
      route:
        receiver: a
        group_by: ["..."]
        group_wait: 0s
        mute_times:
        routes:
          - {matchers: [model=a], receiver: a, continue: true, group_by: [], routes: [{routes: []}]}
          - group_interval:
    """,
    "alerts: {mute_times: [{name: a, times: [{weekdays: [mon]}, {dates: [01-01], days_of_month: [-1]}]}]}",
    "alerts: {mute_times: [{name: a, zone: Europe/Berlin, times: [{hours: ['20:00-07:00']}]}]}",
    "alerts: {inhibitions: [{source: [rule=a], target: [rule=b], equal: []}]}",
]
BAD = [
    "servers: {}",
    "server: {tokn: a}",
    "server: {token: {env: A, file: B}}",
    "server: {token: {}}",
    "server: {token: ''}",
    "server: 5",
    "scan: {workers: 0}",
    "scan: {workers: 65}",
    "scan: {workers: true}",
    "scan: {timeout: 30}",
    "scan: {timeout: 30m1h}",
    "scan: {memory_limit: 4 gigs}",
    "store: {keep_versions: 0}",
    "registries: {}",
    "registries: [{name: a, kind: directory}]",
    "registries: [{name: A, kind: directory, path: m}]",
    "registries: [{name: a, kind: other, path: m}]",
    "registries: [{name: a, kind: directory, path: m, models: []}]",
    "registries: [{name: a, kind: directory, path: m, refs: ['']}]",
    "rules: {tail_exponent: {severity: critical}}",
    "rules: {scaled: {severity: bad}}",
    "rules: {scaled: {cosine: 1.5}}",
    "rules: {huge_value: {limit: 0}}",
    "alerts: {receivers: [{name: a, kind: log, max_age: 3d}]}",
    "alerts: {receivers: [{name: a, kind: webhook}]}",
    "alerts: {receivers: [{name: a}]}",
    "alerts: {route: {repeat_interval: 1h}}",
    "rules: {scaled: {for_scans: 0}}",
    "rules: {scaled: {for_scans: true}}",
    "alerts: {receivers: [{name: a, kind: log}], route: {receiver: a, matchers: []}}",
    "alerts: {receivers: [{name: a, kind: log}], route: {receiver: a, routes: [{goes_on: true}]}}",
    "alerts: {receivers: [{name: a, kind: log}], route: {receiver: a, routes: [{routes: [{group: []}]}]}}",
    "alerts: {owners: [{models: [], labels: {team: fraud}}]}",
    "alerts: {owners: [{models: ['*'], labels: {}}]}",
    "alerts: {owners: [{models: ['*'], labels: {my-team: fraud}}]}",
    "alerts: {owners: [{models: ['*'], labels: {team: 5}}]}",
    "alerts: {mute_times: [{name: a, times: []}]}",
    "alerts: {mute_times: [{name: a, times: [{weekdays: [monday]}]}]}",
    "alerts: {mute_times: [{name: a, times: [{hours: ['20-7']}]}]}",
    "alerts: {mute_times: [{name: a, times: [{dates: [2026-12-24]}]}]}",
    "alerts: {mute_times: [{name: a, times: [{days_of_month: [32]}]}]}",
    "alerts: {inhibitions: [{source: [], target: [rule=b]}]}",
]


@pytest.mark.parametrize("text", GOOD)
def test_schema_and_loader_both_accept_good_text(write_config: Writer, text: str) -> None:
    assert mistakes(text) == []
    load_settings(write_config(text), {})


@pytest.mark.parametrize("text", BAD)
def test_schema_and_loader_both_refuse_bad_text(write_config: Writer, text: str) -> None:
    assert mistakes(text) != []
    with pytest.raises(ConfigError):
        load_settings(write_config(text), {})


def _group(described: dict[str, Any]) -> str:
    """Name of the group of keys that ``described`` refers to."""
    reference = described["anyOf"][0]["$ref"]
    assert isinstance(reference, str)
    return reference.removeprefix("#/$defs/")


def test_the_schema_names_its_dialect_and_explains_every_key() -> None:
    schema = json_schema()
    assert schema["$schema"] == DIALECT
    parts = [schema, *schema["$defs"].values()]
    for part in parts:
        assert part["additionalProperties"] is False
        for key, described in part["properties"].items():
            text = described.get("description") or schema["$defs"][_group(described)]["description"]
            assert text, f"{part['title']}.{key} has no explanation"


def test_the_schema_is_plain_json_and_its_own_each_time() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    schema["properties"].clear()
    assert json_schema()["properties"]
