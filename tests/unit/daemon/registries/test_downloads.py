"""Files of remote versions on the local disk: what is fetched, resumed, refused and deleted."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable, no_progress
from layerwatch.daemon.registries.downloads import Downloads, RemoteFile
from layerwatch.metrics.errors import UnreadableError, UnreadableReason

DATA = bytes(range(256)) * 40
BLOCK = 1000


def remote(path: str = "model.safetensors", data: bytes = DATA, promised: bool = True) -> RemoteFile:
    digest = hashlib.sha256(data).hexdigest()
    return RemoteFile(path, len(data), digest, digest if promised else None)


@dataclass
class Store:
    """Where bytes come from: it breaks off as told, and remembers from where on it was asked.

    Attributes:
        breaks: after so many bytes of each attempt in turn, the connection breaks; None lets it through.
    """

    data: dict[str, bytes] = field(default_factory=lambda: {"model.safetensors": DATA})
    breaks: list[int | None] = field(default_factory=list)
    error: Exception = field(
        default_factory=lambda: RegistryUnavailable(RegistryReason.UNREACHABLE, "it broke")
    )
    asked: list[tuple[str, int]] = field(default_factory=list)

    def stream(self, file: RemoteFile, begin: int) -> Iterator[bytes]:
        self.asked.append((file.path, begin))
        limit = self.breaks.pop(0) if self.breaks else None
        data = self.data[file.path][begin:]
        for start in range(0, len(data if limit is None else data[:limit]), BLOCK):
            end = start + BLOCK if limit is None else min(start + BLOCK, limit)
            yield data[start:end]
        if limit is not None:
            raise self.error


@dataclass
class Waits:
    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def downloads(tmp_path: Path, waits: Waits) -> Downloads:
    return Downloads(tmp_path / "downloads", 10 * len(DATA), waits)


def fetch(
    downloads: Downloads, store: Store, *files: RemoteFile, version: str = "v1", anew: bool = False
) -> bytes:
    """The bytes of the first file."""
    files = files or (remote(),)
    with downloads.fetched(version, files, store.stream, no_progress, anew) as folder:
        return (folder / files[0].path).read_bytes()


def refusal(call: Callable[[], object]) -> RegistryUnavailable:
    with pytest.raises(RegistryUnavailable) as caught:
        call()
    return caught.value


def unreadable(call: Callable[[], object]) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        call()
    return caught.value


class TestFetching:
    def test_files_lie_under_their_paths(self, downloads: Downloads) -> None:
        store = Store({"a/b.bin": b"one", "c.bin": b"two", "empty.bin": b""})
        files = [remote(path, data) for path, data in store.data.items()]
        with downloads.fetched("v1", files, store.stream, no_progress) as folder:
            found = {path: (folder / path).read_bytes() for path in store.data}
            assert not list(folder.rglob("*.part"))
        assert found == store.data
        assert ("empty.bin", 0) not in store.asked

    def test_what_is_there_is_not_fetched_again_by_another_process_either(
        self, downloads: Downloads, tmp_path: Path
    ) -> None:
        store = Store()
        fetch(downloads, store)
        assert fetch(downloads, store) == DATA
        assert fetch(Downloads(tmp_path / "downloads", 10 * len(DATA)), store) == DATA
        assert len(store.asked) == 1

    def test_another_identity_or_version_or_size_is_another_download(self, downloads: Downloads) -> None:
        store = Store()
        fetch(downloads, store)
        fetch(downloads, store, replace(remote(), identity="other"))
        fetch(downloads, store, version="v2")
        assert len(store.asked) == 3

    def test_a_file_that_lost_bytes_on_the_disk_is_fetched_again(
        self, downloads: Downloads, tmp_path: Path
    ) -> None:
        store = Store()
        fetch(downloads, store)
        (path,) = (tmp_path / "downloads").rglob("model.safetensors")
        path.write_bytes(DATA[:10])
        assert fetch(downloads, store) == DATA

    def test_progress_is_told_and_may_end_it(self, downloads: Downloads) -> None:
        class Enough(Exception):  # noqa: N818 - no error
            pass

        told = 0

        def progress() -> None:
            nonlocal told
            told += 1
            if told == 3:
                raise Enough

        store = Store()
        with pytest.raises(Enough), downloads.fetched("v1", [remote()], store.stream, progress):
            pass
        assert fetch(downloads, store) == DATA
        # Three blocks were kept of what was broken off.
        assert store.asked == [("model.safetensors", 0), ("model.safetensors", 3 * BLOCK)]

    def test_only_the_owner_may_look_into_the_folder(self, downloads: Downloads, tmp_path: Path) -> None:
        fetch(downloads, Store())
        assert (tmp_path / "downloads").stat().st_mode & 0o077 == 0


class TestTwoRegistries:
    def test_what_one_registry_brings_is_never_handed_out_for_another(self, downloads: Downloads) -> None:
        hostile = b"x" * len(DATA)
        file = replace(remote(promised=False), identity="same")
        for place, data in (("one http://a", hostile), ("two http://b", DATA), ("one http://b", DATA)):
            assert not downloads.holds("v1", [file], place)
            store = Store({file.path: data})
            with downloads.fetched("v1", [file], store.stream, no_progress, place=place) as folder:
                assert (folder / file.path).read_bytes() == data
            assert downloads.holds("v1", [file], place)


class TestBreakingOff:
    def test_a_download_goes_on_where_it_broke_off(self, downloads: Downloads, waits: Waits) -> None:
        store = Store(breaks=[2500, 3000])
        assert fetch(downloads, store) == DATA
        assert [begin for _, begin in store.asked] == [0, 2500, 5500]
        assert waits.seconds == [0.5, 0.5]

    def test_an_end_before_the_last_byte_counts_as_broken_off(self, downloads: Downloads) -> None:
        class Polite(Store):
            def stream(self, file: RemoteFile, begin: int) -> Iterator[bytes]:
                self.asked.append((file.path, begin))
                yield DATA[begin : begin + 6000]

        store = Polite()
        assert fetch(downloads, store) == DATA
        assert [begin for _, begin in store.asked] == [0, 6000]

    def test_a_server_that_brings_nothing_is_given_up_after_a_few_seconds(
        self, downloads: Downloads, waits: Waits
    ) -> None:
        store = Store(breaks=[0] * 99)
        assert refusal(lambda: fetch(downloads, store)).reason is RegistryReason.UNREACHABLE
        assert waits.seconds == [0.5, 1.0, 2.0, 4.0]
        assert len(store.asked) == 5

    def test_a_server_that_brings_a_few_bytes_at_a_time_is_given_up_too(
        self, downloads: Downloads, waits: Waits
    ) -> None:
        store = Store(breaks=[1] * 99)
        assert refusal(lambda: fetch(downloads, store)).reason is RegistryReason.UNREACHABLE
        assert len(store.asked) == 5
        # What they were is not lost.
        assert fetch(downloads, store := Store()) == DATA
        assert store.asked == [("model.safetensors", 5)]

    @pytest.mark.parametrize(
        "reason",
        [RegistryReason.NOT_PERMITTED, RegistryReason.VERSION_GONE, RegistryReason.RATE_LIMITED],
    )
    def test_what_another_attempt_would_not_mend_is_told_at_once(
        self, downloads: Downloads, waits: Waits, reason: RegistryReason
    ) -> None:
        store = Store(breaks=[5000], error=RegistryUnavailable(reason, "no"))
        assert refusal(lambda: fetch(downloads, store)).reason is reason
        assert waits.seconds == []

    def test_trouble_that_a_client_lets_through_is_not_taken_for_the_disks(
        self, downloads: Downloads
    ) -> None:
        store = Store(breaks=[0] * 5, error=ConnectionResetError("secret of the client"))
        error = refusal(lambda: fetch(downloads, store))
        assert error.reason is RegistryReason.UNREACHABLE
        assert "secret" not in str(error)


class TestPromises:
    def test_bytes_that_are_not_the_promised_ones_are_refused_and_not_kept(
        self, downloads: Downloads, tmp_path: Path
    ) -> None:
        store = Store({"model.safetensors": DATA[:-1] + b"x"})
        error = unreadable(lambda: fetch(downloads, store))
        assert error.reason is UnreadableReason.CORRUPT
        assert hashlib.sha256(DATA).hexdigest() in str(error)
        assert len(store.asked) == 1
        assert not [path for path in (tmp_path / "downloads").rglob("*") if path.is_file()]

    def test_a_resumed_download_with_wrong_bytes_is_begun_once_more(
        self, downloads: Downloads, tmp_path: Path
    ) -> None:
        broken = Store(breaks=[3000, 0, 0, 0, 0, 0])
        refusal(lambda: fetch(downloads, broken))
        (part,) = (tmp_path / "downloads").rglob("*.part")
        part.write_bytes(b"x" * 3000)
        store = Store()
        assert fetch(downloads, store) == DATA
        assert [begin for _, begin in store.asked] == [3000, 0]

    def test_more_bytes_than_listed_are_refused_before_they_fill_the_disk(
        self, downloads: Downloads, tmp_path: Path
    ) -> None:
        sent = 0

        def endless(file: RemoteFile, begin: int) -> Iterator[bytes]:
            nonlocal sent
            while True:
                sent += BLOCK
                yield b"x" * BLOCK

        def opened() -> None:
            with downloads.fetched("v1", [remote()], endless, no_progress):
                pass

        assert unreadable(opened).reason is UnreadableReason.CHANGED_WHILE_READING
        assert sent <= len(DATA) + 2 * BLOCK
        assert not list((tmp_path / "downloads").rglob("*.part"))

    def test_without_a_promise_the_size_alone_counts(self, downloads: Downloads) -> None:
        other = bytes(reversed(DATA))
        assert fetch(downloads, Store({"model.safetensors": other}), remote(promised=False)) == other


class TestAnew:
    def test_it_is_fetched_again_and_takes_the_place_of_what_was_there(
        self, downloads: Downloads, tmp_path: Path
    ) -> None:
        file = remote(promised=False)
        fetch(downloads, Store(), file)
        other = bytes(reversed(DATA))
        store = Store({"model.safetensors": other})
        assert fetch(downloads, store, file, anew=True) == other
        assert fetch(downloads, store, file) == other
        assert len(store.asked) == 1
        assert len(list((tmp_path / "downloads").iterdir())) == 1

    def test_nothing_is_taken_away_from_those_who_read_and_later_readers_get_the_new(
        self, downloads: Downloads
    ) -> None:
        file = remote(promised=False)
        other = bytes(reversed(DATA))
        store = Store()
        with downloads.fetched("v1", [file], store.stream, no_progress) as folder:
            assert fetch(downloads, Store({"model.safetensors": other}), file, anew=True) == other
            assert (folder / file.path).read_bytes() == DATA
        assert fetch(downloads, Store({"model.safetensors": other}), file) == other

    def test_what_fails_leaves_what_was_there(self, downloads: Downloads) -> None:
        store = Store()
        fetch(downloads, store)
        refusal(lambda: fetch(downloads, Store(breaks=[0] * 9), anew=True))
        assert fetch(downloads, store) == DATA
        assert len(store.asked) == 1


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "",
            ".",
            "..",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/..",
            "a//b",
            "./a",
            "a/",
            "a\\..\\x",
            "a\0b",
            "x" * 252,
            "/".join(["deep"] * 300),
            "\ud800",
        ],
    )
    def test_a_path_that_leads_out_or_cannot_be_is_refused_before_anything_is_asked(
        self, downloads: Downloads, tmp_path: Path, path: str
    ) -> None:
        store = Store()
        error = unreadable(lambda: fetch(downloads, store, remote(), replace(remote(), path=path)))
        assert error.reason is UnreadableReason.CORRUPT
        assert store.asked == []
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "paths", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "a.part"), ("a.part/b", "a")]
    )
    def test_two_files_in_one_place_are_refused(self, downloads: Downloads, paths: tuple[str, str]) -> None:
        files = [remote(path) for path in paths]
        assert unreadable(lambda: fetch(downloads, Store(), *files)).reason is UnreadableReason.CORRUPT

    def test_a_negative_size_is_refused(self, downloads: Downloads) -> None:
        file = replace(remote(), size_bytes=-1)
        assert unreadable(lambda: fetch(downloads, Store(), file)).reason is UnreadableReason.CORRUPT

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
    @given(
        st.lists(
            st.text()
            | st.lists(st.sampled_from(["a", "b", "..", ".", "", "a.part", "\0", "é"])).map("/".join),
            min_size=1,
            max_size=3,
        ),
        st.text(),
    )
    def test_whatever_a_registry_names_stays_inside_its_folder(
        self, tmp_path: Path, paths: list[str], version: str
    ) -> None:
        root = tmp_path / "root"
        shutil.rmtree(root, ignore_errors=True)
        store = Store(dict.fromkeys(paths, b"data"))
        files = [remote(path, b"data") for path in paths]
        try:
            with Downloads(root / "downloads", 2**20).fetched(
                version, files, store.stream, no_progress
            ) as folder:
                assert {(folder / path).resolve() for path in paths} <= set(folder.resolve().rglob("*"))
                assert all((folder / path).read_bytes() == b"data" for path in paths)
        except UnreadableError as error:
            assert error.reason is UnreadableReason.CORRUPT
            assert not root.exists()
        else:
            assert [entry.name for entry in root.iterdir()] == ["downloads"]
            assert len(list((root / "downloads").iterdir())) == 1


class TestRoom:
    def versions(self, tmp_path: Path) -> int:
        return len(list((tmp_path / "downloads").iterdir()))

    def test_what_was_not_used_for_the_longest_time_is_deleted_first(self, tmp_path: Path) -> None:
        downloads = Downloads(tmp_path / "downloads", 3 * len(DATA))
        store = Store()
        for number, version in enumerate(["v1", "v2", "v3"]):
            fetch(downloads, store, version=version)
            newest = max((tmp_path / "downloads").iterdir(), key=lambda path: path.stat().st_mtime_ns)
            os.utime(newest, (number, number))
        fetch(downloads, store, version="v1")  # used again
        fetch(downloads, store, version="v4")
        store.asked.clear()
        fetch(downloads, store, version="v1")
        fetch(downloads, store, version="v3")
        fetch(downloads, store, version="v4")
        assert store.asked == []
        fetch(downloads, store, version="v2")
        assert len(store.asked) == 1
        assert self.versions(tmp_path) == 3

    def test_what_is_in_use_is_never_deleted(self, tmp_path: Path) -> None:
        downloads = Downloads(tmp_path / "downloads", 2 * len(DATA))
        store = Store()
        with downloads.fetched("v1", [remote()], store.stream, no_progress) as folder:
            os.utime(folder, (0, 0))
            for version in ("v2", "v3", "v4"):
                fetch(downloads, store, version=version)
            assert (folder / "model.safetensors").read_bytes() == DATA
        assert self.versions(tmp_path) == 2

    def test_a_version_larger_than_the_limit_is_refused_with_the_setting_to_change(
        self, tmp_path: Path
    ) -> None:
        store = Store()
        error = refusal(lambda: fetch(Downloads(tmp_path / "downloads", len(DATA) - 1), store))
        assert error.reason is RegistryReason.NO_SPACE
        assert "downloads.size_limit" in error.detail
        assert store.asked == []

    def test_versions_that_are_in_use_at_once_share_the_limit(self, tmp_path: Path) -> None:
        downloads = Downloads(tmp_path / "downloads", 2 * len(DATA))
        store = Store()
        with (
            downloads.fetched("v1", [remote()], store.stream, no_progress),
            downloads.fetched("v2", [remote()], store.stream, no_progress),
        ):
            error = refusal(lambda: fetch(downloads, store, version="v3"))
            assert error.reason is RegistryReason.NO_SPACE
            assert "downloads.size_limit" in error.detail
        assert fetch(downloads, store, version="v3") == DATA

    def test_what_others_are_about_to_fetch_counts_as_taken(self, tmp_path: Path) -> None:
        downloads = Downloads(tmp_path / "downloads", 2 * len(DATA) - 1)
        begun, go_on = threading.Event(), threading.Event()

        def slow(file: RemoteFile, begin: int) -> Iterator[bytes]:
            begun.set()
            assert go_on.wait(30)
            yield DATA

        def first() -> None:
            with downloads.fetched("v1", [remote()], slow, no_progress):
                pass

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(first)
            assert begun.wait(30)
            try:
                assert (
                    refusal(lambda: fetch(downloads, Store(), version="v2")).reason is RegistryReason.NO_SPACE
                )
            finally:
                go_on.set()
            running.result()
        assert fetch(downloads, Store(), version="v2") == DATA

    def test_a_disk_without_room_is_told_before_anything_is_asked(
        self, downloads: Downloads, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spared = 64 * 2**20
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1, 1, spared + len(DATA) - 1))
        store = Store()
        error = refusal(lambda: fetch(downloads, store))
        assert error.reason is RegistryReason.NO_SPACE
        assert "downloads.path" in error.detail
        assert store.asked == []
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1, 1, spared + len(DATA)))
        assert fetch(downloads, store) == DATA

    def test_a_disk_that_fills_meanwhile_is_told(self, downloads: Downloads, tmp_path: Path) -> None:
        refusal(lambda: fetch(downloads, Store(breaks=[0] * 5)))
        (part,) = (tmp_path / "downloads").rglob("*.part")
        part.unlink()
        part.symlink_to("/dev/full")
        error = refusal(lambda: fetch(downloads, Store()))
        assert error.reason is RegistryReason.NO_SPACE
        assert "downloads.path" in error.detail

    def test_a_folder_that_may_not_be_written_to_is_told_with_the_setting_to_change(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        error = refusal(lambda: fetch(Downloads(tmp_path / "file" / "downloads", 2**20), Store()))
        assert error.reason is RegistryReason.IO_ERROR
        assert "downloads.path" in error.detail


class TestThreads:
    def test_two_who_want_the_same_version_fetch_it_once(self, downloads: Downloads) -> None:
        store = Store()
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda _: fetch(downloads, store), range(16)))
        assert results == [DATA] * 16
        assert len(store.asked) == 1

    def test_different_versions_are_fetched_at_the_same_time(self, downloads: Downloads) -> None:
        both = threading.Barrier(2, timeout=30)

        def together(file: RemoteFile, begin: int) -> Iterator[bytes]:
            both.wait()
            yield DATA

        def opened(version: str) -> bytes:
            with downloads.fetched(version, [remote()], together, no_progress) as folder:
                return (folder / "model.safetensors").read_bytes()

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(opened, ["v1", "v2"])) == [DATA, DATA]

    def test_many_who_open_evict_and_fetch_anew_all_read_whole_files(self, tmp_path: Path) -> None:
        downloads = Downloads(tmp_path / "downloads", 100 * len(DATA), lambda _: None)

        def work(number: int) -> bytes:
            return fetch(downloads, Store(), version=f"v{number % 5}", anew=number % 7 == 0)

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(work, range(200))) == {DATA}
        assert not [path for path in (tmp_path / "downloads").iterdir() if "anew" in path.name]
