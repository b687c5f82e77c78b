"""Who may change something through a page: nobody by a forged header, and no other site in a visitor's name."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from firedalerts import fired
from layerwatch.alerts.identity import alert_id
from layerwatch.config.server import ServerSettings
from layerwatch.daemon.store import alerts, auditlog, silences
from layerwatch.daemon.store.auditlog import Actor, Authentication
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.web.admission import FORM_LIFETIME, FormTokens
from layerwatch_testing.daemons import TOKEN, RunningApp, write_config
from readpages import Page, page
from sites import Site
from storetools import NOW, later

HEADER = "X-Forwarded-User"
ANN = {HEADER: "ann"}
OWN = {"Sec-Fetch-Site": "same-origin"}
WANTED = {"matchers": "model=spam", "duration": "2h", "reason": "planned"}


def behind(site: Site, *proxies: str, **other: Any) -> None:
    """From now on these networks are those of a trusted proxy."""
    server = ServerSettings(trusted_proxies=list(proxies), user_header=HEADER, token=TOKEN, **other)
    site.settings = site.settings.model_copy(update={"server": server})


def form_of(site: Site, who: dict[str, str] = ANN) -> dict[str, str]:
    return {**Page(site.get("/alerts", headers=who).text).fields, **WANTED}


def kept(database: Database) -> list[str]:
    """Who keeps alerts silent."""
    with database.read() as connection:
        return [one.author for one in silences.list_(connection, NOW)]


def test_behind_a_trusted_proxy_forms_ask_for_neither_name_nor_token(site: Site) -> None:
    behind(site, "127.0.0.1")
    found = Page(site.get("/alerts", headers=ANN).text)
    assert "As ann" in found.text
    assert {"by", "token"}.isdisjoint(found.fields)
    assert "As ann" not in page(site).text
    assert {"by", "token"} <= page(site).fields.keys()


def test_what_a_person_posts_is_done_in_the_name_that_the_proxy_gives(site: Site, database: Database) -> None:
    behind(site, "127.0.0.1")
    form = {**form_of(site), "by": "eve", "token": "wrong"}
    assert site.post("/alerts", data=form, headers=ANN | OWN).status_code == 303
    assert kept(database) == ["ann"]
    with database.read() as connection:
        (record,) = auditlog.list_(connection, 10)
    assert record.entry.actor == Actor("ann", Authentication.PROXY)


def test_pages_change_things_behind_a_proxy_where_no_token_is_set(site: Site, database: Database) -> None:
    server = ServerSettings(trusted_proxies=["127.0.0.1"], user_header=HEADER)
    site.settings = site.settings.model_copy(update={"server": server})
    assert site.post("/alerts", data=form_of(site), headers=ANN | OWN).status_code == 303
    assert site.post("/alerts", data={"action": "silence", **WANTED, "by": "eve"}).status_code == 403
    assert kept(database) == ["ann"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://{host}"},
        {"Origin": "http://{HOST}"},
        {"Referer": "http://{host}/alerts?silence=prod/fraud"},
        {"Origin": "https://watch.example", "X-Forwarded-Host": "watch.example"},
        {"Origin": "https://watch.example:443", "X-Forwarded-Host": "watch.example"},
        {"Origin": "https://pages.example"},
    ],
    ids=str,
)
def test_a_form_of_an_own_page_is_taken(site: Site, database: Database, headers: dict[str, str]) -> None:
    behind(site, "127.0.0.1", external_url="https://pages.example/layerwatch")
    host = site.address.removeprefix("http://")
    sent = {
        name: value.replace("{host}", host).replace("{HOST}", host.upper()) for name, value in headers.items()
    }
    assert site.post("/alerts", data=form_of(site), headers=ANN | sent).status_code == 303
    assert kept(database) == ["ann"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://{host}"},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "https://evil.example", "Referer": "http://{host}/alerts"},
        {"Origin": "https://evil.example", "X-Forwarded-Host": "watch.example"},
        {"Origin": "http://{host}.evil.example"},
        {"Origin": "http://evil.example@{host}"},
        {"Origin": "http://localhost:1"},
        {"Referer": "https://evil.example/{host}"},
        {"Referer": "{host}"},
        {"Origin": "https://watch.example", "X-Forwarded-Host": "watch.example, other.example"},
        {"Origin": "http://["},
        {"X-Forwarded-Host": ""},
    ],
    ids=str,
)
@pytest.mark.parametrize("page_path", ["/alerts", "/act?action=accept&registry=a&model=b&version=c"])
def test_a_form_of_another_site_does_nothing_and_is_not_even_shown(
    site: Site, database: Database, headers: dict[str, str], page_path: str
) -> None:
    behind(site, "127.0.0.1")
    host = site.address.removeprefix("http://")
    sent = {name: value.replace("{host}", host) for name, value in headers.items()}
    form = {**form_of(site), "reason": "prefilled"}
    answer = site.post(page_path, data=form, headers={**ANN, **sent, "Accept": "text/html"})
    assert answer.status_code == 403
    assert "not posted by a page of this server" in Page(answer.text).text
    assert "prefilled" not in answer.text
    assert "form_token" not in answer.text
    assert kept(database) == []


def test_the_token_of_a_form_is_that_of_one_person_for_a_while(site: Site, database: Database) -> None:
    behind(site, "127.0.0.1")
    form = form_of(site)
    issued = form["form_token"]
    of_bob = form_of(site, {HEADER: "bob"})["form_token"]
    ends_at, _, signature = issued.partition(".")
    longer = f"{int(ends_at) + 3600}.{signature}"
    other_process = FormTokens(lambda: NOW).issue("ann")
    for token in (
        "",
        of_bob,
        longer,
        other_process,
        issued[:-1],
        f"{ends_at}.",
        "9" * 400,
        TOKEN,
        "\u0661.\u0661",
    ):
        answer = site.post("/alerts", data={**form, "form_token": token}, headers=ANN | OWN)
        assert answer.status_code == 403
        assert "open for too long" in Page(answer.text).text
    site.now = NOW + FORM_LIFETIME
    answer = site.post("/alerts", data=form, headers=ANN | OWN)
    assert answer.status_code == 403
    assert kept(database) == []
    # What was entered is still there, to be sent once more.
    again = Page(answer.text).fields
    assert (again["matchers"].strip(), again["reason"]) == ("model=spam", "planned")
    assert site.post("/alerts", data=again, headers=ANN | OWN).status_code == 303
    assert kept(database) == ["ann"]


@pytest.mark.parametrize("action", ["silence", "expire", "acknowledge", "unacknowledge"])
def test_no_form_of_the_alerts_does_anything_for_another_site(
    site: Site, database: Database, action: str
) -> None:
    behind(site, "127.0.0.1")
    with database.write() as connection:
        state = fired(connection)
    form = {**form_of(site), "action": action, "target": alert_id(state.identity, 1)}
    assert site.post("/alerts", data=form, headers=ANN).status_code == 403
    with database.read() as connection:
        assert alerts.load_state(connection, state.identity) == state
        assert auditlog.list_(connection, 10) == []


@pytest.mark.parametrize(
    "forged",
    [
        {},
        {"X-Forwarded-For": "10.1.2.3"},
        {"X-Forwarded-For": "10.1.2.3", "X-Real-IP": "10.1.2.3", "Forwarded": "for=10.1.2.3"},
    ],
    ids=str,
)
def test_a_peer_that_is_no_trusted_proxy_is_not_believed(
    site: Site, database: Database, forged: dict[str, str]
) -> None:
    behind(site, "127.0.0.1")
    form = form_of(site)
    behind(site, "10.0.0.0/8", "::1")
    answer = site.post("/alerts", data=form, headers={**ANN, **OWN, **forged})
    assert answer.status_code == 403
    assert "The token is wrong" in Page(answer.text).text
    assert "As ann" not in Page(site.get("/alerts", headers={**ANN, **forged}).text).text
    assert kept(database) == []


def test_the_daemon_itself_goes_by_the_peer_of_the_socket(tmp_path: Path) -> None:
    server = {"trusted_proxies": ["10.0.0.0/8"], "user_header": HEADER}
    with RunningApp(write_config(tmp_path / "layerwatch.yaml", server=server)) as running:
        forged = {**ANN, **OWN, "X-Forwarded-For": "10.1.2.3", "X-Forwarded-Proto": "https"}
        assert "As ann" not in requests.get(f"{running.address}/alerts", headers=forged, timeout=10).text
        form = {"action": "silence", "target": "", **WANTED, "form_token": "1.x"}
        answer = requests.post(f"{running.address}/alerts", data=form, headers=forged, timeout=10)
        assert answer.status_code == 403
        assert running.get("/api/v1/silences").json() == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        "\u2003".encode(),
        "x" * 101,
        "ann\u200b".encode(),
        "ann\u202e".encode(),
        "a\tb",
        b"\xff\xfe",
        "ann  b",
    ],
    ids=repr,
)
def test_a_name_that_could_be_taken_for_another_is_none(
    site: Site, database: Database, name: str | bytes
) -> None:
    behind(site, "127.0.0.1")
    form = form_of(site)
    answer = site.post("/alerts", data=form, headers={HEADER: name, **OWN})
    assert answer.status_code == 403
    assert kept(database) == []


@pytest.mark.parametrize(("names", "status"), [(("ann",), 303), (("ann", "eve"), 403), (("ann", "ann"), 403)])
def test_a_name_that_is_given_twice_is_none(site: Site, names: tuple[str, ...], status: int) -> None:
    behind(site, "127.0.0.1")
    body = urlencode(form_of(site))
    connection = http.client.HTTPConnection(site.address.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/alerts")
    # As of a proxy that adds its header to what a client sent.
    for name in names:
        connection.putheader(HEADER, name)
    connection.putheader("Sec-Fetch-Site", "same-origin")
    connection.putheader("Content-Type", "application/x-www-form-urlencoded")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body.encode())
    assert connection.getresponse().status == status
    connection.close()


def test_names_beyond_ascii_are_read_as_utf_8(site: Site, database: Database) -> None:
    behind(site, "127.0.0.1")
    zoe = {HEADER: "Zoë Łuk".encode()}
    shown = site.get("/alerts", headers=zoe)
    assert "As Zoë Łuk" in Page(shown.text).text
    form = {**Page(shown.text).fields, **WANTED}
    assert site.post("/alerts", data=form, headers=zoe | OWN).status_code == 303
    assert kept(database) == ["Zoë Łuk"]


def test_the_api_takes_nothing_but_the_token(site: Site, database: Database) -> None:
    behind(site, "127.0.0.1")
    wanted = {"matchers": ["model=spam"], "author": "ann", "reason": "planned", "duration": "2h"}
    assert site.post("/api/v1/silences", json=wanted, headers=ANN | OWN).status_code == 401
    assert site.get("/api/v1/audit", headers=ANN | OWN).status_code == 401
    assert kept(database) == []


def test_a_hostile_name_of_a_person_is_text(site: Site) -> None:
    behind(site, "127.0.0.1")
    shown = site.get("/alerts", headers={HEADER: "<script>alert(1)</script>\"'&"})
    assert "As <script>alert(1)</script>\"'&" in Page(shown.text).text
    assert "script" not in {tag for tag, _ in Page(shown.text).tags}


def test_a_form_is_valid_until_its_end_and_not_after() -> None:
    moment = [NOW]
    tokens = FormTokens(lambda: moment[0])
    token = tokens.issue("ann")
    moment[0] = later(FORM_LIFETIME.total_seconds() - 2)
    assert tokens.is_valid(token, "ann")
    assert not tokens.is_valid(token, "bob")
    moment[0] = later(FORM_LIFETIME.total_seconds())
    assert not tokens.is_valid(token, "ann")
