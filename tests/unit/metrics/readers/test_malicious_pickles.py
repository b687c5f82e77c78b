"""Pickles that run code in Python's own unpickler run nothing here.

Each attack is first shown to be live: the standard unpickler, given the same opcodes, creates the marker file.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from forge import VALUES, dict_pickle, global_opcode, plain, tensor_opcodes, write_legacy, write_zip
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.detect import open_model

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


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def command(marker: Path) -> bytes:
    return plain(f"touch {marker}")


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_attack_works_on_the_standard_unpickler(attack: str, marker: Path) -> None:
    pickle.loads(b"\x80\x04" + ATTACKS[attack](command(marker)) + b".")  # noqa: S301
    assert marker.exists()


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_runs_and_the_weights_are_read(
    attack: str, write: Callable[[Path, bytes], Path], marker: Path, tmp_path: Path
) -> None:
    evil = ATTACKS[attack](command(marker))
    root = dict_pickle(
        {"before": evil, "state_dict": dict_pickle({"w": tensor_opcodes()})[2:-1], "after": evil}
    )
    reader = open_model(write(tmp_path / "m.pt", root))
    assert np.array_equal(reader.load("w"), VALUES)
    reader.close()
    assert not marker.exists()


PLACES: dict[str, Callable[[bytes], bytes]] = {
    "the backward hooks": lambda evil: tensor_opcodes(extra=evil),
    "the dict beside it": lambda evil: dict_pickle({"x": evil, "w": tensor_opcodes()})[2:-1],
    "a dict key": lambda evil: b"}" + evil + tensor_opcodes() + b"s",
    "the state of a tensor": lambda evil: tensor_opcodes() + b"}" + plain("__setstate__") + evil + b"sb",
    "a foreign subclass": lambda evil: (
        global_opcode("torch._tensor", "_rebuild_from_type_v2")
        + b"("
        + global_opcode("torch._utils", "_rebuild_parameter")
        + global_opcode("foreign", "Tensor")
        + b"("
        + tensor_opcodes()
        + b"\x89Nt"
        + evil
        + b"tR"
    ),
}


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("attack", ["REDUCE", "INST", "OBJ", "NEWOBJ", "BUILD", "STACK_GLOBAL"])
@pytest.mark.parametrize("place", PLACES)
def test_nothing_runs_inside_a_tensor(
    place: str, attack: str, write: Callable[[Path, bytes], Path], marker: Path, tmp_path: Path
) -> None:
    root = dict_pickle({"t": PLACES[place](ATTACKS[attack](command(marker)))})
    reader = open_model(write(tmp_path / "m.pt", root))
    (info,) = reader.tensors()
    assert np.array_equal(reader.load(info.name), VALUES)
    assert not marker.exists()


@pytest.mark.parametrize("part", ["a storage's class", "a shape", "a persistent id"])
def test_nothing_runs_where_a_tensor_is_described(part: str, marker: Path, tmp_path: Path) -> None:
    evil = ATTACKS["REDUCE"](command(marker))
    described = {
        "a storage's class": tensor_opcodes().replace(global_opcode("torch", "FloatStorage"), evil),
        "a shape": tensor_opcodes(shape=5).replace(b"K\x05", evil),
        "a persistent id": evil + b"Q",
    }[part]
    with pytest.raises(UnreadableError) as caught:
        open_model(write_zip(tmp_path / "m.pt", dict_pickle({"w": described})))
    assert caught.value.reason is UnreadableReason.BAD_PICKLE
    assert not marker.exists()


def test_nothing_runs_in_the_small_pickles_of_a_legacy_file(marker: Path, tmp_path: Path) -> None:
    system = dict_pickle({"little_endian": b"\x88", "x": ATTACKS["REDUCE"](command(marker))})
    path = write_legacy(tmp_path / "m.pt", dict_pickle({"w": tensor_opcodes()}), system=system)
    assert np.array_equal(open_model(path).load("w"), VALUES)
    assert not marker.exists()


def test_a_module_that_does_not_exist_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "trojan.py").write_text("raise SystemExit('imported')")
    root = dict_pickle({"x": global_opcode("trojan", "Thing"), "w": tensor_opcodes()})
    sys.path.insert(0, str(tmp_path))
    try:
        open_model(write_zip(tmp_path / "m.pt", root))
    finally:
        sys.path.remove(str(tmp_path))
    assert "trojan" not in sys.modules
