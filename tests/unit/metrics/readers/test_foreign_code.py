"""What a pickle asks for that runs code of its author is told, and honest checkpoints are silent."""

from __future__ import annotations

import argparse
import collections
import enum
import functools
import http
import pathlib
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.state_dict_saver import save

from forge import dict_pickle, global_opcode, plain, tensor_opcodes, write_legacy, write_zip
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.openmodel import open_layers
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.readers.picklevalues import Global, Opaque, describe
from layerwatch.metrics.tensors import foreign_code_of
from layerwatch_testing.models import write_safetensors
from pickleattacks import ATTACKS

each_container = pytest.mark.parametrize("write", [write_zip, write_legacy])
ECHO = plain("echo")


def asked(path: Path) -> dict[str, tuple[str, ...]]:
    """Names by file."""
    reader = open_model(path)
    try:
        return {one.path.name: one.names for one in foreign_code_of(reader)}
    finally:
        reader.close()


def beside_weights(evil: bytes) -> bytes:
    return dict_pickle({"fc.weight": tensor_opcodes(), "hook": evil})


@each_container
@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_that_works_is_told(
    attack: str, write: Callable[[Path, bytes], Path], tmp_path: Path
) -> None:
    names = asked(write(tmp_path / "m.bin", beside_weights(ATTACKS[attack](ECHO))))["m.bin"]

    assert {"os.system", "builtins.eval", "builtins.getattr", "builtins.__import__"} & set(names)


HIDDEN: dict[str, tuple[bytes, str]] = {
    "named and never called": (global_opcode("os", "system"), "os.system"),
    "named and thrown away": (global_opcode("os", "system") + b"0N", "os.system"),
    "names from the memo": (
        plain("os") + b"q\x63" + b"0" + plain("system") + b"q\x640" + b"h\x63h\x64\x93" + ECHO + b"\x85R",
        "os.system",
    ),
    "a module inside another": (
        b"\x8c\x13torch.serialization\x8c\x09os.system\x93",
        "torch.serialization.os.system",
    ),
    "a module under an underscore": (global_opcode("tempfile", "_os"), "tempfile._os"),
    "globals of a method": (
        plain("torch.nn") + plain("Module.__init__.__globals__") + b"\x93",
        "torch.nn.Module.__init__.__globals__",
    ),
    "another pickle": (global_opcode("_pickle", "loads") + b"C\x00\x85R", "_pickle.loads"),
    "another file": (
        global_opcode("torch.serialization", "load") + ECHO + b"\x85R",
        "torch.serialization.load",
    ),
    "getattr of a module": (
        global_opcode("__builtin__", "getattr")
        + global_opcode("torch", "utils")
        + plain("cpp_extension")
        + b"\x86R",
        "__builtin__.getattr",
    ),
    "getattr as an argument": (
        global_opcode("functools", "partial") + global_opcode("builtins", "getattr") + b"\x85R",
        "builtins.getattr",
    ),
    "no printable name": (plain("os") + plain("sys\ntem\x1b[2J") + b"\x93", r"os.sys\ntem\x1b[2J"),
}


@each_container
@pytest.mark.parametrize("case", HIDDEN)
def test_what_is_hidden_is_told_by_its_name(
    case: str, write: Callable[[Path, bytes], Path], tmp_path: Path
) -> None:
    evil, name = HIDDEN[case]

    assert asked(write(tmp_path / "m.bin", beside_weights(evil))) == {"m.bin": (name,)}


def test_a_pickle_in_the_bytes_of_a_storage_is_looked_into(tmp_path: Path) -> None:
    front: tuple[object, ...] = (0x1950A86A20F9469CFC6C, 1001, {})
    inner = b"".join(pickle.dumps(one) for one in front)
    inner += b"\x80\x02" + ATTACKS["REDUCE"](ECHO) + b"." + pickle.dumps([])
    evil = (
        global_opcode("torch.storage", "_load_from_bytes") + pickle.dumps(inner, protocol=4)[2:-1] + b"\x85R"
    )

    assert asked(write_zip(tmp_path / "m.bin", beside_weights(evil))) == {
        "m.bin": ("os.system", "torch.storage._load_from_bytes")
    }


def test_the_small_pickles_of_a_legacy_file_count(tmp_path: Path) -> None:
    system = dict_pickle({"little_endian": b"\x88", "x": ATTACKS["REDUCE"](ECHO)})
    path = write_legacy(tmp_path / "m.bin", dict_pickle({"w": tensor_opcodes()}), system=system)

    assert asked(path) == {"m.bin": ("os.system",)}


def test_of_many_names_so_many_are_kept_and_the_sentence_counts_them(tmp_path: Path) -> None:
    names = b"".join(global_opcode("os", f"f{number}") + b"0" for number in range(300)) + b"N"
    reader = open_model(write_zip(tmp_path / "m.bin", beside_weights(names)))

    (found,) = foreign_code_of(reader)

    assert len(found.names) == 100
    assert found.sentence.startswith("its pickle asks for os.f0 and 99 more: whoever")


def test_the_census_names_each_file_of_a_model(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.bin", beside_weights(ATTACKS["REDUCE"](ECHO)))
    write_zip(tmp_path / "b.bin", dict_pickle({"other.weight": tensor_opcodes()}))

    (remark,) = open_layers(tmp_path).remarks()

    assert (remark.layer, remark.kind.value, remark.declared, remark.stored) == (
        "",
        "code_in_pickle",
        "a.bin",
        "os.system",
    )
    assert remark.detail == (
        "a.bin: its pickle asks for os.system: whoever loads it without weights_only=True runs it"
    )


@each_container
def test_a_file_without_weights_is_refused_for_what_it_asks_for(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    evil = b"\x80\x02" + ATTACKS["REDUCE"](ECHO) + b"."
    path = write(tmp_path / "m.bin", evil, {})

    with pytest.raises(UnreadableError) as caught:
        open_model(path)

    assert caught.value.reason is UnreadableReason.BAD_PICKLE
    assert caught.value.detail.startswith("the pickle holds an object of os.system and no weights in it;")
    assert "asks for os.system: whoever" in caught.value.detail


def test_an_object_in_a_message_is_called_by_its_class() -> None:
    assert describe(Opaque(Global("lib.models", "Net"))) == "an object of lib.models.Net"
    assert describe(Opaque(Opaque("anything"))) == "an object"


def test_the_metadata_of_a_distributed_checkpoint_counts(tmp_path: Path) -> None:
    save({"fc.weight": torch.ones(4, 3)}, checkpoint_id=str(tmp_path))
    assert asked(tmp_path) == {}

    metadata = tmp_path / ".metadata"
    body = metadata.read_bytes()
    metadata.write_bytes(body[:2] + global_opcode("os", "system") + b"0" + body[2:])

    assert asked(tmp_path) == {".metadata": ("os.system",)}


class Config:
    """With what trainers keep beside weights."""

    class Inner:
        """A nested class is pickled through getattr."""

    def hook(self) -> None:
        """A bound method, too."""


class Mode(enum.Enum):
    FAST = 1


def honest() -> dict[str, Any]:
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(5, 4)).sum().backward()
    optimiser.step()
    return {
        "state_dict": network.state_dict(),
        "network": network,
        "optimizer": optimiser.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimiser, 2).state_dict(),
        "args": argparse.Namespace(lr=0.1, root=pathlib.PurePosixPath("/data"), mode=Mode.FAST),
        "best": np.float64(0.5),
        "curve": np.arange(3.0),
        "numpy_rng": np.random.default_rng(0),
        "python_rng": random.Random(0).getstate(),
        "rng": torch.get_rng_state(),
        "counts": collections.Counter("abc"),
        "table": collections.defaultdict(list, a=[1]),
        "order": collections.OrderedDict(a=1),
        "schedule": functools.partial(np.clip, a_min=0),
        "act": torch.nn.functional.gelu,
        "nested": Config.Inner(),
        "class": Config.Inner,
        "bound": Config().hook,
        "status": http.HTTPStatus.OK,
        "numbers": (1 + 2j, slice(1, 2), range(3), {1}, frozenset({2}), bytearray(b"a"), b"bytes"),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_honest_checkpoints_are_silent(zipped: bool, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(honest(), path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)

    assert asked(path) == {}


@pytest.mark.parametrize("protocol", [2, 4])
def test_storages_that_were_pickled_without_torch_save_are_silent(protocol: int, tmp_path: Path) -> None:
    buffers = pickle.dumps({"a": torch.ones(3, 4), "b": torch.zeros(700)}, protocol=protocol)[2:-1]
    root = dict_pickle({"fc.weight": tensor_opcodes(), "buffers": buffers})

    assert b"_load_from_bytes" in root
    assert asked(write_zip(tmp_path / "m.pt", root)) == {}


def test_a_copy_beside_safetensors_that_nobody_examines_is_told_as_well(tmp_path: Path) -> None:
    """Somebody may load it; the file that is examined is the other one."""
    reader = open_model(write_zip(tmp_path / "pytorch_model.bin", beside_weights(ATTACKS["REDUCE"](ECHO))))
    shapes = {info.name: np.zeros(info.shape, np.float32) for info in reader.tensors()}
    reader.close()
    write_safetensors(tmp_path / "model.safetensors", shapes)

    assert list(asked(tmp_path)) == ["pytorch_model.bin"]
