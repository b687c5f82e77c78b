"""Checkpoints of Orbax as models: what is opened, what their fingerprint counts, and what stands beside them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.manifest import build_manifest, weight_files
from layerwatch.metrics.openmodel import open_layers
from layerwatch.metrics.readers.detect import open_model

FILES = Path(__file__).parents[3] / "_data" / "orbax"


def unpacked(folder: Path, kind: str = "ocdbt") -> Path:
    with tarfile.open(FILES / f"{kind}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / kind


@pytest.mark.parametrize("kind", ["ocdbt", "zarr", "zarr3"])
def test_a_checkpoint_is_a_model_wherever_its_directory_is(tmp_path: Path, kind: str) -> None:
    """A CheckpointManager keeps it as ``STEP/default``."""
    place = unpacked(tmp_path / "1000", kind)

    for root in (place, tmp_path / "1000", tmp_path):
        model = open_layers(root)
        try:
            assert model.format == "orbax"
            layers = {layer.tensor: layer.shape for layer in model.plan.layers}
            assert layers["dense.weight"] == (16, 24)
            assert model.plan.unexamined == ()
        finally:
            model.close()


@pytest.mark.parametrize("kind", ["ocdbt", "zarr", "zarr3"])
def test_a_change_of_any_value_changes_the_fingerprint_and_a_note_does_not(tmp_path: Path, kind: str) -> None:
    place = unpacked(tmp_path, kind)
    before = build_manifest(place).fingerprint
    counted = {file.relative_to(place).as_posix() for file in weight_files(place)}
    assert "_METADATA" in counted
    assert ("params.dense.kernel/.zarray" in counted) == (kind == "zarr")

    (place / "commit_success.txt").write_text("another time")
    (place / "array_metadatas" / "process_0").write_text("{}")
    assert build_manifest(place).fingerprint == before

    for name in counted:
        file = place / name
        raw = file.read_bytes()
        file.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        assert build_manifest(place).fingerprint != before, name
        file.write_bytes(raw)


def test_it_is_joined_with_what_stands_beside_it(tmp_path: Path) -> None:
    unpacked(tmp_path)
    safetensors.numpy.save_file({"head.weight": np.ones((4, 8), np.float32)}, tmp_path / "model.safetensors")

    reader = open_model(tmp_path)

    assert reader.format == "orbax+safetensors"
    assert {"head.weight", "params.dense.kernel"} <= {info.name for info in reader.tensors()}


def test_a_damaged_one_beside_a_model_makes_it_undecided(tmp_path: Path) -> None:
    (unpacked(tmp_path) / "_METADATA").write_text("{}")
    safetensors.numpy.save_file({"head.weight": np.ones((4, 8), np.float32)}, tmp_path / "model.safetensors")

    reader = open_model(tmp_path)

    assert [one.name for one in reader.unexamined] == ["ocdbt"]


def test_an_optimizer_beside_it_is_left_out(tmp_path: Path) -> None:
    unpacked(tmp_path)
    unpacked(tmp_path, "zarr").rename(tmp_path / "optimizer")

    reader = open_model(tmp_path)

    assert ("optimizer", "training state: not examined") in reader.left_out
    assert "params.dense.kernel" in {info.name for info in reader.tensors()}


def saved_model(folder: Path) -> Path:
    """The files of ``tf.saved_model.save``; their content is not looked at."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12\x00")
    (folder / "variables" / "variables.index").write_bytes(b"\0")
    (folder / "variables" / "variables.data-00000-of-00001").write_bytes(bytes(64))
    return folder


def test_a_saved_model_of_tensorflow_is_refused_with_what_to_do(tmp_path: Path) -> None:
    place = saved_model(tmp_path / "net")
    for path in (place, place / "saved_model.pb", place / "variables" / "variables.data-00000-of-00001"):
        with pytest.raises(
            UnreadableError, match=r"TensorFlow SavedModel.*save the model as \.keras"
        ) as caught:
            open_model(path)
        assert caught.value.reason is UnreadableReason.UNKNOWN_FORMAT
    assert [entry.path for entry in build_manifest(place).entries] == [
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
    ]


def test_a_saved_model_beside_another_makes_it_undecided(tmp_path: Path) -> None:
    saved_model(tmp_path / "saved_model")
    safetensors.numpy.save_file({"head.weight": np.ones((4, 8), np.float32)}, tmp_path / "model.safetensors")

    reader = open_model(tmp_path)

    assert {one.name for one in reader.unexamined} == {
        "saved_model/saved_model.pb",
        "saved_model/variables/variables.data-00000-of-00001",
    }
