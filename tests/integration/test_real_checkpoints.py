"""Published networks through the whole engine. Origin: ``checkpoints/README.md`` in the shared directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from layerwatch.config.settings import Settings
from layerwatch.daemon.gate.engine import examine_files
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.readers.detect import open_model
from layerwatch_testing.processes import layerwatch
from layerwatch_testing.shared import shared_file

RESNET20 = "checkpoints/resnet20-12fca82f.th"
DISTILLER = "checkpoints/distiller"

# Layers with a spectrum: a CIFAR ResNet of depth 6n+2 has 6n+1 convolutions and a classifier; the networks of
# distiller add two projection shortcuts.
LAYERS = {
    RESNET20: 20,
    "checkpoints/resnet32-d509ac18.th": 32,
    f"{DISTILLER}/checkpoint_trained_channel_regularized_resnet20.pth.tar": 22,
    f"{DISTILLER}/checkpoint_trained_channel_regularized_resnet20_finetuned.pth.tar": 22,
    f"{DISTILLER}/checkpoint_trained_dense.pth.tar": 22,
    f"{DISTILLER}/resnet20_cifar10_checkpoint.pth.tar": 22,
}

TOLERANCE = 1e-3


def held_by(path: Path) -> set[str]:
    """Names of the tensors, and keys of the training state beside them."""
    reader = open_model(path)
    names = {info.name for info in reader.tensors()} | {key for key, _ in reader.left_out}
    reader.close()
    return names


@pytest.mark.parametrize("name", LAYERS)
def test_a_published_checkpoint_is_examined_in_full(name: str) -> None:
    path = shared_file(name)

    report = examine_files(path, None, None, Settings(), lambda name, progress: None)

    assert report.model.format == "pytorch"
    assert report.verdict is not Verdict.UNDECIDED
    assert len(report.layers) == LAYERS[name]
    for layer in report.layers:
        assert layer.metrics.num_eigenvalues, layer.name
        assert layer.metrics.non_finite == 0, layer.name
    # Every tensor of the file is a layer or is named with its reason.
    named = {f"{layer.name}.weight" for layer in report.layers} | {one.name for one in report.skipped}
    assert named == held_by(path)
    assert all(one.reason for one in report.skipped)


@pytest.fixture(scope="module")
def resnet20(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``layerwatch scan --format json`` prints."""
    folder = tmp_path_factory.mktemp("scan")
    done = layerwatch(["scan", str(shared_file(RESNET20)), "--format", "json"], folder)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_resnet20_has_the_reference_tools_alpha_distance_and_tail_in_every_layer(
    resnet20: dict[str, Any],
) -> None:
    reference = {
        entry["layer"]: entry
        for entry in json.loads(shared_file("parity/vectors.json").read_text())["resnet20"]
    }
    found = {layer["name"]: layer["metrics"] for layer in resnet20["layers"]}
    assert found.keys() == reference.keys()
    assert len(found) == 20

    compared = 0
    for name, metrics in found.items():
        # Below 20 eigenvalues the reference fits with a bias correction of its own.
        if metrics["num_eigenvalues"] < 20:
            assert metrics["fit_status"] == "too_small"
            continue
        expected = reference[name]
        assert metrics["alpha"] == pytest.approx(expected["alpha"], rel=TOLERANCE), name
        assert metrics["ks_distance"] == pytest.approx(expected["D"], rel=TOLERANCE), name
        assert metrics["tail_size"] == expected["num_pl_spikes"], name
        compared += 1
    assert compared == 19


def test_resnet20_names_every_bias_and_norm_vector_with_the_reason_why_it_has_no_spectrum(
    resnet20: dict[str, Any],
) -> None:
    reasons = {one["name"]: one["reason"] for one in resnet20["skipped"]}

    # 97 tensors, 20 of them with a spectrum.
    assert len(reasons) == 77
    assert reasons["linear.bias"] == "bias: a vector has no spectrum"
    assert reasons["bn1.weight"] == "norm gain: a vector has no spectrum"
    assert reasons["bn1.running_var"] == "running statistic of a batch norm: a vector has no spectrum"
    assert all("spectrum" in reason for reason in reasons.values())
    assert resnet20["verdict"] == "pass"


def test_a_real_fine_tune_passes_against_its_parent() -> None:
    parent = shared_file(f"{DISTILLER}/checkpoint_trained_channel_regularized_resnet20.pth.tar")
    tuned = shared_file(f"{DISTILLER}/checkpoint_trained_channel_regularized_resnet20_finetuned.pth.tar")

    report = examine_files(tuned, parent, "finetuned", Settings(), lambda name, progress: None)

    assert report.verdict in (Verdict.PASS, Verdict.WARN)
    assert all(layer.change is not None for layer in report.layers)
