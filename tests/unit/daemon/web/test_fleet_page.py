"""The fleet: every model, the worst first; found, filtered and sorted with scripts and without."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from firedalerts import fired
from layerwatch.alerts.silences import new_silence
from layerwatch.config.loading import load_settings
from layerwatch.config.matchers import parsed
from layerwatch.daemon.store import baselines, refs, silences
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.web.pages.fleet import PER_PAGE
from layerwatch.metrics.findings import Finding, RuleGroup, Severity, Verdict
from layerwatch_testing.daemons import directory, write_config
from layerwatch_testing.examinations import examination, layer
from readpages import HOSTILE, Page, page
from sites import Site
from storedreports import reported
from storetools import NOW, judged, later, registered
from verdicts import critical, judge, warning

HTMX = "static/vendored/htmx-2.0.11.min.js"


def models(found: Page) -> list[str]:
    """The models of the rows, as their links name them."""
    links = [urlsplit(link) for link in found.all("a", "href")]
    return [
        parse_qs(link.query, keep_blank_values=True)["model"][0] for link in links if link.path == "model"
    ]


def row_of(found: Page, model: str) -> str:
    """The text of a row: from the model's name to the next row's, or to the end of the table."""
    begin = found.text.index(f" {model} ", found.text.index("Alerts", found.text.index("Mean alpha")))
    rest = found.text[begin:]
    others = [rest.find(f" {other} ", 1) for other in models(found) if other != model]
    return rest[: min([place for place in [*others, rest.find("For machines")] if place > 0])]


def test_an_empty_store_says_what_to_do_first(site: Site) -> None:
    found = page(site, "/")
    assert "Nothing is watched yet" in found.text
    assert "registries: - {name: local, kind: directory, path: ./models}" in found.text
    assert "layerwatch demo" in found.text
    assert not found.all("form", "action")


def test_before_anything_is_found_the_page_says_where_is_looked(site: Site, tmp_path: Path) -> None:
    config = write_config(tmp_path / "other.yaml", directory("local", tmp_path / "models"))
    site.settings = load_settings(config, {})
    found = page(site, "/")
    assert "Nothing was found yet" in found.text
    assert "local directory" in found.text
    assert "status" in found.all("a", "href")


def test_the_worst_model_comes_first_with_its_worst_layer_in_words(site: Site, database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v7", model="good")
        judge(connection, "v3", warning("fc9"), verdict=Verdict.WARN, model="odd")
        judge(connection, "v2", critical("fc1"), model="bad")
        judge(connection, "v1", verdict=Verdict.UNDECIDED, model="unseen")
        registered(connection, "v1", model="new")
    found = page(site, "/")
    assert models(found) == ["bad", "unseen", "odd", "new", "good"]
    assert "Fleet 5 models" in found.text
    bad = row_of(found, "bad")
    assert "fail v2" in bad
    assert "fc1 norm ratio 8.0" in bad
    assert "r, 1 version" in bad
    assert "2025-03-01 12:00 UTC less than a minute ago" in bad
    assert "warn v3 fc9 3 rows are zero" in row_of(found, "odd")
    assert "not judged v1 not yet" in row_of(found, "new")
    assert "version?registry=r&model=bad&version=v2" in found.all("a", "href")
    assert "layer?registry=r&model=bad&version=v2&layer=fc1" in found.all("a", "href")


def test_verdicts_are_counted_and_each_count_filters(site: Site, database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v1", critical(), model="bad-a")
        judge(connection, "v1", critical(), model="bad-b")
        judge(connection, "v1", model="good-a")
        registered(connection, "v1", model="new-a")
    found = page(site, "/?q=-A&sort=name")
    assert "all 3 fail 1 undecided 0 warn 0 not judged yet 1 pass 1" in found.text
    links = [link for link in found.all("a", "href") if link.startswith(".?")]
    assert ".?q=-A&verdict=fail&sort=name" in links
    filtered = page(site, "/?q=-A&verdict=fail&sort=name")
    assert models(filtered) == ["bad-a"]
    # What is chosen beside the verdict stays, and the other way round.
    assert "all 3 fail 1" in filtered.text
    assert filtered.fields["verdict"] == "fail"
    assert filtered.fields["q"] == "-A"
    assert models(page(site, "/?verdict=none")) == ["new-a"]


def test_a_search_finds_a_part_of_registry_and_model_in_any_case(site: Site, database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v1", model="Fraud-Detector")
        judge(connection, "v1", model="spam")
        judged(connection, "v1", model="spam", registry="fraudulent")
    assert sorted(models(page(site, "/?q=FRAUD"))) == ["Fraud-Detector", "spam"]
    assert models(page(site, "/?q=R%2Fspam")) == ["spam"]
    assert models(page(site, "/?q=spam&registry=fraudulent")) == ["spam"]
    nothing = page(site, "/?q=%25")
    assert models(nothing) == []
    assert "No model is like that. Show all models" in nothing.text


def test_models_are_sorted_by_name_and_by_their_last_scan(site: Site, database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v1", model="b", now=later(-60))
        judged(connection, "v1", model="a", now=later(-30))
        judged(connection, "v1", model="c", now=later(-90))
        registered(connection, "v1", model="waits")
    assert models(page(site, "/?sort=name")) == ["a", "b", "c", "waits"]
    assert models(page(site, "/?sort=scanned")) == ["a", "b", "c", "waits"]
    chosen = Page(site.get("/?sort=scanned").text)
    assert [
        attributes["value"]
        for tag, attributes in chosen.tags
        if tag == "option"
        and "selected" in attributes
        and attributes["value"] in ("worst", "name", "scanned")
    ] == ["scanned"]


def test_more_models_than_fit_on_a_page_are_on_the_next(site: Site, database: Database) -> None:
    names = [f"m{number:03}" for number in range(PER_PAGE + 3)]
    with database.write() as connection:
        for name in names:
            judge(connection, "v1", model=name)
    first = page(site, "/?sort=name&q=m")
    assert models(first) == names[:PER_PAGE]
    assert "Page 1 of 2 Next" in first.text
    (link,) = [
        attributes["href"] for tag, attributes in first.tags if tag == "a" and attributes.get("rel") == "next"
    ]
    assert link == ".?q=m&sort=name&page=2"
    second = page(site, f"/{link.removeprefix('.')}")
    assert models(second) == names[PER_PAGE:]
    assert "Previous Page 2 of 2" in second.text
    # Whoever asks for what is not there gets the last page.
    for beyond in ("3", "99999999", "x", "-1", "0", "９"):
        asked = page(site, f"/?{urlencode({'sort': 'name', 'page': beyond})}")
        assert models(asked) in (names[PER_PAGE:], names[:PER_PAGE])
    assert models(page(site, "/?page=3&sort=name")) == names[PER_PAGE:]


def test_the_line_of_a_row_shows_mean_alpha_of_the_last_versions(site: Site, database: Database) -> None:
    with database.write() as connection:
        for version in ("v1", "v2"):
            reported(connection, examination(layer("fc1")), version)
        judge(connection, "v1", model="without")
    found = page(site, "/")
    assert found.all("svg", "aria-label") == ["mean alpha of m over its last versions"]
    assert "first 3, last 3" in found.text


def test_the_version_that_a_ref_points_at_counts(site: Site, database: Database) -> None:
    with database.write() as connection:
        old = judge(connection, "v1", critical(), model="m")
        judge(connection, "v2", model="m")
        refs.point(connection, "r", "m", "latest", old.id, NOW)
    assert "fail v1" in row_of(page(site, "/"), "m")
    with database.write() as connection:
        # The ref moves once the new bytes are judged; until then it means the old ones.
        registered(connection, "v1", fingerprint="new")
    found = page(site, "/")
    assert "fail v1" in row_of(found, "m")
    (link,) = [one for one in found.all("a", "href") if one.startswith("version?")]
    assert parse_qs(urlsplit(link).query)["fingerprint"] == [old.fingerprint]


def test_alerts_that_fire_and_those_that_are_silenced_are_told_apart(site: Site, database: Database) -> None:
    with database.write() as connection:
        for model in ("loud", "half", "silent", "calm"):
            judge(connection, "v3", critical(), model=model)
        fired(connection, "r/loud")
        fired(connection, "r/half", ref="champion")
        fired(connection, "r/half", severity=Severity.WARNING)
        fired(connection, "r/silent")
        fired(connection, "elsewhere/calm")
        for matchers in (["model=silent"], ["model=half", "ref=champion"]):
            new = new_silence(parsed(matchers), "bob", "planned", NOW, later(7200))
            silences.add(connection, new, NOW)
    found = page(site, "/")
    assert row_of(found, "loud").endswith("firing")
    assert row_of(found, "half").endswith("2 firing 1 silenced")
    assert "silenced silence 1 by bob: planned" in row_of(found, "silent")
    assert "firing" not in row_of(found, "silent")
    assert "firing" not in row_of(found, "calm")


def test_a_version_that_a_person_accepted_says_so(site: Site, database: Database) -> None:
    with database.write() as connection:
        for model in ("one", "two", "three", "four"):
            judge(connection, "v1", critical(), model=model)
        baselines.accept(connection, "r", "one", "v1", "ann", "meant", NOW)
        baselines.pin(connection, "r", "two", "v1", "ann", "meant", NOW)
        baselines.pin(connection, "r", "three", "v1", "ann", "meant", NOW)
        baselines.unpin(connection, "r", "three", "ann", "not meant", NOW)
        # Another version's word is not this one's.
        judge(connection, "v0", model="four")
        baselines.accept(connection, "r", "four", "v0", "ann", "meant", NOW)
    found = page(site, "/")
    said = {model: "v1, accepted" in row_of(found, model) for model in models(found)}
    assert said == {"one": True, "two": True, "three": False, "four": False}


def test_search_as_one_types_swaps_only_the_rows(site: Site, database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v1", model="fraud")
        judge(connection, "v1", model="spam")
    whole = page(site, "/")
    (form,) = [attributes for tag, attributes in whole.tags if tag == "form"]
    assert form["hx-get"] == form["action"] == "."
    assert form["hx-target"] == "#models"
    assert form["hx-push-url"] == "true"
    assert whole.all("script", "src") == [HTMX]
    assert site.get(f"/{HTMX}").status_code == 200
    (live,) = [attributes for tag, attributes in whole.tags if attributes.get("role") == "status"]
    assert live["id"] == "count"

    part = site.get("/?q=fra", headers={"HX-Request": "true"})
    found = Page(part.text)
    assert models(found) == ["fraud"]
    assert not {"html", "form", "input", "script"} & {tag for tag, _ in found.tags}
    assert ("div", {"id": "models"}) in found.tags
    assert ("p", {"id": "count", "hx-swap-oob": "innerHTML"}) in found.tags
    assert found.text.startswith("1 model all 1")
    # Going back in the history asks for the whole page.
    back = {"HX-Request": "true", "HX-History-Restore-Request": "true"}
    assert "<html" in site.get("/?q=fra", headers=back).text


def test_no_name_brings_anything_into_the_page(site: Site, database: Database) -> None:
    hostile = Finding("nan", RuleGroup.WEIGHTS, Severity.CRITICAL, HOSTILE, HOSTILE)
    with database.write() as connection:
        judge(connection, HOSTILE, hostile, model=HOSTILE)
        judged(connection, "v1", model="fine", registry=HOSTILE)
        judge(connection, "", critical(""), model="")
        fired(connection, f"r/{HOSTILE}", layers=[HOSTILE])
        new = new_silence(parsed(["registry=r"]), HOSTILE, HOSTILE, NOW, later(7200))
        silences.add(connection, new, NOW)
    for path in ("/", f"/?{urlencode({'q': HOSTILE, 'registry': HOSTILE, 'verdict': HOSTILE})}"):
        answer = site.get(path)
        found = Page(answer.text)
        assert found.all("script", "src") == [HTMX]
        tags = [tag for tag, _ in found.tags]
        assert tags.count("script") == 1
        assert not {"img", "iframe", "style", "object"} & set(tags)
        assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
        assert "\u202e" not in found.text
        assert "\u2066" not in found.text
        assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert HOSTILE in models(page(site, "/"))
    assert "(no name)" in page(site, "/").text


def test_machines_find_their_addresses_at_the_bottom(site: Site) -> None:
    links = page(site, "/").all("a", "href")
    assert {"metrics", "-/healthy", "-/ready", "api/v1/models", "api/v1/silences", "api/openapi.json"} <= set(
        links
    )
    # Behind a proxy with a prefix, all of them still work.
    assert not [link for link in links if link.startswith(("/", "http"))]
