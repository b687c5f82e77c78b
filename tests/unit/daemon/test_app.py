"""The daemon as a whole: starting, reloading under load, forgetting, ending."""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hookserver import HookServer
from layerwatch.config.errors import ConfigError
from layerwatch.daemon.live import settings_that_need_a_restart
from layerwatch.daemon.registries.base import Listing
from layerwatch.daemon.registries.directory.registry import DirectoryRegistry
from layerwatch.daemon.store.errors import AlreadyRunningError, StoreError
from layerwatch_testing.daemons import RunningApp, directory, write_config
from layerwatch_testing.networks import finetuned, network, with_nan
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

LOG = {"name": "journal", "kind": "log"}


@pytest.fixture
def world(tmp_path: Path) -> DirectoryWorld:
    return DirectoryWorld(tmp_path, marker=None)


@pytest.fixture
def other(tmp_path: Path) -> DirectoryWorld:
    (tmp_path / "other").mkdir()
    return DirectoryWorld(tmp_path / "other", marker=None)


@pytest.fixture
def config(tmp_path: Path, world: DirectoryWorld) -> Path:
    return write_config(tmp_path / "layerwatch.yaml", directory("local", world.root), receivers=[LOG])


def hook(server: HookServer, name: str) -> dict[str, object]:
    return {"name": name, "kind": "webhook", "url": server.url, "allow_private_cidrs": ["127.0.0.0/8"]}


# Starting


def test_a_taken_port_is_an_error_at_the_start_that_names_the_address(tmp_path: Path, config: Path) -> None:
    with RunningApp(config) as first:
        port = int(first.address.rpartition(":")[2])
        (tmp_path / "second").mkdir()
        second = write_config(tmp_path / "second" / "layerwatch.yaml", port=port)
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"), RunningApp(second):
            pass
        assert first.get("/-/healthy").status_code == 200


def test_a_second_daemon_on_the_same_store_is_refused_and_the_first_goes_on(config: Path) -> None:
    with RunningApp(config) as first:
        with (
            pytest.raises(AlreadyRunningError, match="another layerwatch daemon uses this store"),
            RunningApp(config),
        ):
            pass
        assert first.get("/-/healthy").status_code == 200
    with RunningApp(config) as third:
        assert third.get("/-/healthy").status_code == 200


def test_a_store_url_from_outside_that_is_not_supported_is_refused_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_URL", "mysql://watch:hidden@db/layerwatch")
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path / "layerwatch.yaml", store={"url": {"env": "STORE_URL"}})
    with pytest.raises((StoreError, ConfigError)) as refused, RunningApp(config):
        pass
    assert "hidden" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["layerwatch.yaml"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite+pysqlite:///{}/store.db", "store.url: must be a SQLite file"),
        ("sqlite:///{}/store.db?password=hidden", "names no file"),
    ],
)
def test_a_revealed_store_url_that_would_escape_the_lock_is_refused_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, told: str
) -> None:
    monkeypatch.setenv("STORE_URL", url.format(tmp_path))
    config = write_config(tmp_path / "layerwatch.yaml", store={"url": {"env": "STORE_URL"}})
    with pytest.raises((StoreError, ConfigError), match=told) as refused, RunningApp(config):
        pass
    assert "hidden" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir() if path.name != "models"] == ["layerwatch.yaml"]


def test_a_registry_that_is_not_there_does_not_keep_the_daemon_from_starting(
    tmp_path: Path, world: DirectoryWorld
) -> None:
    world.publish("m", "v1")
    config = write_config(
        tmp_path / "layerwatch.yaml",
        directory("local", world.root),
        directory("lost", tmp_path / "lost"),
    )
    with RunningApp(config) as daemon:
        assert daemon.wait_for_verdict("local/m/v1") == "pass"
        until(lambda: daemon.sample("layerwatch_registry_up", registry="local") == 1, "the gauge")
        assert daemon.sample("layerwatch_registry_up", registry="lost") == 0
        answer = daemon.get("/-/ready")
        assert answer.status_code == 503
        assert answer.text.startswith("registry lost was not listed yet: not_found: ")
        (tmp_path / "lost").mkdir()
        until(lambda: daemon.get("/-/ready").status_code == 200, "readiness")


# Reloading


def test_a_bad_file_keeps_the_old_configuration_at_work(config: Path, world: DirectoryWorld) -> None:
    with RunningApp(config) as daemon:
        assert daemon.sample("layerwatch_config_last_reload_successful") == 1
        config.write_text("registries: [{name: local, kind: floppy}]\nunknown: 1\n")
        answer = daemon.post("/-/reload")
        assert answer.status_code == 400
        assert answer.json()["reloaded"] is False
        assert len(answer.json()["problems"]) >= 2
        assert daemon.sample("layerwatch_config_last_reload_successful") == 0
        world.publish("m", "v1")
        assert daemon.wait_for_verdict("local/m/v1") == "pass"
        write_config(config, directory("local", world.root), receivers=[LOG])
        assert daemon.post("/-/reload").json() == {"reloaded": True, "needs_restart": []}
        assert daemon.sample("layerwatch_config_last_reload_successful") == 1


def test_a_reload_adds_and_removes_registries_with_all_that_belongs_to_them(
    config: Path, world: DirectoryWorld, other: DirectoryWorld
) -> None:
    world.publish("m", "v1", with_nan(network(1)))
    other.publish("n", "v1", network(2))
    with RunningApp(config) as daemon:
        daemon.wait_for_verdict("local/m/v1")
        until(lambda: daemon.get("/api/v1/alerts", phase="firing").json(), "the alert")
        write_config(config, directory("other", other.root), receivers=[LOG])
        assert daemon.post("/-/reload").status_code == 200
        assert 'registry="local"' not in daemon.get("/metrics").text
        assert daemon.get("/api/v1/alerts", phase="firing").json() == []
        assert [model["registry"] for model in daemon.get("/api/v1/models").json()] in ([], ["other"])
        assert daemon.post("/hooks/local").status_code == 404
        assert daemon.wait_for_verdict("other/n/v1") == "pass"
        until(
            lambda: daemon.sample("layerwatch_model_verdict", registry="other", model="n", ref="latest") == 0,
            "the gauge of the new registry",
        )
        write_config(config, directory("other", other.root), directory("local", world.root), receivers=[LOG])
        daemon.post("/-/reload")
        until(
            lambda: daemon.get("/api/v1/alerts", phase="firing").json(), "the alert of the model that is back"
        )


def test_a_registry_that_left_the_configuration_while_the_daemon_was_down_leaves_nothing_behind(
    config: Path, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", with_nan(network()))
    with RunningApp(config) as daemon:
        daemon.wait_for_verdict("local/m/v1")
        until(lambda: daemon.get("/api/v1/alerts", phase="firing").json(), "the alert")
    write_config(config, receivers=[LOG])
    with RunningApp(config) as daemon:
        assert daemon.samples("layerwatch_model_verdict") == {}
        assert daemon.get("/api/v1/alerts", phase="firing").json() == []


def test_a_reload_moves_a_registry_to_another_folder(
    config: Path, world: DirectoryWorld, other: DirectoryWorld
) -> None:
    world.publish("m", "v1", network(1))
    other.publish("m", "v2", network(2))
    with RunningApp(config) as daemon:
        daemon.wait_for_verdict("local/m/v1")
        write_config(config, directory("local", other.root), receivers=[LOG])
        daemon.post("/-/reload")
        daemon.wait_for_verdict("local/m/v2")

        def shown() -> bool:
            models = daemon.get("/api/v1/models").json()
            return [ref["version"] for model in models for ref in model["refs"]] == ["v2"]

        until(shown, "the ref at the version of the new folder")


def test_a_reload_swaps_receivers(config: Path, world: DirectoryWorld) -> None:
    with HookServer() as old, HookServer() as new:
        write_config(config, directory("local", world.root), receivers=[hook(old, "old")])
        with RunningApp(config) as daemon:
            world.publish("a", "v1", with_nan(network(1)))
            until(lambda: old.received, "the event at the old receiver")
            write_config(config, directory("local", world.root), receivers=[hook(new, "new")])
            daemon.post("/-/reload")
            world.publish("b", "v1", with_nan(network(2)))
            until(lambda: new.received, "the event at the new receiver")
        assert len(old.received) == 1


def test_what_fires_can_be_changed_for_versions_that_were_judged_before(
    config: Path, world: DirectoryWorld
) -> None:
    lenient = {"non_finite": {"severity": "warning"}}
    write_config(config, directory("local", world.root), rules=lenient)
    world.publish("m", "v1", with_nan(network()))
    with RunningApp(config) as daemon:
        assert daemon.wait_for_verdict("local/m/v1") == "warn"
        assert daemon.get("/api/v1/alerts").json() == []
        write_config(config, directory("local", world.root), rules=lenient, alerts={"fire_on": "warning"})
        daemon.post("/-/reload")
        until(lambda: daemon.get("/api/v1/alerts", phase="firing").json(), "the alert")


def test_the_cap_on_series_can_be_changed_without_a_restart(config: Path, world: DirectoryWorld) -> None:
    world.publish("m", "v1")
    with RunningApp(config) as daemon:
        daemon.wait_for_verdict("local/m/v1")
        until(lambda: len(daemon.samples("layerwatch_layer_status")) == 3, "three layers")
        write_config(
            config, directory("local", world.root), server={"max_series_per_model": 7}, receivers=[LOG]
        )
        assert daemon.post("/-/reload").json()["needs_restart"] == []
        assert len(daemon.samples("layerwatch_layer_status")) == 1


def test_a_reload_names_what_only_a_restart_can_change(config: Path, world: DirectoryWorld) -> None:
    with RunningApp(config) as daemon:
        write_config(
            config,
            directory("local", world.root),
            receivers=[LOG],
            scan={"memory_limit": "1GiB", "workers": 2},
        )
        assert daemon.post("/-/reload").json()["needs_restart"] == ["scan.workers", "scan.memory_limit"]
        settings = daemon.app.live.settings
        assert settings_that_need_a_restart(settings, settings) == []


def test_reloads_and_hooks_in_the_middle_of_scans_lose_nothing(
    config: Path, world: DirectoryWorld, other: DirectoryWorld
) -> None:
    names = [f"v{number}" for number in range(1, 9)]
    one = [directory("local", world.root)]
    both = [*one, directory("other", other.root)]
    over = threading.Event()
    refused: list[int] = []
    with RunningApp(config) as daemon:

        def keep_reloading() -> None:
            turn = 0
            while not over.is_set():
                turn += 1
                write_config(config, *(both if turn % 2 else one), receivers=[LOG])
                refused.extend(
                    answer.status_code
                    for answer in (daemon.post("/-/reload"), daemon.post("/hooks/local"))
                    if answer.status_code != 200
                )

        reloading = threading.Thread(target=keep_reloading)
        reloading.start()
        try:
            for number, name in enumerate(names):
                world.publish("m", name, finetuned(network(), seed=number))
            for name in names:
                assert daemon.wait_for_verdict(f"local/m/{name}") == "pass"
        finally:
            over.set()
            reloading.join()
        assert refused == []
        assert daemon.sample("layerwatch_cycle_errors_total", loop="scan") == 0
        assert daemon.sample("layerwatch_cycle_errors_total", loop="watch") == 0
        assert set(daemon.states().values()) == {"judged"}


# Hooks


def test_a_hook_shortens_the_wait_also_when_a_look_is_under_way(config: Path, world: DirectoryWorld) -> None:
    write_config(config, directory("local", world.root, poll="1h"))
    with RunningApp(config) as daemon:
        until(lambda: daemon.get("/-/ready").status_code == 200, "the first look")
        world.publish("m", "v1", network(1))
        assert daemon.post("/hooks/local").json() == {"looking": True}
        daemon.wait_for_verdict("local/m/v1")

        watcher = daemon.app.watchers["local"]
        listing_of = watcher._registry.listing
        looking, go_on = threading.Event(), threading.Event()

        def slow(now: datetime, everything: bool = True) -> Listing:
            listing = listing_of(now, everything)
            looking.set()
            go_on.wait(30)
            return listing

        watcher._registry.listing = slow  # type: ignore[method-assign]
        daemon.post("/hooks/local")
        assert looking.wait(30)
        world.publish("m", "v2", finetuned(network(1)))
        daemon.post("/hooks/local")
        go_on.set()
        assert daemon.wait_for_verdict("local/m/v2") == "pass"


def test_looks_that_hash_for_hours_do_not_hold_up_deliveries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    began = threading.Semaphore(0)

    def held(registry: DirectoryRegistry, now: datetime, everything: bool = True) -> Listing:
        began.release()
        over.wait(60)
        return Listing((), ())

    monkeypatch.setattr(DirectoryRegistry, "listing", held)
    registries = [directory(f"r{number}", tmp_path) for number in range(8)]
    with RunningApp(write_config(tmp_path / "layerwatch.yaml", *registries)) as daemon:
        try:
            for _ in range(8):  # every thread for looks is taken
                assert began.acquire(timeout=30)
            daemon.app.telemetry.queue.set(99)
            until(lambda: daemon.sample("layerwatch_scan_queue_length") == 0, "a turn of the deliveries")
        finally:
            over.set()


def test_a_turn_that_finds_a_look_under_way_leaves_it_the_work_and_does_not_hide_its_hang(
    config: Path, world: DirectoryWorld
) -> None:
    write_config(config, directory("local", world.root, poll="1h"))
    with RunningApp(config) as daemon:
        until(lambda: daemon.get("/-/ready").status_code == 200, "the first look")
        watcher = daemon.app.watchers["local"]
        look_of = watcher.look
        looking, go_on = threading.Event(), threading.Event()
        looks: list[bool] = []

        def slow(rehash: bool = False, hinted: bool = False) -> str:
            looks.append(rehash)
            looking.set()
            assert go_on.wait(30)
            return look_of(rehash, hinted)

        watcher.look = slow  # type: ignore[method-assign]
        daemon.post("/hooks/local")
        assert looking.wait(30)
        beats = dict(daemon.app.heartbeats._loops)
        # In this thread: a turn that waited for the look would never come back.
        daemon.app.schedule.scheduler.get_job("reconcile:local").func()
        daemon.app.schedule.scheduler.get_job("watch:local").func()
        after = daemon.app.heartbeats._loops
        assert [after[loop] for loop in ("watch:local", "reconcile:local")] == [
            beats[loop] for loop in ("watch:local", "reconcile:local")
        ]
        assert looks == [False]
        go_on.set()
        until(lambda: looks == [False, True], "the reconcile after the look")


def test_the_first_reconciles_of_many_registries_are_spread_and_stay_where_they_are(
    tmp_path: Path,
) -> None:
    names = [f"r{number}" for number in range(20)]
    config = write_config(
        tmp_path / "layerwatch.yaml", *(directory(name, tmp_path / name, reconcile="10h") for name in names)
    )

    def waits() -> list[float]:
        with RunningApp(config) as daemon:
            began = datetime.now(UTC)
            jobs = [daemon.app.schedule.scheduler.get_job(f"reconcile:{name}") for name in names]
            return [(job.next_run_time - began).total_seconds() / 3600 for job in jobs]

    first, second = waits(), waits()
    assert all(-0.1 < wait < 10 for wait in first)
    # Of evenly spread moments, a quarter of the interval without any among twenty has a chance of 0.3 %.
    assert {int(wait // 2.5) for wait in first} == {0, 1, 2, 3}
    assert second == pytest.approx(first, abs=0.1)


# Ending


def test_everything_is_there_again_after_a_restart(config: Path, world: DirectoryWorld) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", with_nan(network()))
    with RunningApp(config) as daemon:
        daemon.wait_for_verdict("local/m/v2")
        until(lambda: daemon.get("/api/v1/alerts", phase="firing").json(), "the alert")
        before = daemon.get("/api/v1/alerts").json()
        gauges = daemon.samples("layerwatch_layer_alpha")
    with RunningApp(config) as daemon:
        assert daemon.samples("layerwatch_layer_alpha") == gauges
        until(lambda: daemon.get("/-/ready").status_code == 200, "the first look")
        assert daemon.get("/api/v1/alerts").json() == before
        assert daemon.sample("layerwatch_scans_total") == 0


def test_models_that_vanish_while_the_daemon_is_down_are_gone_after_the_first_look(
    config: Path, world: DirectoryWorld
) -> None:
    world.publish("m", "v1", with_nan(network()))
    with RunningApp(config) as daemon:
        daemon.wait_for_verdict("local/m/v1")
    shutil.rmtree(world.folder("m", "v1"))
    with RunningApp(config) as daemon:
        until(lambda: daemon.samples("layerwatch_model_verdict") == {}, "the gauges to go")
        until(lambda: daemon.get("/api/v1/alerts", phase="firing").json() == [], "the alert to resolve")
