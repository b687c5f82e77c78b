"""Layers in the order of depth."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerwatch.metrics.architecture.roles import Role
from layerwatch.metrics.report import LayerPart

_NUMBER = re.compile(r"\d+", re.ASCII)
_LONGEST_NUMBER = 9
"""Digits; a longer run is no block's number."""

_ENDS = {Role.EMBEDDING: -1, Role.UNEMBEDDING: 1}


def by_depth(layers: Sequence[LayerPart]) -> tuple[LayerPart, ...]:
    """The layers of a network as data pass them, as far as names and file order tell.

    File order is the order of definition in most formats. Where a writer sorted names as text (``layers.10`` before
    ``layers.2``), the numbers in them decide. Embeddings come first, unembeddings last.

    Args:
        layers: in file order.
    """
    keys = [_natural(layer.name) for layer in layers]
    order = list(range(len(layers)))
    if _sorted_as_text(keys):
        order.sort(key=lambda place: keys[place])
    return tuple(layers[place] for place in sorted(order, key=lambda place: _end(layers[place])))


_Key = tuple[tuple[int, str], ...]


def _natural(name: str) -> _Key:
    """Words and numbers of a name in turn, numbers by their size."""
    parts: list[tuple[int, str]] = []
    end = 0
    for found in _NUMBER.finditer(name):
        if len(found[0]) <= _LONGEST_NUMBER:
            parts += [(-1, name[end : found.start()]), (int(found[0]), "")]
            end = found.end()
    return (*parts, (-1, name[end:]))


def _sorted_as_text(keys: Sequence[_Key]) -> bool:
    """Whether a number goes back below the same words before it."""
    last: dict[_Key, int] = {}
    for key in keys:
        for place, (number, _) in enumerate(key):
            if number < 0:
                continue
            if number < last.get(key[:place], 0):
                return True
            last[key[:place]] = number
    return False


def _end(layer: LayerPart) -> int:
    try:
        return _ENDS.get(Role(layer.role), 0)
    except ValueError:
        return 0
