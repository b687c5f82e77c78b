"""Tensor names: the same layer has the same name however the model was wrapped when it was saved."""

from __future__ import annotations

from collections.abc import Collection

WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""What (Distributed)DataParallel, AveragedModel and torch.compile put before every name."""

_WRAPPER_OWN_NAMES = frozenset({"n_averaged"})
"""Tensors that a wrapper adds beside the model it wraps (torch.optim.swa_utils.AveragedModel)."""


def without_wrappers(names: Collection[str]) -> dict[str, str]:
    """Map each name to the one without wrapper prefixes.

    A prefix is taken off only when all names carry it (apart from the wrapper's own tensors): in a model
    where some do not, ``module`` is a part of the model.
    """
    result = {name: name for name in names}
    while True:
        inner = [short for short in result.values() if short not in _WRAPPER_OWN_NAMES]
        prefix = next(
            (p for p in WRAPPER_PREFIXES if inner and all(short.startswith(p) for short in inner)), ""
        )
        shortened = {
            name: short if short in _WRAPPER_OWN_NAMES else short.removeprefix(prefix)
            for name, short in result.items()
        }
        if not prefix or "" in shortened.values() or len(set(shortened.values())) < len(shortened):
            return result
        result = shortened


def is_text(name: str) -> bool:
    """True when the name can be written as UTF-8 (JSON and pickle both can smuggle in lone surrogates)."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
