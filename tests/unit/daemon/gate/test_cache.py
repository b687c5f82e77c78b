"""The cache of the gate: the same answer as without it, and never one that is not deserved."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerwatch.config.rules import RulesSettings
from layerwatch.config.scan import ScanSettings
from layerwatch.config.settings import Settings
from layerwatch.daemon.gate.cache import MeasurementCache
from layerwatch.daemon.gate.cachefiles import CacheFiles
from layerwatch.daemon.gate.engine import examine_files
from layerwatch.daemon.scan.executor import LocalExecutor
from layerwatch.daemon.scan.messages import ScanRequest
from layerwatch.metrics.report import Report
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from quantisers import gptq, heavy_tailed

SETTINGS = Settings(scan=ScanSettings(niceness=0, threads=1))
KEY = {"what": "an entry"}


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that a scan process was asked about."""
    asked: list[str] = []
    real = LocalExecutor.scan

    def scan(self: LocalExecutor, request: ScanRequest, *rest: Any) -> Any:
        asked.append(Path(request.path).name)
        return real(self, request, *rest)

    monkeypatch.setattr(LocalExecutor, "scan", scan)
    return asked


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A network and a fine-tune of it with one layer that was scaled, and one that was not trained."""
    old = network()
    new = with_wrong_scale(finetuned(old))
    frozen = next(name for name in old if name.startswith("fc1"))
    new[frozen] = old[frozen]
    return (
        write_safetensors(tmp_path / "new.safetensors", new),
        write_safetensors(tmp_path / "old.safetensors", old),
    )


def judged(
    new: Path, old: Path | None, cache: MeasurementCache | None, settings: Settings = SETTINGS
) -> Report:
    return examine_files(new, old, None, settings, lambda which, progress: None, cache=cache)


def without_timings(report: Report) -> Report:
    return report.model_copy(update={"timings": {}})


def cache_in(tmp_path: Path, settings: Settings = SETTINGS, **other: Any) -> MeasurementCache:
    return MeasurementCache(tmp_path / "cache", settings.scan, **other)


def test_the_second_answer_is_the_first_one_and_nothing_is_measured(
    tmp_path: Path, pair: tuple[Path, Path], scans: list[str]
) -> None:
    plain = judged(*pair, None)
    first = judged(*pair, cache_in(tmp_path))
    scans.clear()

    second = judged(*pair, cache_in(tmp_path))

    assert scans == []
    assert without_timings(second) == without_timings(first) == without_timings(plain)
    assert {one.severity for one in second.findings} >= {"critical"}
    assert any(one.change is not None and one.change.method for one in second.layers)


def test_a_baseline_is_measured_once_for_all_versions(
    tmp_path: Path, pair: tuple[Path, Path], scans: list[str]
) -> None:
    new, old = pair
    judged(new, old, cache_in(tmp_path))
    scans.clear()
    other = write_safetensors(tmp_path / "other.safetensors", finetuned(network(), 9))

    report = judged(other, old, cache_in(tmp_path))

    assert scans == ["other.safetensors"]
    assert without_timings(report) == without_timings(judged(other, old, None))


def test_other_rules_judge_the_same_measurements(
    tmp_path: Path, pair: tuple[Path, Path], scans: list[str]
) -> None:
    judged(*pair, cache_in(tmp_path))
    scans.clear()
    lenient = RulesSettings.model_validate({"scaled": {"enabled": False}})
    settings = SETTINGS.model_copy(update={"rules": lenient})

    report = judged(*pair, cache_in(tmp_path), settings)

    assert scans == []
    assert "scaled" not in {one.rule for one in report.findings}


def test_other_numerics_find_nothing(tmp_path: Path, pair: tuple[Path, Path], scans: list[str]) -> None:
    judged(*pair, cache_in(tmp_path))
    scans.clear()
    exact = SETTINGS.model_copy(update={"scan": SETTINGS.scan.model_copy(update={"precision": "float64"})})

    judged(*pair, cache_in(tmp_path, exact), exact)

    assert scans == ["old.safetensors", "new.safetensors"]


def test_changed_bytes_under_the_same_name_are_measured(
    tmp_path: Path, pair: tuple[Path, Path], scans: list[str]
) -> None:
    new, old = pair
    judged(new, old, cache_in(tmp_path))
    scans.clear()
    times = new.stat()
    content = bytearray(new.read_bytes())
    content[-1] ^= 1
    new.write_bytes(content)
    os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))

    judged(new, old, cache_in(tmp_path))

    assert scans == ["new.safetensors"]


def test_bytes_that_are_swapped_between_hashing_and_measuring_are_never_kept(
    tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = pair
    broken = new.read_bytes()
    healthy = write_safetensors(tmp_path / "healthy.safetensors", finetuned(network())).read_bytes()
    assert len(broken) == len(healthy)
    real = LocalExecutor.scan

    def swapped(path: Path, content: bytes) -> None:
        times = path.stat()
        with path.open("r+b") as file:
            file.write(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        # The clock of files ticks in milliseconds.
        while path.stat().st_ctime_ns == times.st_ctime_ns:
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def scan(self: LocalExecutor, request: ScanRequest, *rest: Any) -> Any:
        if Path(request.path) == new:
            swapped(new, healthy)
        found = real(self, request, *rest)
        if Path(request.path) == new:
            swapped(new, broken)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(LocalExecutor, "scan", scan)
        during = judged(new, old, cache_in(tmp_path))

    assert "changed_while_reading" in during.findings[0].message
    assert new.read_bytes() == broken
    after = judged(new, old, cache_in(tmp_path))
    assert without_timings(after) == without_timings(judged(new, old, None))
    assert "scaled" in {one.rule for one in after.findings}


def test_what_could_not_be_examined_is_examined_again(tmp_path: Path, scans: list[str]) -> None:
    state = network()
    state["fc2.weight"] = state["fc2.weight"].astype(np.int8)
    path = write_safetensors(tmp_path / "new.safetensors", state)
    first = judged(path, None, cache_in(tmp_path))
    scans.clear()

    second = judged(path, None, cache_in(tmp_path))

    assert first.verdict == "undecided"
    assert scans == ["new.safetensors"]
    assert without_timings(second) == without_timings(first)


def test_a_model_that_ran_out_of_time_is_tried_again(
    tmp_path: Path, pair: tuple[Path, Path], scans: list[str]
) -> None:
    _, old = pair
    hasty = SETTINGS.model_copy(
        update={"scan": SETTINGS.scan.model_copy(update={"timeout": timedelta(milliseconds=1)})}
    )
    assert judged(old, None, cache_in(tmp_path, hasty), hasty).verdict == "undecided"
    scans.clear()

    assert judged(old, None, cache_in(tmp_path)).verdict == "pass"
    assert scans == ["old.safetensors"]


def test_a_model_that_changes_while_it_is_measured_is_undecided_and_not_kept(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    new, old = pair
    cache = cache_in(tmp_path)

    def touch(which: str, progress: object) -> None:
        if which == "model":
            os.utime(new, ns=(1, 1))

    report = examine_files(new, old, None, SETTINGS, touch, cache=cache)

    assert report.verdict == "undecided"
    assert "changed_while_reading" in report.findings[0].message
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_baseline_that_changes_meanwhile_leaves_the_model_undecided(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    new, old = pair

    def touch(which: str, progress: object) -> None:
        if which == "model":
            os.utime(old, ns=(1, 1))

    report = examine_files(new, old, None, SETTINGS, touch, cache=cache_in(tmp_path))

    assert report.complete is False
    assert any("changed_while_reading" in one.message for one in report.findings)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1] + b"x",
        lambda content: content.replace(b'"norm":', b'"Norm":', 1),
        lambda content: b"",
        lambda content: b"\n",
        lambda content: b"\xff\x00",
    ],
    ids=["cut", "last byte", "a word", "empty", "a line break", "no text"],
)
def test_a_damaged_entry_is_measured_again_and_replaced(
    tmp_path: Path, pair: tuple[Path, Path], scans: list[str], damage: Callable[[bytes], bytes]
) -> None:
    good = judged(*pair, cache_in(tmp_path))
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(damage(path.read_bytes()))
    scans.clear()

    report = judged(*pair, cache_in(tmp_path))

    assert scans == ["old.safetensors", "new.safetensors"]
    assert without_timings(report) == without_timings(good)
    scans.clear()
    judged(*pair, cache_in(tmp_path))
    assert scans == []


def test_an_entry_under_another_ones_name_is_not_believed(tmp_path: Path) -> None:
    files = CacheFiles(tmp_path / "cache", 10**6)
    files.write(KEY, [{"a": 1}])
    (own,) = (tmp_path / "cache").iterdir()
    files.write({"what": "another"}, [{"a": 2}])
    (another,) = set((tmp_path / "cache").iterdir()) - {own}
    shutil.copy(own, another)

    assert files.read({"what": "another"}) is None
    assert files.read(KEY) == [{"a": 1}]
    assert not another.exists()


def test_a_folder_that_cannot_be_written_to_costs_only_the_cache(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = MeasurementCache(tmp_path / "file" / "cache", SETTINGS.scan)

    assert judged(*pair, cache).verdict == "fail"
    assert cache.trouble is not None
    assert "Not a directory" in cache.trouble


def test_entries_are_the_owners_alone(tmp_path: Path) -> None:
    CacheFiles(tmp_path / "cache", 10**6).write(KEY, [{"a": 1}])

    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "cache").iterdir())


def test_the_entries_used_longest_ago_are_dropped_first(tmp_path: Path) -> None:
    files = CacheFiles(tmp_path / "cache", 3_500)
    keys = [{"number": str(number)} for number in range(3)]
    for age, key in enumerate(keys):
        files.write(key, [{"text": "x" * 900}])
        for path in (tmp_path / "cache").iterdir():
            if path.stat().st_mtime > 1e9:
                os.utime(path, (100 + age, 100 + age))
    assert files.read(keys[0]) is not None

    files.write({"number": "new"}, [{"text": "x" * 900}])

    assert [files.read(key) is not None for key in keys] == [True, False, True]
    assert files.read({"number": "new"}) is not None


def test_an_entry_larger_than_the_limit_stays_alone(tmp_path: Path) -> None:
    files = CacheFiles(tmp_path / "cache", 100)
    files.write(KEY, [{"text": "x" * 900}])
    files.write({"what": "larger"}, [{"text": "x" * 1900}])

    assert files.read(KEY) is None
    assert files.read({"what": "larger"}) is not None


def test_what_a_killed_process_left_behind_is_cleared_away_after_a_day(tmp_path: Path) -> None:
    files = CacheFiles(tmp_path / "cache", 10**6)
    files.write(KEY, [])
    left, fresh = (tmp_path / "cache" / f".writing-{name}" for name in ("left", "fresh"))
    for path in (left, fresh):
        path.write_bytes(b"half")
    os.utime(left, (1, 1))

    files.write(KEY, [])

    assert not left.exists()
    assert fresh.exists()


def test_writers_and_readers_never_meet_half_an_entry(tmp_path: Path) -> None:
    limit = 30_000
    failures: list[str] = []

    def work(seed: int) -> None:
        files = CacheFiles(tmp_path / "cache", limit)
        for number in range(60):
            key = {"number": str((number * seed) % 7)}
            files.write(key, [{"text": key["number"] * 4_000}])
            found = files.read(key)
            if found is not None and found != [{"text": key["number"] * 4_000}]:
                failures.append(str(found)[:50])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2, 3, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    left = list((tmp_path / "cache").iterdir())
    assert not [path for path in left if path.name.startswith(".writing-")]
    # Each of the writers may leave its newest entry above the limit.
    assert sum(path.stat().st_size for path in left) <= limit + 4 * 4_200


def test_what_the_storage_contradicts_is_kept(tmp_path: Path, scans: list[str]) -> None:
    stored, _ = gptq(heavy_tailed(64, 64), group=32, version=2, name="model.layers.0.mlp.down_proj")
    new = write_safetensors(tmp_path / "new.safetensors", dict(stored))
    first = judged(new, None, cache_in(tmp_path))
    scans.clear()

    second = judged(new, None, cache_in(tmp_path))

    assert scans == []
    assert without_timings(second) == without_timings(first)
    assert [one.rule for one in second.findings] == ["packing"]


def test_another_configuration_beside_the_same_weights_is_another_entry(
    tmp_path: Path, scans: list[str]
) -> None:
    """The configuration decides how quantised layers are read, and is no part of the fingerprint."""
    stored, _ = gptq(heavy_tailed(64, 64), group=32, name="model.layers.0.mlp.down_proj")
    new = write_safetensors(tmp_path / "new.safetensors", dict(stored))
    config = tmp_path / "config.json"

    def rules_for(group_size: int) -> list[str]:
        declared = {"quant_method": "gptq", "bits": 4, "group_size": group_size, "checkpoint_format": "gptq"}
        config.write_text(json.dumps({"quantization_config": declared}))
        return [one.rule for one in judged(new, None, cache_in(tmp_path)).findings]

    assert (rules_for(64), rules_for(32), rules_for(64)) == (["packing"], [], ["packing"])
    assert len(scans) == 2
