"""Contradictions in the storage of a model, from its files through the worker process to the verdict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from layerwatch.config.rules import RulesSettings
from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.scan.content import measure_content
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.daemon.store.records import ContentRecord
from layerwatch.metrics.census.remark import StorageRemarkKind
from layerwatch.metrics.findings import Severity, Verdict
from layerwatch.metrics.joining import examine
from layerwatch.metrics.judge import Judgement, judge
from layerwatch.metrics.measurement import Measurement
from quantisers import Stored, gptq, heavy_tailed

BLOCKS = 3
NAMES = [f"model.layers.{number}.mlp.down_proj" for number in range(BLOCKS)]
PARENT: Stored = {f"{name}.weight": heavy_tailed(96, 128, seed) for seed, name in enumerate(NAMES)} | {
    "model.embed_tokens.weight": heavy_tailed(160, 96, 9)
}
CONFIG: dict[str, Any] = {
    "num_hidden_layers": BLOCKS,
    "vocab_size": 160,
    "hidden_size": 96,
    "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq"},
}


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    opened = LocalExecutor(ScanSettings(), threads=1)
    yield opened
    opened.close()


def quantised(version: int = 1) -> Stored:
    stored = {"model.embed_tokens.weight": PARENT["model.embed_tokens.weight"]}
    for name in NAMES:
        stored |= gptq(PARENT[f"{name}.weight"], group=32, version=version, symmetric=False, name=name)[0]
    return stored


def saved(folder: Path, stored: Stored, config: dict[str, Any] | None = None) -> Path:
    folder.mkdir()
    safetensors.numpy.save_file(stored, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


class Scans:
    """Contents and measurements of models, as a daemon has them."""

    def __init__(self, executor: LocalExecutor) -> None:
        self.executor = executor
        self.kept: dict[str, Measurement] = {}

    def scan(self, path: Path) -> ContentRecord:
        found = measure_content(
            self.executor,
            ScanRequest(str(path)),
            path.name,
            0,
            self.kept.__contains__,
            lambda one: self.kept.__setitem__(one.digest, one),
        )
        return found.content

    def judged(self, path: Path, baseline: Path | None = None) -> Judgement:
        before = None if baseline is None else self.scan(baseline)
        return judge(examine(self.scan(path), before, self.kept.get, {}), RulesSettings())


def packing(judgement: Judgement) -> list[tuple[str | None, Severity, object]]:
    return [
        (one.layer, one.severity, one.evidence["contradiction"])
        for one in judgement.findings
        if one.rule in {"packing", "left_unquantised", "config_contradicted"}
    ]


@pytest.mark.parametrize("with_parent", [True, False])
def test_a_healthy_conversion_passes(executor: LocalExecutor, tmp_path: Path, with_parent: bool) -> None:
    parent = saved(tmp_path / "parent", PARENT) if with_parent else None

    judged = Scans(executor).judged(saved(tmp_path / "new", quantised(), CONFIG), parent)

    assert packing(judged) == []
    assert judged.verdict is Verdict.PASS


@pytest.mark.parametrize("with_parent", [True, False])
def test_zero_points_of_the_second_version_declared_as_the_first_fail(
    executor: LocalExecutor, tmp_path: Path, with_parent: bool
) -> None:
    """vllm #38966: a published model of this kind answered with exclamation marks."""
    parent = saved(tmp_path / "parent", PARENT) if with_parent else None

    judged = Scans(executor).judged(saved(tmp_path / "new", quantised(version=2), CONFIG), parent)

    assert sorted(packing(judged)) == [(name, Severity.CRITICAL, "zero_point") for name in NAMES]
    assert judged.verdict is Verdict.FAIL
    assert judged.diagnoses[0].defect == "packing"


def test_what_the_accepted_version_had_already_is_information(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    stored = quantised(version=2)
    before, after = saved(tmp_path / "before", stored, CONFIG), saved(tmp_path / "after", stored, CONFIG)

    judged = Scans(executor).judged(after, before)

    assert {severity for _, severity, _ in packing(judged)} == {Severity.INFO}
    assert judged.verdict is Verdict.PASS


def test_a_missing_scale_tensor_fails_and_is_named(executor: LocalExecutor, tmp_path: Path) -> None:
    stored = quantised()
    del stored[f"{NAMES[1]}.scales"]

    scans = Scans(executor)
    path = saved(tmp_path / "new", stored, CONFIG)
    (remark,) = scans.scan(path).remarks
    judged = scans.judged(path)

    assert (remark.layer, remark.kind) == (NAMES[1], StorageRemarkKind.MISSING_PART)
    assert remark.declared == f"{NAMES[1]}.scales"
    assert packing(judged) == [(NAMES[1], Severity.CRITICAL, "missing_part")]
    assert judged.verdict is Verdict.FAIL
    assert judged.statuses[NAMES[1]].value == "undecided"


def test_a_layer_left_in_full_precision_fails_beside_its_parent_too(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    stored = {name: part for name, part in quantised().items() if not name.startswith(NAMES[1])}
    stored |= {f"{NAMES[1]}.weight": PARENT[f"{NAMES[1]}.weight"]}

    judged = Scans(executor).judged(
        saved(tmp_path / "new", stored, CONFIG), saved(tmp_path / "parent", PARENT)
    )

    assert packing(judged) == [(NAMES[1], Severity.CRITICAL, "left_unquantised")]
    assert judged.verdict is Verdict.FAIL


def test_sizes_of_another_configuration_fail(executor: LocalExecutor, tmp_path: Path) -> None:
    config = CONFIG | {"num_hidden_layers": BLOCKS + 2, "vocab_size": 200, "hidden_size": 128}

    judged = Scans(executor).judged(saved(tmp_path / "new", quantised(), config))

    assert sorted(packing(judged), key=str) == sorted(
        [
            (None, Severity.CRITICAL, "missing_blocks"),
            ("model.embed_tokens", Severity.CRITICAL, "vocabulary"),
            ("model.embed_tokens", Severity.WARNING, "hidden_size"),
        ],
        key=str,
    )


def test_not_finite_scales_are_named_by_their_cause(executor: LocalExecutor, tmp_path: Path) -> None:
    stored = quantised()
    stored[f"{NAMES[0]}.scales"] = stored[f"{NAMES[0]}.scales"].copy()
    stored[f"{NAMES[0]}.scales"][0, 0] = np.inf

    judged = Scans(executor).judged(saved(tmp_path / "new", stored, CONFIG))

    assert packing(judged) == [(NAMES[0], Severity.CRITICAL, "scales")]
    assert judged.diagnoses[0].defect == "packing"
    assert judged.diagnoses[0].confirmed_by == ("non_finite",)
