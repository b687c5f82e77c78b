"""Where in a checkpoint the weights are.

Order of preference:

1. the value under a known key (:data:`WEIGHT_KEYS`), followed as long as there is another such key inside;
2. a pickled module: parameters, persistent buffers and submodules, named as ``state_dict()`` names them; a module
   of TorchScript: every tensor that is an attribute of it or of a submodule, apart from empty ones and lists of
   the module's own parameters;
3. every tensor in the nested containers, named by its path.

What lies beside the value of a known key (a moving average, a second network) is listed too, under its key, and
loses wrapper prefixes by itself. Only training state (optimizers, schedulers, random states, pruning masks) and
single numbers beside the weights are left out, and named as such.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.names import is_text, without_wrappers
from layerwatch.metrics.readers.picklevalues import ExoticTensor, Global, Opaque, StoredTensor, describe

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
    r"|(grad_|loss_)?scaler|amp|callbacks|loops|compression_sched(uler)?|masks_dict|thinning_recipes",
    re.IGNORECASE,
)
"""Keys of containers that hold other training state."""

_RANDOM_STATE = re.compile(r"[^.]*rng_states?(_[^.]*)?", re.IGNORECASE)

_TRAINING_STATE = "training state: not examined"
_SINGLE_NUMBER = "single number beside the weights"
_EMPTY = "tensor without elements: filled when the network runs"
_OWN_PARAMETERS = "list of the module's own parameters: examined under their names"

_MAX_UNWRAPPINGS = 8

_PACKED_NAME = re.compile(
    r"(?P<layer>(?:.+\.)?)_packed_params\._packed_params\.(?P<part>0|1|weight|bias)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class CheckpointWeights:
    """What :func:`find_tensors` found.

    Attributes:
        tensors: the weights by name, in the order of the file, the main container before what lies beside it.
        left_out: keys that hold no weights though they hold something, each with the reason.
    """

    tensors: dict[str, Tensor]
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """In place of a value that is no weight."""

    reason: str


def find_tensors(root: object, path: Path) -> CheckpointWeights:
    """The weights in a checkpoint object.

    Args:
        root: what the pickle turned into.
        path: the file, for errors.

    Raises:
        UnreadableError: TOO_DEEP, TOO_LARGE, BAD_PICKLE (names that are no text), or NO_TENSORS.
    """
    walk = _Walk(path)
    beside: list[tuple[str, object]] = []
    trail = ""
    for _ in range(_MAX_UNWRAPPINGS):
        chosen = _weights_inside(root, path)
        if chosen is None:
            break
        key, inner = chosen
        beside += [(_joined(trail, name, path), one) for name, one in _children(root) if one is not inner]
        trail, root = _joined(trail, key, path), inner
    if isinstance(root, (StoredTensor, ExoticTensor)):
        return CheckpointWeights({"tensor": root}, ())
    containers: list[tuple[str, dict[str, Tensor]]] = [("", dict(_distinct(walk.tensors(root))))]
    walked = {id(root)}
    for key, value in beside:
        if id(value) in walked:
            # The same object under a second key: the same bytes.
            continue
        walked.add(id(value))
        if isinstance(value, _LeftOut):
            walk.left_out[key] = value.reason
        elif isinstance(value, (StoredTensor, ExoticTensor)):
            if value.shape:
                containers.append((key, {"": value}))
            else:
                walk.left_out[key] = _SINGLE_NUMBER
        elif found := dict(_distinct(walk.tensors(value, key, inside={id(root)}))):
            containers.append((key, found))
    listed = ((_unpacked_name(name), tensor) for name, tensor in _listed(containers, path))
    tensors = dict(_distinct(listed))
    left_out = tuple(walk.left_out.items())
    if not all(map(is_text, (*tensors, *walk.left_out))):
        raise UnreadableError(UnreadableReason.BAD_PICKLE, path, "a tensor's name is not valid Unicode text")
    if not tensors:
        raise UnreadableError(
            UnreadableReason.NO_TENSORS,
            path,
            f"the pickle holds {describe(root)} and no weights in it; optimizer and scheduler states do not count",
        )
    return CheckpointWeights(tensors, left_out)


def _unpacked_name(name: str) -> str:
    """``fc.weight`` for the numbers of a dynamically quantised ``fc``, which torch keeps in a packed object."""
    found = _PACKED_NAME.fullmatch(name)
    return name if found is None else f"{found['layer']}{'weight' if found['part'] in '0weight' else 'bias'}"


def _listed(containers: list[tuple[str, dict[str, Tensor]]], path: Path) -> Iterator[tuple[str, Tensor]]:
    for prefix, found in containers:
        # A lone container keeps its wrapper prefixes here: an index of shards may name its tensors with them.
        shown = without_wrappers(found) if len(containers) > 1 else {name: name for name in found}
        for name, tensor in found.items():
            yield _joined(prefix, shown[name], path) if name else prefix, tensor


def _distinct(found: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Number the names that were met before: ``{"a.b": ...}`` and ``{"a": {"b": ...}}`` spell the same one."""
    taken: set[str] = set()
    repeated: dict[str, int] = {}
    for name, tensor in found:
        unique = name
        while unique in taken:
            repeated[name] = repeated.get(name, 1) + 1
            unique = f"{name}#{repeated[name]}"
        taken.add(unique)
        yield unique, tensor


def _weights_inside(value: object, path: Path) -> tuple[str, object] | None:
    candidates: list[object]
    if isinstance(value, Opaque):
        is_module = _is_script(value) or _module_state(value) is not None
        candidates = [] if is_module else [value.entries, value.state]
    else:
        candidates = [value]
    for entries in candidates:
        if not isinstance(entries, dict):
            continue
        for key in WEIGHT_KEYS:
            inner = entries.get(key)
            if isinstance(inner, (dict, list, tuple, Opaque)) and any(
                True for _ in _Walk(path).tensors(inner)
            ):
                return key, inner
    return None


class _Walk:
    """Walks over the containers of one checkpoint, which share the limit on values.

    Attributes:
        left_out: path of each value that was passed over, with the reason.
    """

    def __init__(self, path: Path) -> None:
        self.left_out: dict[str, str] = {}
        self._path = path
        self._nodes = 0

    def tensors(
        self, root: object, place: str = "", inside: Collection[int] = ()
    ) -> Iterator[tuple[str, Tensor]]:
        """Depth first, without recursion; a container inside itself, or one of ``inside``, is not entered.

        The names are relative to ``root``; what is left out is noted under ``place``.
        """
        frames: list[tuple[int, str, Iterator[tuple[str, object]]]] = [(id(root), "", _children(root))]
        entered = {id(root), *inside}
        while frames:
            identity, prefix, children = frames[-1]
            child = next(children, None)
            if child is None:
                frames.pop()
                entered.discard(identity)
                continue
            self._nodes += 1
            if self._nodes > MAX_NODES:
                raise UnreadableError(
                    UnreadableReason.TOO_LARGE,
                    self._path,
                    f"the checkpoint nests more than {MAX_NODES} values",
                )
            key, value = child
            if isinstance(value, _LeftOut):
                self.left_out[_joined(place, _joined(prefix, key, self._path), self._path)] = value.reason
            elif isinstance(value, (StoredTensor, ExoticTensor)):
                yield _joined(prefix, key, self._path), value
            elif isinstance(value, (dict, list, tuple, Opaque)) and id(value) not in entered:
                if len(frames) > MAX_DEPTH:
                    raise UnreadableError(
                        UnreadableReason.TOO_DEEP,
                        self._path,
                        f"the checkpoint nests deeper than {MAX_DEPTH} levels",
                    )
                entered.add(id(value))
                frames.append((id(value), _joined(prefix, key, self._path), _children(value)))


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
        if _is_script(value):
            return _script_members(value.state)
        if _is_packed(value):
            return _packed_members(value.state)
        module = _module_state(value)
        return _inert_members(value) if module is None else _module_members(module)
    return iter(())


def _entries(entries: dict[object, object]) -> Iterator[tuple[str, object]]:
    # The state of a torch optimizer has these two keys, under whatever name it was saved.
    optimizer = ("param_groups", "state") if "param_groups" in entries and "state" in entries else ()
    for position, (key, value) in enumerate(entries.items()):
        name = _key_name(key, position)
        left_out = _RANDOM_STATE if isinstance(value, (StoredTensor, ExoticTensor)) else _NOT_WEIGHTS
        if name in optimizer or left_out.fullmatch(name):
            if value and isinstance(value, (StoredTensor, ExoticTensor, dict, list, tuple, Opaque)):
                yield name, _LeftOut(_TRAINING_STATE)
        else:
            yield name, value


def _numbered(members: Iterable[object]) -> Iterator[tuple[str, object]]:
    for position, value in enumerate(members):
        yield str(position), value


def _inert_members(value: Opaque) -> Iterator[tuple[str, object]]:
    yield from _numbered(value.arguments)
    yield from _numbered(value.items)
    yield from _entries(value.entries)
    for position, part in enumerate(value.state if isinstance(value.state, tuple) else (value.state,)):
        if isinstance(part, dict):
            yield from _entries(part)
        elif isinstance(part, (StoredTensor, ExoticTensor)):
            # torch's quantised convolutions are pickled as a tuple of their settings and tensors.
            yield str(position), part


def _module_state(value: Opaque) -> dict[object, object] | None:
    # The state of a module is its __dict__; traced modules carry it as an argument of what rebuilds them.
    for candidate in (value.state, *value.arguments[:4]):
        if isinstance(candidate, dict) and "_modules" in candidate and "_parameters" in candidate:
            return candidate
    return None


def _is_script(value: Opaque) -> bool:
    return isinstance(value.made_by, Global) and value.made_by.module.partition(".")[0] == "__torch__"


def _script_members(state: object) -> Iterator[tuple[str, object]]:
    # Attributes are as good as parameters to the code of the module; there is no training state beside it.
    if isinstance(state, dict):
        own = {_place(value) for value in state.values() if isinstance(value, StoredTensor)}
        for position, (key, value) in enumerate(state.items()):
            name = _key_name(key, position)
            if isinstance(value, StoredTensor) and 0 in value.shape:
                yield name, _LeftOut(_EMPTY)
            elif (
                isinstance(value, list)
                and value
                and all(isinstance(one, StoredTensor) and _place(one) in own for one in value)
            ):
                yield name, _LeftOut(_OWN_PARAMETERS)
            else:
                yield name, value
    else:
        # What __getstate__ of the module returned.
        yield from _numbered(state if isinstance(state, (list, tuple)) else (state,))


def _is_packed(value: object) -> bool:
    return isinstance(value, Opaque) and value.made_by == Global("torch", "ScriptObject")


def _packed_members(state: object) -> Iterator[tuple[str, object]]:
    """What torch's quantised layers keep beside their parameters: (content, name of the class)."""
    content, kind = state if isinstance(state, tuple) and len(state) == 2 else (state, "")
    if not isinstance(content, (list, tuple)):
        return
    if isinstance(kind, str) and kind.endswith(".LinearPackedParamsBase") and len(content) == 2:
        yield from zip(("weight", "bias"), content, strict=True)
    elif isinstance(kind, str) and kind.endswith(".CellParamsBase") and len(content) == 5:
        linear = content[4] if isinstance(content[4], (list, tuple)) else ()
        for suffix, one in zip(("ih", "hh"), linear, strict=False):
            inner = one.state if isinstance(one, Opaque) and _is_packed(one) else None
            if isinstance(inner, tuple) and inner and isinstance(inner[0], tuple) and len(inner[0]) == 2:
                yield from zip((f"weight_{suffix}", f"bias_{suffix}"), inner[0], strict=True)
            else:
                yield suffix, one
    else:
        yield from _numbered(content)


def _place(tensor: StoredTensor) -> tuple[object, ...]:
    return tensor.storage.key, tensor.storage.view_offset, tensor.offset, tensor.shape, tensor.strides


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
    for position, (key, value) in enumerate(state.items()):
        if _is_packed(value):
            yield _key_name(key, position), value


def _key_name(key: object, position: int) -> str:
    if isinstance(key, bytes):
        return key.decode("latin-1")
    if isinstance(key, str):
        return key
    if isinstance(key, int) and key.bit_length() <= 64:
        return str(int(key))
    return f"[{position}]"
