"""The HTTP paths, asked through the real server of a running daemon."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from layerwatch.daemon.store import outbox
from layerwatch.metrics.report import Report
from layerwatch.metrics.rules import RULES
from layerwatch_testing.daemons import TOKEN, RunningApp, directory, write_config
from layerwatch_testing.networks import finetuned, network, with_nan
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.directory import DirectoryWorld

DEAD = "/api/v1/deliveries?status=dead"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """A daemon that judged a healthy and a broken model."""
    folder = tmp_path_factory.mktemp("daemon")
    world = DirectoryWorld(folder, marker=None)
    world.publish("good", "v1", network())
    world.publish("good", "v2", finetuned(network()))
    world.publish("bad", "v1", with_nan(network(3)))
    config = write_config(
        folder / "layerwatch.yaml",
        directory("local", world.root),
        receivers=[
            {
                "name": "oncall",
                "kind": "webhook",
                "url": "http://127.0.0.1:9/hidden-path",
                "secret": "whsec_aGlkZGVuLWtleS1oaWRkZW4ta2V5LWhpZGRlbg==",
                "allow_private_cidrs": ["127.0.0.0/8"],
            }
        ],
        server={"external_url": "http://watch.example"},
    )
    with RunningApp(config) as running:
        for version in ("local/good/v2", "local/bad/v1"):
            running.wait_for_verdict(version)
        until(lambda: len(running.samples("layerwatch_model_verdict")) == 2, "the gauges")
        yield running


def test_metrics_are_prometheus_text_with_a_type_and_help_for_every_family(daemon: RunningApp) -> None:
    answer = daemon.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    for family in families:
        assert family.documentation
        assert family.type != "unknown"
        assert family.name.startswith(("layerwatch_", "process_"))
    assert {"layerwatch_layer_alpha", "layerwatch_model_verdict", "layerwatch_scans"} <= set(names)


def test_metrics_are_openmetrics_where_asked_for_with_the_scanned_version_beside_slow_scans(
    daemon: RunningApp,
) -> None:
    headers = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    answer = requests.get(daemon.address + "/metrics", headers=headers, timeout=10)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in openmetrics_families(answer.text)}  # type: ignore[no-untyped-call]
    assert {"layerwatch_layer_alpha", "layerwatch_model_info", "layerwatch_scans"} <= families.keys()
    exemplars = [
        sample.exemplar for sample in families["layerwatch_scan_duration_seconds"].samples if sample.exemplar
    ]
    assert {exemplar.labels["model"] for exemplar in exemplars} <= {"good", "bad"}
    assert exemplars


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
def test_metrics_are_compressed_for_who_asks_for_it_and_for_nobody_else(
    daemon: RunningApp, accept: str
) -> None:
    plain = requests.get(
        daemon.address + "/metrics", headers={"Accept": accept, "Accept-Encoding": "identity"}, timeout=10
    )
    packed = requests.get(
        daemon.address + "/metrics", headers={"Accept": accept, "Accept-Encoding": "gzip"}, timeout=10
    )
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    about_models = [line for line in plain.text.splitlines() if "layerwatch_layer_" in line]
    assert about_models
    assert about_models == [line for line in packed.text.splitlines() if "layerwatch_layer_" in line]


def test_every_loop_tells_when_it_was_last_alive_and_how_long_it_may_be_silent(daemon: RunningApp) -> None:
    beats = {
        dict(labels)["loop"]: when
        for labels, when in daemon.samples("layerwatch_loop_last_beat_timestamp_seconds").items()
    }
    limits = {
        dict(labels)["loop"]: limit
        for labels, limit in daemon.samples("layerwatch_loop_limit_seconds").items()
    }
    assert {
        "watch:local",
        "reconcile:local",
        "notify",
        "dispatch:oncall",
        "backlog",
        "queue",
        "resend",
        "retention",
        "composites",
        "summaries",
        "exposition",
        "verdicts",
        "scan:0",
    } == beats.keys()
    assert beats.keys() == limits.keys()
    assert all(abs(datetime.now(UTC).timestamp() - when) < limits[loop] for loop, when in beats.items())


def test_the_size_of_the_exposition_and_the_state_of_the_queue_are_exported(daemon: RunningApp) -> None:
    text = daemon.get("/metrics").text
    about_models = [
        line for line in text.splitlines() if line.startswith(("layerwatch_layer_", "layerwatch_model_"))
    ]
    assert (daemon.sample("layerwatch_exposition_series") or 0) >= len(about_models) > 0
    assert (daemon.sample("layerwatch_exposition_bytes") or 0) > 1000
    until(lambda: not daemon.samples("layerwatch_scan_queue_oldest_timestamp_seconds"), "an empty queue")
    assert daemon.sample("layerwatch_registry_poll_interval_seconds", registry="local") == 0.2
    assert daemon.sample("layerwatch_content_changes_total", registry="local") == 0


def test_metrics_hold_the_verdict_of_every_model(daemon: RunningApp) -> None:
    assert daemon.sample("layerwatch_model_verdict", registry="local", model="good", ref="latest") == 0
    assert daemon.sample("layerwatch_model_verdict", registry="local", model="bad", ref="latest") == 2


def test_a_daemon_whose_loops_report_is_healthy_and_one_whose_loop_is_late_is_not(
    daemon: RunningApp,
) -> None:
    assert daemon.get("/-/healthy").text == "healthy\n"
    daemon.app.heartbeats.expect("stuck", timedelta(microseconds=1))
    try:
        answer = daemon.get("/-/healthy")
        assert answer.status_code == 503
        assert answer.text.startswith("loop stuck has been silent for 0 s")
    finally:
        daemon.app.heartbeats.forget("stuck")
    assert daemon.get("/-/healthy").status_code == 200


def test_a_daemon_that_listed_every_registry_is_ready(daemon: RunningApp) -> None:
    assert (daemon.get("/-/ready").status_code, daemon.get("/-/ready").text) == (200, "ready\n")


def test_models_are_listed_with_their_refs_and_verdicts(daemon: RunningApp) -> None:
    assert daemon.get("/api/v1/models").json() == [
        {
            "registry": "local",
            "model": name,
            "refs": [{"ref": "latest", "version": version, "verdict": verdict}],
        }
        for name, version, verdict in (("bad", "v1", "fail"), ("good", "v2", "pass"))
    ]


def test_versions_can_be_narrowed_and_paged(daemon: RunningApp) -> None:
    everything = daemon.get("/api/v1/versions").json()
    assert len(everything) == 3
    only = daemon.get("/api/v1/versions", model="good").json()
    assert [row["version"] for row in only] == ["v2", "v1"]
    assert daemon.get("/api/v1/versions", registry="other").json() == []
    first = daemon.get("/api/v1/versions", limit="2").json()
    rest = daemon.get("/api/v1/versions", limit="2", before=str(first[-1]["id"])).json()
    assert first + rest == everything


def test_the_report_of_a_version_is_the_stored_one(daemon: RunningApp) -> None:
    (row,) = daemon.get("/api/v1/versions", model="bad").json()
    assert daemon.get(f"/api/v1/versions/{row['id']}").json() == row
    answer = daemon.get(f"/api/v1/versions/{row['id']}/report")
    assert answer.headers["content-type"] == "application/json"
    report = Report.model_validate_json(answer.text)
    assert (report.model.name, report.verdict) == ("bad", "fail")
    json.loads(answer.text, parse_constant=pytest.fail)  # NaN and Infinity are no JSON


def test_the_link_of_an_alert_leads_to_the_report(daemon: RunningApp) -> None:
    (alert,) = daemon.get("/api/v1/alerts", phase="firing").json()
    assert (alert["model"], alert["group"], alert["layers"]) == ("bad", "weights", ["fc1"])
    answer = daemon.get("/report", registry="local", model="bad", ref="latest")
    assert Report.model_validate_json(answer.text).model.name == "bad"


def test_the_configuration_is_shown_without_its_secrets(daemon: RunningApp) -> None:
    text = daemon.get("/api/v1/config").text
    assert "registries:" in text
    assert "oncall" in text
    assert TOKEN not in text
    assert "hidden" not in text
    assert "aGlkZGVu" not in text


def test_no_path_shows_a_secret(daemon: RunningApp) -> None:
    api = ("models", "versions", "alerts", "silences")
    for path in ("/", "/metrics", "/alerts", "/api/openapi.json", *(f"/api/v1/{name}" for name in api)):
        text = daemon.get(path).text
        assert TOKEN not in text
        assert "hidden-path" not in text


@pytest.mark.parametrize(
    "path", ["/-/reload", "/hooks/local", "/hooks/unknown", "/api/v1/deliveries/1/replay"]
)
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], "tökén"])
def test_without_the_token_nothing_can_be_changed(daemon: RunningApp, path: str, token: str | None) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}".encode()}
    answer = requests.post(daemon.address + path, headers=headers, timeout=10)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "error" in answer.json()


def test_the_token_must_come_as_a_bearer(daemon: RunningApp) -> None:
    for headers in ({"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}, {"X-Token": TOKEN}):
        assert requests.post(f"{daemon.address}/-/reload", headers=headers, timeout=10).status_code == 401


def test_where_no_token_is_configured_nothing_can_be_changed_over_http(tmp_path: Path) -> None:
    config = write_config(tmp_path / "layerwatch.yaml", server={"token": None})
    with RunningApp(config) as daemon:
        for token in (None, "", "None", "null", TOKEN):
            answer = daemon.post("/-/reload", token)
            assert answer.status_code == 403
            assert "server.token is not set" in answer.json()["error"]
        assert daemon.get("/-/healthy").status_code == 200


def test_a_hook_for_a_known_registry_is_taken_and_for_another_refused(daemon: RunningApp) -> None:
    assert daemon.post("/hooks/local").json() == {"looking": True}
    answer = daemon.post("/hooks/unknown")
    assert answer.status_code == 404
    assert answer.json() == {"error": "no registry is called 'unknown'"}


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/api/v1/nowhere",
        "/api/v1/versions/999999",
        "/api/v1/versions/999999/report",
        "/report?registry=local&model=good&ref=champion",
        "/explain/nothing",
    ],
)
def test_what_is_not_there_is_a_404_in_json(daemon: RunningApp, path: str) -> None:
    answer = daemon.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/versions/first",
        f"/api/v1/versions/{10**30}",
        f"/api/v1/versions?before={10**30}",
        "/api/v1/versions?limit=0",
        "/api/v1/versions?limit=100000",
        "/api/v1/alerts?phase=burning",
        "/report?registry=local",
    ],
)
def test_arguments_that_make_no_sense_are_refused_and_not_an_internal_error(
    daemon: RunningApp, path: str
) -> None:
    answer = daemon.get(path)
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]


def test_only_posts_change_state(daemon: RunningApp) -> None:
    for path in ("/-/reload", "/hooks/local"):
        answer = daemon.get(path)
        assert answer.status_code == 405
        assert "error" in answer.json()


def test_every_rule_is_explained(daemon: RunningApp) -> None:
    for rule in RULES:
        answer = daemon.get(f"/explain/{rule.name}")
        assert answer.text.startswith(f"{rule.name}: ")


def test_the_fleet_page_links_to_paths_that_exist(daemon: RunningApp) -> None:
    paths = {
        urljoin("/", link).partition("#")[0]
        for link in re.findall(r'<a [^>]*href="([^"]*)"', daemon.get("/").text)
    }
    assert {"/metrics", "/-/healthy", "/-/ready", "/api/v1/models", "/api/openapi.json", "/alerts"} <= paths
    for path in sorted(paths):
        assert daemon.get(html.unescape(path)).status_code == 200, path


def test_a_firing_alert_is_shown_acknowledged_and_silenced_over_http(daemon: RunningApp) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    (alert,) = daemon.get("/api/v1/alerts", phase="firing").json()
    page = daemon.get("/alerts")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "local/bad" in page.text
    address = f"{daemon.address}/api/v1/alerts/{alert['alert_id']}/acknowledge"
    body = {"by": "ann", "reason": "retraining"}
    assert requests.post(address, json=body, headers=headers, timeout=10).status_code == 200
    (acknowledged,) = daemon.get("/api/v1/alerts", phase="firing").json()
    assert (acknowledged["acknowledged_by"], acknowledged["alert_id"]) == ("ann", alert["alert_id"])
    wanted = {"matchers": ["model=bad"], "author": "ann", "reason": "retraining", "duration": "1h"}
    answer = requests.post(f"{daemon.address}/api/v1/silences", json=wanted, headers=headers, timeout=10)
    assert answer.status_code == 201
    assert [one["alert_id"] for one in answer.json()["alerts"]] == [alert["alert_id"]]
    text = daemon.get("/alerts").text
    assert f"silence {answer.json()['id']} by ann: retraining" in text
    (silenced,) = daemon.get("/api/v1/alerts", phase="firing").json()
    assert silenced["muted_by"] == f"silence {answer.json()['id']} by ann: retraining"


def test_the_page_and_the_api_of_alerts_are_described_where_people_look(daemon: RunningApp) -> None:
    index = daemon.get("/").text
    assert 'href="alerts"' in index
    assert 'href="api/v1/silences"' in index
    described = daemon.get("/api/openapi.json").json()["paths"]
    assert {"/api/v1/silences", "/api/v1/alerts/{alert_id}/acknowledge"} <= described.keys()


def test_a_given_up_event_is_shown_and_can_be_sent_again_only_while_it_is_given_up(
    daemon: RunningApp,
) -> None:
    database = daemon.app.database
    at = datetime(2026, 3, 1, tzinfo=UTC)
    with database.write() as connection:
        outbox.enqueue(connection, "evt_replayed", "nobody", "{}", at)
        (entry,) = (
            one.entry for one in outbox.list_outbox(connection) if one.entry.event_id == "evt_replayed"
        )
    # The receiver is not configured, so the dispatcher gives the event up by itself.
    until(lambda: any(one["event_id"] == "evt_replayed" for one in daemon.get(DEAD).json()), "given up")
    assert daemon.post(f"/api/v1/deliveries/{entry.id}/replay", None).status_code == 401
    assert daemon.post(f"/api/v1/deliveries/{entry.id}/replay", TOKEN).json() == {"queued": True}
    until(lambda: any(one["event_id"] == "evt_replayed" for one in daemon.get(DEAD).json()), "given up again")
    assert daemon.post("/api/v1/deliveries/999999/replay", TOKEN).status_code == 404
