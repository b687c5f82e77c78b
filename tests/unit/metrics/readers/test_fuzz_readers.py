"""Mutations of valid files for every reader: read, or refused with UnreadableError; and the harness itself.

The same targets run for longer, and guided by coverage, with ``python tests/fuzz/run.py``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch_testing.fuzzing import (
    NUMBERS,
    TARGETS,
    TOKENS,
    Campaign,
    FuzzTarget,
    Mutator,
    named_targets,
    valid_inputs,
)
from layerwatch_testing.fuzzseeds import BESIDE, write_corpus

RUN = Path(__file__).resolve().parents[3] / "fuzz" / "run.py"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus")


@pytest.fixture(scope="module")
def scratch(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per target, with the files that belong beside its input."""
    folder = tmp_path_factory.mktemp("scratch")
    for target in TARGETS:
        beside = corpus / BESIDE / target.name
        if beside.is_dir():
            shutil.copytree(beside, folder / target.name)
        else:
            (folder / target.name).mkdir()
    return folder


@pytest.mark.parametrize("name", [target.name for target in TARGETS])
def test_the_valid_files_are_read(corpus: Path, scratch: Path, name: str) -> None:
    (target,) = named_targets([name])
    contents = valid_inputs(corpus, target)
    assert contents
    campaign = Campaign(target, scratch / name)
    for content in contents:
        campaign.run(content)
    # A pickle without weights is one of the valid inputs of the machine.
    assert set(campaign.result.outcomes) <= ({"read", "no_tensors"} if name == "pickle" else {"read"})
    assert campaign.result.outcomes["read"]


EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from((0, 0, 1, 4, 16)),
        st.binary(max_size=4)
        | st.sampled_from(TOKENS)
        | st.sampled_from([n.to_bytes(8, "little")[:w] for n in NUMBERS for w in (4, 8)]),
    ),
    max_size=5,
)


@pytest.mark.parametrize("name", [target.name for target in TARGETS])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choice=st.integers(0, 9), edits=EDITS, keep=st.just(1.0) | st.floats(0, 1))
def test_mutated_files_are_read_or_refused(
    corpus: Path, scratch: Path, name: str, choice: int, edits: list[tuple[float, int, bytes]], keep: float
) -> None:
    (target,) = named_targets([name])
    contents = valid_inputs(corpus, target)
    content = bytearray(contents[choice % len(contents)])
    for where, removed, new in edits:
        at = int(where * len(content))
        content[at : at + removed] = new
    examined(target, scratch, bytes(content[: int(keep * len(content))]))


@pytest.mark.parametrize("name", [target.name for target in TARGETS])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), magic=st.sampled_from([*TOKENS[:8], b""]))
def test_random_bytes_are_read_or_refused(scratch: Path, name: str, content: bytes, magic: bytes) -> None:
    (target,) = named_targets([name])
    examined(target, scratch, magic + content)


def examined(target: FuzzTarget, scratch: Path, content: bytes) -> None:
    campaign = Campaign(target, scratch / target.name)
    campaign.run(content)
    assert not campaign.result.failures


def _crash(path: Path) -> None:
    if b"c" in path.read_bytes():
        raise IndexError("out of range")


def _slow(path: Path) -> None:
    if b"s" in path.read_bytes():
        time.sleep(0.2)


def _large(path: Path) -> None:
    if b"l" in path.read_bytes():
        np.ones(96 * 2**17).sum()


def _refused(path: Path) -> None:
    raise UnreadableError(UnreadableReason.BAD_HEADER, path, "as it should be")


def test_the_harness_sees_crashes_slow_inputs_and_memory(tmp_path: Path) -> None:
    for examine, bad, kind in ((_crash, b"c", "crash"), (_slow, b"s", "slow"), (_large, b"l", "memory")):
        slow_seconds = 0.1 if kind == "slow" else 60.0
        campaign = Campaign(FuzzTarget("t", "f", examine), tmp_path, slow_seconds, memory_bytes=2**20)
        campaign.run(b"good")
        assert not campaign.result.failures
        campaign.run(bad)
        assert [(one.kind, one.content) for one in campaign.result.failures] == [(kind, bad)]
        assert campaign.result.failures[0].name.startswith(kind)
        assert campaign.result.executions == 2
    campaign = Campaign(FuzzTarget("t", "f", _refused), tmp_path)
    campaign.run(b"")
    assert not campaign.result.failures
    assert campaign.result.outcomes == {"bad_header": 1}


def test_mutations_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    def first(seed: int) -> list[bytes]:
        inputs = Mutator([b"valid file", b"another"], seed).inputs()
        return [next(inputs) for _ in range(200)]

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert first(1)[:2] == [b"valid file", b"another"]
    assert len(set(first(1))) > 150


def run(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RUN), "--engine", "random", "--keep", str(tmp_path / "kept"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_script_counts_executions_and_outcomes(tmp_path: Path) -> None:
    done = run(tmp_path, "--executions", "300", "--target", "npy", "--target", "safetensors")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["npy", "300"], ["safetensors", "300"]]
    assert "read" in lines[1]
    assert "bad_header" in lines[1]
    assert not (tmp_path / "kept").exists()
    assert run(tmp_path, "--target", "nonsense").returncode == 2


def test_the_script_examines_given_inputs_again(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(json.dumps({"weight_map": {"a": "b"}}).encode())
    done = run(tmp_path, "--target", "index", "--replay", str(tmp_path / "input"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:2] == ["index", "1"]
    assert "read 1" in done.stdout
