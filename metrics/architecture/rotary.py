"""The order of the rows of queries and keys: GGUF of Llama's family keeps the two halves of a rotation side by side.

transformers rotates row i of a head with row i + d/2; ggml, for these architectures, row 2i with row 2i + 1, so
llama.cpp's converter reorders the rows of each head: ``W.reshape(heads, 2, d/2, ...).swapaxes(1, 2)``
(``convert_hf_to_gguf.py``, ``LlamaModel.permute``). Which way a file came to be does not matter: ggml always reads it
in this order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerwatch.metrics.architecture.arrangement import Group, Part, Take, Tensors
from layerwatch.metrics.architecture.facts import Facts
from layerwatch.metrics.tensors import Array

PERMUTED = frozenset({"llama", "mistral3", "granite", "olmo", "smollm3"})
"""Architectures whose converter reorders the rows."""

_READERS = re.compile(
    r"^model\.layers\.(?P<block>[0-9]{1,6})\.self_attn\.(?P<which>[qk])_proj\.(weight|bias)$"
)


def undo_permuted_rows(tensors: Tensors, facts: Facts) -> Sequence[Group]:
    """Rows of queries and keys in the order of transformers; as they are where the number of heads is not declared."""
    if facts.gguf not in PERMUTED:
        return ()
    groups = []
    for name, info in tensors.items():
        found = _READERS.match(name)
        heads = facts.heads_of(int(found["block"])) if found else None
        if found is None or heads is None or not info.shape:
            continue
        count = heads[0] if found["which"] == "q" else heads[1]
        if info.shape[0] % (2 * count) == 0:
            groups.append({name: (Part(name, info.shape, _halves_apart(count)),)})
    return groups


def _halves_apart(heads: int) -> Take:
    def take(values: Array) -> Array:
        pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
        return pairs.swapaxes(1, 2).reshape(values.shape)

    return take
