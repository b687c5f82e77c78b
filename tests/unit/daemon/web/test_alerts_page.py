"""The page of alerts: what it shows, what its forms do, and what nobody can do with it."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, urlsplit

import pytest
import sqlalchemy as sa

from firedalerts import ended, fired
from layerwatch.alerts.errors import DeliveryReason
from layerwatch.alerts.identity import alert_id
from layerwatch.alerts.model import AlertState
from layerwatch.alerts.outbox import Result
from layerwatch.alerts.silences import SilenceState, new_silence
from layerwatch.config.matchers import parsed
from layerwatch.config.server import ServerSettings
from layerwatch.daemon.alerting import AlertPolicy
from layerwatch.daemon.store import alerts, outbox, silences
from layerwatch.daemon.store.acknowledging import acknowledge
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.outbox import GivenUp
from layerwatch.daemon.undelivered import follow_deliveries
from layerwatch.metrics.findings import RuleGroup, Severity
from layerwatch_testing.daemons import TOKEN
from readpages import HOSTILE, Page, filled, holds_nothing_foreign, page
from sites import Site
from storetools import NOW, later


def test_where_nothing_fires_the_page_says_so(site: Site) -> None:
    text = page(site).text
    assert "No alert is firing." in text
    assert "Nothing is silenced." in text


def test_firing_alerts_are_shown_worst_first_and_then_oldest_first(site: Site, database: Database) -> None:
    with database.write() as connection:
        fired(connection, "prod/young", now=later(-60))
        fired(connection, "prod/old", version="v41", ref="champion", now=later(-3600 * 27))
        fired(connection, "prod/mild", severity=Severity.WARNING, now=later(-9999))
        ended(connection, fired(connection, "prod/over"), now=later(-1))
    found = page(site)
    links = [href for href in found.all("a", "href") if href.startswith(("version?", "layer?"))]
    assert links[:6] == [
        link
        for model, version in (("old", "v41"), ("young", "v3"), ("mild", "v3"))
        for names in [f"registry=prod&model={model}&version={version}&fingerprint=bytes-of-{version}"]
        for link in (f"version?{names}", f"layer?{names}&layer=fc1")
    ]
    assert "Firing 3" in found.text
    assert "prod/old champion is v41 weights" in found.text
    assert "fc1 3 weights are NaN alpha 5.3 -> 22.6, 24 sigma" in found.text
    assert "2025-02-28 09:00 UTC 1d 3h" in found.text
    assert found.text.index("prod/over") > found.text.index("Ended in the last 7 days 1")


def test_the_worst_layers_are_shown_and_the_others_counted(site: Site, database: Database) -> None:
    with database.write() as connection:
        # 20 findings are told of, and how many were left out.
        fired(connection, layers=[f"layer{number:02}" for number in range(25)])
        fired(connection, group=RuleGroup.EXAMINATION, layers=(None,), rule="unreadable")
    text = page(site).text
    assert "layer02" in text
    assert "layer03" not in text
    assert "and 22 more" in text


def test_an_alert_that_nobody_was_told_of_yet_is_shown_with_its_layers(
    site: Site, database: Database
) -> None:
    with database.write() as connection:
        state = fired(connection, layers=("fc1", None))
        alerts.save_state(connection, state)
        connection.exec_driver_sql("UPDATE alert_states SET told = NULL")
    assert "the version as a whole fc1" in page(site).text


def test_who_is_on_an_alert_and_which_silence_mutes_it_are_shown(site: Site, database: Database) -> None:
    with database.write() as connection:
        acknowledge(connection, fired(connection).identity, "ann", "retraining", later(-600))
        fired(connection, "prod/spam")
        new = new_silence(parsed(['model="spam"']), "bob", "planned", NOW, later(7200))
        number = silences.add(connection, new, NOW).id
        soon = new_silence(parsed(['team="risk"']), "cyd", "later", NOW, later(9999), later(3600))
        silences.add(connection, soon, NOW)
    text = page(site).text
    assert "acknowledged by ann, 2025-03-01 11:50 UTC: retraining" in text
    assert f"muted silence {number} by bob: planned" in text
    assert text.count("muted") == 1
    assert 'model="spam" 2025-03-01 14:00 UTC 2h left planned bob' in text
    assert 'not begun team="risk" 2025-03-01 13:00 UTC to 2025-03-01 14:46 UTC later cyd' in text


def test_the_link_of_a_row_leads_to_a_form_that_silences_its_model(site: Site, database: Database) -> None:
    with database.write() as connection:
        fired(connection)
        fired(connection, "hub/spam")
    (link, _) = (href for href in page(site).all("a", "href") if href.startswith("alerts?silence="))
    form = page(site, f"/{link}")
    assert form.fields["matchers"].strip() == 'registry="hub"\nmodel="spam"'
    answer = site.post("/alerts", data=filled(form, by="ann", reason="planned", duration="3h"))
    assert answer.status_code == 303
    with database.read() as connection:
        (kept,) = silences.list_(connection, NOW)
    assert (kept.author, kept.reason, kept.ends_at) == ("ann", "planned", later(3 * 3600))
    assert kept.matchers == parsed(['registry="hub"', 'model="spam"'])
    after = page(site, f"/{answer.headers['location']}").text
    assert f"Silence {kept.id} is kept. Of the alerts that fire now, it is about 1." in after
    assert f"muted silence {kept.id} by ann: planned" in after


def test_a_silence_that_matches_nothing_is_seen(site: Site) -> None:
    entered = filled(page(site), matchers="model=frod", by="ann", reason="planned")
    answer = site.post("/alerts", data=entered)
    after = page(site, f"/{answer.headers['location']}").text
    assert "Of the alerts that fire now, it is about none." in after


def test_a_silence_is_ended_through_the_page(site: Site, database: Database) -> None:
    with database.write() as connection:
        new = new_silence(parsed(['model="spam"']), "bob", "planned", NOW, later(7200))
        number = silences.add(connection, new, NOW).id
    (link,) = (href for href in page(site).all("a", "href") if href.startswith("alerts?expire="))
    form = page(site, f"/{link}")
    assert f'silence {number} of model="spam", by bob: planned' in form.text
    answer = site.post("/alerts", data=filled(form, by="ann"))
    assert f"Silence {number} is over." in page(site, f"/{answer.headers['location']}").text
    with database.read() as connection:
        ended_one = silences.get(connection, number)
    assert (ended_one.state(NOW), ended_one.expired_by) == (SilenceState.EXPIRED, "ann")
    again = site.post("/alerts", data=filled(form, by="ann"))
    assert again.status_code == 409
    assert "is over already" in Page(again.text).text


def test_an_alert_is_acknowledged_and_given_back_through_the_page(site: Site, database: Database) -> None:
    with database.write() as connection:
        state = fired(connection)

    def follow(action: str, **entered: str) -> str:
        (link,) = (href for href in page(site).all("a", "href") if href.startswith(f"alerts?{action}="))
        form = page(site, f"/{link}")
        assert "prod/fraud latest: weights" in form.text
        answer = site.post("/alerts", data=filled(form, **entered))
        return page(site, f"/{answer.headers['location']}").text

    text = follow("acknowledge", by="ann", reason="on it")
    assert "The alert is acknowledged" in text
    assert "acknowledged by ann, 2025-03-01 12:00 UTC: on it" in text
    text = follow("unacknowledge", by="bob")
    assert "no longer acknowledged" in text
    with database.read() as connection:
        found = alerts.load_state(connection, state.identity)
    assert found is not None and found.acknowledgement is None


def test_what_else_mutes_an_alert_is_shown(site: Site, database: Database) -> None:
    with database.write() as connection:
        state = fired(connection)
        fired(connection, "prod/spam")
    site.muted[state.identity] = "inhibited by prod/base (latest, weights)"
    text = page(site).text
    assert "muted inhibited by prod/base (latest, weights)" in text
    assert text.count("nobody is told yet") == 1


def told(connection: sa.Connection, receiver: str, *states: AlertState, group: str = "group_1") -> int:
    """An event about alerts for a receiver; its number."""
    alerts.save_told_to(
        connection,
        [(receiver, state) for state in states],
        {(receiver, state.identity): group for state in states},
    )
    outbox.enqueue(connection, f"evt_{states[0].sequence}", receiver, "{}", NOW, group)
    (record,) = outbox.list_outbox(connection, 1)
    return record.entry.id


def test_where_the_messages_about_an_alert_are_is_shown(site: Site, database: Database) -> None:
    with database.write() as connection:
        states = [
            fired(connection, f"prod/{name}") for name in ("delivered", "failing", "dead", "fresh", "none")
        ]
        numbers = {
            state.identity.model: told(connection, f"to-{state.identity.model}", state)
            for state in states[:4]
        }
    deliveries = outbox.DatabaseOutbox(database, "daemon")
    timeout = (DeliveryReason.TIMEOUT, f"no answer in 15 s {HOSTILE}")
    deliveries.settle([Result(numbers["delivered"], timeout, NOW)], NOW)
    deliveries.settle([Result(numbers["delivered"])], later(60))
    deliveries.settle([Result(numbers["failing"], timeout, later(300))], NOW)
    deliveries.settle([Result(numbers["failing"], timeout, later(300))], NOW)
    deliveries.settle([Result(numbers["dead"], (DeliveryReason.GONE, "it answered 410"))], NOW)
    html = site.get("/alerts").text
    assert holds_nothing_foreign(html)
    text = Page(html).text
    assert "to-delivered: told 2025-03-01 12:01 UTC, after 1 failed attempt" in text
    assert (
        "to-failing: waiting 2 failed attempts, the next 2025-03-01 12:05 UTC: no answer in 15 s <script>"
        in text
    )
    assert "to-dead: given up 2025-03-01 12:00 UTC: it answered 410 What to do" in text
    assert "to-fresh: waits for its turn" in text
    assert text.count("nobody is told yet") == 1
    assert Page(html).all("a", "href").count("status#receivers") == 2


def test_alerts_that_ended_are_shown_for_a_week_with_how_they_did(site: Site, database: Database) -> None:
    with database.write() as connection:
        for days, name in ((8, "older"), (6, "old"), (1, "young")):
            state = fired(connection, f"prod/{name}", now=later(-86400 * days - 7200))
            ended(connection, state, now=later(-86400 * days))
        hostile = fired(connection, f"hub/{HOSTILE}", ref=HOSTILE, version=HOSTILE, now=later(-60))
        ended(connection, hostile, version=HOSTILE, now=later(-30))
    html = site.get("/alerts").text
    assert holds_nothing_foreign(html)
    found = Page(html)
    shown = found.text[found.text.index("Ended in the last 7 days 3") :]
    assert "prod/young latest was v3 weights v4 passed 2025-02-28 12:00 UTC 1d ago 2h" in shown
    assert shown.index("hub/") < shown.index("prod/young") < shown.index("prod/old")
    assert "prod/older" not in shown
    assert "version?registry=prod&model=young&version=v3" in found.all("a", "href")


def test_an_alert_about_deliveries_leads_to_the_status_of_receivers(site: Site, database: Database) -> None:
    given_up = GivenUp("oncall", 2, NOW, DeliveryReason.GONE, "it answered 410")
    with database.write() as connection:
        follow_deliveries(connection, [given_up], ["oncall"], AlertPolicy(Severity.CRITICAL, None), NOW)
    found = page(site)
    assert "layerwatch/oncall deliveries is oncall delivery" in found.text
    assert "status#receivers" in found.all("a", "href")
    assert not [href for href in found.all("a", "href") if href.startswith("version?")]


@pytest.mark.parametrize(
    ("entered", "told"),
    [
        ({"matchers": ""}, "Alerts: at least one is needed"),
        ({"matchers": "model=spam\nspam"}, "Alerts: spam: must be a label"),
        ({"matchers": 'model=~".*"'}, "Alerts: at least one must not match the empty text"),
        ({"duration": "2"}, "For: is not a duration"),
        ({"duration": "91d"}, "For: must be at most 90 days ahead"),
        ({"by": " "}, "Your name: must not be empty"),
        ({"reason": ""}, "Reason: must not be empty"),
        ({"token": "wrong"}, "The token is wrong. Nothing was changed."),
        ({"token": ""}, "The token is wrong. Nothing was changed."),
        ({"token": "t\u00f6k\u00e9n \ud83d"}, "The token is wrong. Nothing was changed."),
    ],
    ids=str,
)
def test_what_is_refused_is_shown_again_with_what_is_wrong_but_without_the_token(
    site: Site, database: Database, entered: dict[str, str], told: str
) -> None:
    wanted = {"matchers": "model=spam", "duration": "3h", "by": "ann", "reason": "planned", **entered}
    body = "&".join(
        f"{name}={quote(value, errors='replace')}" for name, value in filled(page(site), **wanted).items()
    )
    answer = site.post("/alerts", data=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == (403 if "token" in entered else 422)
    assert "www-authenticate" not in answer.headers
    shown = Page(answer.text)
    assert told in shown.text
    wanted.pop("token", None)
    assert {name: shown.fields[name].strip() for name in wanted} == {
        name: value.strip() for name, value in wanted.items()
    }
    assert shown.fields["token"] == ""
    assert TOKEN not in answer.text
    with database.read() as connection:
        assert silences.list_(connection, NOW) == []


@pytest.mark.parametrize("action", ["silence", "expire", "acknowledge", "unacknowledge"])
def test_no_form_does_anything_without_the_token(site: Site, database: Database, action: str) -> None:
    with database.write() as connection:
        state = fired(connection)
        other = acknowledge(connection, fired(connection, "prod/spam").identity, "ann", "on it", NOW)
        new = new_silence(parsed(['model="churn"']), "bob", "planned", NOW, later(7200))
        kept = silences.add(connection, new, NOW)
    target = {
        "silence": "",
        "expire": str(kept.id),
        "acknowledge": alert_id(state.identity, 1),
        "unacknowledge": alert_id(other.identity, 1),
    }[action]
    entered = {"matchers": "model=spam", "duration": "2h", "by": "eve", "reason": "hush"}
    headers = {"Cookie": f"token={TOKEN}", "Authorization": f"Bearer {TOKEN}"}
    for token in ({}, {"token": ""}, {"token": TOKEN[:-1]}):
        form = {"action": action, "target": target, **entered, **token}
        assert site.post("/alerts", data=form, headers=headers).status_code == 403
    with database.read() as connection:
        assert silences.list_(connection, NOW) == [kept]
        assert alerts.load_state(connection, state.identity) == state
        assert alerts.load_state(connection, other.identity) == other


def test_where_no_token_is_configured_the_page_only_shows(site: Site, database: Database) -> None:
    site.settings = site.settings.model_copy(update={"server": ServerSettings()})
    with database.write() as connection:
        fired(connection)
    found = page(site, "/alerts?silence=prod/fraud")
    assert "prod/fraud" in found.text
    assert "the configuration sets no server.token" in found.text
    assert not found.all("form", "method")
    assert not [href for href in found.all("a", "href") if "?" in href and href.startswith("alerts")]
    form = {"action": "silence", "matchers": "model=spam", "duration": "2h", "by": "eve", "reason": "hush"}
    answer = site.post("/alerts", data={**form, "token": "None"})
    assert answer.status_code == 403
    assert "server.token is not set" in Page(answer.text).text


def test_hostile_names_are_text_in_their_own_direction(site: Site, database: Database) -> None:
    with database.write() as connection:
        state = fired(
            connection,
            f"hub/{HOSTILE}",
            ref=HOSTILE,
            version=HOSTILE,
            layers=(HOSTILE,),
            numbers=HOSTILE,
        )
        acknowledge(connection, state.identity, HOSTILE, HOSTILE, NOW)
        new = new_silence(parsed([f"model={quoted(HOSTILE)}"]), HOSTILE, HOSTILE, NOW, later(7200))
        number = silences.add(connection, new, NOW).id
    name = alert_id(state.identity, 1)
    for query in ("", f"?silence=hub/{quote(HOSTILE)}", f"?unacknowledge={name}", f"?expire={number}"):
        html = site.get(f"/alerts{query}").text
        assert "<script>alert(1)</script>gpj.exe\"'&" in Page(html).text
        assert holds_nothing_foreign(html)


def quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def test_the_form_silences_a_hostile_name_and_no_other(site: Site, database: Database) -> None:
    with database.write() as connection:
        fired(connection, f"hub/{HOSTILE}")
        fired(connection, f"hub/{HOSTILE.replace(chr(0x202E), '')}")
    form = page(site, f"/alerts?silence=hub/{quote(HOSTILE)}")
    assert form.fields["matchers"].isascii()
    answer = site.post("/alerts", data=filled(form, by="ann", reason="spam"))
    assert parse_qs(urlsplit(answer.headers["location"]).query)["alerts"] == ["1"]


@pytest.mark.parametrize(
    "query",
    [
        "silence=fraud",
        "silence=",
        "acknowledge=alert_00000000",
        "acknowledge=%3Cscript%3E",
        "unacknowledge=",
        "expire=7",
        "expire=-1",
        "expire=one",
        f"expire={10**40}",
        "done=%3Cscript%3E&number=1",
        "done=silence&number=%3Cb%3E&alerts=" + "9" * 40,
        "done=silence",
        "unknown=%00",
    ],
)
def test_any_address_of_the_page_shows_it(site: Site, query: str) -> None:
    found = page(site, f"/alerts?{query}")
    assert found.fields["action"] == "silence"
    assert "script" not in {tag for tag, _ in found.tags}
    assert "999" not in found.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"action=destroy",
        b"token=" + TOKEN.encode(),
        b"\xff=\xfe",
        b"a=1&" * 100,
        b"action=silence&" * 30,
    ],
)
def test_what_is_no_form_of_the_page_is_refused(site: Site, body: bytes) -> None:
    answer = site.post("/alerts", data=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 400


def test_a_form_of_another_kind_is_refused(site: Site) -> None:
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/json"):
        answer = site.post("/alerts", data=b"action=silence", headers={"Content-Type": kind})
        assert answer.status_code == 415


def test_a_browser_loads_nothing_but_the_own_stylesheets_and_is_not_framed(site: Site) -> None:
    refused = site.post("/alerts", data={"action": "silence", "token": "wrong"})
    for answer in (site.get("/alerts"), refused):
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy == {
            "default-src": "'none'",
            "style-src": "'self'",
            "script-src": "'self'",
            "img-src": "'self'",
            "connect-src": "'self'",
            "form-action": "'self'",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
        }
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "set-cookie" not in answer.headers
        found = Page(answer.text)
        loaded = found.all("link", "href")
        assert loaded == ["static/icon.svg", "static/layerwatch.css", "static/status.css"]
        assert not [one for _, attributes in found.tags for one in attributes if one in ("style", "src")]
    for file, media_type in zip(loaded, ("image/svg+xml", "text/css", "text/css"), strict=True):
        asset = site.get(f"/{file}")
        assert asset.headers["content-type"].startswith(media_type)
        assert "url(" not in asset.text
        assert "@import" not in asset.text


def test_every_address_on_the_page_is_relative(site: Site, database: Database) -> None:
    with database.write() as connection:
        fired(connection)
    found = page(site)
    for address in (*found.all("a", "href"), *found.all("form", "action"), *found.all("link", "href")):
        parts = urlsplit(address)
        assert not parts.scheme and not parts.netloc and not parts.path.startswith("/"), address


def test_of_very_many_alerts_the_worst_are_shown_and_the_others_counted(
    site: Site, database: Database
) -> None:
    with database.write() as connection:
        for number in range(205):
            severity = Severity.WARNING if number < 10 else Severity.CRITICAL
            fired(connection, f"prod/m{number:03}", severity=severity, now=later(-number))
    found = page(site)
    assert "The worst 200 of 205" in found.text
    assert len([href for href in found.all("a", "href") if href.startswith("version?")]) == 200
    assert found.text.count("warning") == 5
