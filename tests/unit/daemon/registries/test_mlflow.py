"""What the contract does not say of MLflow: its refs, its sources, its records, and what looks cost."""

from __future__ import annotations

import json
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from layerwatch.config.registries import MlflowRegistrySettings
from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable, VerdictNote
from layerwatch.daemon.registries.downloads import Downloads
from layerwatch.daemon.registries.mlflow.hook import verify_hook
from layerwatch.daemon.registries.mlflow.registry import build
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.relation import Relation
from layerwatch_testing.networks import network
from layerwatch_testing.servers import ServerMissing, ServerProcess, executable, free_port
from layerwatch_testing.servers.mlflow import MlflowServerProcess
from layerwatch_testing.unreliable import Passed
from layerwatch_testing.worlds.base import TINY, WEIGHTS
from layerwatch_testing.worlds.mlflow import MlflowWorld

pytestmark = pytest.mark.server


@pytest.fixture
def world(tmp_path: Path) -> Iterator[MlflowWorld]:
    try:
        opened = MlflowWorld(tmp_path)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield opened
    opened.close()


def refusal_of(world: MlflowWorld, model: str, version: str) -> RegistryUnavailable:
    """Why the files of a version cannot be had."""
    with pytest.raises(RegistryUnavailable) as refused:
        world.registry.source.files(f"{world.model_name(model)}/{version}")
    return refused.value


def change_record(world: MlflowWorld, model: str, version: str, **columns: object) -> None:
    """Write into the server's database what its interface does not let one write."""
    names = ", ".join(f"{name} = ?" for name in columns)
    with closing(sqlite3.connect(world.server.folder / "mlflow.db", timeout=30)) as connection, connection:
        changed = connection.execute(
            f"UPDATE model_versions SET {names} WHERE name = ? AND version = ?",
            (*columns.values(), world.model_name(model), int(world.version_name(model, version))),
        )
        assert changed.rowcount == 1


def test_what_a_look_found_before_it_broke_off_is_found_by_the_next_one(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    world.begin("a", "v2")
    world.look()
    world.finish("a", "v2")
    world.publish("a", "v3")
    for requests in range(10):
        world.front.refuse_after(requests)
        try:
            listing = world.look(everything=False)
        except RegistryUnavailable as error:
            assert error.reason is RegistryReason.UNREACHABLE
            world.front.behave()
        else:
            break
    assert requests > 3
    assert set(world.names(listing)) == {"a/v2", "a/v3"}


def test_an_overwriting_that_is_seen_between_looks_is_listed_by_the_next_look_for_changes(
    world: MlflowWorld,
) -> None:
    world.publish("a", "v1", network(1))
    found = world.found("a", "v1")
    world.publish("a", "v1", network(2))
    token = world.registry.token(found.location)
    assert [one.token for one in world.look(everything=False).versions] == [token]
    assert token != found.token
    assert world.look(everything=False).versions == ()


def test_a_server_that_falls_silent_among_many_new_versions_costs_seconds(world: MlflowWorld) -> None:
    world.publish_many(1, 40)
    impatient = world.restarted(timeout="1s")
    silenced: list[object] = []

    def before(passed: Passed) -> None:
        if "/runs/get" in passed.path and not silenced:
            silenced.append(passed)
            world.front.silence()

    world.front.before = before
    begin = time.monotonic()
    with pytest.raises(RegistryUnavailable) as refused:
        impatient.listing(world.later)
    assert refused.value.reason is RegistryReason.UNREACHABLE
    # One after the other, four at a time, they would take ten.
    assert time.monotonic() - begin < 8
    world.front.before = lambda passed: None
    world.front.behave()
    assert len(impatient.listing(world.later).versions) == 40


@pytest.mark.parametrize(
    "given", [{"token": "t", "username": "u", "password": "p"}, {"username": "u"}, {"password": "p"}]
)
def test_half_or_double_credentials_are_refused_when_the_configuration_is_read(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="token"):
        MlflowRegistrySettings.model_validate(
            {"name": "reg", "kind": "mlflow", "url": "http://127.0.0.1:1", **given}
        )


def test_a_look_for_changes_costs_the_same_whatever_number_of_versions_a_model_has(
    world: MlflowWorld,
) -> None:
    costs = []
    for first, count in ((1, 5), (6, 60)):
        world.publish_many(first, count)
        world.look()
        world.front.forget()
        listing = world.look(everything=False)
        assert (listing.versions, listing.complete) == ((), False)
        assert world.refs(listing) == {"many@latest": f"v{first + count - 1}"}
        costs.append(len(world.front.requests))
    assert costs == [2, 2]


def test_a_look_for_changes_finds_an_alias_that_moved_although_no_time_stamp_changes(
    world: MlflowWorld,
) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    world.point("a", "champion", "v2")
    world.look()
    world.point("a", "champion", "v1")
    listing = world.look(everything=False)
    assert world.refs(listing) == {"a@latest": "v2", "a@champion": "v1"}
    assert listing.versions == ()


def test_latest_falls_back_at_once_when_the_newest_version_is_deleted(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    world.point("a", "champion", "v2")
    world.look()
    world.remove("a", "v2")
    assert world.refs(world.look(everything=False)) == {"a@latest": "v1"}
    world.remove("a", "v1")
    assert world.refs(world.look(everything=False)) == {}


def test_a_model_that_was_deleted_and_made_anew_has_other_versions_under_the_same_numbers(
    world: MlflowWorld,
) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    old = world.found("a", "v1")
    world.server.call("DELETE", "registered-models/delete", name=world.model_name("a"))
    run = world.server.new_run()
    world.server.upload(run, f"model/{WEIGHTS}", world.weights(network(8)))
    assert world.server.register(world.model_name("a"), f"runs:/{run}/model", run) == "1"
    listing = world.look(everything=False)
    assert [(one.version, one.location) for one in listing.versions] == [("1", old.location)]
    assert listing.versions[0].token != old.token
    assert [(one.ref, one.version) for one in listing.refs] == [("latest", "1")]
    assert [one.version for one in world.look().versions] == ["1"]


def test_aliases_are_watched_with_and_without_at_and_stages_by_their_names(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    world.point("a", "champion", "v1")
    name = world.model_name("a")
    world.server.call("POST", "model-versions/transition-stage", name=name, version="1", stage="Production")
    registry = world.restarted(refs=["@champ*", "Prod*"])
    refs = registry.listing(world.later).refs
    assert [(one.ref, one.version) for one in refs] == [("Production", "1"), ("champion", "1")]


def test_an_alias_of_a_version_that_no_page_held_brings_that_version(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    world.look()
    # As of a server whose clock ran behind, or of a transaction that ended late.
    world.publish("a", "v3")
    change_record(world, "a", "v3", creation_time=1000, last_updated_time=1000)
    listing = world.look(everything=False)
    assert world.names(listing) == ["a/v3"]
    assert world.refs(listing) == {"a@latest": "v3"}


def test_a_time_stamp_in_the_far_future_hides_nothing_that_comes_after_it(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    change_record(world, "a", "v1", creation_time=9_999_999_999_999, last_updated_time=9_999_999_999_999)
    world.look()
    world.publish("b", "v1")
    assert world.names(world.look(everything=False)) == ["b/v1"]


def test_a_version_whose_registration_is_pending_is_unfinished_until_it_is_ready(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    change_record(world, "a", "v2", status="PENDING_REGISTRATION")
    listing = world.look()
    assert (world.names(listing), world.unfinished(listing)) == (["a/v1"], ["a/v2"])
    assert world.refs(listing) == {"a@latest": "v1"}
    change_record(world, "a", "v2", status="READY")
    listing = world.look(everything=False)
    assert (world.names(listing), world.unfinished(listing)) == (["a/v2"], [])
    assert world.refs(listing) == {"a@latest": "v2"}


def test_a_version_whose_registration_failed_stays_unfinished(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    change_record(world, "a", "v1", status="FAILED_REGISTRATION")
    assert world.unfinished() == ["a/v1"]
    assert world.unfinished(world.look(everything=False)) == ["a/v1"]


def test_a_version_with_some_of_its_shards_is_unfinished(world: MlflowWorld) -> None:
    run = world.server.new_run()
    world.server.upload(run, "model/model-00001-of-00002.safetensors", world.weights(TINY))
    number = world.server.register(world.model_name("a"), f"runs:/{run}/model", run)
    assert world.look().unfinished == ((world.model_name("a"), number),)
    world.server.upload(run, "model/model-00002-of-00002.safetensors", world.weights(TINY))
    assert [one.version for one in world.look(everything=False).versions] == [number]


def test_a_version_that_never_had_weights_is_left_out_with_a_remark(world: MlflowWorld) -> None:
    world.begin("a", "v1")
    world.publish("a", "v2")
    later = datetime.now(UTC) + timedelta(days=2)
    # Of old versions completeness is assumed until somebody looks.
    assert world.names(world.registry.listing(later)) == ["a/v1", "a/v2"]
    listing = world.registry.listing(later)
    assert listing.unfinished == ()
    assert world.names(listing) == ["a/v2"]
    (remark,) = listing.remarks
    assert remark == f"{world.model_name('a')}: 1 of its versions hold no weight file and are left out"


def test_a_stray_shard_is_waited_for_an_hour_and_then_the_version_is_listed_and_its_ref_stays(
    world: MlflowWorld,
) -> None:
    run = world.server.new_run()
    world.server.upload(run, f"model/{WEIGHTS}", world.weights(TINY))
    world.server.upload(run, "model/a-00001-of-00002.safetensors", world.weights(TINY))
    number = world.server.register(world.model_name("a"), f"runs:/{run}/model", run)
    world.note("a", "v1", number)
    world.point("a", "champion", "v1")
    now = datetime.now(UTC)
    listing = world.registry.listing(now + timedelta(minutes=59))
    assert (world.names(listing), world.unfinished(listing)) == ([], ["a/v1"])
    assert world.refs(listing) == {"a@champion": "v1"}
    listing = world.registry.listing(now + timedelta(minutes=62), everything=False)
    assert (world.names(listing), world.unfinished(listing)) == (["a/v1"], [])
    assert world.refs(listing) == {"a@champion": "v1", "a@latest": "v1"}
    (found,) = listing.versions
    assert world.registry.token(found.location) == found.token
    assert world.registry.listing(now + timedelta(days=3)).versions == (found,)
    # What comes late is seen all the same, also by another process.
    again = world.restarted()
    again.recall({found.location: found.token})
    world.server.upload(run, "model/a-00002-of-00002.safetensors", world.weights(TINY))
    for registry, everything in ((world.registry, False), (again, True)):
        tokens = [
            one.token
            for _ in range(2)
            for one in registry.listing(now + timedelta(days=4), everything).versions
        ]
        assert tokens
        assert tokens[-1] != found.token


def test_a_version_without_weights_is_listed_where_a_ref_points_at_it(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    world.begin("a", "v2")
    world.point("a", "champion", "v2")
    now = datetime.now(UTC)
    early = world.registry.listing(now + timedelta(minutes=59))
    assert (world.names(early), world.unfinished(early)) == (["a/v1"], ["a/v2"])
    late = world.registry.listing(now + timedelta(minutes=62))
    assert (world.names(late), world.unfinished(late)) == (["a/v1", "a/v2"], [])
    assert world.refs(early) == world.refs(late) == {"a@latest": "v1", "a@champion": "v2"}
    found = late.versions[1]
    assert world.registry.source.files(found.location)[0].path == "config.json"
    assert world.registry.token(found.location) == found.token
    world.point("a", "champion", "v1")
    listing = world.registry.listing(now + timedelta(minutes=63))
    assert world.names(listing) == ["a/v1"]
    assert "hold no weight file" in listing.remarks[0]
    world.point("a", "champion", "v2")
    listing = world.registry.listing(now + timedelta(minutes=64), everything=False)
    assert world.names(listing) == ["a/v2"]
    world.finish("a", "v2")
    (after,) = world.registry.listing(now + timedelta(days=2), everything=False).versions
    assert after.token != found.token


def test_a_champion_that_loses_its_weights_keeps_its_refs_and_is_listed_in_the_end(
    world: MlflowWorld,
) -> None:
    world.publish("a", "v1")
    world.point("a", "champion", "v1")
    now = datetime.now(UTC)
    (before,) = world.registry.listing(now).versions
    file = world.registry.source.files(before.location)[0]
    path = world.server.folder / "artifacts" / file.address.removeprefix("mlflow-artifacts:")
    path.unlink()
    for minutes in (1, 2, 59):
        listing = world.registry.listing(now + timedelta(minutes=minutes))
        assert world.refs(listing) == {"a@latest": "v1", "a@champion": "v1"}
        assert world.unfinished(listing) == ["a/v1"]
    listing = world.registry.listing(now + timedelta(minutes=62))
    assert world.refs(listing) == {"a@latest": "v1", "a@champion": "v1"}
    assert [one.token != before.token for one in listing.versions] == [True]


def test_a_version_whose_bucket_cannot_be_read_hides_no_other(
    world: MlflowWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    world.publish("a", "v1")
    for label, source in (("v2", "s3://no-such-bucket/a"), ("v3", "s3:///"), ("v4", "s3a://[::1/a")):
        world.note("a", label, world.server.register(world.model_name("a"), "s3://no-such-bucket/a"))
        change_record(world, "a", label, source=source)
    world.publish("b", "v1")
    now = datetime.now(UTC)
    listing = world.registry.listing(now)
    assert {"a/v1", "b/v1"} <= set(world.names(listing))
    assert "a/v2" in world.unfinished(listing)
    assert listing.unlisted == ()
    assert {"a/v1", "b/v1"} <= set(world.names(world.registry.listing(now)))
    with pytest.raises(RegistryUnavailable, match="no-such-bucket"):
        world.registry.source.files(f"{world.model_name('a')}/2")
    later = world.registry.listing(now + timedelta(hours=2))
    assert set(world.names(later)) == {"a/v1", "a/v2", "a/v3", "a/v4", "b/v1"}


def test_artifacts_that_the_server_waits_for_in_vain_hide_no_other_version(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    stuck = world.registry.source.files(world.found("a", "v1").location)[0].address.rpartition("/")[0]

    def before(passed: Passed) -> None:
        if "mlflow-artifacts/artifacts?path=" in passed.path and stuck.rpartition(":")[2].split("/")[1] in (
            passed.path
        ):
            time.sleep(2)

    world.front.before = before
    impatient = world.restarted(timeout="1s")
    listing = impatient.listing(datetime.now(UTC))
    assert (world.names(listing), world.unfinished(listing)) == (["a/v2"], ["a/v1"])


def test_patterns_choose_models_also_those_that_the_server_cannot_filter_by(world: MlflowWorld) -> None:
    for model in ("cat", "car", "dog"):
        world.publish(model, "v1")
    name = world.model_name
    for patterns, wanted in {
        (name("ca*"),): ["car/v1", "cat/v1"],
        (name("dog"), name("ca[rx]")): ["car/v1", "dog/v1"],
        (name("dog"), name("d*")): ["dog/v1"],
        (f"*{name('cat')}",): ["cat/v1"],
        ("it's not there", name("dog")): ["dog/v1"],
        ("100%", name("dog")): ["dog/v1"],
    }.items():
        assert world.names(world.restarted(models=list(patterns)).listing(world.later)) == wanted, patterns


def test_the_server_is_only_asked_for_the_models_that_are_watched(world: MlflowWorld) -> None:
    world.look()
    assert all("filter=name+LIKE" in passed.path for passed in world.front.requests)


def test_prompts_are_no_models(world: MlflowWorld) -> None:
    tags = [{"key": "mlflow.prompt.is_prompt", "value": "true"}]
    world.server.call("POST", "registered-models/create", name=world.model_name("prompt"), tags=tags)
    listing = world.look()
    assert (listing.versions, listing.empty) == ((), True)


def test_a_logged_model_is_read(world: MlflowWorld) -> None:
    logged = world.server.call("POST", "logged-models", experiment_id="0", name="m")["model"]["info"]
    folder = world.server.folder / "artifacts" / logged["artifact_uri"].removeprefix("mlflow-artifacts:/")
    (folder / "model").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "model" / WEIGHTS).write_bytes(world.weights(network(3)))
    name = world.model_name("a")
    world.server.call("POST", "registered-models/create", name=name)
    source = f"models:/{logged['model_id']}"
    world.server.call("POST", "model-versions/create", name=name, source=source, model_id=logged["model_id"])
    (found,) = world.look().versions
    assert [file.path for file in world.registry.source.files(found.location)] == [
        "MLmodel",
        f"model/{WEIGHTS}",
    ]
    with world.registry.open(found.location) as path:
        assert (path / "model" / WEIGHTS).read_bytes() == world.weights(network(3))


def test_a_copy_of_a_version_is_read_and_names_it_as_its_parent(world: MlflowWorld) -> None:
    world.publish("a", "v1", network(3))
    source = f"models:/{world.model_name('a')}/1"
    world.note("b", "copy", world.server.register(world.model_name("b"), source))
    found = world.found("b", "copy")
    original = world.registry.manifest(world.found("a", "v1"))
    assert world.registry.manifest(found).fingerprint == original.fingerprint
    (declared,) = world.registry.lineage(found)
    assert (declared.parent, declared.relation) == (f"{world.model_name('a')}/1", Relation.REEXPORTED)


def test_a_source_that_is_a_single_file_is_read(world: MlflowWorld) -> None:
    run = world.server.new_run()
    world.server.upload(run, "first.safetensors", world.weights(network(1)))
    world.server.upload(run, "second.safetensors", world.weights(network(2)))
    number = world.server.register(world.model_name("a"), f"runs:/{run}/second.safetensors", run)
    location = f"{world.model_name('a')}/{number}"
    assert [file.path for file in world.registry.source.files(location)] == ["second.safetensors"]
    with world.registry.open(location) as path:
        assert (path / "second.safetensors").read_bytes() == world.weights(network(2))


def test_artifacts_that_this_server_hands_out_are_read_by_their_addresses_and_those_of_others_are_not(
    world: MlflowWorld,
) -> None:
    world.publish("a", "v1")
    root = world.registry.source.files(world.found("a", "v1").location)[0].address
    path = root.removeprefix("mlflow-artifacts:").rpartition("/")[0]
    own = world.front.url.removeprefix("http://")
    for source in (
        f"mlflow-artifacts:/{path}",
        f"mlflow-artifacts://{own}/{path}",
        f"http://{own}/api/2.0/mlflow-artifacts/artifacts/{path}",
    ):
        change_record(world, "a", "v1", source=source)
        assert [file.path for file in world.registry.source.files(f"{world.model_name('a')}/1")] == [WEIGHTS]
    for source in (
        f"mlflow-artifacts://elsewhere.example/{path}",
        f"http://elsewhere.example/api/2.0/mlflow-artifacts/artifacts/{path}",
        f"http://{own}/api/2.0/mlflow/users/current",
        "mlflow-artifacts:/../../etc",
        "mlflow-artifacts:/a/%2e%2e/b",
        "file:///etc/passwd",
        "/etc",
        "dbfs:/x",
        "ftp://elsewhere.example/x",
        "",
    ):
        change_record(world, "a", "v1", source=source)
        world.front.forget()
        error = refusal_of(world, "a", "1")
        assert error.reason is RegistryReason.BAD_RESPONSE, source
        assert len(world.front.requests) == 1, "only the version's record is asked for"


def test_versions_that_lead_to_each_other_in_a_circle_are_refused(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    change_record(world, "a", "v1", source=f"models:/{world.model_name('a')}/2")
    change_record(world, "a", "v2", source=f"models:/{world.model_name('a')}/1")
    assert "without end" in refusal_of(world, "a", "1").detail


def test_a_source_that_is_not_read_is_listed_and_told_when_it_is_read(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    change_record(world, "a", "v2", source="file:///srv/models/a")
    assert world.names() == ["a/v1", "a/v2"]
    with pytest.raises(RegistryUnavailable, match="is not read"):
        world.registry.manifest(world.found("a", "v2"))


def test_a_file_that_is_written_again_between_two_parts_of_a_download_is_not_patched_together(
    world: MlflowWorld,
) -> None:
    world.publish("a", "v1", network(1))
    location = world.found("a", "v1").location
    (file,) = world.registry.source.files(location)
    first = b"".join(world.registry.source.stream(location, file, 0, 1000))
    assert len(first) == 1000
    world.publish("a", "v1", network(2))
    with pytest.raises(UnreadableError) as changed:
        next(world.registry.source.stream(location, file, 1000))
    assert changed.value.reason is UnreadableReason.CHANGED_WHILE_READING


def test_an_overwriting_is_remembered_over_a_restart(world: MlflowWorld) -> None:
    world.publish("a", "v1", network(1))
    world.look()
    world.publish("a", "v1", network(2))
    found = world.found("a", "v1")
    again = world.restarted()
    again.recall({found.location: found.token})
    assert again.listing(world.later).versions == (found,)
    assert again.token(found.location) == found.token


def test_origins_are_read_from_tags_of_the_version_and_of_its_run(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    run = world.server.new_run(**{"layerwatch.parent": "models:/base/7", "layerwatch.relation": "Finetuned"})
    world.server.upload(run, f"model/{WEIGHTS}", world.weights(TINY))
    name = world.model_name("a")
    number = world.server.register(
        name, f"runs:/{run}/model", run, **{"layerwatch.parent": "1", "layerwatch.relation": "quantized"}
    )
    found = next(one for one in world.look().versions if one.version == number)
    declared = world.registry.lineage(found)
    assert [(one.parent, one.relation) for one in declared] == [
        ("1", Relation.QUANTIZED),
        ("base/7", Relation.FINETUNED),
    ]
    assert [one.source for one in declared] == [
        "MLflow: tag of the version layerwatch.parent",
        "MLflow: tag of the run layerwatch.parent",
    ]


def test_tags_that_name_no_parent_or_no_known_relation_declare_nothing_of_it(world: MlflowWorld) -> None:
    run = world.server.new_run(parent="base", relation="cousin")
    world.server.upload(run, f"model/{WEIGHTS}", world.weights(TINY))
    name = world.model_name("a")
    world.server.register(name, f"runs:/{run}/model", run, **{"layerwatch.parent": " ", "relation": "cast"})
    (declared,) = world.registry.lineage(world.look().versions[0])
    assert (declared.parent, declared.relation) == ("base", None)


def test_a_person_finds_a_version_by_number_alias_stage_and_latest(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    world.publish("a", "v2")
    world.point("a", "champion", "v1")
    name = world.model_name("a")
    world.server.call("POST", "model-versions/transition-stage", name=name, version="1", stage="Staging")
    resolve = world.registry.source.resolve
    assert [
        resolve(name, one).version for one in ("2", "@champion", "champion", "Staging", "latest", None)
    ] == [*("2", "1", "1", "1", "2", "2")]
    assert resolve(name, "1") == world.found("a", "v1")
    for reference in ("3", "@nobody", "Production", "", "1/2"):
        if reference:
            with pytest.raises(RegistryUnavailable) as refused:
                resolve(name, reference)
            assert refused.value.reason is RegistryReason.NOT_FOUND
            assert "champion" in refused.value.detail
            assert "2, 1" in refused.value.detail
    with pytest.raises(RegistryUnavailable, match="no registered model"):
        resolve(world.model_name("nobody"), None)


def test_a_verdict_becomes_tags_and_takes_the_place_of_the_earlier_one(world: MlflowWorld) -> None:
    world.publish("a", "v1")
    assert world.registry.verdict_writer is None
    registry = world.restarted(write_verdict=True)
    location = world.found("a", "v1").location
    assert registry.verdict_writer is not None
    registry.verdict_writer(location, VerdictNote("fail", "f" * 64, ""))
    registry.verdict_writer(location, VerdictNote("pass", "e" * 64, "http://layerwatch/r/1"))
    record = world.server.call("GET", "model-versions/get", name=world.model_name("a"), version="1")
    assert {tag["key"]: tag["value"] for tag in record["model_version"]["tags"]} == {
        "layerwatch.verdict": "pass",
        "layerwatch.report": "http://layerwatch/r/1",
        "layerwatch.fingerprint": "e" * 64,
    }
    before = world.look().versions
    assert world.look(everything=False).versions == ()
    assert world.look().versions == before
    world.remove("a", "v1")
    with pytest.raises(RegistryUnavailable) as refused:
        registry.verdict_writer(location, VerdictNote("pass", "e" * 64, ""))
    assert refused.value.reason is RegistryReason.VERSION_GONE


def test_the_events_that_mlflow_sends_pass_the_check(world: MlflowWorld) -> None:
    came: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            came.put(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    secret = "a secret of 24 letters.."
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, daemon=True)
        thread.start()
        webhook = world.server.call(
            "POST",
            "webhooks",
            name=world.model_name("hook"),
            url=f"http://127.0.0.1:{receiver.server_port}/hooks/mlflow",
            events=[{"entity": "MODEL_VERSION", "action": "CREATED"}],
            secret=secret,
            status="ACTIVE",
        )["webhook"]
        try:
            world.publish("a", "v1")
            headers, body = came.get(timeout=60)
        finally:
            world.server.call("DELETE", f"webhooks/{webhook['webhook_id']}")
            receiver.shutdown()
            thread.join()
    event = verify_hook(secret, headers, body, datetime.now(UTC))
    assert (event.model, event.relevant) == (world.model_name("a"), True)
    assert event.delivery_id == headers["x-mlflow-delivery-id"]


def test_artifacts_that_the_server_reads_from_its_own_disk_are_read_through_it(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    options = ("--no-serve-artifacts", "--default-artifact-root", str(folder / "own"))
    try:
        server = MlflowServerProcess(folder, options=options)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    try:
        run = server.new_run()
        target = Path(server.artifact_root(run)) / "model" / "part one"
        target.mkdir(parents=True)
        (target / WEIGHTS).write_bytes(b"\x02\0\0\0\0\0\0\0{}")
        server.register("local", f"runs:/{run}/model", run)
        settings = MlflowRegistrySettings.model_validate({"name": "reg", "kind": "mlflow", "url": server.url})
        registry = build(settings, Downloads(tmp_path / "downloads", 2**30))
        (found,) = registry.listing(datetime.now(UTC)).versions
        (file,) = registry.source.files(found.location)
        assert (file.path, file.size_bytes) == (f"part one/{WEIGHTS}", 10)
        assert b"".join(registry.source.stream(found.location, file, 8)) == b"{}"
        assert b"".join(registry.source.stream(found.location, file, 0, 1)) == b"\x02"
        token = registry.token(found.location)
        (target / WEIGHTS).write_bytes(b"\x03\0\0\0\0\0\0\0{ }")
        assert registry.token(found.location) != token
    finally:
        server.stop()


def test_artifacts_in_a_bucket_are_read_directly(world: MlflowWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    obstore = pytest.importorskip("obstore")
    from obstore.store import S3Store

    try:
        command = [str(executable("moto_server")), "-H", "127.0.0.1", "-p", str(free_port())]
    except ServerMissing as missing:
        pytest.skip(str(missing))
    endpoint = f"http://127.0.0.1:{command[-1]}"
    for name, value in {
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    moto = ServerProcess(command, world.scratch, dict(os.environ))
    try:
        moto.wait_until_ready(f"{endpoint}/moto-api/")
        import requests

        assert requests.put(f"{endpoint}/weights", timeout=10).status_code == 200
        store = S3Store(
            "weights",
            endpoint=endpoint,
            client_options={"allow_http": True},
            virtual_hosted_style_request=False,
        )
        data = world.weights({"layer.weight": np.ones((600, 600), dtype=np.float32)})
        obstore.put(store, f"runs/1/model/{WEIGHTS}", data)
        obstore.put(store, "runs/1/model/lineage.json", json.dumps({"parent": "v0"}).encode())
        obstore.put(store, "runs/1/model2/other.safetensors", b"x")
        number = world.server.register(world.model_name("a"), "s3://weights/runs/1/model")
        (found,) = world.look().versions
        assert found.version == number
        assert [file.path for file in world.registry.source.files(found.location)] == [
            "lineage.json",
            WEIGHTS,
        ]
        with world.registry.open(found.location) as path:
            assert (path / WEIGHTS).read_bytes() == data
        assert [one.parent for one in world.registry.lineage(found)] == ["v0"]
        (file,) = (one for one in world.registry.source.files(found.location) if one.path == WEIGHTS)
        assert b"".join(world.registry.source.stream(found.location, file, 8, 20)) == data[8:20]
        token = world.registry.token(found.location)
        obstore.put(store, f"runs/1/model/{WEIGHTS}", data[:-4] + b"\0\0\0\0")
        with pytest.raises(UnreadableError):
            next(world.registry.source.stream(found.location, file, 8))
        assert world.registry.token(found.location) != token
        obstore.delete(store, f"runs/1/model/{WEIGHTS}")
        assert world.registry.token(found.location) is None
        world.server.register(world.model_name("b"), "s3://nowhere/runs/1/model")
        assert refusal_of(world, "b", "1").reason is not None
    finally:
        moto.stop()
