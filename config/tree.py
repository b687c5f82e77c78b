"""The shape of the configuration: which keys there are at which place, read off the settings models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Literal, Self, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from layerwatch.config.crosschecks import KeyPath
from layerwatch.config.secrets import Secret
from layerwatch.config.settings import Settings


def _bare(annotation: object) -> Iterator[object]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _bare(get_args(annotation)[0])
    elif origin is Union or origin is UnionType:
        for argument in get_args(annotation):
            yield from _bare(argument)
    else:
        yield annotation


def _is_model(allowed: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(allowed, type) and issubclass(allowed, BaseModel)


@dataclass(frozen=True, slots=True)
class Place:
    """What may stand at one place of the configuration.

    Attributes:
        types: the types allowed there, unions and annotations taken apart; empty where nothing is allowed.
    """

    types: tuple[object, ...]

    @classmethod
    def of(cls, annotation: object) -> Self:
        """The place that a field annotation describes."""
        return cls(tuple(_bare(annotation)))

    def child(self, key: str | int) -> Place:
        """The place under ``key``: a key of a mapping or a position in a list."""
        found: list[object] = []
        for allowed in self.types:
            if isinstance(key, int):
                if get_origin(allowed) is tuple:
                    found.extend(_bare(get_args(allowed)[0]))
            elif _is_model(allowed) and key in (written := _written(allowed)):
                found.extend(_bare(written[key].annotation))
        return Place(tuple(found))

    def of_kind(self, kind: object) -> Place | None:
        """This place narrowed to the one model of several whose ``kind`` this is; None when there is none."""
        models = self.models
        chosen = tuple(model for model in models if kind in Place((model,)).child("kind").words)
        return Place(chosen) if len(models) > 1 and chosen else None

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """The settings models allowed here; several where ``kind`` decides."""
        return tuple(allowed for allowed in self.types if _is_model(allowed))

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys that a mapping here may have, in the order of declaration."""
        return tuple(dict.fromkeys(key for model in self.models for key in _written(model)))

    @property
    def words(self) -> tuple[str, ...]:
        """The fixed words allowed here; empty where any text is."""
        return tuple(
            str(word)
            for allowed in self.types
            if get_origin(allowed) is Literal
            for word in get_args(allowed)
        )

    @property
    def is_list(self) -> bool:
        """True when a list is allowed here."""
        return any(get_origin(allowed) is tuple for allowed in self.types)

    @property
    def is_secret(self) -> bool:
        """True when a secret is allowed here."""
        return any(isinstance(allowed, type) and issubclass(allowed, Secret) for allowed in self.types)

    @property
    def accepts_nothing(self) -> bool:
        """True when null is a value of its own here."""
        return NoneType in self.types


def _written(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields by the keys that stand in the file: `continue` is no name that Python allows."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


ROOT = Place.of(Settings)
"""The top of the configuration."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A pydantic error location, found in the tree.

    Attributes:
        path: the location without the ``kind`` that pydantic puts in where several models are allowed.
        parent: the mapping or list that the location is directly in, narrowed to its kind where that is known.
        place: what may stand at the location itself; without types for an unknown key.
    """

    path: KeyPath
    parent: Place
    place: Place


def locate(location: KeyPath, root: Place = ROOT) -> Spot:
    """Where in the configuration, or in another file of the shape ``root``, a pydantic error is."""
    parent = place = root
    path: list[str | int] = []
    for key in location:
        narrowed = place.of_kind(key)
        if narrowed is not None:
            place = narrowed
            continue
        path.append(key)
        parent, place = place, place.child(key)
    return Spot(tuple(path), parent, place)


def key_paths(place: Place = ROOT, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every path of keys, sections and single values alike, that leads through no list."""
    for key in place.keys:
        path = (*above, key)
        child = place.child(key)
        yield path
        if child.is_secret:
            yield (*path, "env")
            yield (*path, "file")
        yield from key_paths(child, path)


def dotted(path: KeyPath) -> str:
    """``path`` as it is shown to people: ``registries[0].poll``."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text
