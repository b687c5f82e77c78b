"""Names of Keras and Flax: their ``kernel`` and ``embedding`` are the ``weight`` of everybody else.

Keras joins names with ``/`` and ends them in ``:0`` (``encoder/dense/kernel:0``), Flax keeps all under ``params``
(``params.encoder.dense.kernel``). Which way round a kernel is stored has been undone by the reader.
"""

from __future__ import annotations

from collections.abc import Sequence

from layerwatch.metrics.architecture.arrangement import Group, Part, Tensors
from layerwatch.metrics.architecture.facts import Facts

_WEIGHTS = frozenset({"kernel", "embedding", "embeddings"})
_ROOT = "params."


def undo_jax_names(tensors: Tensors, facts: Facts) -> Sequence[Group]:
    """``encoder.dense.weight`` for both; names of models that have no kernel stay as they are."""
    del facts
    plain = {name: name.partition(":")[0].replace("/", ".") for name in tensors}
    if not any(_is_weight(plain[name]) and len(info.shape) > 1 for name, info in tensors.items()):
        return ()
    # Beside the parameters stand counters of the training.
    below = all(plain[name].startswith(_ROOT) for name, info in tensors.items() if info.shape)
    groups: list[Group] = []
    for name, info in tensors.items():
        shown = plain[name].removeprefix(_ROOT) if below else plain[name]
        module, _, last = shown.rpartition(".")
        if last in _WEIGHTS and module and len(info.shape) > 1:
            shown = f"{module}.weight"
        if shown != name:
            groups.append({name: (Part(shown, info.shape),)})
    return groups


def _is_weight(name: str) -> bool:
    return name.rpartition(".")[2] in _WEIGHTS
