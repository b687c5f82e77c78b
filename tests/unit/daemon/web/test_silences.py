"""Silences and acknowledgements over the API."""

from __future__ import annotations

from typing import Any

import pytest
from requests import Response

from firedalerts import ended, fired
from layerwatch.alerts.identity import alert_id
from layerwatch.daemon.store.database import Database
from layerwatch_testing.daemons import TOKEN
from sites import Site
from storetools import later

BEARER = {"Authorization": f"Bearer {TOKEN}"}
WANTED = {"matchers": ['model="fraud"'], "author": "ann", "reason": "retraining", "duration": "2h"}


def post(site: Site, **other: Any) -> Response:
    body = {name: value for name, value in {**WANTED, **other}.items() if value is not None}
    return site.post("/api/v1/silences", json=body, headers=BEARER)


def test_a_silence_is_kept_and_shown_with_the_alerts_that_it_is_about(site: Site, database: Database) -> None:
    with database.write() as connection:
        state = fired(connection)
        fired(connection, "prod/spam")
        ended(connection, fired(connection, ref="old"))
    answer = post(site)
    assert answer.status_code == 201
    kept = answer.json()
    (about,) = kept.pop("alerts")
    assert about["alert_id"] == alert_id(state.identity, 1)
    assert kept == {
        "id": kept["id"],
        "state": "active",
        "matchers": ['model="fraud"'],
        "author": "ann",
        "reason": "retraining",
        "created_at": "2025-03-01T12:00:00.123456Z",
        "starts_at": "2025-03-01T12:00:00.123456Z",
        "ends_at": "2025-03-01T14:00:00.123456Z",
        "expired_at": None,
        "expired_by": None,
    }
    assert site.get(answer.headers["location"]).json() == kept
    assert site.get("/api/v1/silences").json() == [kept]


def test_the_alerts_are_listed_with_what_mutes_them(site: Site, database: Database) -> None:
    with database.write() as connection:
        fraud = fired(connection)
        spam = fired(connection, "prod/spam")
        fired(connection, "prod/told")
        over = ended(connection, fired(connection, "prod/over"))
    # What is not firing is not muted either, whatever was decided last.
    site.muted = {one.identity: "inhibited by prod/base" for one in (fraud, spam, over)}
    number = post(site).json()["id"]
    muted = {one["model"]: one["muted_by"] for one in site.get("/api/v1/alerts").json()}
    assert muted == {
        "fraud": f"silence {number} by ann: retraining",
        "spam": "inhibited by prod/base",
        "told": None,
        "over": None,
    }
    assert [one["model"] for one in site.get("/api/v1/alerts?phase=resolved").json()] == ["over"]


def test_the_notifier_hears_of_every_change_and_of_nothing_else(site: Site, database: Database) -> None:
    with database.write() as connection:
        name = alert_id(fired(connection).identity, 1)
    number = post(site).json()["id"]
    post(site, reason="")
    assert site.changes == 1
    site.delete(f"/api/v1/silences/{number}", headers=BEARER)
    site.delete(f"/api/v1/silences/{number}", headers=BEARER)
    assert site.changes == 2
    path = f"/api/v1/alerts/{name}/acknowledge"
    site.post(path, json={"by": "ann", "reason": "on it"}, headers=BEARER)
    site.delete(path, headers=BEARER)
    assert site.changes == 4


def test_labels_of_owners_and_of_the_alert_can_be_matched(site: Site, database: Database) -> None:
    with database.write() as connection:
        fired(connection, rule="nan")
        fired(connection, "hub/fraud-2", rule="dead_rows")
        fired(connection, "prod/spam")
    for matchers, found in (
        (['team="risk"'], {"prod/fraud", "hub/fraud-2"}),
        (['team="risk"', 'rule!="nan"'], {"hub/fraud-2"}),
        (
            [
                'rule_group="weights"',
                'severity="critical"',
                'ref="latest"',
                'version="v3"',
                'registry=~"p.*"',
            ],
            {"prod/fraud", "prod/spam"},
        ),
        (['team="other"'], set()),
    ):
        about = post(site, matchers=matchers).json()["alerts"]
        assert {f"{one['registry']}/{one['model']}" for one in about} == found


def test_the_end_may_be_a_time_and_the_start_later(site: Site) -> None:
    kept = post(
        site, duration=None, starts_at="2025-03-02T00:00:00+09:00", ends_at="2025-03-03T00:00Z"
    ).json()
    assert (kept["state"], kept["starts_at"], kept["ends_at"]) == (
        "pending",
        "2025-03-01T15:00:00Z",
        "2025-03-03T00:00:00Z",
    )
    assert [one["id"] for one in site.get("/api/v1/silences?state=pending").json()] == [kept["id"]]
    assert site.get("/api/v1/silences?state=active").json() == []


def test_a_duration_counts_from_the_start(site: Site) -> None:
    kept = post(site, starts_at="2025-03-01T13:00Z", duration="30m").json()
    assert kept["ends_at"] == "2025-03-01T13:30:00Z"


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"matchers": []}, "matchers: List should have at least 1 item"),
        ({"matchers": ["model=fraud", "fraud"]}, "matchers.1: must be a label"),
        ({"matchers": ['model=~"("']}, "matchers.0: its regular expression is not valid"),
        ({"matchers": ['model=~".*"']}, "matchers: at least one must not match the empty text"),
        ({"matchers": ["model=fraud"] * 51}, "matchers: List should have at most 50 items"),
        ({"author": " "}, "author: must not be empty"),
        ({"author": None}, "author: Field required"),
        ({"reason": ""}, "reason: must not be empty"),
        ({"reason": "x" * 1001}, "reason: must have at most 1000 characters"),
        ({"duration": None}, "ends_at: must be given, or duration, and not both"),
        ({"ends_at": "2025-03-02T00:00Z"}, "ends_at: must be given, or duration, and not both"),
        ({"duration": "0s"}, "duration: must be longer than 0s"),
        ({"duration": "36500d"}, "ends_at: must be at most 90 days ahead"),
        ({"duration": "36500d", "starts_at": "9990-01-01T00:00Z"}, "duration: is too long"),
        ({"duration": 7200}, "duration: is a number without a unit"),
        ({"duration": None, "ends_at": "2025-03-02T00:00"}, "ends_at: Input should have timezone info"),
        ({"duration": None, "ends_at": "2025-03-01T11:00Z"}, "ends_at: is over already"),
        ({"until": "tomorrow"}, "until: Extra inputs are not permitted"),
    ],
    ids=str,
)
def test_a_silence_that_cannot_be_kept_is_refused_with_the_field_that_is_wrong(
    site: Site, other: dict[str, Any], told: str
) -> None:
    answer = post(site, **other)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(told)
    assert site.get("/api/v1/silences").json() == []


def test_what_is_no_json_is_refused(site: Site) -> None:
    answer = site.post("/api/v1/silences", data=b"{", headers={**BEARER, "Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (422, {"error": "the body is not JSON"})


def test_a_body_that_is_too_large_is_refused_before_anybody_asks_for_a_token(site: Site) -> None:
    answer = site.post("/api/v1/silences", data=b'"' + b"x" * 2**20 + b'"')
    assert answer.status_code == 413
    assert answer.json() == {"error": "a request has at most 1048576 bytes"}


def test_a_silence_is_ended_once(site: Site) -> None:
    number = post(site).json()["id"]
    answer = site.delete(f"/api/v1/silences/{number}?by=bob", headers=BEARER)
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["expired_by"]) == ("expired", "bob")
    again = site.delete(f"/api/v1/silences/{number}", headers=BEARER)
    assert (again.status_code, again.json()) == (409, {"error": f"silence {number} is over already"})
    (listed,) = site.get("/api/v1/silences?state=expired").json()
    assert (listed["id"], listed["expired_by"]) == (number, "bob")


def test_who_ends_a_silence_need_not_say_so_but_must_not_be_nobody(site: Site) -> None:
    number = post(site).json()["id"]
    answer = site.delete(f"/api/v1/silences/{number}?by=%20", headers=BEARER)
    assert (answer.status_code, answer.json()) == (422, {"error": "by: must not be empty"})
    assert site.delete(f"/api/v1/silences/{number}", headers=BEARER).json()["expired_by"] == "the API"


def test_a_firing_alert_is_acknowledged_and_given_back(site: Site, database: Database) -> None:
    with database.write() as connection:
        state = fired(connection)
    path = f"/api/v1/alerts/{alert_id(state.identity, 1)}/acknowledge"
    answer = site.post(path, json={"by": "ann", "reason": "on it"}, headers=BEARER)
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["acknowledged_by"], shown["acknowledged_reason"]) == ("ann", "on it")
    assert shown["acknowledged_at"] == "2025-03-01T12:00:00.123456Z"
    back = site.delete(path[: path.index("alert_") + 14] + "/acknowledge", headers=BEARER)
    assert back.json() == {
        **shown,
        "acknowledged_by": None,
        "acknowledged_at": None,
        "acknowledged_reason": None,
    }
    assert site.delete(path, headers=BEARER).status_code == 409


def test_only_what_fires_can_be_acknowledged(site: Site, database: Database) -> None:
    with database.write() as connection:
        over = ended(connection, fired(connection), now=later(1))
    body = {"by": "ann", "reason": "on it"}
    path = f"/api/v1/alerts/{alert_id(over.identity, 1)}/acknowledge"
    assert site.post(path, json=body, headers=BEARER).status_code == 409
    for name in ("alert_00000000", "fraud", "1"):
        path = f"/api/v1/alerts/{name}/acknowledge"
        assert site.post(path, json=body, headers=BEARER).status_code == 404
        assert site.delete(path, headers=BEARER).status_code == 404


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"by": "ann"}, "reason: Field required"),
        ({"by": "\u200b", "reason": "on it"}, "by: must not be empty"),
        ({"by": "ann", "reason": "on it", "until": "noon"}, "until: Extra inputs are not permitted"),
    ],
)
def test_an_acknowledgement_by_nobody_is_refused(
    site: Site, database: Database, body: dict[str, str], told: str
) -> None:
    with database.write() as connection:
        state = fired(connection)
    path = f"/api/v1/alerts/{alert_id(state.identity, 1)}/acknowledge"
    answer = site.post(path, json=body, headers=BEARER)
    assert (answer.status_code, answer.json()) == (422, {"error": told})


@pytest.mark.parametrize("number", [0, -1, 10**30, "one"])
def test_what_is_no_number_of_a_silence_is_refused(site: Site, number: object) -> None:
    assert site.get(f"/api/v1/silences/{number}").status_code == 422
    assert site.delete(f"/api/v1/silences/{number}", headers=BEARER).status_code == 422


def test_an_unknown_silence_is_not_found(site: Site) -> None:
    assert site.get("/api/v1/silences/7").status_code == 404
    assert site.delete("/api/v1/silences/7", headers=BEARER).status_code == 404


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1]])
def test_without_the_token_nothing_is_silenced_ended_or_acknowledged(
    site: Site, database: Database, token: str | None
) -> None:
    with database.write() as connection:
        identity = fired(connection).identity
    number = post(site).json()["id"]
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    path = f"/api/v1/alerts/{alert_id(identity, 1)}/acknowledge"
    for answer in (
        site.post("/api/v1/silences", json=WANTED, headers=headers),
        site.delete(f"/api/v1/silences/{number}", headers=headers),
        site.post(path, json={"by": "ann", "reason": "on it"}, headers=headers),
        site.delete(path, headers=headers),
    ):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json() == {"error": "a bearer token is needed"}
    (kept,) = site.get("/api/v1/silences").json()
    assert kept["state"] == "active"


def test_the_api_describes_them(site: Site) -> None:
    described = site.get("/openapi.json").json()
    paths = described["paths"]
    assert set(paths["/api/v1/silences"]) == {"get", "post"}
    assert set(paths["/api/v1/silences/{silence_id}"]) == {"get", "delete"}
    assert set(paths["/api/v1/alerts/{alert_id}/acknowledge"]) == {"post", "delete"}
    assert "/alerts" not in paths
    assert set(described["components"]["schemas"]["SilenceRequest"]["required"]) == {
        "matchers",
        "author",
        "reason",
    }
