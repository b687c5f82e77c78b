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
from pickleattacks import ATTACKS


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
