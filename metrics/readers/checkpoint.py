"""Where in a checkpoint the weights are.

Order of preference:

1. the value under a known key (:data:`WEIGHT_KEYS`), followed as long as there is another such key inside;
2. a pickled module: parameters, persistent buffers and submodules, named as ``state_dict()`` names them;
3. every tensor in the nested containers, named by its path, except what belongs to an optimizer or scheduler.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.names import is_text
from layerwatch.metrics.readers.picklevalues import ExoticTensor, Opaque, StoredTensor, describe

WEIGHT_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "params",
    "weights",
    "ema_state_dict",
    "model_ema",
    "params_ema",
    "ema",
)
"""Keys that hold the weights of a training checkpoint. The trained weights come before their averages."""

MAX_DEPTH = 500
"""Deepest nesting that is followed. Module trees of real networks stay below 50."""

MAX_NODES = 3_000_000
"""Most values that are looked at; shared containers count each time they are met."""

MAX_NAME_LENGTH = 4096

Tensor = StoredTensor | ExoticTensor

_NOT_WEIGHTS = re.compile(
    r"(.*_)?(optim|optimizer|optimizers|opt_state)(_.*)?|optim[A-Z]\w*|(lr_)?schedulers?(_state_dict)?"
    r"|(grad_|loss_)?scaler|amp|callbacks|loops",
    re.IGNORECASE,
)
"""Keys of containers that hold other training state."""

_RANDOM_STATE = re.compile(r"[^.]*rng_states?(_[^.]*)?", re.IGNORECASE)

_MAX_UNWRAPPINGS = 8


def find_tensors(root: object, path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint object by name, in the order of the file.

    Args:
        root: what the pickle turned into.
        path: the file, for errors.

    Raises:
        UnreadableError: TOO_DEEP, TOO_LARGE, BAD_PICKLE (names that are no text), or NO_TENSORS.
    """
    for _ in range(_MAX_UNWRAPPINGS):
        inner = _weights_inside(root, path)
        if inner is None:
            break
        root = inner
    if isinstance(root, (StoredTensor, ExoticTensor)):
        return {"tensor": root}
    found: dict[str, Tensor] = {}
    repeated: dict[str, int] = {}
    for name, tensor in _walk(root, path):
        if not is_text(name):
            raise UnreadableError(
                UnreadableReason.BAD_PICKLE, path, "a tensor's name is not valid Unicode text"
            )
        unique = name
        while unique in found:
            # Two paths can spell the same dotted name: {"a.b": ...} beside {"a": {"b": ...}}.
            repeated[name] = repeated.get(name, 1) + 1
            unique = f"{name}#{repeated[name]}"
        found[unique] = tensor
    if not found:
        raise UnreadableError(
            UnreadableReason.NO_TENSORS,
            path,
            f"the pickle holds {describe(root)} and no weights in it; optimizer and scheduler states do not count",
        )
    return found


def _weights_inside(value: object, path: Path) -> object | None:
    candidates: list[object]
    if isinstance(value, Opaque):
        candidates = [] if _module_state(value) is not None else [value.entries, value.state]
    else:
        candidates = [value]
    for entries in candidates:
        if not isinstance(entries, dict):
            continue
        for key in WEIGHT_KEYS:
            inner = entries.get(key)
            if isinstance(inner, (dict, list, tuple, Opaque)) and next(_walk(inner, path), None) is not None:
                return inner
    return None


def _walk(root: object, path: Path) -> Iterator[tuple[str, Tensor]]:
    """Depth first, without recursion; a container inside itself is not entered again."""
    frames: list[tuple[int, str, Iterator[tuple[str, object]]]] = [(id(root), "", _children(root))]
    entered = {id(root)}
    nodes = 0
    while frames:
        identity, prefix, children = frames[-1]
        child = next(children, None)
        if child is None:
            frames.pop()
            entered.discard(identity)
            continue
        nodes += 1
        if nodes > MAX_NODES:
            raise UnreadableError(
                UnreadableReason.TOO_LARGE, path, f"the checkpoint nests more than {MAX_NODES} values"
            )
        key, value = child
        if isinstance(value, (StoredTensor, ExoticTensor)):
            yield _joined(prefix, key, path), value
        elif isinstance(value, (dict, list, tuple, Opaque)) and id(value) not in entered:
            if len(frames) > MAX_DEPTH:
                raise UnreadableError(
                    UnreadableReason.TOO_DEEP, path, f"the checkpoint nests deeper than {MAX_DEPTH} levels"
                )
            entered.add(id(value))
            frames.append((id(value), _joined(prefix, key, path), _children(value)))


def _joined(prefix: str, key: str, path: Path) -> str:
    name = f"{prefix}.{key}" if prefix else key
    if len(name) > MAX_NAME_LENGTH:
        raise UnreadableError(
            UnreadableReason.TOO_LARGE,
            path,
            f"a name in the checkpoint has more than {MAX_NAME_LENGTH} characters",
        )
    return name


def _children(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        return _entries(value)
    if isinstance(value, (list, tuple)):
        return _numbered(value)
    if isinstance(value, Opaque):
        module = _module_state(value)
        return _inert_members(value) if module is None else _module_members(module)
    return iter(())


def _entries(entries: dict[object, object]) -> Iterator[tuple[str, object]]:
    if "param_groups" in entries and "state" in entries:
        # The state of a torch optimizer, under whatever name it was saved.
        return
    for position, (key, value) in enumerate(entries.items()):
        name = _key_name(key, position)
        left_out = _RANDOM_STATE if isinstance(value, (StoredTensor, ExoticTensor)) else _NOT_WEIGHTS
        if not left_out.fullmatch(name):
            yield name, value


def _numbered(members: Iterable[object]) -> Iterator[tuple[str, object]]:
    for position, value in enumerate(members):
        yield str(position), value


def _inert_members(value: Opaque) -> Iterator[tuple[str, object]]:
    yield from _numbered(value.arguments)
    yield from _numbered(value.items)
    yield from _entries(value.entries)
    for part in value.state if isinstance(value.state, tuple) else (value.state,):
        if isinstance(part, dict):
            yield from _entries(part)


def _module_state(value: Opaque) -> dict[object, object] | None:
    # The state of a module is its __dict__; traced modules carry it as an argument of what rebuilds them.
    for candidate in (value.state, *value.arguments[:4]):
        if isinstance(candidate, dict) and "_modules" in candidate and "_parameters" in candidate:
            return candidate
    return None


def _module_members(state: dict[object, object]) -> Iterator[tuple[str, object]]:
    transient = state.get("_non_persistent_buffers_set")
    names = transient if isinstance(transient, (list, tuple)) else ()
    left_out = {name for name in names if isinstance(name, str)}
    for part in ("_parameters", "_buffers", "_modules"):
        members = state.get(part)
        entries = members.entries if isinstance(members, Opaque) else members
        for position, (key, value) in enumerate(entries.items() if isinstance(entries, dict) else ()):
            if part != "_buffers" or key not in left_out:
                yield _key_name(key, position), value


def _key_name(key: object, position: int) -> str:
    if isinstance(key, bytes):
        return key.decode("latin-1")
    if isinstance(key, str):
        return key
    if isinstance(key, int) and key.bit_length() <= 64:
        return str(int(key))
    return f"[{position}]"
