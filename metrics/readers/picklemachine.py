"""A pickle interpreter that can only build data.

Python's own Unpickler imports and calls what the stream names. This one has no import and no call: a global
is kept as its name, and making an object is handed to a function of ours which knows a closed table. There is
no recursion, keys are hashed only when they are text or numbers, and the memo is a dict, so the known ways to
crash or exhaust an unpickler (deep nesting, huge memo indices, hash recursion) end in typed errors.

Opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from layerwatch.metrics.errors import UnreadableReason
from layerwatch.metrics.readers.picklestream import PickleStream
from layerwatch.metrics.readers.picklevalues import CompositeKey, Global, Opaque, describe

HIGHEST_PROTOCOL = 5

Construct = Callable[[object, tuple[object, ...]], object]
"""Makes the value that calling a global with arguments stands for. Must not call anything from the pickle."""

PersistentLoad = Callable[[object], object]
"""Turns a persistent id into a value."""

Meet = Callable[[Global], None]
"""Told of every global that the pickle names, used or not."""


class PickleMachine:
    """Interprets one pickle.

    Args:
        stream: where the opcodes come from; afterwards stands behind STOP.
        construct: what REDUCE, NEWOBJ, OBJ and INST turn into.
        persistent_load: what persistent ids turn into.
        meet: told of every global.
    """

    def __init__(
        self, stream: PickleStream, construct: Construct, persistent_load: PersistentLoad, meet: Meet
    ) -> None:
        self._stream = stream
        self._construct = construct
        self._persistent_load = persistent_load
        self._meet = meet
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> object:
        """The pickled value.

        Raises:
            UnreadableError: TRUNCATED, TOO_LARGE or BAD_PICKLE.
        """
        for name, argument in self._stream.operations():
            operation = _OPERATIONS.get(name)
            if operation is not None:
                operation(self, argument)
            elif name in _PUSHING_ARGUMENT:
                self._stack.append(argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name not in _IGNORED:
                self._fail(f"the opcode {name} has no place in a checkpoint")
        return self._pop()

    def _fail(self, detail: str) -> NoReturn:
        at = self._stream.tell()
        raise self._stream.error(
            UnreadableReason.BAD_PICKLE, f"the pickle is not valid near byte {at}: {detail}"
        )

    def _pop(self) -> Any:
        if not self._stack:
            self._fail("a value is used that was never pushed")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack:
            self._fail("a value is used that was never pushed")
        return self._stack[-1]

    def _pop_mark(self) -> list[Any]:
        if not self._marked:
            self._fail("a mark is used that was never set")
        members, self._stack = self._stack, self._marked.pop()
        return members

    def protocol(self, argument: Any) -> None:
        if argument > HIGHEST_PROTOCOL:
            self._fail(f"pickle protocol {argument}, known are 0 to {HIGHEST_PROTOCOL}")

    def mark(self, _: Any) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def pop_mark(self, _: Any) -> None:
        self._pop_mark()

    def duplicate(self, _: Any) -> None:
        self._stack.append(self._top())

    def put(self, index: Any) -> None:
        self._memo[index] = self._top()

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def get(self, index: Any) -> None:
        if index not in self._memo:
            self._fail(f"memo entry {describe(index)} is read before it is written")
        self._stack.append(self._memo[index])

    def empty_list(self, _: Any) -> None:
        self._stack.append([])

    def empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def marked_list(self, _: Any) -> None:
        members = self._pop_mark()
        self._stack.append(members)

    def marked_tuple(self, _: Any) -> None:
        members = self._pop_mark()
        self._stack.append(tuple(members))

    def marked_dict(self, _: Any) -> None:
        members = self._pop_mark()
        self._stack.append({})
        self._set_items(members)

    def short_tuple(self, length: int) -> None:
        members = [self._pop() for _ in range(length)]
        self._stack.append(tuple(reversed(members)))

    def append(self, _: Any) -> None:
        self._extend([self._pop()])

    def appends(self, _: Any) -> None:
        self._extend(self._pop_mark())

    def set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def set_items(self, _: Any) -> None:
        self._set_items(self._pop_mark())

    def push_global(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(self._global(module, name))

    def stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            self._fail("a global is named by something that is no text")
        self._stack.append(self._global(module, name))

    def reduce(self, _: Any) -> None:
        arguments, made_by = self._pop(), self._pop()
        self._make(made_by, arguments)

    def new_object_with_keywords(self, _: Any) -> None:
        keywords, arguments, made_by = self._pop(), self._pop(), self._pop()
        self._make(made_by, arguments)
        made = self._top()
        if isinstance(made, Opaque) and isinstance(keywords, dict):
            made.entries = keywords

    def marked_object(self, _: Any) -> None:
        members = self._pop_mark()
        if not members:
            self._fail("an object without a class")
        self._make(members[0], tuple(members[1:]))

    def instance(self, argument: Any) -> None:
        module, _, name = argument.partition(" ")
        self._make(self._global(module, name), tuple(self._pop_mark()))

    def build(self, _: Any) -> None:
        # State of everything but stand-ins is dropped: the attributes of a dict or tensor carry no weights.
        state, target = self._pop(), self._top()
        if isinstance(target, Opaque):
            target.state = state

    def persistent(self, argument: Any) -> None:
        self._stack.append(self._persistent_load(argument))

    def persistent_from_stack(self, _: Any) -> None:
        self._stack.append(self._persistent_load(self._pop()))

    def _global(self, module: str, name: str) -> Global:
        named = Global(module, name)
        self._meet(named)
        return named

    def _make(self, made_by: object, arguments: object) -> None:
        if not isinstance(arguments, tuple):
            self._fail(f"arguments are {describe(arguments)}, not a tuple")
        self._stack.append(self._construct(made_by, arguments))

    def _extend(self, members: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(members)
        elif isinstance(target, Opaque):
            target.items.extend(members)
        else:
            self._fail(f"members are appended to {describe(target)}")

    def _set_items(self, members: list[Any]) -> None:
        target = self._top()
        entries = target.entries if isinstance(target, Opaque) else target
        if not isinstance(entries, dict):
            self._fail(f"entries are set in {describe(target)}")
        if len(members) % 2:
            self._fail("a dict entry has a key and no value")
        for index in range(0, len(members), 2):
            entries[as_key(members[index])] = members[index + 1]


def as_key(key: object) -> object:
    """The key itself where hashing it is harmless, else a stand-in that hashes by identity."""
    return key if key is None or isinstance(key, (str, bytes, int, float)) else CompositeKey(key)


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}

_IGNORED = frozenset({"FRAME", "STOP"})

_PUSHING_ARGUMENT = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        "BYTEARRAY8",
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    }
)

# Sets are lists here: their members are walked, never hashed.
_OPERATIONS: dict[str, Callable[[PickleMachine, Any], None]] = {
    "PROTO": PickleMachine.protocol,
    "MARK": PickleMachine.mark,
    "POP": PickleMachine.pop,
    "POP_MARK": PickleMachine.pop_mark,
    "DUP": PickleMachine.duplicate,
    "PUT": PickleMachine.put,
    "BINPUT": PickleMachine.put,
    "LONG_BINPUT": PickleMachine.put,
    "MEMOIZE": PickleMachine.memoize,
    "GET": PickleMachine.get,
    "BINGET": PickleMachine.get,
    "LONG_BINGET": PickleMachine.get,
    "EMPTY_LIST": PickleMachine.empty_list,
    "EMPTY_SET": PickleMachine.empty_list,
    "EMPTY_DICT": PickleMachine.empty_dict,
    "LIST": PickleMachine.marked_list,
    "FROZENSET": PickleMachine.marked_list,
    "TUPLE": PickleMachine.marked_tuple,
    "DICT": PickleMachine.marked_dict,
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "APPEND": PickleMachine.append,
    "APPENDS": PickleMachine.appends,
    "ADDITEMS": PickleMachine.appends,
    "SETITEM": PickleMachine.set_item,
    "SETITEMS": PickleMachine.set_items,
    "GLOBAL": PickleMachine.push_global,
    "STACK_GLOBAL": PickleMachine.stack_global,
    "REDUCE": PickleMachine.reduce,
    "NEWOBJ": PickleMachine.reduce,
    "NEWOBJ_EX": PickleMachine.new_object_with_keywords,
    "OBJ": PickleMachine.marked_object,
    "INST": PickleMachine.instance,
    "BUILD": PickleMachine.build,
    "PERSID": PickleMachine.persistent,
    "BINPERSID": PickleMachine.persistent_from_stack,
}
