"""What a version was merged from, as its author declares it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from layerwatch.daemon.store import tables
from layerwatch.daemon.store.records import Lineage
from layerwatch.metrics.merge import MergeMethod, MergeRecipe

_MERGES = tables.merges


def save(connection: sa.Connection, version_id: int, lineage: Lineage) -> None:
    """Keep the parents and the recipe of a version in place of those known before; most versions have none."""
    connection.execute(sa.delete(_MERGES).where(_MERGES.c.version_id == version_id))
    if lineage.parents:
        declaration = {"parents": list(lineage.parents), "recipe": _recipe_to_json(lineage.recipe)}
        connection.execute(sa.insert(_MERGES).values(version_id=version_id, declaration=declaration))


def parents_of(declaration: dict[str, Any] | None) -> tuple[str, ...]:
    """The parents of a stored declaration; none without one."""
    return tuple(declaration["parents"]) if declaration else ()


def recipe_of(declaration: dict[str, Any] | None) -> MergeRecipe | None:
    """The recipe of a stored declaration, or None."""
    stored = declaration["recipe"] if declaration else None
    if stored is None:
        return None
    weights = stored["weights"]
    return MergeRecipe(
        method=None if stored["method"] is None else MergeMethod(stored["method"]),
        weights=None if weights is None else tuple(map(float, weights)),
        base=stored["base"],
        normalize=stored["normalize"],
        scale=float(stored["scale"]),
    )


def _recipe_to_json(recipe: MergeRecipe | None) -> dict[str, Any] | None:
    if recipe is None:
        return None
    return {
        "method": None if recipe.method is None else recipe.method.value,
        "weights": None if recipe.weights is None else list(recipe.weights),
        "base": recipe.base,
        "normalize": recipe.normalize,
        "scale": recipe.scale,
    }
