"""What is answered when something cannot be answered: a page to browsers, JSON to all others."""

from __future__ import annotations

from urllib.parse import urljoin

import pytest

from layerwatch.daemon.store.database import Database
from readpages import Page
from sites import Site

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "application/json, text/html;q=0.5"])
def test_programs_are_answered_in_json(site: Site, accept: str | None) -> None:
    answer = site.get("/nowhere", headers={"Accept": accept})
    assert (answer.status_code, answer.json()) == (404, {"error": "Not Found"})
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    "path", ["/nowhere", "/no/where/at/all", "/api/v1/nothing/", "/static/none.css", "/a%2Fb"]
)
def test_a_browser_gets_a_page_whose_links_lead_back_from_any_depth(site: Site, path: str) -> None:
    answer = site.get(path, headers={"Accept": BROWSER})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    found = Page(answer.text)
    assert "Not there" in found.text
    for link in found.all("a", "href"):
        # Also behind a proxy's prefix.
        assert urljoin(f"http://x/prefix{path}", link).startswith("http://x/prefix/")
    assert site.get(f"/{urljoin(path, found.all('link', 'href')[1]).lstrip('/')}").status_code == 200
    assert urljoin(path, next(link for link in found.all("a", "href") if "alerts" in link)) == "/alerts"


def test_a_store_that_is_away_is_a_page_that_says_what_to_do(site: Site, database: Database) -> None:
    database.close()
    for headers in ({"Accept": BROWSER}, {}):
        answer = site.get("/alerts", headers=headers)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert "the store cannot be used now (closed)" in answer.text
        assert "layerwatch.db" not in answer.text
    text = Page(site.get("/alerts", headers={"Accept": BROWSER}).text).text
    assert "Load the page again in a few seconds." in text


def test_what_a_stranger_asks_for_is_text(site: Site) -> None:
    answer = site.get("/spectrum.png?registry=%3Cscript%3E", headers={"Accept": BROWSER})
    assert answer.status_code in (404, 422)
    assert "script" not in {tag for tag, _ in Page(answer.text).tags}
    answer = site.get("/act?action=%3Cscript%3Ealert(1)%3C/script%3E", headers={"Accept": BROWSER})
    assert answer.status_code == 404
    assert "script" not in {tag for tag, _ in Page(answer.text).tags}


def test_an_address_that_cannot_be_asked_so_is_a_page_too(site: Site) -> None:
    answer = site.delete("/status", headers={"Accept": BROWSER})
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
    assert "This page cannot be asked for in this way." in Page(answer.text).text
