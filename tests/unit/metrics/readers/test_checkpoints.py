"""Where the weights are in checkpoints of all shapes, compared with what torch's state_dict says."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from forge import dict_pickle, plain, tensor_opcodes, write_zip
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.readers.detect import open_model
from layerwatch.metrics.readers.names import without_wrappers


class Foreign:
    """A class that only the writer of the checkpoint has."""

    def __init__(self) -> None:
        self.settings = {"rate": 0.1}


class ForeignDict(dict[str, Any]):
    """A dict subclass with attributes."""


class Block(nn.Module):
    """A module with parameters, buffers of both kinds, a missing bias and a shared submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3, bias=False)
        self.norm = nn.BatchNorm1d(3)
        self.again = self.first
        self.layers = nn.ModuleList([nn.Linear(3, 2), nn.Sequential(nn.Conv2d(1, 2, 3))])
        self.register_buffer("kept", torch.arange(3.0))
        self.register_buffer("transient", torch.arange(9.0), persistent=False)
        self.note = Foreign()


def model() -> Block:
    torch.manual_seed(0)
    return Block()


def names_in(tmp_path: Path, value: Any, zipped: bool = True) -> list[str]:
    path = tmp_path / "model.pt"
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return [info.name for info in open_model(path).tensors()]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"epoch": 3, "model": m}, nn.DataParallel])
def test_a_pickled_module_gives_the_tensors_of_its_state_dict(
    tmp_path: Path, zipped: bool, wrap: Any
) -> None:
    block = model()
    path = tmp_path / "model.pt"
    torch.save(wrap(block), path, _use_new_zipfile_serialization=zipped)
    reader = open_model(path)
    expected = block.state_dict()
    assert [info.name for info in reader.tensors()] == list(expected)
    for name, tensor in expected.items():
        assert np.array_equal(reader.load(name), tensor.numpy()), name


@pytest.mark.parametrize(
    "key",
    ["state_dict", "model", "model_state_dict", "net", "module", "params", "params_ema", "ema", "weights"],
)
def test_the_weights_of_a_training_checkpoint_are_found_under_their_key(tmp_path: Path, key: str) -> None:
    block = model()
    optimizer = torch.optim.Adam(block.parameters())
    block.layers[0](torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint = {
        "best_accuracy": torch.tensor(0.9),
        "optimizer": optimizer.state_dict(),
        key: block.state_dict(),
        "rng_state": torch.get_rng_state(),
    }
    assert names_in(tmp_path, checkpoint) == list(block.state_dict())


def test_trained_weights_come_before_their_moving_average(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save({"ema": {"w": torch.zeros(1)}, "state_dict": {"w": torch.ones(1)}}, path)
    assert open_model(path).load("w").tolist() == [1.0]


def test_known_keys_are_followed_inwards_and_empty_ones_passed_over(tmp_path: Path) -> None:
    checkpoint = {
        "params": {"lr": 0.1},
        "state_dict": None,
        "model": {"module": {"net": {"a.w": torch.ones(1)}}},
    }
    assert names_in(tmp_path, checkpoint) == ["a.w"]


def test_other_nested_containers_are_flattened_with_dots(tmp_path: Path) -> None:
    checkpoint = {
        "generator": OrderedDict([("w", torch.ones(1))]),
        "discriminators": [{"w": torch.ones(1)}, ({"b": torch.ones(1)},)],
        "groups": defaultdict(list, {7: [torch.ones(1)]}),
        "foreign": ForeignDict(x=torch.ones(1)),
    }
    expected = ["generator.w", "discriminators.0.w", "discriminators.1.0.b", "groups.7.0", "foreign.x"]
    assert names_in(tmp_path, checkpoint) == expected


@pytest.mark.parametrize(
    "key", ["optimizer", "optimizer_states", "optim_g", "optimizerD", "my_optimizer", "lr_scheduler"]
)
def test_training_state_is_not_taken_for_weights(tmp_path: Path, key: str) -> None:
    state = {
        "encoder": {"w": torch.ones(1)},
        key: [{"state": {0: {"exp_avg": torch.ones(1)}}}],
        "cuda_rng_state": torch.ones(1),
    }
    assert names_in(tmp_path, state) == ["encoder.w"]


def test_a_layer_called_like_an_optimizer_is_kept(tmp_path: Path) -> None:
    assert names_in(tmp_path, {"optim_proj.weight": torch.ones(1), "scaler": torch.ones(1)}) == [
        "optim_proj.weight",
        "scaler",
    ]


def test_a_file_of_optimizer_state_alone_holds_no_weights(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = torch.ones(2)
    optimizer.step()
    with pytest.raises(UnreadableError, match="optimizer") as caught:
        names_in(tmp_path, optimizer.state_dict())
    assert caught.value.reason is UnreadableReason.NO_TENSORS


@pytest.mark.parametrize(
    "value",
    [{}, [], None, 5, "text", {"a": {"b": [1, 2.5]}}, Foreign()],
    ids=["empty dict", "empty list", "none", "number", "text", "nested numbers", "foreign object"],
)
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(UnreadableError) as caught:
        names_in(tmp_path, value)
    assert caught.value.reason is UnreadableReason.NO_TENSORS


def test_a_single_tensor_is_a_model_of_one(tmp_path: Path) -> None:
    assert names_in(tmp_path, torch.ones(2)) == ["tensor"]


def test_foreign_objects_do_not_hide_the_weights(tmp_path: Path) -> None:
    checkpoint = {
        "args": Foreign(),
        "numbers": np.arange(3),
        "scalar": np.float64(2.5),
        "state_dict": {"w": torch.ones(1)},
    }
    assert names_in(tmp_path, checkpoint) == ["w"]


def test_tensors_with_attributes_are_still_tensors(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.ones(2))
    parameter.tag = "head"  # type: ignore[attr-defined]
    plain_tensor = torch.zeros(2)
    plain_tensor.tag = "tail"  # type: ignore[attr-defined]
    assert names_in(tmp_path, {"p": parameter, "t": plain_tensor}) == ["p", "t"]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "module.module."])
def test_wrapper_prefixes_are_taken_off(tmp_path: Path, prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in model().state_dict().items()}
    assert names_in(tmp_path, {"state_dict": state}) == list(model().state_dict())


def test_averaged_models_lose_their_prefix_and_keep_their_counter(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    assert names_in(tmp_path, averaged.state_dict()) == ["n_averaged", "weight", "bias"]


@pytest.mark.parametrize(
    "names", [["module.a", "head"], ["module."], ["module.n_averaged", "n_averaged"], ["n_averaged"], []]
)
def test_a_prefix_that_not_all_names_carry_or_that_leaves_no_distinct_names_is_kept(names: list[str]) -> None:
    assert without_wrappers(names) == {name: name for name in names}


def test_two_paths_that_spell_the_same_name_are_both_kept(tmp_path: Path) -> None:
    state = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}}
    path = tmp_path / "m.pt"
    torch.save(state, path)
    reader = open_model(path)
    assert [info.name for info in reader.tensors()] == ["a.b", "a.b#2"]
    assert reader.load("a.b#2").tolist() == [1.0]


def test_containers_that_hold_themselves_are_walked_once(tmp_path: Path) -> None:
    cycle: dict[str, Any] = {"w": torch.ones(1), "list": []}
    cycle["self"] = cycle
    cycle["list"].append(cycle["list"])
    assert names_in(tmp_path, {"root": cycle}) == ["root.w"]


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    root = dict_pickle({"\ud800": tensor_opcodes()})
    with pytest.raises(UnreadableError, match="Unicode") as caught:
        open_model(write_zip(tmp_path / "m.pt", root))
    assert caught.value.reason is UnreadableReason.BAD_PICKLE


def test_unusual_keys_get_a_readable_name(tmp_path: Path) -> None:
    members = b"".join(plain(key) + tensor_opcodes() + b"s" for key in (3, None, (1, 2), 2**200))
    reader = open_model(write_zip(tmp_path / "m.pt", b"\x80\x02}" + members + b"."))
    assert [info.name for info in reader.tensors()] == ["3", "[1]", "[2]", "[3]"]


def test_other_networks_beside_the_weights_are_listed_under_their_key(tmp_path: Path) -> None:
    weights = {"module.fc.weight": torch.ones(1), "module.fc.bias": torch.ones(1)}
    checkpoint = {
        "epoch": 3,
        "ema": {name: value + 1 for name, value in weights.items()},
        "state_dict": weights,
        "discriminator": {"fc": {"weight": torch.full((1,), torch.nan)}},
        "alias": weights,
        "queue": torch.ones(2),
    }
    assert names_in(tmp_path, checkpoint) == [
        *("fc.weight", "fc.bias"),
        *("ema.fc.weight", "ema.fc.bias", "discriminator.fc.weight", "queue"),
    ]
    assert np.isnan(open_model(tmp_path / "model.pt").load("discriminator.fc.weight")).all()


def test_what_lies_beside_an_inner_known_key_is_listed_under_its_path(tmp_path: Path) -> None:
    checkpoint = {
        "model": {"net": {"w": torch.ones(1)}, "head": {"w": torch.ones(1)}},
        "": {"w": torch.ones(1)},
    }
    assert names_in(tmp_path, checkpoint) == ["w", "w#2", "model.head.w"]


def test_training_state_beside_the_weights_is_left_out_with_one_reason_for_each_key(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    checkpoint = {
        "best_accuracy": torch.tensor(0.9),
        "optimizer": optimizer.state_dict(),
        "under_another_name": optimizer.state_dict(),
        "lr_schedulers": [{"last_epoch": 3}],
        "compression_sched": {"masks_dict": {"w": torch.ones(1)}},
        "callbacks": {},
        "state_dict": {"w": torch.ones(1)},
        "rng_state": torch.get_rng_state(),
    }
    assert names_in(tmp_path, checkpoint) == ["w"]
    reasons = dict(open_model(tmp_path / "model.pt").left_out)
    assert reasons.pop("best_accuracy") == "single number beside the weights"
    assert set(reasons.values()) == {"training state: not examined"}
    assert sorted(reasons) == [
        *("compression_sched", "lr_schedulers", "optimizer", "rng_state"),
        *("under_another_name.param_groups", "under_another_name.state"),
    ]


def test_weights_are_not_hidden_by_keys_of_an_optimizer_beside_them(tmp_path: Path) -> None:
    checkpoint = {
        "param_groups": [],
        "state": {},
        "model": {"w": torch.ones(1)},
        "head": {"w": torch.ones(1)},
    }
    assert names_in(tmp_path, checkpoint) == ["w", "head.w"]


def test_a_container_that_holds_the_weights_themselves_does_not_list_them_again(tmp_path: Path) -> None:
    weights = {"w": torch.ones(1)}
    assert names_in(tmp_path, {"state_dict": weights, "best": {"epoch": 2, "weights": weights}}) == ["w"]
