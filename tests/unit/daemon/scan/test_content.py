"""What is kept of a scan: its layers, or the one reason why there are none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from layerwatch.config.rules import RulesSettings
from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.scan.content import Progress, measure_content, unreadable_content
from layerwatch.daemon.scan.executor import LocalExecutor, ScanListener, ScanOutcome
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.findings import LayerStatus, Verdict
from layerwatch.metrics.joining import examine
from layerwatch.metrics.judge import judge
from layerwatch.metrics.measurement import METRIC_SET, Measurement
from layerwatch.metrics.report import ModelPart, build_report
from layerwatch_testing.models import State, write_safetensors


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    """A warm executor."""
    opened = LocalExecutor(ScanSettings(), threads=1)
    yield opened
    opened.close()


def normal(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_the_record_names_every_layer_and_each_measurement_is_saved_once(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    state: State = {"a.weight": normal(12, 8), "a.bias": normal(12), "b.weight": np.ones((3, 2), np.int8)}
    path = write_safetensors(tmp_path / "m.safetensors", state)
    saved: dict[str, Measurement] = {}
    steps: list[Progress] = []

    found = measure_content(
        executor,
        ScanRequest(str(path)),
        "print",
        path.stat().st_size,
        saved.__contains__,
        lambda one: saved.__setitem__(one.digest, one),
        steps.append,
    )

    content = found.content
    assert (content.fingerprint, content.metric_set, content.format) == ("print", METRIC_SET, "safetensors")
    assert content.file_problem is None
    assert [entry.name for entry in content.layers] == ["a.bias", "a", "b"]
    assert {entry.digest for entry in content.layers if entry.digest} == set(saved)
    refused = content.layers[2]
    assert refused.digest is None
    assert refused.problem_reason == "quantised_without_scale"
    assert refused.problem_detail is not None
    assert "b.weight" in refused.problem_detail
    assert [one.name for one in content.skipped] == ["a.bias"]
    assert steps == [Progress(1, 3, "a.bias"), Progress(2, 3, "a"), Progress(3, 3, "b")]
    assert found.exact == {}


def test_two_layers_of_the_same_bytes_share_one_measurement(executor: LocalExecutor, tmp_path: Path) -> None:
    state = {"a.weight": normal(12, 8), "b.weight": normal(12, 8)}
    path = write_safetensors(tmp_path / "m.safetensors", state)
    saved: list[Measurement] = []

    found = measure_content(
        executor,
        ScanRequest(str(path)),
        "print",
        0,
        lambda digest: digest in {one.digest for one in saved},
        saved.append,
    )

    assert len(saved) == 1
    assert [entry.digest for entry in found.content.layers] == [saved[0].digest] * 2


def test_a_file_that_stays_unreadable_is_a_result(executor: LocalExecutor, tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    path.touch()

    found = measure_content(
        executor, ScanRequest(str(path)), "print", 0, lambda digest: False, lambda one: None
    )

    assert found.content.layers == ()
    assert found.content.format == "unknown"
    assert found.content.file_problem is not None
    reason, detail = found.content.file_problem
    assert reason == "empty_file"
    assert str(path) in detail


def test_a_trouble_that_may_pass_is_raised_so_that_it_can_be_tried_again(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    with pytest.raises(UnreadableError) as caught:
        measure_content(
            executor,
            ScanRequest(str(tmp_path / "gone.safetensors")),
            "print",
            0,
            lambda digest: False,
            lambda one: None,
        )

    assert caught.value.reason is UnreadableReason.NOT_FOUND


def test_after_the_last_attempt_the_record_carries_the_reason() -> None:
    error = UnreadableError(UnreadableReason.TIMEOUT, "m.safetensors", "not finished")

    content = unreadable_content("print", 5, error)

    assert content.file_problem == ("timeout", "m.safetensors: timeout: not finished")
    assert (content.fingerprint, content.size_bytes, content.layers) == ("print", 5, ())


def test_a_weight_file_that_could_not_be_read_beside_the_others_makes_the_version_undecided(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"a.weight": normal(12, 8)})
    (tmp_path / "extra.gguf").write_bytes(b"GGUF" + bytes(40))
    (tmp_path / "optimizer.pt").write_bytes(b"anything")
    kept: dict[str, Measurement] = {}

    content = measure_content(
        executor,
        ScanRequest(str(tmp_path)),
        "print",
        0,
        lambda digest: False,
        lambda one: kept.__setitem__(one.digest, one),
    ).content

    layer, file = content.layers
    assert layer.problem_reason is None
    assert (file.name, file.shape, file.problem_reason) == ("extra.gguf", (), "unknown_format")
    assert file.problem_detail is not None
    assert file.problem_detail.startswith(
        "weights in extra.gguf were not examined: GGUF version 0 is not read"
    )
    assert [one.name for one in content.skipped] == ["optimizer.pt"]

    examination = examine(content, None, kept.get, {})
    judgement = judge(examination, RulesSettings())
    model = ModelPart(source="m", name="m", version="1", fingerprint="p", format="safetensors", size_bytes=0)
    report = build_report(model, None, examination, judgement, (), {})
    assert [one.name for one in report.layers if one.status is LayerStatus.UNDECIDED] == ["extra.gguf"]
    assert report.verdict is Verdict.UNDECIDED
    (finding,) = [one for one in report.findings if one.rule == "unreadable"]
    assert finding.layer == "extra.gguf"


class _Uncoupled(LocalExecutor):
    """A scan whose couplings could not be computed."""

    def scan(self, request: ScanRequest, listener: ScanListener) -> ScanOutcome:
        outcome = super().scan(request, listener)
        return replace(outcome, couplings=(), couplings_problem="they did not converge")


def test_couplings_that_could_not_be_computed_are_logged_and_cost_no_layer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_safetensors(tmp_path / "m.safetensors", {"a.weight": normal(12, 8)})
    uncoupled = _Uncoupled(ScanSettings(), threads=1)
    try:
        found = measure_content(
            uncoupled, ScanRequest(str(path)), "print", 0, lambda digest: False, lambda one: None
        )
    finally:
        uncoupled.close()

    assert [entry.name for entry in found.content.layers] == ["a"]
    assert found.content.file_problem is None
    assert found.content.couplings == ()
    assert f"{path}: they did not converge; the layers are judged one by one" in caplog.text
