"""What a version's author wrote about its origin: ``lineage.json``, or the recipe that a merging tool left behind.

``lineage.json``: ``{"parent": "v1", "relation": "quantized"}``; for merges also ``parents`` (versions of the same
model, in the order of the weights) and ``recipe``: ``{"method": "linear", "weights": [0.5, 0.5], "base": "v0"}``.
``mergekit_config.yml`` is read where it describes one merge of whole models: its ``models`` become the parents by the
last part of their names, which must be versions in the registry to be of use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from layerwatch.daemon.registries.base import DeclaredLineage
from layerwatch.metrics.merge import MergeMethod, MergeRecipe
from layerwatch.metrics.relation import Relation

LINEAGE_FILE = "lineage.json"
MERGEKIT_FILE = "mergekit_config.yml"
_KEYS = frozenset({"parent", "relation", "parents", "recipe"})
_RECIPE_KEYS = frozenset({"method", "weights", "base", "normalize", "scale"})
_MOST_PARENTS = 32
_LARGEST = 1e6
"""No merge weighs a model by more; integers have no limit of their own."""


class _Loader(yaml.SafeLoader):
    """SafeLoader without aliases: a few lines of them stand for more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def parse_lineage(text: bytes) -> tuple[DeclaredLineage, str | None]:
    """Read ``lineage.json``.

    Returns:
        the declaration, and the first key that is not known, or None.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError: not a declaration.
    """
    declared = json.loads(text)
    relation = declared.get("relation")
    parents = tuple(_name(one, "parents") for one in _list(declared.get("parents", []), "parents"))
    recipe = _recipe(declared["recipe"], len(parents)) if "recipe" in declared else None
    parent = declared.get("parent")
    if parent is None and parents:
        # Whatever it is compared with, a merge lies near its base and near each of its parents.
        parent = recipe.base if recipe is not None and recipe.base else parents[0]
    if parent is None:
        raise KeyError("parent")
    kind = Relation(relation) if relation is not None else (Relation.MERGED if parents else None)
    unknown = sorted(set(declared) - _KEYS)
    lineage = DeclaredLineage(_name(parent, "parent"), kind, LINEAGE_FILE, parents, recipe)
    return lineage, unknown[0] if unknown else None


def parse_mergekit(text: bytes) -> DeclaredLineage:
    """Read a merge of whole models out of ``mergekit_config.yml``.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError: not one, or one of slices,
            several outputs, or weights that differ by layer, which are not read.
    """
    config = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    if "slices" in config or "modules" in config or "models" not in config:
        raise ValueError("only a merge of whole models (models:) is read")
    method = MergeMethod(config["merge_method"])
    base = config.get("base_model")
    everywhere = config.get("parameters") or {}
    models = [
        (_model_name(one["model"]), one.get("parameters") or {}) for one in _list(config["models"], "models")
    ]
    base_name = None if base is None else _model_name(base)
    if method is MergeMethod.SLERP:
        # mergekit walks from the base model to the other one.
        t = _number(everywhere["t"], "t")
        names = [base_name, *(name for name, _ in models if name != base_name)]
        parents = tuple(name for name in names if name)
        weights: tuple[float, ...] = (1.0 - t, t)
        if len(parents) != len(weights):
            raise ValueError("slerp takes two models")
        recipe = MergeRecipe(method, weights)
    else:
        merged = [one for one in models if not method.needs_base or one[0] != base_name]
        if method.needs_base and base_name is None:
            raise ValueError(f"{method} needs base_model")
        parents = tuple(name for name, _ in merged)
        weights = tuple(
            _number(values.get("weight", everywhere.get("weight", 1.0)), "weight") for _, values in merged
        )
        normalize = everywhere.get("normalize")
        recipe = MergeRecipe(
            method,
            weights,
            base_name if method.needs_base else None,
            None if normalize is None else bool(normalize),
            _number(everywhere.get("lambda", 1.0), "lambda"),
        )
    if not 1 <= len(parents) <= _MOST_PARENTS:
        raise ValueError("no models are named, or too many")
    return DeclaredLineage(recipe.base or parents[0], Relation.MERGED, MERGEKIT_FILE, parents, recipe)


def _recipe(declared: Mapping[str, Any], parents: int) -> MergeRecipe:
    unknown = sorted(set(declared) - _RECIPE_KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r} in recipe; known are {', '.join(sorted(_RECIPE_KEYS))}")
    weights = declared.get("weights")
    if weights is not None:
        weights = tuple(_number(one, "weights") for one in _list(weights, "weights"))
        if len(weights) != parents:
            raise ValueError(f"recipe has {len(weights)} weights for {parents} parents")
    method, base, normalize = declared.get("method"), declared.get("base"), declared.get("normalize")
    return MergeRecipe(
        None if method is None else MergeMethod(method),
        weights,
        None if base is None else _name(base, "base"),
        None if normalize is None else bool(normalize),
        _number(declared.get("scale", 1.0), "scale"),
    )


def _list(value: object, key: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{key} must be a list")
    if len(value) > _MOST_PARENTS:
        raise ValueError(f"{key} has more than {_MOST_PARENTS} entries")
    return value


def _name(value: object, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{key} must be the name of a version")
    value.encode()
    return value


def _model_name(value: object) -> str:
    if isinstance(value, Mapping):
        value = value.get("model", value)
    name = _name(value, "model")
    return name.rstrip("/").rsplit("/", 1)[-1]


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise TypeError(f"{key} must be a number, the same in all layers")
    return float(value)
