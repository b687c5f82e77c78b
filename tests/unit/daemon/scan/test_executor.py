"""Scans in the real worker process, and everything that can happen to it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from layerwatch.config.scan import ScanSettings
from layerwatch.daemon.scan import executor as executor_module
from layerwatch.daemon.scan import messages
from layerwatch.daemon.scan.executor import LocalExecutor, ScanListener
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.metrics.change import Method
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.measured import MeasuredLayer
from layerwatch_testing.coupled import couplings_of, mlp
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.processes import MIB, children, environment, is_alive

Act = Callable[[], None]


@dataclass
class Heard:
    """A listener's notes; ``at_question`` is called when the worker waits for its first answer."""

    at_question: Act = field(default=lambda: None)
    kept: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    total: int = 0
    layers: list[MeasuredLayer] = field(default_factory=list)

    def listener(self) -> ScanListener:
        def known(digest: str) -> bool:
            self.asked.append(digest)
            if len(self.asked) == 1:
                self.at_question()
            return digest in self.kept

        def on_plan(total: int) -> None:
            self.total = total

        return ScanListener(known, self.layers.append, on_plan)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two matrices, a bias and a counter."""
    generator = np.random.default_rng(0)
    state: dict[str, NDArray[Any]] = {
        "a.weight": generator.standard_normal((24, 16)).astype(np.float32),
        "a.bias": generator.standard_normal(24).astype(np.float32),
        "b.weight": generator.standard_normal((8, 24)).astype(np.float32),
        "steps": np.array([7], dtype=np.int64),
    }
    return write_safetensors(tmp_path_factory.mktemp("models") / "model.safetensors", state)


@pytest.fixture(scope="module")
def warm() -> Iterator[LocalExecutor]:
    """An executor whose worker survives the tests that use it."""
    executor = LocalExecutor(ScanSettings(), threads=1)
    yield executor
    executor.close()


@pytest.fixture
def fresh() -> Iterator[LocalExecutor]:
    """An executor of the test's own."""
    executor = LocalExecutor(ScanSettings(), threads=1)
    yield executor
    executor.close()


def worker_of(executor: LocalExecutor, model: Path) -> int:
    """Scan once and return the process id of the worker that did it."""
    before = set(children())
    executor.scan(ScanRequest(str(model)), Heard().listener())
    (pid,) = set(children()) - before
    return pid


def test_every_tensor_of_the_model_is_measured_or_named_with_a_reason(
    warm: LocalExecutor, model: Path
) -> None:
    heard = Heard()

    outcome = warm.scan(ScanRequest(str(model)), heard.listener())

    assert outcome.format == "safetensors"
    # Vectors come first; a bias is measured for hygiene and listed as having no spectrum.
    assert [one.layer.name for one in heard.layers] == ["a.bias", "a", "b"]
    assert heard.total == 3
    assert {one.name: one.reason for one in outcome.skipped} == {
        "a.bias": "bias: a vector has no spectrum",
        "steps": "integer buffer (I64)",
    }
    spectra = [one.measurement.spectrum for one in heard.layers if one.measurement is not None]
    assert [None if spectrum is None else len(spectrum) for spectrum in spectra] == [None, 16, 8]


def test_a_layer_that_is_known_by_its_digest_is_not_measured_again(warm: LocalExecutor, model: Path) -> None:
    first = Heard()
    warm.scan(ScanRequest(str(model)), first.listener())
    second = Heard(kept={first.asked[1]})

    warm.scan(ScanRequest(str(model)), second.listener())

    assert second.asked == first.asked == [one.digest for one in first.layers]
    assert [one.measurement is None for one in second.layers] == [False, True, False]
    assert second.layers[1].digest == first.asked[1]


def test_a_baseline_file_is_compared_element_by_element(
    warm: LocalExecutor, model: Path, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    other = {"a.weight": 2 * generator.standard_normal((24, 16)).astype(np.float32)}
    path = write_safetensors(tmp_path / "other.safetensors", other)
    heard = Heard()

    warm.scan(ScanRequest(str(path), str(model)), heard.listener())

    exact = heard.layers[0].exact
    assert exact is not None
    # W = 2 W0: ||W - W0|| = ||W0||, and the direction is the same.
    assert exact.relative_change == pytest.approx(1.0)
    assert exact.cosine == pytest.approx(1.0)
    assert (exact.error, exact.method) == (0.0, Method.EXACT)


def test_a_file_that_cannot_be_read_is_told_with_its_reason_and_the_worker_goes_on(
    warm: LocalExecutor, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(model.read_bytes()[:-10])
    warm.scan(ScanRequest(str(model)), Heard().listener())
    workers = children()

    with pytest.raises(UnreadableError, match="10 bytes are missing") as caught:
        warm.scan(ScanRequest(str(path)), Heard().listener())

    assert caught.value.reason is UnreadableReason.TRUNCATED
    assert caught.value.path == str(path)
    warm.scan(ScanRequest(str(model)), Heard().listener())
    assert workers
    assert children() == workers


def test_a_worker_is_replaced_after_so_many_scans(
    fresh: LocalExecutor, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "RECYCLE_AFTER", 2)
    first = worker_of(fresh, model)
    fresh.scan(ScanRequest(str(model)), Heard().listener())
    assert is_alive(first)

    fresh.scan(ScanRequest(str(model)), Heard().listener())

    assert not is_alive(first)


def test_a_worker_killed_in_the_middle_of_a_scan_is_told_and_the_next_scan_works(
    fresh: LocalExecutor, model: Path
) -> None:
    pid = worker_of(fresh, model)
    heard = Heard(at_question=lambda: os.kill(pid, signal.SIGKILL))

    with pytest.raises(UnreadableError, match="signal 9") as caught:
        fresh.scan(ScanRequest(str(model)), heard.listener())

    assert caught.value.reason is UnreadableReason.WORKER_DIED
    assert caught.value.transient
    again = Heard()
    fresh.scan(ScanRequest(str(model)), again.listener())
    assert len(again.layers) == 3


def test_a_scan_tells_what_the_layers_share(warm: LocalExecutor, tmp_path: Path) -> None:
    state = mlp()
    path = write_safetensors(tmp_path / "mlp.safetensors", dict(state))

    outcome = warm.scan(ScanRequest(str(path)), Heard().listener())

    assert outcome.couplings
    assert outcome.couplings == couplings_of(state)


def test_a_worker_killed_while_it_had_nothing_to_do_costs_no_scan(fresh: LocalExecutor, model: Path) -> None:
    pid = worker_of(fresh, model)
    os.kill(pid, signal.SIGKILL)
    # Until all its threads are gone, and left to be collected by the executor.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    heard = Heard()

    fresh.scan(ScanRequest(str(model)), heard.listener())

    assert len(heard.layers) == 3


def test_a_resting_executor_has_no_process(fresh: LocalExecutor, model: Path) -> None:
    pid = worker_of(fresh, model)

    fresh.rest()

    assert not is_alive(pid)


def test_a_scan_that_is_not_finished_in_time_is_ended(model: Path) -> None:
    # The worker alone takes longer than this to start.
    executor = LocalExecutor(ScanSettings(timeout=timedelta(milliseconds=20)), threads=1)
    before = set(children())

    with pytest.raises(UnreadableError, match=r"scan\.timeout") as caught:
        executor.scan(ScanRequest(str(model)), Heard().listener())

    assert caught.value.reason is UnreadableReason.TIMEOUT
    assert set(children()) == before


def test_a_layer_that_needs_more_than_the_memory_limit_is_told_and_the_worker_goes_on(
    model: Path, tmp_path: Path
) -> None:
    executor = LocalExecutor(ScanSettings(memory_limit=600 * MIB), threads=1)
    # 512 MiB of zeros in half precision (a sparse file) are 1 GiB as float32.
    side = 16384
    large = write_safetensors(tmp_path / "large.safetensors", {"w": np.zeros((1, side), np.float16)})
    header = large.read_bytes()[: -2 * side]
    header = header.replace(b"[1, 16384]", b"[16384, 16384]").replace(b"32768]", b"536870912]")
    large.write_bytes((len(header) - 8).to_bytes(8, "little") + header[8:])
    os.truncate(large, len(header) + 2 * side * side)
    try:
        pid = worker_of(executor, model)

        with pytest.raises(UnreadableError, match=r"scan\.memory_limit") as caught:
            executor.scan(ScanRequest(str(large)), Heard().listener())

        assert caught.value.reason is UnreadableReason.MEMORY_LIMIT
        assert caught.value.path == str(large)
        executor.scan(ScanRequest(str(model)), Heard().listener())
        assert is_alive(pid)
    finally:
        executor.close()


def test_a_memory_limit_too_low_to_start_in_ends_the_scan_with_a_typed_error(model: Path) -> None:
    executor = LocalExecutor(ScanSettings(memory_limit=64 * MIB), threads=1)

    with pytest.raises(UnreadableError) as caught:
        executor.scan(ScanRequest(str(model)), Heard().listener())

    # Which of the two depends on whether Python or one of its libraries is the first to run out.
    assert caught.value.reason in (UnreadableReason.MEMORY_LIMIT, UnreadableReason.WORKER_DIED)


def a_worker_that_answers(
    answer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: str = "exec sleep 60",
    timeout: timedelta = timedelta(seconds=30),
) -> LocalExecutor:
    """An executor whose worker is a shell script: reads the request, answers, ends."""
    (tmp_path / "answer").write_text(answer)
    script = tmp_path / "worker"
    script.write_text(f"#!/bin/sh\nread request\ncat '{tmp_path / 'answer'}'\n{end}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return LocalExecutor(ScanSettings(timeout=timeout), threads=1)


@pytest.mark.parametrize(
    "answer",
    [
        "this is no message\n",
        "[]\n",
        '{"type":"surprise"}\n',
        '{"type":"done"}\n',
        '{"type":"layer","name":"fc"}\n',
        '{"type":"plan","format":"safetensors","total":1e999,"skipped":[]}\n',
        '{"type":"plan","format":"safetensors","total":1,"skipped":[7]}\n',
        '{"type":"failed","reason":"because","path":"p","detail":"d","tensor":null}\n',
        "[" * 100_000 + "\n",
        "\x00\xff\n",
        "1" * 10_000 + "\n",
        "x" * 5_000_000,
    ],
    ids=lambda answer: repr(answer[:40]),
)
def test_a_worker_that_sends_no_message_is_ended_at_once(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "MAX_LINE", 4_000_000)
    executor = a_worker_that_answers(answer, tmp_path, monkeypatch)
    before = set(children())

    with pytest.raises(UnreadableError, match="no message") as caught:
        executor.scan(ScanRequest("model"), Heard().listener())

    assert caught.value.reason is UnreadableReason.WORKER_DIED
    assert set(children()) == before


def test_a_worker_that_stands_still_is_ended_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(children())
    executor = a_worker_that_answers("", tmp_path, monkeypatch, "kill -STOP $$", timedelta(milliseconds=300))

    with pytest.raises(UnreadableError, match="not finished after") as caught:
        executor.scan(ScanRequest("model"), Heard().listener())

    assert caught.value.reason is UnreadableReason.TIMEOUT
    assert set(children()) == before


def test_the_last_words_of_a_dying_worker_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = a_worker_that_answers(
        "", tmp_path, monkeypatch, "echo first >&2; echo 'disk on fire' >&2; exit 3"
    )

    with pytest.raises(UnreadableError, match="ended with code 3: disk on fire") as caught:
        executor.scan(ScanRequest("model"), Heard().listener())

    assert caught.value.reason is UnreadableReason.WORKER_DIED


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("known", OSError("the store is full")),
        ("on_plan", ValueError("not a number")),
        ("on_layer", KeyError("fc")),
        ("on_layer", UnreadableError(UnreadableReason.IO_ERROR, "elsewhere", "disk")),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_error_of_the_listener_stays_what_it_is_and_the_next_scan_works(
    place: str, error: Exception, warm: LocalExecutor, model: Path
) -> None:
    def fail(_: object) -> bool:
        raise error

    listener = Heard().listener()
    setattr(listener, place, fail)

    with pytest.raises(type(error)) as caught:
        warm.scan(ScanRequest(str(model)), listener)

    assert caught.value is error
    heard = Heard()
    warm.scan(ScanRequest(str(model)), heard.listener())
    assert [one.layer.name for one in heard.layers] == ["a.bias", "a", "b"]


def test_closing_from_another_thread_ends_the_scan_and_refuses_further_ones(
    fresh: LocalExecutor, model: Path
) -> None:
    pid = worker_of(fresh, model)

    def close_elsewhere() -> None:
        thread = threading.Thread(target=fresh.close)
        thread.start()
        thread.join()

    with pytest.raises(UnreadableError, match="stopping") as caught:
        fresh.scan(ScanRequest(str(model)), Heard(at_question=close_elsewhere).listener())

    assert caught.value.transient
    assert not is_alive(pid)
    before = set(children())
    with pytest.raises(UnreadableError, match="stopping"):
        fresh.scan(ScanRequest(str(model)), Heard().listener())
    assert set(children()) == before


def test_no_secret_of_the_environment_reaches_the_worker(
    fresh: LocalExecutor, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LAYERWATCH_SERVER__TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "HOOK_SECRET"):
        monkeypatch.setenv(name, "open-sesame")

    pid = worker_of(fresh, model)

    variables = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"PYTHONSAFEPATH=1" in variables
    assert b"open-sesame" not in variables
    assert b"TOKEN" not in variables


def test_the_worker_is_niced_and_limited_by_the_kernel_and_leaves_no_core_dump(model: Path) -> None:
    executor = LocalExecutor(ScanSettings(niceness=7, memory_limit=1024 * MIB), threads=1)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        pid = worker_of(executor, model)

        assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, own + 7)
        assert resource.prlimit(pid, resource.RLIMIT_DATA) == (1024 * MIB, 1024 * MIB)
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        # A session of its own: Ctrl-C at a terminal reaches the parent only, which ends the scan in order.
        assert os.getsid(pid) == pid
    finally:
        executor.close()


def test_the_process_that_asks_for_scans_never_imports_torch(model: Path) -> None:
    program = (
        "import sys\n"
        "import layerwatch.daemon.app, layerwatch.daemon.cli, layerwatch.daemon.gate.engine\n"
        "from pathlib import Path\n"
        "from layerwatch.config.settings import Settings\n"
        "from layerwatch.daemon.gate.engine import examine_files\n"
        "report = examine_files(Path(sys.argv[1]), None, None, Settings(), lambda name, progress: None)\n"
        "assert len(report.layers) == 2\n"
        "print(sorted(name for name in ('torch', 'scipy', 'sklearn') if name in sys.modules))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(model)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.stdout == "[]\n", done.stderr


def test_a_worker_whose_parent_is_gone_before_it_could_ask_the_kernel_ends_at_once() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "layerwatch.daemon.scan.worker"),
            *("--memory-limit", str(1024 * MIB), "--niceness", "0", "--threads", "1"),
            *("--precision", "auto", "--device", "cpu"),
            *("--parent", "1" if os.getpid() != 1 else "2"),
        ],
        env=environment(),
        stdin=subprocess.DEVNULL,  # nothing to do is no error: a worker that goes on ends with code 0
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "the process that started this scan process is gone" in done.stderr
