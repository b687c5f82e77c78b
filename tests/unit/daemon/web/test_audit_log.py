"""The audit log: whoever changes something, by page, API or command line, is in it with the change, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from firedalerts import fired
from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import AlertIdentity
from layerwatch.daemon.cli import app
from layerwatch.daemon.commands.acting import user
from layerwatch.daemon.store import alerts, auditlog, outbox, refs, silences, tables
from layerwatch.daemon.store.auditlog import Action, Actor, AuditEntry, Authentication
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.daemon.web.decisions import Decisions
from layerwatch.metrics.findings import Verdict
from layerwatch_testing.daemons import TOKEN, RunningApp, write_config
from readpages import filled, page
from sites import Site
from storetools import NOW, judged, later

BEARER = {"Authorization": f"Bearer {TOKEN}"}
ANN = Actor("ann", Authentication.TOKEN)
Call = Callable[..., Result]


@pytest.fixture
def broken(database: Database) -> VersionRecord:
    """A failed version, with an alert."""
    with database.write() as connection:
        record = judged(connection, "v3", Verdict.FAIL, "fraud", "prod")
        refs.point(connection, "prod", "fraud", "latest", record.id, NOW)
        fired(connection)
    return record


@pytest.fixture
def call(database: Database, tmp_path: Path) -> Iterator[Call]:
    """Runs a command over the store of the test."""
    config = write_config(tmp_path / "layerwatch.yaml", receivers=[{"name": "oncall", "kind": "log"}])

    def run(*arguments: object) -> Result:
        words = [str(argument) for argument in arguments]
        done = CliRunner().invoke(app, [*words, "--config", str(config)])
        assert done.exit_code == 0, done.output
        return done

    yield run


def entries(database: Database) -> list[AuditEntry]:
    """Oldest first."""
    with database.read() as connection:
        return [record.entry for record in reversed(auditlog.list_(connection, 100))]


def only_alert(database: Database) -> AlertIdentity:
    """Of the only alert."""
    with database.read() as connection:
        (state,) = alerts.list_states(connection)
    return state.identity


def dead(database: Database, receiver: str = "oncall") -> int:
    """The number of an event that was given up."""
    with database.write() as connection:
        outbox.enqueue(connection, f"evt_{receiver}", receiver, "{}", NOW)
        gone = {"dead_at": NOW, "error_reason": DeliveryReason.GONE.value, "error_detail": "410"}
        connection.execute(sa.update(tables.outbox).values(**gone))
        (record,) = outbox.list_outbox(connection)
    return record.entry.id


def test_what_the_pages_do_is_kept_with_who_did_it_and_why(
    site: Site, database: Database, broken: VersionRecord
) -> None:
    alert = alert_id(only_alert(database), 1)
    for path, entered in (
        ("/alerts", {"matchers": "model=fraud", "reason": "planned"}),
        ("/alerts?expire=1", {}),
        (f"/alerts?acknowledge={alert}", {"reason": "on it"}),
        (f"/alerts?unacknowledge={alert}", {}),
        ("/act?action=rescan&registry=prod&model=fraud&version=v3", {"reason": "mended"}),
        ("/act?action=accept&registry=prod&model=fraud&version=v3", {"reason": "on purpose"}),
    ):
        form = page(site, path)
        (action,) = form.all("form", "action")
        assert site.post(f"/{action}", data=filled(form, by="ann", **entered)).status_code == 303
    kept = entries(database)
    assert {one.actor for one in kept} == {ANN}
    assert {one.at for one in kept} == {NOW}
    assert [(str(one.action), one.subject, one.reason) for one in kept] == [
        ("silence", "silence 1", "planned"),
        ("expire", "silence 1", None),
        ("acknowledge", f"{alert} (latest, weights)", "on it"),
        ("unacknowledge", f"{alert} (latest, weights)", None),
        ("rescan", f"fingerprint {broken.fingerprint}", "mended"),
        ("accept", f"fingerprint {broken.fingerprint}", "on purpose"),
    ]
    assert [(one.registry, one.model, one.version) for one in kept] == [
        (None, None, None),
        (None, None, None),
        *[("prod", "fraud", "v3")] * 4,
    ]
    assert kept[0].outcome == ('silent from 2025-03-01 12:00 UTC until 2025-03-01 14:00 UTC: model="fraud"')
    assert [one.outcome for one in kept[1:]] == [
        'over instead of at 2025-03-01 14:00 UTC: model="fraud"',
        "ann is on it",
        "nobody is on it any more",
        "it waits for its scan",
        "it is the accepted baseline; 1 alert ended",
    ]


def test_what_the_api_does_is_kept_too(site: Site, database: Database, broken: VersionRecord) -> None:
    path = f"/api/v1/alerts/{alert_id(only_alert(database), 1)}/acknowledge"
    wanted = {"matchers": ["model=fraud"], "author": "ann", "reason": "planned", "duration": "2h"}
    why = {"by": "ann", "reason": "x"}
    number = site.post("/api/v1/silences", json=wanted, headers=BEARER).json()["id"]
    site.delete(f"/api/v1/silences/{number}", headers=BEARER)
    site.post(path, json=why, headers=BEARER)
    site.delete(f"{path}?by=bob", headers=BEARER)
    site.post(f"/api/v1/versions/{broken.id}/rescan", json=why, headers=BEARER)
    site.post(f"/api/v1/versions/{broken.id}/accept", json=why, headers=BEARER)
    assert [(str(one.action), one.actor.name) for one in entries(database)] == [
        ("silence", "ann"),
        ("expire", "the API"),
        ("acknowledge", "ann"),
        ("unacknowledge", "bob"),
        ("rescan", "ann"),
        ("accept", "ann"),
    ]
    assert {one.actor.authentication for one in entries(database)} == {Authentication.TOKEN}


def test_what_commands_do_is_kept_in_the_name_of_the_account(
    database: Database, broken: VersionRecord, call: Call
) -> None:
    dead(database)
    call("silence", "add", "--model", "prod/fraud", "--for", "2h", "--reason", "planned")
    call("silence", "expire", 1, "--author", "bob")
    call("alert", "acknowledge", "prod/fraud", "--reason", "on it")
    call("alert", "unacknowledge", "prod/fraud")
    call("baseline", "accept", "prod/fraud", "v3", "--reason", "on purpose")
    call("baseline", "pin", "prod/fraud", "v3", "--reason", "until May")
    call("baseline", "unpin", "prod/fraud", "--reason", "May is over")
    call("delivery", "replay", "oncall")
    kept = entries(database)
    assert [str(one.action) for one in kept] == [
        "silence",
        "expire",
        "acknowledge",
        "unacknowledge",
        "accept",
        "pin",
        "unpin",
        "replay",
    ]
    assert {one.actor.authentication for one in kept} == {Authentication.COMMAND_LINE}
    names = [one.actor.name for one in kept]
    assert names.pop(1) == f"bob (logged in as {user()})"
    assert set(names) == {user()}
    assert [one.reason for one in kept if one.action is not Action.EXPIRE] == [
        "planned",
        "on it",
        None,
        "on purpose",
        "until May",
        "May is over",
        None,
    ]
    assert (kept[-1].subject, kept[-1].outcome) == ("receiver oncall", "1 event queued again")


def test_a_replay_through_the_api_and_reloads_are_kept(tmp_path: Path) -> None:
    config = write_config(tmp_path / "layerwatch.yaml", receivers=[{"name": "oncall", "kind": "log"}])
    with RunningApp(config) as running:
        number = dead(running.app.database, "another")
        assert running.post(f"/api/v1/deliveries/{number}/replay?by=ann").status_code == 200
        assert running.post("/-/reload?by=ann").status_code == 200
        write_config(config, scan={"threads": 3})
        assert running.post("/-/reload").json()["needs_restart"] == ["scan.threads"]
        config.write_text("nonsense: [")
        assert running.post("/-/reload").status_code == 400
        assert running.post("/-/reload?by=%20").status_code == 422
        assert running.post("/-/reload", token="wrong").status_code == 401
        kept = entries(running.app.database)
        assert [(str(one.action), one.actor.name, one.subject, one.outcome) for one in kept] == [
            ("replay", "ann", f"event {number}", "1 event queued again"),
            ("reload", "ann", None, "taken over"),
            ("reload", "the API", None, "taken over; these need a restart: scan.threads"),
            ("reload", "the API", None, "refused for 1 mistakes in it; the old one stays in force"),
        ]
        assert abs(datetime.now(UTC) - kept[0].at).total_seconds() < 600


def test_what_was_refused_is_not_in_it(site: Site, database: Database, broken: VersionRecord) -> None:
    with database.write() as connection:
        judged(connection, "v4", model="fraud", registry="prod")
    path = f"/api/v1/alerts/{alert_id(only_alert(database), 1)}/acknowledge"
    wanted = {"matchers": ["model=fraud"], "author": "eve", "reason": "x", "duration": "2h"}
    assert site.post("/api/v1/silences", json=wanted).status_code == 401
    assert site.delete("/api/v1/silences/7", headers=BEARER).status_code == 404
    assert site.delete(path, headers=BEARER).status_code == 409
    assert site.delete(f"{path}?by=%20", headers=BEARER).status_code == 422
    why = {"by": "", "reason": "x"}
    assert site.post(f"/api/v1/versions/{broken.id}/accept", json=why, headers=BEARER).status_code == 422
    assert entries(database) == []


def test_an_entry_is_kept_with_what_it_tells_of_or_not_at_all(
    database: Database, broken: VersionRecord, site: Site
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("what follows cannot be done")

    decisions = Decisions(database, lambda: site.settings, dict, lambda: None, lambda: NOW, follow=fails)
    with pytest.raises(RuntimeError):
        decisions.accept(ANN, broken.id, "on purpose")
    assert entries(database) == []
    with database.read() as connection:
        assert silences.list_(connection, NOW) == []


def test_the_log_is_read_with_the_token_a_page_at_a_time(site: Site, database: Database) -> None:
    with database.write() as connection:
        for number in range(5):
            auditlog.add(connection, AuditEntry(later(number), ANN, Action.RELOAD, "taken over"))
    assert site.get("/api/v1/audit").status_code == 401
    assert site.get("/api/v1/audit", headers={"Authorization": "Bearer wrong"}).status_code == 401
    first = site.get("/api/v1/audit?limit=3", headers=BEARER).json()
    rest = site.get(f"/api/v1/audit?limit=3&before={first[-1]['id']}", headers=BEARER).json()
    assert [one["at"] for one in first + rest] == [
        later(number).isoformat().replace("+00:00", "Z") for number in (4, 3, 2, 1, 0)
    ]
    assert first[0] == {
        "id": first[0]["id"],
        "at": "2025-03-01T12:00:04.123456Z",
        "actor": "ann",
        "authentication": "token",
        "action": "reload",
        "registry": None,
        "model": None,
        "version": None,
        "subject": None,
        "reason": None,
        "outcome": "taken over",
    }
    assert site.get("/api/v1/audit?limit=0", headers=BEARER).status_code == 422


def test_no_token_is_ever_in_it(site: Site, database: Database, broken: VersionRecord) -> None:
    path = "/act?action=accept&registry=prod&model=fraud&version=v3"
    site.post(path, data=filled(page(site, path), by="ann", reason="on purpose"))
    site.post("/alerts", data=filled(page(site), by="ann", reason="x", matchers="model=fraud"))
    assert len(entries(database)) == 2
    with database.read() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM audit_log").all()
    assert TOKEN not in repr(rows)
    assert TOKEN not in site.get("/api/v1/audit", headers=BEARER).text
