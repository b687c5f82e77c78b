"""The page ``/compare``: two versions of one model, or of two, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from sqlalchemy import Connection

from layerwatch.config.composites import COMPOSITES
from layerwatch.daemon.store import fleet, modelsummaries, timeline, versions
from layerwatch.daemon.store.fleet import FleetFilter
from layerwatch.daemon.store.records import VersionKey, VersionRecord
from layerwatch.daemon.web.pages.compareview import FAR, ComparedLayer, compared, layers_of
from layerwatch.daemon.web.pages.context import PageContext
from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.daemon.web.pages.rendering import render

MOST_MODELS = 200
MOST_VERSIONS = 200
SIDES = ("a", "b")

_FIELDS = ("registry", "model", "version")


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the form and what it means. All text is foreign.

    Attributes:
        side: ``a`` or ``b``.
        registry, model, version: as asked for, or as found.
        models: (registry, model) pairs to choose from, with the link that chooses; those like what was entered where
            that is no model.
        versions: names to choose from, the newest first; empty while no model is chosen.
        record: the version; None while none is chosen.
        problem: what is wrong with what was entered; empty where nothing is.
    """

    side: str
    registry: str
    model: str
    version: str
    models: tuple[tuple[str, str, str], ...] = ()
    versions: tuple[str, ...] = ()
    record: VersionRecord | None = None
    problem: str = ""

    @property
    def links(self) -> VersionLinks:
        """Links to the version."""
        return VersionLinks(self.registry, self.model, self.version)


def compare_page(context: PageContext) -> APIRouter:
    """GET ``/compare``."""
    router = APIRouter()

    @router.get("/compare")
    def show(request: Request) -> Response:
        asked = {
            f"{side}_{field}": request.query_params.get(f"{side}_{field}", "")
            for side in SIDES
            for field in _FIELDS
        }
        return _page(context, asked)

    return router


def _page(context: PageContext, asked: Mapping[str, str]) -> Response:
    with context.database.read() as connection:
        registries = fleet.registries(connection)
        sides = [_side(connection, side, asked) for side in SIDES]
        layers = [_layers(connection, side) for side in sides]
    a, b = layers
    unknown = any(side.problem for side in sides)
    return render(
        "compare.html",
        404 if unknown else 200,
        page="compare",
        registries=sorted({*registries, *(side.registry for side in sides if side.registry)}),
        sides=sides,
        kept=[found is not None for found in layers],
        result=compared(a, b) if a is not None and b is not None else None,
        chosen=all(side.record is not None for side in sides),
        far=FAR,
        composites=COMPOSITES,
        swapped=_link(
            {
                f"{other}_{field}": asked[f"{side}_{field}"]
                for side, other in zip(SIDES, reversed(SIDES), strict=True)
                for field in _FIELDS
            }
        ),
    )


def _side(connection: Connection, side: str, asked: Mapping[str, str]) -> Side:
    registry, model, version = (asked[f"{side}_{field}"] for field in _FIELDS)
    if not model:
        return Side(side, registry, model, version, _models(connection, side, asked, ""))
    if not registry:
        registry = _only_registry_of(connection, model)
    names = [
        entry.version
        for entry in timeline.page(connection, registry, model, MOST_VERSIONS, 0)
        if entry.is_current
    ]
    if not names:
        like = _models(connection, side, asked, model)
        problem = (
            "There is no such model." if not like else "There is no such model; these have it in their names:"
        )
        return Side(side, registry, model, version, like, problem=problem)
    record = _version(connection, VersionKey(registry, model, version))
    if record is None:
        return Side(
            side, registry, model, version, (), tuple(names), problem="The model has no such version."
        )
    found = record.key.version
    if found not in names:
        names.append(found)
    return Side(side, registry, model, found, (), tuple(names), record)


def _version(connection: Connection, key: VersionKey) -> VersionRecord | None:
    """The version of this name; of an empty name, the one that stands for its model."""
    if key.version:
        return versions.current(connection, key)
    current = modelsummaries.current_version(connection, key.registry, key.model)
    return versions.get_without_report(connection, current) if current is not None else None


def _only_registry_of(connection: Connection, model: str) -> str:
    found = fleet.names(connection, FleetFilter(model), MOST_MODELS)
    having = [registry for registry, name in found if name == model]
    return having[0] if len(having) == 1 else ""


def _models(
    connection: Connection, side: str, asked: Mapping[str, str], text: str
) -> tuple[tuple[str, str, str], ...]:
    wanted = FleetFilter(text, asked[f"{side}_registry"] or None)
    return tuple(
        (
            registry,
            model,
            _link({**asked, f"{side}_registry": registry, f"{side}_model": model, f"{side}_version": ""}),
        )
        for registry, model in fleet.names(connection, wanted, MOST_MODELS)
    )


def _layers(connection: Connection, side: Side) -> dict[str, ComparedLayer] | None:
    return layers_of(connection, side.record, side.links) if side.record is not None else None


def _link(asked: Mapping[str, str]) -> str:
    return f"compare?{urlencode({name: value for name, value in asked.items() if value})}"
