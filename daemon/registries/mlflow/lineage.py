"""What MLflow's records say of where a model version came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from layerwatch.daemon.registries.base import DeclaredLineage, RegistryUnavailable
from layerwatch.daemon.registries.mlflow.records import ModelVersion, tags_of
from layerwatch.metrics.relation import Relation

_PARENTS = ("layerwatch.parent", "parent")
_RELATIONS = ("layerwatch.relation", "relation")
_LONGEST = 500
_NUMBERED = re.compile(r"models:/+([^/@]+)/(\d{1,18})/*", re.ASCII)


def declared_by(version: ModelVersion, run: Mapping[str, Any] | None) -> tuple[DeclaredLineage, ...]:
    """The declarations, the most reliable first: tags of the version, tags of its run, its source.

    ``layerwatch.parent`` (or ``parent``) is ``3``, ``NAME/3``, ``models:/NAME/3``, ``models:/NAME@ALIAS``, or the name
    of a model elsewhere; ``layerwatch.relation`` says what was done to it. A version that was copied from another has
    that one as its source.
    """
    return tuple(_all(version, run))


def _all(version: ModelVersion, run: Mapping[str, Any] | None) -> Iterator[DeclaredLineage]:
    places = [("tag of the version", version.tags)]
    data = run.get("data") if run is not None else None
    if isinstance(data, dict):
        try:
            places.append(("tag of the run", tags_of(data)))
        except RegistryUnavailable:
            # What a run looks like is no reason to keep its version from being judged.
            places.append(("tag of the run", {}))
    for place, tags in places:
        for key in _PARENTS:
            parent = _address(tags.get(key, ""))
            if parent is not None:
                yield DeclaredLineage(parent, _relation(tags), f"MLflow: {place} {key}")
                break
    if match := _NUMBERED.fullmatch(version.source):
        yield DeclaredLineage(f"{match[1]}/{match[2]}", Relation.REEXPORTED, "MLflow: source of the version")


def _address(text: str) -> str | None:
    text = text.strip()
    if not text or len(text) > _LONGEST or not text.isprintable():
        return None
    match = _NUMBERED.fullmatch(text)
    return f"{match[1]}/{match[2]}" if match else text


def _relation(tags: Mapping[str, str]) -> Relation | None:
    for key in _RELATIONS:
        text = tags.get(key, "").strip().lower()
        if text in list(Relation):
            return Relation(text)
    return None
