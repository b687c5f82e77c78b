"""What /metrics says about models: exactly what the refs point at now."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from layerwatch.daemon.snapshot import Snapshot, duplicate_series
from layerwatch.daemon.store import baselines, refs, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.store.exporting import judged_refs
from layerwatch.metrics.export import RenderedRef, render_ref
from layerwatch.metrics.exported import RefSample
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from layerwatch_testing.networks import finetuned, network, with_nan
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld
from queryplans import asked
from storetools import NOW, registered


def series(snapshot: Snapshot, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Value by labels of one gauge, read as Prometheus reads it."""
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(snapshot.text.decode())
        for sample in family.samples
        if sample.name == name
    }


def by(snapshot: Snapshot, name: str, label: str) -> Mapping[str, float]:
    return {dict(labels)[label]: value for labels, value in series(snapshot, name).items()}


@pytest.fixture
def snapshot(database: Database) -> Snapshot:
    return Snapshot(database, 10_000)


def test_every_layer_and_the_verdict_of_what_a_ref_points_at_are_exported(
    rig: Rig, world: DirectoryWorld, snapshot: Snapshot
) -> None:
    world.publish("m", "v1", network())
    world.publish("m", "v2", with_nan(finetuned(network()), "fc1.weight"))
    rig.cycle()
    snapshot.refresh()
    assert by(snapshot, "layerwatch_model_verdict", "model") == {"m": 2}
    assert by(snapshot, "layerwatch_layer_status", "layer")["fc1"] == 3
    assert set(by(snapshot, "layerwatch_layer_stable_rank", "layer")) == {"fc2", "fc3"}
    (info,) = series(snapshot, "layerwatch_model_info")
    assert dict(info)["version"] == "v2"
    assert dict(info)["baseline"] == "v1"
    layers = {layer.name: layer for layer in rig.report("m", "v2").layers}
    for name, value in by(snapshot, "layerwatch_layer_log_norm", "layer").items():
        assert value == layers[name].metrics.log_norm


def test_a_model_that_was_removed_is_gone_at_the_next_scrape(
    rig: Rig, world: DirectoryWorld, snapshot: Snapshot
) -> None:
    world.publish("a", "v1")
    world.publish("b", "v1")
    rig.cycle()
    snapshot.refresh()
    assert set(by(snapshot, "layerwatch_model_verdict", "model")) == {"a", "b"}
    world.remove("a", "v1")
    rig.look()
    snapshot.refresh()
    assert set(by(snapshot, "layerwatch_model_verdict", "model")) == {"b"}
    assert b'model="a"' not in snapshot.text


def test_a_layer_that_was_removed_is_gone_at_the_next_scrape(
    rig: Rig, world: DirectoryWorld, snapshot: Snapshot
) -> None:
    world.publish("m", "v1")
    rig.cycle()
    snapshot.refresh()
    world.publish("m", "v2", {name: values for name, values in network().items() if "fc3" not in name})
    rig.cycle()
    snapshot.refresh()
    assert set(by(snapshot, "layerwatch_layer_log_norm", "layer")) == {"fc1", "fc2"}


def test_a_version_that_is_judged_again_shows_its_new_verdict(
    rig: Rig, world: DirectoryWorld, snapshot: Snapshot
) -> None:
    world.publish("m", "v1", with_nan(network()))
    rig.cycle()
    snapshot.refresh()
    assert by(snapshot, "layerwatch_model_verdict", "model") == {"m": 2}
    rig.rules = rig.rules.model_validate({"non_finite": {"severity": "warning"}})
    with rig.database.write() as connection:
        versions.reopen(connection, rig.version("m", "v1").id)
    rig.cycle()
    snapshot.refresh()
    assert by(snapshot, "layerwatch_model_verdict", "model") == {"m": 1}


def test_names_that_need_escaping_come_out_as_they_went_in(
    rig: Rig, world: DirectoryWorld, snapshot: Snapshot
) -> None:
    model, layer = 'quote " back \\ slash\nnew line, {brace} é', 'fc "1"\\\n.weight'
    world.publish(model, "v1", {layer: network()["fc1.weight"]})
    rig.cycle()
    snapshot.refresh()
    assert set(by(snapshot, "layerwatch_model_verdict", "model")) == {model}
    assert set(by(snapshot, "layerwatch_layer_log_norm", "layer")) == {layer.removesuffix(".weight")}


def test_two_refs_to_one_version_are_exported_each(
    rig: Rig, world: DirectoryWorld, snapshot: Snapshot
) -> None:
    world.publish("m", "v1")
    world.point("m", "champion", "v1")
    rig.cycle()
    snapshot.refresh()
    assert by(snapshot, "layerwatch_model_verdict", "ref") == {"latest": 0, "champion": 0}


def test_the_cap_leaves_layers_out_visibly_and_takes_effect_at_the_next_refresh(
    rig: Rig, world: DirectoryWorld, snapshot: Snapshot
) -> None:
    world.publish("m", "v1")
    rig.cycle()
    snapshot.refresh()
    assert by(snapshot, "layerwatch_series_dropped", "model") == {"m": 0}
    snapshot.max_series_per_model = 7
    snapshot.refresh()
    assert by(snapshot, "layerwatch_series_dropped", "model")["m"] > 0
    assert len(series(snapshot, "layerwatch_layer_status")) == 1


def test_a_report_that_cannot_be_read_costs_the_layers_of_one_model_and_nothing_else(
    database: Database, snapshot: Snapshot
) -> None:
    with database.write() as connection:
        for model, report in [("old", '{"schema_version": 0}'), ("torn", "{"), ("empty", "")]:
            record = registered(connection, "v1", model=model)
            versions.record_verdict(connection, record.id, Verdict.FAIL, report, [], NOW)
            refs.point(connection, "r", model, "latest", record.id, NOW)
    snapshot.refresh()
    assert by(snapshot, "layerwatch_model_verdict", "model") == {"old": 2, "torn": 2, "empty": 2}


def test_a_refresh_that_failed_is_made_good(rig: Rig, world: DirectoryWorld, database: Database) -> None:
    snapshot = Snapshot(database, 10_000)
    snapshot.refresh()
    world.publish("m", "v1")
    rig.cycle()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_closed", True)
        with pytest.raises(StoreError):
            snapshot.refresh()
    assert by(snapshot, "layerwatch_model_verdict", "model") == {}
    snapshot.refresh_if_stale()
    assert by(snapshot, "layerwatch_model_verdict", "model") == {"m": 0}
    before = snapshot.text
    snapshot.refresh_if_stale()
    assert snapshot.text is before


def test_a_change_of_one_model_leaves_the_gauges_of_the_others_as_they_were_rendered(
    rig: Rig, world: DirectoryWorld, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish("m", "v1", network())
    world.publish("n", "v1", network(2))
    rig.cycle()
    snapshot.refresh()
    rendered: list[str] = []

    def noted(sample: RefSample, max_series: int) -> RenderedRef:
        rendered.append(sample.model)
        return render_ref(sample, max_series)

    monkeypatch.setattr("layerwatch.daemon.snapshot.render_ref", noted)
    world.publish("n", "v2", finetuned(network(2)))
    rig.cycle()
    snapshot.refresh()

    assert rendered == ["n"]
    assert by(snapshot, "layerwatch_model_verdict", "model") == {"m": 0, "n": 0}


def test_reports_are_linked_once_it_is_known_where_people_reach_the_daemon(
    rig: Rig, world: DirectoryWorld, snapshot: Snapshot
) -> None:
    world.publish("m & n", "v1", network())
    rig.cycle()
    snapshot.refresh()
    assert series(snapshot, "layerwatch_model_report_info") == {}

    snapshot.external_url = "https://watch.example/layerwatch"
    snapshot.refresh()

    (labels,) = series(snapshot, "layerwatch_model_report_info")
    url = "https://watch.example/layerwatch/report?registry=reg&model=m+%26+n&ref=latest"
    assert dict(labels)["url"] == url


def test_series_and_families_that_occur_twice_are_found() -> None:
    family = b'# TYPE a gauge\na{m="x y"} 1\n'

    assert duplicate_series(family) == []
    assert duplicate_series(family + b'a{m="x y"} 2\n') == ['a{m="x y"}']
    assert duplicate_series(family + b"# TYPE a gauge\n") == ["a"]


def test_a_failed_version_that_a_person_accepted_is_exported_as_accepted(
    rig: Rig, world: DirectoryWorld, snapshot: Snapshot, database: Database
) -> None:
    world.publish("m", "v1", with_nan(network()))
    rig.cycle()
    snapshot.refresh()
    assert by(snapshot, "layerwatch_model_accepted", "model") == {"m": 0}

    with database.write() as connection:
        baselines.accept(connection, "reg", "m", "v1", "somebody", "known", NOW)
    snapshot.refresh()

    assert by(snapshot, "layerwatch_model_accepted", "model") == {"m": 1}


def test_a_person_cannot_accept_away_what_is_wrong_beside_the_weights(
    database: Database, snapshot: Snapshot
) -> None:
    with database.write() as connection:
        for group in RuleGroup:
            finding = Finding(f"some_{group}", group, Severity.CRITICAL, None, "wrong", {})
            record = registered(connection, "v1", model=group.value)
            versions.record_verdict(connection, record.id, Verdict.FAIL, "", [finding], NOW)
            refs.point(connection, "r", group.value, "latest", record.id, NOW)
            baselines.accept(connection, "r", group.value, "v1", "somebody", "known", NOW)
    snapshot.refresh()

    accepted = by(snapshot, "layerwatch_model_accepted", "model")
    assert [model for model, value in accepted.items() if value] == ["weights"]
    assert set(accepted) == {group.value for group in RuleGroup}


def test_many_failing_models_cost_no_more_questions_than_one(database: Database) -> None:
    def questions(models: range) -> int:
        with database.write() as connection:
            for number in models:
                finding = Finding("nan", RuleGroup.WEIGHTS, Severity.CRITICAL, "fc", "not a number", {})
                record = registered(connection, "v1", model=f"m{number}")
                versions.record_verdict(connection, record.id, Verdict.FAIL, "", [finding], NOW)
                refs.point(connection, "r", f"m{number}", "latest", record.id, NOW)
                baselines.accept(connection, "r", f"m{number}", "v1", "somebody", "known", NOW)
        with asked() as statements, database.read() as connection:
            found = judged_refs(connection)
        assert len(found) == models.stop
        assert all(ref.accepted for ref in found)
        return len(statements)

    assert questions(range(1)) == questions(range(1, 50))
