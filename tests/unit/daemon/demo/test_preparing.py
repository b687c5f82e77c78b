"""What is prepared: real accuracies, files that others can read, one difference between v4 and v5."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from layerwatch.daemon.demo.errors import DemoError, DemoReason
from layerwatch.daemon.demo.prepared import PreparedVersion
from layerwatch.daemon.demo.preparing import SEED, prepare
from layerwatch.daemon.demo.story import CNN, MLP, STORIES, Story
from layerwatch.metrics.manifest import build_manifest

Versions = Mapping[tuple[str, str], PreparedVersion]

MODELS = (MLP, CNN)
HEALTHY = ("v1", "v2", "v3", "v4", "v6")
COMPRESSED = ("v3", "v4", "v5", "v6")

each_model = pytest.mark.parametrize("model", MODELS)


@each_model
def test_the_trained_network_tells_more_than_95_percent_of_the_digits(versions: Versions, model: str) -> None:
    assert versions[model, "v1"].accuracy > 0.95


@each_model
@pytest.mark.parametrize("version", HEALTHY)
def test_healthy_versions_stay_within_one_and_a_half_points(
    versions: Versions, model: str, version: str
) -> None:
    assert abs(versions[model, version].accuracy - versions[model, "v2"].accuracy) <= 0.015
    assert not versions[model, version].is_broken


@each_model
def test_the_defect_costs_more_than_five_points(versions: Versions, model: str) -> None:
    broken = versions[model, "v5"]
    assert versions[model, "v4"].accuracy - broken.accuracy > 0.05
    assert broken.is_broken
    assert broken.points_lost == pytest.approx(100 * (versions[model, "v2"].accuracy - broken.accuracy))


@each_model
def test_the_accuracy_shown_is_the_accuracy_stored(versions: Versions, model: str) -> None:
    for version in (*HEALTHY, "v5"):
        one = versions[model, version]
        stored = json.loads((one.folder / "accuracy.json").read_text())
        assert stored == {"test_accuracy": pytest.approx(one.accuracy, abs=1e-6), "test_images": 599}


@each_model
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_trained_versions_are_checkpoints_that_torch_loads_without_executing_anything(
    versions: Versions, model: str, version: str
) -> None:
    checkpoint = torch.load(versions[model, version].folder / "model.pt", weights_only=True)
    assert checkpoint["epoch"] > 0
    assert all(isinstance(values, torch.Tensor) for values in checkpoint["state_dict"].values())


@each_model
@pytest.mark.parametrize("version", COMPRESSED)
def test_compressed_versions_hold_int8_weights_with_one_scale_per_row(
    versions: Versions, model: str, version: str
) -> None:
    stored = load_file(versions[model, version].folder / "model.safetensors")
    weights = {name: values for name, values in stored.items() if values.ndim >= 2}
    assert weights
    for name, values in weights.items():
        assert values.dtype == np.int8
        assert stored[name + "_scale"].shape == (values.shape[0],)
        assert stored[name + "_scale"].dtype == np.float32


@each_model
def test_layers_have_the_same_names_in_both_formats(versions: Versions, model: str) -> None:
    trained = torch.load(versions[model, "v2"].folder / "model.pt", weights_only=True)["state_dict"]
    compressed = load_file(versions[model, "v4"].folder / "model.safetensors")
    assert trained.keys() == {name for name in compressed if not name.endswith("_scale")}
    assert all(tuple(trained[name].shape) == compressed[name].shape for name in trained)


@each_model
@pytest.mark.parametrize(("version", "share"), [("v4", 0.30), ("v6", 0.28)])
def test_the_pruned_share_is_still_zero_after_the_recovery_training(
    versions: Versions, model: str, version: str, share: float
) -> None:
    stored = load_file(versions[model, version].folder / "model.safetensors")
    for values in stored.values():
        if values.ndim >= 2:
            zeros = float(np.mean(values == 0))
            # int8 rounds a few of the small weights to zero besides.
            assert round(share * values.size) / values.size <= zeros < share + 0.1


@each_model
def test_the_broken_version_differs_from_v4_in_one_scale_tensor_alone(versions: Versions, model: str) -> None:
    good = load_file(versions[model, "v4"].folder / "model.safetensors")
    bad = load_file(versions[model, "v5"].folder / "model.safetensors")
    layer = versions[model, "v5"].step.broken_layer
    assert [name for name in good if not np.array_equal(good[name], bad[name])] == [f"{layer}.weight_scale"]


@each_model
def test_lineage_is_declared_for_all_versions_but_the_first(versions: Versions, model: str) -> None:
    def declared(version: str) -> object:
        return json.loads((versions[model, version].folder / "lineage.json").read_text())

    assert not (versions[model, "v1"].folder / "lineage.json").exists()
    assert declared("v2") == {"parent": "v1", "relation": "finetuned"}
    assert declared("v3") == {"parent": "v2", "relation": "quantized"}
    assert [declared(version) for version in ("v4", "v5", "v6")] == 3 * [
        {"parent": "v2", "relation": "pruned"}
    ]


@each_model
def test_no_two_versions_have_the_same_fingerprint(versions: Versions, model: str) -> None:
    prints = {build_manifest(versions[model, version].folder).fingerprint for version in (*HEALTHY, "v5")}
    assert len(prints) == 6


def test_the_same_seed_gives_the_same_fingerprints_whatever_ran_before(
    versions: Versions, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    mlp, cnn = STORIES
    for one in prepare(tmp_path, SEED, (mlp, Story(cnn.model, cnn.steps[:1]))):
        known = versions[one.model, one.version]
        assert build_manifest(one.folder).fingerprint == build_manifest(known.folder).fingerprint
        assert one.accuracy == known.accuracy


def test_preparing_leaves_torch_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    threads = torch.get_num_threads()
    prepare(tmp_path, 3, (Story(MLP, STORIES[0].steps[:1]),))
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.rand(3), expected)


def test_progress_is_told_version_by_version(tmp_path: Path) -> None:
    told: list[PreparedVersion] = []
    prepared = prepare(tmp_path, 3, (Story(MLP, STORIES[0].steps[:3]),), told.append)
    assert [one.version for one in told] == ["v1", "v2", "v3"]
    assert told == prepared


def test_a_staging_folder_that_holds_the_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / MLP / "v1").mkdir(parents=True)
    with pytest.raises(DemoError, match="choose an empty folder") as caught:
        prepare(tmp_path)
    assert caught.value.reason is DemoReason.CANNOT_WRITE
