"""Files made to run code, to lie or to exhaust: each ends as ``undecided`` with a reason, and nothing happens."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import forge
from layerwatch.config.settings import Settings
from layerwatch.daemon.gate.engine import examine_files
from layerwatch.daemon.gate.outcome import exit_code
from layerwatch.metrics.findings import Severity, Verdict
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.processes import layerwatch

Make = Callable[[Path], Path]


class RunsCommand:
    """Unpickling this runs a shell command, wherever pickles are loaded without a guard."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def marker(folder: Path) -> Path:
    """The file that appears when code of a model runs."""
    return folder / "code-was-run"


def malicious(folder: Path) -> bytes:
    return pickle.dumps({"state_dict": RunsCommand(f"touch '{marker(folder)}'")}, protocol=2)


def malicious_zip(folder: Path) -> Path:
    return forge.write_zip(folder / "model.pt", malicious(folder))


def malicious_legacy(folder: Path) -> Path:
    return forge.write_legacy(folder / "model.pt", malicious(folder), storages={})


def malicious_bare_pickle(folder: Path) -> Path:
    path = folder / "model.pt"
    path.write_bytes(malicious(folder))
    return path


def state() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    generator = np.random.default_rng(0)
    return {"fc.weight": generator.standard_normal((8, 8)).astype(np.float32)}


def truncated_safetensors(folder: Path) -> Path:
    path = write_safetensors(folder / "model.safetensors", state())
    path.write_bytes(path.read_bytes()[:-7])
    return path


def truncated_zip(folder: Path) -> Path:
    path = healthy_zip(folder)
    path.write_bytes(path.read_bytes()[:-40])
    return path


def truncated_legacy(folder: Path) -> Path:
    path = forge.write_legacy(folder / "model.pt", forge.dict_pickle({"fc.weight": forge.tensor_opcodes()}))
    path.write_bytes(path.read_bytes()[:-3])
    return path


def healthy_zip(folder: Path) -> Path:
    return forge.write_zip(folder / "model.pt", forge.dict_pickle({"fc.weight": forge.tensor_opcodes()}))


def flipped_header(folder: Path) -> Path:
    path = write_safetensors(folder / "model.safetensors", state())
    content = bytearray(path.read_bytes())
    content[content.index(b'"F32"') + 2] ^= 0x01
    path.write_bytes(content)
    return path


def flipped_zip(folder: Path) -> Path:
    path = healthy_zip(folder)
    content = bytearray(path.read_bytes())
    content[content.index(forge.VALUES.tobytes()) + 5] ^= 0x40
    path.write_bytes(content)
    return path


def empty(folder: Path) -> Path:
    path = folder / "model.safetensors"
    path.touch()
    return path


def no_tensor(folder: Path) -> Path:
    return forge.write_safetensors(folder / "model.safetensors", {"__metadata__": {"format": "pt"}})


def no_tensor_zip(folder: Path) -> Path:
    return forge.write_zip(folder / "model.pt", pickle.dumps({"epoch": 3}, protocol=2))


def lying_length(folder: Path) -> Path:
    entry = {"fc.weight": forge.entry("F32", [2, 2], 0, 16)}
    return forge.write_safetensors(folder / "model.safetensors", entry, bytes(16), length=10_000)


def lying_shape(folder: Path) -> Path:
    entry = {"fc.weight": forge.entry("F32", [200, 2], 0, 16)}
    return forge.write_safetensors(folder / "model.safetensors", entry, bytes(16))


def overlapping(folder: Path) -> Path:
    entries = {"a.weight": forge.entry("F32", [2, 2], 0, 16), "b.weight": forge.entry("F32", [2, 2], 8, 24)}
    return forge.write_safetensors(folder / "model.safetensors", entries, bytes(24))


def astronomic_shape(folder: Path) -> Path:
    entry = {"fc.weight": forge.entry("F32", [2**62, 2**62], 0, 16)}
    return forge.write_safetensors(folder / "model.safetensors", entry, bytes(16))


def deep_json(folder: Path) -> Path:
    raw = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    return path


def deep_pickle(folder: Path) -> Path:
    # Ten thousand lists, each in the next.
    return forge.write_zip(folder / "model.pt", b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b".")


def deep_legacy(folder: Path) -> Path:
    return forge.write_legacy(
        folder / "model.pt", b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b".", storages={}
    )


def html_page(folder: Path) -> Path:
    path = folder / "model.safetensors"
    path.write_text("<!DOCTYPE html><html>404 not found</html>")
    return path


HOSTILE: dict[Make, set[str]] = {
    malicious_zip: {"bad_pickle"},
    malicious_legacy: {"bad_pickle"},
    malicious_bare_pickle: {"unknown_format"},
    truncated_safetensors: {"truncated"},
    truncated_zip: {"truncated"},
    truncated_legacy: {"truncated"},
    flipped_header: {"bad_header", "unsupported_dtype"},
    flipped_zip: {"corrupt"},
    empty: {"empty_file"},
    no_tensor: {"no_tensors"},
    no_tensor_zip: {"no_tensors"},
    lying_length: {"bad_header"},
    lying_shape: {"bad_header"},
    overlapping: {"bad_header"},
    astronomic_shape: {"bad_header"},
    deep_json: {"too_deep", "bad_header"},
    deep_pickle: {"too_deep", "bad_pickle", "no_tensors"},
    deep_legacy: {"too_deep", "bad_pickle", "no_tensors"},
    html_page: {"unknown_format"},
}


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_a_hostile_file_is_undecided_with_its_name_and_reason(make: Make, tmp_path: Path) -> None:
    path = make(tmp_path)

    report = examine_files(path, None, None, Settings(), lambda name, progress: None)

    assert report.verdict is Verdict.UNDECIDED
    (finding,) = report.findings
    assert finding.rule == "unreadable"
    assert finding.evidence["reason"] in HOSTILE[make]
    assert str(path) in finding.message
    assert str(finding.evidence["reason"]) in finding.message
    assert exit_code(report, Severity.CRITICAL, allow_undecided=False) == 3
    assert not marker(tmp_path).exists()


@pytest.mark.parametrize("make", [malicious_zip, malicious_legacy, deep_json], ids=lambda make: make.__name__)
def test_the_command_line_scans_it_with_0_and_gates_it_with_3(make: Make, tmp_path: Path) -> None:
    path = make(tmp_path)

    scanned = layerwatch(["scan", str(path), "--format", "json"], tmp_path)
    gated = layerwatch(["gate", str(path)], tmp_path)

    assert scanned.returncode == 0, scanned.stderr
    report = json.loads(scanned.stdout)
    assert report["verdict"] == "undecided"
    assert [finding["rule"] for finding in report["findings"]] == ["unreadable"]
    assert str(path) in report["findings"][0]["message"]
    assert gated.returncode == 3, gated.stderr
    assert gated.stdout.endswith("verdict: undecided\n")
    assert not marker(tmp_path).exists()


def test_the_malicious_pickle_does_run_its_command_where_nothing_guards_it(tmp_path: Path) -> None:
    # Without this, the tests above could pass because the attack is broken.
    pickle.loads(malicious(tmp_path))  # noqa: S301 - our own harmless command

    assert marker(tmp_path).exists()


def test_tensors_beside_the_malicious_object_are_measured_and_the_command_still_does_not_run(
    tmp_path: Path,
) -> None:
    attack = malicious(tmp_path)[2:-1]
    root = forge.dict_pickle({"fc.weight": forge.tensor_opcodes(), "hook": attack})
    path = forge.write_zip(tmp_path / "model.pt", root)

    report = examine_files(path, None, None, Settings(), lambda name, progress: None)

    assert [layer.name for layer in report.layers] == ["fc"]
    assert not marker(tmp_path).exists()
    assert report.verdict is Verdict.FAIL
    (finding,) = report.findings
    assert (finding.rule, finding.severity, finding.layer) == ("code_in_pickle", Severity.CRITICAL, None)
    assert finding.message == (
        f"model.pt: its pickle asks for {os.system.__module__}.system: whoever loads it without weights_only=True "
        "runs it"
    )
    assert exit_code(report, Severity.CRITICAL, allow_undecided=False) == 1


def test_a_malicious_file_without_weights_is_not_left_out_beside_a_healthy_model(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", state())
    forge.write_zip(tmp_path / "extra.pt", malicious(tmp_path))

    report = examine_files(tmp_path, None, None, Settings(), lambda name, progress: None)

    assert report.verdict is Verdict.UNDECIDED
    assert any("posix.system" in finding.message for finding in report.findings)
    assert not marker(tmp_path).exists()


def test_one_damaged_tensor_leaves_the_others_examined_and_the_verdict_undecided(tmp_path: Path) -> None:
    values = forge.VALUES
    entries = {
        "good.weight": forge.tensor_opcodes(key="0"),
        "bad.weight": forge.tensor_opcodes(key="1"),
    }
    path = forge.write_zip(
        tmp_path / "model.pt",
        forge.dict_pickle(entries),
        {"0": values.tobytes(), "1": (values + 100).tobytes()},
    )
    content = bytearray(path.read_bytes())
    content[content.index((values + 100).tobytes()) + 5] ^= 0x40
    path.write_bytes(content)

    report = examine_files(path, None, None, Settings(), lambda name, progress: None)

    assert {layer.name: str(layer.status) for layer in report.layers} == {"good": "ok", "bad": "undecided"}
    assert report.verdict is Verdict.UNDECIDED
    (finding,) = report.findings
    assert (finding.layer, finding.evidence["reason"]) == ("bad", "corrupt")
    assert str(path) in finding.message
    assert "archive/data/1" in finding.message
