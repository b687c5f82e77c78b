"""Pydantic's errors in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic_core import ErrorDetails

from layerwatch.config.tree import Spot
from layerwatch.config.wording import nearest, quote


def plain_message(error: ErrorDetails, value: object, spot: Spot) -> str:
    """What is wrong, as a sentence without its subject.

    Args:
        error: one entry of ``ValidationError.errors()``.
        value: what was given; its text is repeated only where a fixed set of words was asked for.
        spot: where the error is.
    """
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return _unknown_key(str(spot.path[-1]), spot.parent.keys)
    if kind == "missing":
        return "is missing"
    if kind == "union_tag_not_found":
        return f"is missing; it must be one of {', '.join(spot.place.words)}"
    if kind in ("literal_error", "union_tag_invalid"):
        return _unknown_word(value, spot.place.words)
    if kind == "finite_number":
        return "must be a finite number"
    if kind in _WANTED:
        return _unwanted(value, _WANTED[kind])
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        return f"must be {words} {_number(context[key])}"
    return error["msg"][:1].lower() + error["msg"][1:]


_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of usual size",
    "int_from_float": "a whole number without a fraction",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "text",
    "tuple_type": "a list",
    "model_type": "a group of keys",
    "model_attributes_type": "a group of keys",
}

_LIMITS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def _unknown_key(key: str, known: Sequence[str]) -> str:
    near = nearest(key, known)
    return f"unknown key, did you mean {quote(near)}?" if near else f"unknown key; known: {', '.join(known)}"


def _unknown_word(value: object, known: Sequence[str]) -> str:
    if not isinstance(value, str):
        return _unwanted(value, f"one of {', '.join(known)}")
    near = nearest(value, known)
    if near:
        return f"unknown value {quote(value)}, did you mean {quote(near)}?"
    return f"unknown value {quote(value)}; known: {', '.join(known)}"


def _unwanted(value: object, wanted: str) -> str:
    if value is None:
        return f"has no value; it must be {wanted}"
    hint = "; put it in quotes" if wanted == "text" and isinstance(value, bool | int | float) else ""
    return f"must be {wanted}, not {_described(value)}{hint}"


def _described(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a group of keys" if isinstance(value, Mapping) else "a list"


def _number(limit: object) -> str:
    return f"{limit:g}" if isinstance(limit, float) else str(limit)
