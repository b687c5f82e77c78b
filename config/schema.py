"""JSON schema of the configuration file, for editors and checks outside layerwatch."""

from __future__ import annotations

from typing import Any

from layerwatch.config.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of ``layerwatch.yaml``. Each call gives a new dictionary."""
    schema = Settings.model_json_schema(mode="validation")
    for part in (schema, *schema["$defs"].values()):
        for key, described in part.get("properties", {}).items():
            part["properties"][key] = _with_nothing_allowed(described)
    return {"$schema": DIALECT, **schema, "title": "layerwatch configuration"}


def _with_nothing_allowed(described: dict[str, Any]) -> dict[str, Any]:
    """Sections and lists may be left empty in the file (``rules:``), which YAML reads as null."""
    if "default" not in described or not ("$ref" in described or described.get("type") == "array"):
        return described
    outside: dict[str, Any] = {
        key: described[key] for key in ("description", "default", "title") if key in described
    }
    inside = {key: value for key, value in described.items() if key not in outside}
    return {"anyOf": [inside, {"type": "null"}], **outside}
