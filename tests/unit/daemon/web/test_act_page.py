"""The page that accepts and rescans versions, and the API that does the same."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
import sqlalchemy as sa

from firedalerts import fired
from layerwatch.alerts.model import AlertPhase
from layerwatch.config.composites import COMPOSITES
from layerwatch.config.server import ServerSettings
from layerwatch.daemon.store import alerts, auditlog, baselines, refs, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import BaselineKind, VersionKey, VersionRecord, VersionState
from layerwatch.metrics.findings import RuleGroup, Verdict
from layerwatch_testing.daemons import TOKEN
from readpages import HOSTILE, Page, filled, holds_nothing_foreign, page
from sites import Site
from storetools import NOW, judged, later, registered

BEARER = {"Authorization": f"Bearer {TOKEN}"}
WHY = {"by": "ann", "reason": "pruned on purpose"}


def address(action: str, record: VersionRecord) -> str:
    key = record.key
    names = {"registry": key.registry, "model": key.model, "version": key.version}
    return f"/act?{urlencode({'action': action, **names})}"


def broken(
    connection: sa.Connection, name: str = "fraud", version: str = "v3", fingerprint: str | None = None
) -> VersionRecord:
    """A failed version that the ref latest points at, with its alert."""
    record = judged(connection, version, Verdict.FAIL, name, "prod", fingerprint)
    refs.point(connection, "prod", name, "latest", record.id, NOW)
    fired(connection, f"prod/{name}", version=version)
    return record


def accepted(database: Database, record: VersionRecord) -> bool:
    with database.read() as connection:
        return baselines.was_accepted(connection, record.key, record.fingerprint)


def now(database: Database, record: VersionRecord) -> VersionRecord:
    with database.read() as connection:
        found = versions.get(connection, record.id)
    assert found is not None
    return found


def test_the_page_says_which_baseline_and_which_alerts_an_acceptance_changes(
    site: Site, database: Database
) -> None:
    with database.write() as connection:
        judged(connection, "v1", model="fraud", registry="prod")
        baselines.accept(connection, "prod", "fraud", "v1", "bob", "first", later(-99))
        baselines.pin(connection, "prod", "fraud", "v1", "cyd", "until May", later(-60))
        record = broken(connection)
        fired(connection, group=RuleGroup.EXAMINATION, layers=("conv9",), rule="unreadable")
        fired(connection, "prod/other")
    text = page(site, address("accept", record)).text
    assert "fail, judged 2025-03-01 12:00 UTC" in text
    assert "fc.weight 3 of 10 rows are zero (baseline 0)" in text
    assert "in place of v1. accepted by bob, 2025-03-01 11:58 UTC: first" in text
    assert "v1 stays pinned by cyd" in text
    ends, stays = text.index("Alerts that end"), text.index("Alerts that stay")
    assert "critical weights of latest, since 2025-03-01 12:00 UTC fc1" in text[ends:stays]
    assert "examination of latest" in text[stays:]
    assert "conv9" in text[stays:]


def test_a_version_is_accepted_through_the_page_and_its_alert_ends(site: Site, database: Database) -> None:
    with database.write() as connection:
        record = broken(connection)
    answer = site.post(address("accept", record), data=filled(page(site, address("accept", record)), **WHY))
    assert answer.status_code == 303
    done = page(site, f"/{answer.headers['location']}")
    assert "It is accepted. 1 alert ended." in done.text
    assert "accepted by ann, 2025-03-01 12:00 UTC: pruned on purpose" in done.text
    assert "version?registry=prod&model=fraud&version=v3" in done.all("a", "href")
    with database.read() as connection:
        (kept,) = baselines.history(connection, "prod", "fraud")
        (state,) = alerts.list_states(connection)
    assert (kept.kind, kept.by, kept.fingerprint) == (BaselineKind.ACCEPTED, "ann", record.fingerprint)
    assert state.phase is AlertPhase.RESOLVED
    assert site.changes == 1
    again = page(site, address("accept", record)).text
    assert "as it is already: accepted by ann" in again
    assert "None: no alert about the weights of this version fires." in again


def test_what_the_address_says_was_done_is_held_against_the_store(site: Site, database: Database) -> None:
    with database.write() as connection:
        broken(connection)
    text = page(site, "/act?done=accept&registry=prod&model=fraud&version=v3&alerts=99").text
    assert "It is not accepted now" in text
    assert "99" not in text


def test_a_version_is_scanned_again_through_the_page_and_keeps_its_verdict_until_then(
    site: Site, database: Database
) -> None:
    with database.write() as connection:
        judged(connection, "v1", model="fraud", registry="prod")
        record = broken(connection)
    form = page(site, address("rescan", record))
    assert "Judged against v1, history" in form.text
    answer = site.post(address("rescan", record), data=filled(form, **WHY))
    assert answer.status_code == 303
    text = page(site, f"/{answer.headers['location']}").text
    assert "It waits for its scan." in text
    assert "fail, 2025-03-01 12:00 UTC; it stays until there is another" in text
    found = now(database, record)
    assert (found.state, found.verdict, site.queued) == (VersionState.PENDING, Verdict.FAIL, 1)


@pytest.mark.parametrize("action", ["accept", "rescan"])
@pytest.mark.parametrize(
    ("entered", "status", "told"),
    [
        ({"token": "wrong"}, 403, "The token is wrong. Nothing was changed."),
        ({"token": ""}, 403, "The token is wrong. Nothing was changed."),
        ({"by": " "}, 422, "Your name: must not be empty"),
        ({"by": "\u200b"}, 422, "Your name: must not be empty"),
        ({"reason": ""}, 422, "Reason: must not be empty"),
        ({"reason": "x" * 1001}, 422, "Reason: must have at most 1000 characters"),
        ({"fingerprint": "0" * 64}, 409, "Other bytes were published under this name"),
    ],
    ids=str,
)
def test_what_is_refused_changes_nothing_and_is_shown_again_without_the_token(
    site: Site, database: Database, action: str, entered: dict[str, str], status: int, told: str
) -> None:
    with database.write() as connection:
        record = broken(connection)
    fields = filled(page(site, address(action, record)), **{**WHY, **entered})
    answer = site.post(address(action, record), data=fields)
    assert answer.status_code == status
    assert "www-authenticate" not in answer.headers
    shown = Page(answer.text)
    assert told in shown.text
    assert shown.fields["reason"] == fields["reason"]
    assert shown.fields["token"] == ""
    assert TOKEN not in answer.text
    assert not accepted(database, record)
    assert now(database, record).state is VersionState.JUDGED
    with database.read() as connection:
        assert auditlog.list_(connection, 10) == []


def test_the_bytes_that_are_accepted_are_those_that_were_looked_at(site: Site, database: Database) -> None:
    with database.write() as connection:
        record = broken(connection)
    form = filled(page(site, address("accept", record)), **WHY)
    with database.write() as connection:
        other = registered(connection, "v3", "fraud", "prod", fingerprint="other-bytes")
    assert site.post(address("accept", record), data=form).status_code == 409
    assert not accepted(database, record)
    assert not accepted(database, other)


def test_what_cannot_be_scanned_is_said_in_place_of_the_form(site: Site, database: Database) -> None:
    with database.write() as connection:
        gone = broken(connection, "gone")
        versions.mark_gone(connection, "prod", "gone", "v3", NOW)
        composite = judged(connection, "v1", Verdict.FAIL, "chat", COMPOSITES)
        scanning = broken(connection, "scanning")
        versions.reopen(connection, scanning.id)
        versions.claim_next(connection, NOW)
    for record, told in (
        (gone, "It is no longer in its registry"),
        (composite, "A composite is never scanned"),
        (scanning, "It is being scanned now"),
    ):
        found = page(site, address("rescan", record))
        assert told in found.text
        assert not found.all("form", "method")
        answer = site.post(
            f"/api/v1/versions/{record.id}/rescan", json={"by": "ann", "reason": "x"}, headers=BEARER
        )
        assert answer.status_code == 409
        assert page(site, address("accept", record)).all("form", "method") == ["post"]


def test_the_alerts_of_a_version_with_layers_that_were_not_examined_are_not_promised_to_end(
    site: Site, database: Database
) -> None:
    with database.write() as connection:
        record = registered(connection, "v3", "fraud", "prod")
        versions.record_verdict(connection, record.id, Verdict.UNDECIDED, "{}", [], NOW)
        refs.point(connection, "prod", "fraud", "latest", record.id, NOW)
        fired(connection)
    text = page(site, address("accept", record)).text
    assert "None: no alert about the weights of this version fires." in text
    answer = site.post(address("accept", record), data=filled(page(site, address("accept", record)), **WHY))
    assert "It is accepted." in page(site, f"/{answer.headers['location']}").text
    with database.read() as connection:
        (state,) = alerts.list_states(connection)
    assert state.phase is AlertPhase.FIRING


@pytest.mark.parametrize("action", ["accept", "rescan"])
def test_where_no_token_is_configured_the_page_only_shows(
    site: Site, database: Database, action: str
) -> None:
    with database.write() as connection:
        record = broken(connection)
    site.settings = site.settings.model_copy(update={"server": ServerSettings()})
    found = page(site, address(action, record))
    assert "the configuration sets no server.token" in found.text
    assert not found.all("form", "method")
    form = {**WHY, "fingerprint": record.fingerprint, "token": "None"}
    assert site.post(address(action, record), data=form).status_code == 403
    assert not accepted(database, record)


def test_what_is_not_there_is_a_page_with_status_404(site: Site) -> None:
    for path in (
        "/act?action=accept&registry=prod&model=none&version=v1",
        "/act?done=accept&registry=prod&model=none&version=v1",
        "/act?action=accept",
        "/act?action=destroy&registry=prod&model=none&version=v1",
        "/act",
    ):
        answer = site.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
    form = {**WHY, "token": TOKEN, "fingerprint": ""}
    assert site.post("/act?action=accept&registry=a&model=b&version=c", data=form).status_code == 404
    assert site.post("/act?action=destroy", data=form).status_code == 400
    assert site.post("/act", data=form).status_code == 400


@pytest.mark.parametrize("name", [HOSTILE, "two\nlines", "two\r\nlines", " space ", "a/b?c=d&e", "100%"])
def test_a_version_with_a_hostile_name_is_shown_as_text_and_accepted_and_no_other_is(
    site: Site, database: Database, name: str
) -> None:
    with database.write() as connection:
        record = broken(connection, name, name, "1" * 64)
        near = broken(connection, name.replace("\r\n", "\n").strip() + ".", "v3")
    found = site.get(address("accept", record))
    assert holds_nothing_foreign(found.text)
    (action,) = Page(found.text).all("form", "action")
    answer = site.post(f"/{action}", data=filled(Page(found.text), **WHY))
    assert answer.status_code == 303
    assert accepted(database, record)
    assert not accepted(database, near)
    done = site.get(f"/{answer.headers['location']}")
    assert "It is accepted." in Page(done.text).text
    assert holds_nothing_foreign(done.text)


def test_every_address_on_the_page_is_relative(site: Site, database: Database) -> None:
    with database.write() as connection:
        record = broken(connection)
    found = page(site, address("accept", record))
    for link in (*found.all("a", "href"), *found.all("form", "action"), *found.all("link", "href")):
        assert "//" not in link and not link.startswith("/"), link


def test_the_api_accepts_a_version_and_tells_which_alerts_ended(site: Site, database: Database) -> None:
    with database.write() as connection:
        record = broken(connection)
    answer = site.post(f"/api/v1/versions/{record.id}/accept", json=WHY, headers=BEARER)
    assert answer.status_code == 200
    told = answer.json()
    assert (told["accepted_by"], told["reason"], told["version"]["id"]) == (
        "ann",
        "pruned on purpose",
        record.id,
    )
    assert [one["layers"] for one in told["ended"]] == [["fc1"]]
    assert accepted(database, record)


def test_the_api_has_a_version_scanned_again(site: Site, database: Database) -> None:
    with database.write() as connection:
        record = broken(connection)
    answer = site.post(f"/api/v1/versions/{record.id}/rescan", json=WHY, headers=BEARER)
    assert (answer.status_code, answer.json()["state"], answer.json()["verdict"]) == (202, "pending", "fail")
    assert (now(database, record).state, site.queued) == (VersionState.PENDING, 1)


@pytest.mark.parametrize("action", ["accept", "rescan"])
def test_the_api_does_nothing_without_the_token_or_for_what_is_not_there(
    site: Site, database: Database, action: str
) -> None:
    with database.write() as connection:
        record = broken(connection)
        registered(connection, "v3", "fraud", "prod", fingerprint="other-bytes")
    path = f"/api/v1/versions/{record.id}/{action}"
    assert site.post(path, json=WHY).status_code == 401
    assert site.post(path, json=WHY, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert site.post(path, json=WHY, headers=BEARER).status_code == 409
    assert site.post(f"/api/v1/versions/999/{action}", json=WHY, headers=BEARER).status_code == 404
    assert site.post(path, json={"by": "ann"}, headers=BEARER).status_code == 422
    assert site.post(path, json={"by": "ann", "reason": " "}, headers=BEARER).status_code == 422
    assert not accepted(database, record)
    with database.read() as connection:
        current = versions.current(connection, VersionKey("prod", "fraud", "v3"))
    assert current is not None and current.fingerprint == "other-bytes"
    assert not accepted(database, current)


def test_names_in_the_address_that_are_no_text_do_no_harm(site: Site) -> None:
    for value in ("%00", "%ff%fe", quote("\u2028"), "x" * 5000):
        path = f"/act?action=accept&registry={value}&model={value}&version={value}"
        assert site.get(path).status_code == 404
