"""What a version's author wrote about its origin: ``lineage.json``, or the recipe that a merging tool left behind.

``lineage.json``: ``{"parent": "v1", "relation": "quantized"}``; for merges also ``parents`` (versions of the same
model, in the order of the weights) and ``recipe``: ``{"method": "linear", "weights": [0.5, 0.5], "base": "v0"}``.
``mergekit_config.yml`` is read as a recipe where it describes one merge of whole models: its ``models`` become the
parents by their full names. Of any other merge (slices, several steps, a mixture of experts) the names of the models
are read, and not how they were put together.
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
MERGEKIT_MOE_FILE = "mergekit_moe_config.yml"
_KEYS = frozenset({"parent", "relation", "parents", "recipe"})
_RECIPE_KEYS = frozenset({"method", "weights", "base", "normalize", "scale"})
_MOST_PARENTS = 32
_LONGEST_NAME = 1024
_MOST_YAML_BYTES = 128 * 1024
"""Parsing takes seconds per megabyte; recipes are a few kilobytes."""
_MOST_NODES = 20_000
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
    config = _yaml(text)
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


def parse_mergekit_models(text: bytes, source: str = MERGEKIT_FILE) -> tuple[DeclaredLineage, ...]:
    """The models that any configuration of mergekit names, each once, the base first; nothing of how they are mixed.

    Args:
        source: name of the file.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError: it names none, or is none.
    """
    bases: list[str] = []
    models: list[str] = []
    made: set[str] = set()
    waiting: list[object] = yaml_documents(text)[::-1]
    seen = 0
    while waiting:
        one = waiting.pop()
        seen += 1
        if seen > _MOST_NODES:
            raise ValueError(f"more than {_MOST_NODES} entries")
        if isinstance(one, list):
            waiting.extend(reversed(one))
        elif isinstance(one, Mapping):
            # The steps of mergekit-multi read what earlier ones made, by name.
            made.update(name for name in (one.get("name"),) if isinstance(name, str))
            bases.extend(_named(one.get("base_model")))
            models.extend(_named(one.get("model")))
            models.extend(_named(one.get("source_model")))
            waiting.extend(value for key, value in reversed(list(one.items())) if key not in _MODEL_KEYS)
    names = [name for name in dict.fromkeys([*bases, *models]) if name not in made]
    if not 1 <= len(names) <= _MOST_PARENTS:
        raise ValueError("no models are named, or too many")
    return tuple(DeclaredLineage(name, Relation.MERGED, source, is_baseline=False) for name in names)


_MODEL_KEYS = frozenset({"base_model", "model", "source_model"})


def _named(value: object) -> tuple[str, ...]:
    return () if value is None else (_model_name(value),)


def yaml_documents(text: bytes) -> list[Any]:
    """The documents of a small YAML text; raises ValueError, RecursionError, yaml.YAMLError."""
    if len(text) > _MOST_YAML_BYTES:
        raise ValueError(f"larger than {_MOST_YAML_BYTES // 1024} KiB")
    return list(yaml.load_all(text, _Loader))


def _yaml(text: bytes) -> Any:
    documents = yaml_documents(text)
    if len(documents) != 1:
        raise ValueError("only one merge is read")
    return documents[0]


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
    if len(value) > _LONGEST_NAME:
        raise ValueError(f"{key} is longer than {_LONGEST_NAME} characters")
    return value


def _model_name(value: object) -> str:
    """A model as mergekit refers to it: ``path@revision+lora``, or the same spelled out."""
    if isinstance(value, Mapping):
        base, lora = value.get("model", value), value.get("lora")
        return _path(base) if lora is None else f"{_path(base)}+{_path(lora)}"
    return _name(value, "model").rstrip("/")


def _path(value: object) -> str:
    if isinstance(value, Mapping):
        revision = value.get("revision")
        path = _name(value["path"], "path").rstrip("/")
        return path if revision is None else f"{path}@{_name(revision, 'revision')}"
    return _name(value, "model").rstrip("/")


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise TypeError(f"{key} must be a number, the same in all layers")
    return float(value)
