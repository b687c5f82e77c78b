"""The page of a version: what is wrong, what to do, since when; and what it says where there is no report."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, urlencode, urlsplit

import pytest
import sqlalchemy as sa

from firedalerts import ended, fired
from layerwatch.daemon.store import baselines, queue, refs, tables, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionKey
from layerwatch.daemon.web.pages.reportview import MOST_ROWS
from layerwatch.metrics.examination import ExaminedLayer
from layerwatch.metrics.findings import Severity, Verdict
from layerwatch.metrics.layers import Skipped
from layerwatch.metrics.report import Report
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    examination,
    layer,
    measurement,
    new_layer,
    numbers,
    unreadable_layer,
)
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.reports import report_of
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld
from readpages import HOSTILE, Page, holds_nothing_foreign
from sites import Site
from storedreports import reported
from storetools import NOW, finding, judged, later, registered

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def address(version: str = "v2", model: str = "m", registry: str = "r", **other: str) -> str:
    return f"/version?{urlencode({'registry': registry, 'model': model, 'version': version, **other})}"


def shown(site: Site, path: str) -> Page:
    answer = site.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


def broken(name: str = "fc2") -> ExaminedLayer:
    return layer(name, change=change(aligned=aligned(6.98, 0.998), norm_ratio=8.0))


@pytest.fixture
def scaled(rig: Rig, world: DirectoryWorld) -> Rig:
    """reg/m: v1 and v2 are healthy; v3 was quantised from v2, and fc2 has a wrong scale."""
    healthy = finetuned(network())
    world.publish("m", "v1", network())
    world.publish("m", "v2", healthy)
    lineage = b'{"parent": "v2", "relation": "quantized"}'
    world.publish("m", "v3", with_wrong_scale(finetuned(healthy, 3)), lineage=lineage)
    rig.cycle()
    return rig


def test_the_first_lines_say_which_layer_what_defect_against_what_and_how_sure(
    scaled: Rig, site: Site
) -> None:
    text = shown(site, address("v3", registry="reg")).text

    first = text[: text.index("Since when")]
    assert "fail fc2 is broken: one layer multiplied by a wrong factor." in first
    assert "same direction as the baseline" in first
    assert "Compared with m v2, the version that it declares as its parent; relation: quantized" in first
    assert "times the limit: clearly beyond it." in first
    assert "1 broken, 2 ok" in first
    assert "What to do now critical fc2: one layer multiplied by a wrong factor" in first
    assert "Do Check the scale of this layer in the export; compare it with the parent's." in first
    assert "Likely cause A quantisation scale" in first


def test_a_version_without_a_defect_says_so_and_offers_nothing_to_accept(scaled: Rig, site: Site) -> None:
    page = shown(site, address("v2", registry="reg"))

    assert "pass The version shows no defect." in page.text
    assert not [link for link in page.all("a", "href") if "action=accept" in link]
    first = shown(site, address("v1", registry="reg")).text
    assert "shows no defect that can be seen without a baseline" in first
    assert "There was no baseline" in first


def test_an_accepted_version_says_who_accepted_it_and_why_and_offers_it_no_more(
    scaled: Rig, site: Site, database: Database
) -> None:
    before = shown(site, address("v3", registry="reg"))
    assert "Serve v2 until it is mended" in before.text
    with database.write() as connection:
        baselines.accept(connection, "reg", "m", "v3", "ann <b>", "the scale was meant", NOW)
    page = shown(site, address("v3", registry="reg"))

    assert "Accepted by ann <b>, " in page.text, page.text[:900]
    assert ": the scale was meant nobody is told of findings in its weights" in page.text
    assert "Serve v2" not in page.text
    assert not [link for link in page.all("a", "href") if "action=accept" in link]


def test_the_page_leads_on_to_what_can_be_done(scaled: Rig, site: Site) -> None:
    links = shown(site, address("v3", registry="reg")).all("a", "href")
    version = urlencode({"registry": "reg", "model": "m", "version": "v3"})

    assert f"act?action=accept&{version}" in links
    assert f"act?action=rescan&{version}" in links
    assert f"alerts?silence={quote('reg/m', safe='')}#form" in links
    assert f"layer?{version}&layer=fc2" in links
    assert "explain/scaled" in links
    assert "model?registry=reg&model=m" in links
    assert f"api/v1/versions/{scaled.version('m', 'v3').id}/report" in links
    (compare,) = {link for link in links if link.startswith("compare?")}
    asked = {key: values[0] for key, values in parse_qs(urlsplit(compare).query).items()}
    a, b = ("reg", "m", "v3"), ("reg", "m", "v2")
    assert asked == {
        f"{side}_{part}": value
        for side, values in (("a", a), ("b", b))
        for part, value in zip(("registry", "model", "version"), values, strict=True)
    }
    assert not [link for link in links if link.startswith(("/", "http"))]


def test_it_says_since_which_version_and_since_when_an_alert_fires(scaled: Rig, site: Site) -> None:
    text = shown(site, address("v3", registry="reg")).text

    assert "Since v3, the first failing version; v2 was the last good one. An alert fires since" in text
    assert "firing weights of latest since" in text


def test_an_alert_that_goes_on_names_the_version_it_began_with_and_one_that_ended_the_last(
    site: Site, database: Database
) -> None:
    with database.write() as connection:
        for version in ("v3", "v4"):
            reported(connection, among_healthy(broken()), version, "fraud", "prod")
            connection.execute(
                sa.update(tables.versions)
                .where(tables.versions.c.version == version)
                .values(fingerprint=f"bytes-of-{version}")
            )
        fired(connection, version="v3", now=later(-7200))
        fired(connection, version="v4", layers=("fc1", "fc9"), now=later(-3600))
    assert "since 2025-03-01 10:00 UTC, began with v3" in shown(site, address("v4", "fraud", "prod")).text

    with database.write() as connection:
        ended(connection, fired(connection, version="v4", now=later(-60)), version="v5", now=later(-30))
    text = shown(site, address("v3", "fraud", "prod")).text
    assert "ended weights of latest since 2025-03-01 10:00 UTC, began with v3; ended" in text
    assert "with v5" in text
    links = shown(site, address("v3", "fraud", "prod")).all("a", "href")
    assert not [link for link in links if link.startswith("alerts?silence")]


def test_findings_are_told_with_their_numbers_their_limits_and_what_they_rest_on(
    site: Site, database: Database
) -> None:
    nan = layer("fc9", measurement=measurement(non_finite=3), change=None)
    with database.write() as connection:
        reported(connection, among_healthy(broken(), nan))
    text = shown(site, address()).text

    assert "measured: norm ratio 8 cosine 0.998" in text
    assert "usual here: median norm ratio 1" in text
    assert "limit: log10 0.45" in text
    assert "scaled: one layer multiplied by a wrong factor. 2.01 times the limit: clearly beyond it." in text
    assert "No matter of degree: what the rule asks for is there, or it is not." in text


def test_layers_are_ranked_by_status_and_then_by_change_and_long_tables_are_cut(
    site: Site, database: Database
) -> None:
    many = [layer(f"l{number:03}", change=change(aligned=aligned(0.001 * number))) for number in range(250)]
    found = examination(*many, broken(), unreadable_layer("dark"), has_baseline=True)
    with database.write() as connection:
        reported(connection, found)

    def names(path: str) -> list[str]:
        answer = site.get(path).text
        table = answer[answer.index('<table class="layers">') : answer.index("</table>")]
        return [parse_qs(urlsplit(link).query)["layer"][0] for link in Page(table).all("a", "href")]

    assert names(address())[:4] == ["fc2", "dark", "l249", "l248"]
    assert len(names(address())) == 200
    assert "The most conspicuous 200 of 252" in shown(site, address()).text
    assert len(names(address(all="1"))) == 252


def test_of_a_version_that_is_broken_throughout_lists_are_cut_and_say_how_much_they_leave_out(
    site: Site, database: Database
) -> None:
    count = MOST_ROWS + 30
    layers = [
        layer(f"fc{place:03}", change=change(aligned=aligned(6.98, 0.998), norm_ratio=8.0))
        for place in range(count)
    ]
    unreadable = [unreadable_layer(f"conv{place:03}") for place in range(count)]
    found = examination(*layers, *unreadable, has_baseline=True)
    with database.write() as connection:
        reported(connection, found)
    report = report_of(found)
    left_out = len(report.findings) - MOST_ROWS

    page = shown(site, address())
    assert f"What was found {len(report.findings)}" in page.text
    assert f"And {left_out} more; all of them." in page.text
    assert f"Not examined {count} could not be examined" in page.text
    assert "And 30 more; the JSON report has all." in page.text
    assert "more; all of them" not in shown(site, address(all="1")).text


def test_what_could_not_be_examined_is_loud(site: Site, database: Database) -> None:
    with database.write() as connection:
        reported(connection, among_healthy(unreadable_layer("dark"), unreadable_layer("darker")))
    text = shown(site, address()).text

    assert "undecided dark could not be examined, so this version is not known to be good." in text
    assert "Nor could 1 more layer." in text
    assert "2 could not be examined" in text
    assert "The verdict is never pass because of it. dark: could not be examined: 3 bytes are missing" in text


def test_estimates_are_told_with_their_error(site: Site, database: Database) -> None:
    sketched = aligned(6.98, 0.998, error=0.03, cosine_error=0.002, method="sketch")
    with database.write() as connection:
        reported(connection, among_healthy(layer("fc2", change=change(aligned=sketched, norm_ratio=8.0))))
    text = shown(site, address()).text

    assert "6.980 ± 0.209" in text
    assert "Its change is estimated from sketches of both weights ± 3%." in text


def test_hints_of_the_theory_are_no_verdict(site: Site, database: Database) -> None:
    untrained = numbers(alpha=9.0, alpha_sigma=0.5, num_eigenvalues=500, tail_size=200)
    layers = [
        layer(f"l{number}", shape=(500, 500), measurement=measurement(shape=(500, 500), numbers=untrained))
        for number in range(4)
    ]
    with database.write() as connection:
        reported(connection, examination(*layers, has_baseline=True))
    text = shown(site, address()).text

    assert "Hints for training theory, not a verdict" in text
    assert "under-trained" in text


def test_what_was_not_examined_by_nature_and_how_the_report_was_made_are_at_the_end(
    site: Site, database: Database
) -> None:
    report = report_of(among_healthy(), skipped=(Skipped("fc.bias", "bias: a vector has no spectrum"),))
    with database.write() as connection:
        reported(connection, report)
    text = shown(site, address()).text

    assert "What could not have been seen Weights do not know the function" in text
    assert "fc.bias bias: a vector has no spectrum" in text
    assert "Took measuring 1.50 s, judging 0.25 s" in text
    assert f"metric set {report.tool.metric_set}, rule set {report.tool.rule_set}" in text


def test_a_version_that_nobody_knows_is_a_page_with_ways_on(site: Site) -> None:
    for path in (address("v9"), address("v9", model=HOSTILE), "/version", address(fingerprint="00ff00ff")):
        answer = site.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert holds_nothing_foreign(answer.text)
        page = Page(answer.text)
        assert "has no version" in page.text
        assert "." in page.all("a", "href")


def test_a_version_that_waits_for_its_verdict_says_how_it_stands(site: Site, database: Database) -> None:
    with database.write() as connection:
        registered(connection, "v2")
    assert "no verdict It waits for its scan." in shown(site, address()).text

    with database.write() as connection:
        claimed = queue.claim_next(connection, NOW)
        assert claimed is not None
    assert "It is being scanned now." in shown(site, address()).text

    with database.write() as connection:
        queue.release(connection, claimed.id, later(60))
    text = shown(site, address()).text
    assert "Its scan was begun 1 time and did not finish. It is tried again at 12:01 UTC." in text

    with database.write() as connection:
        versions.mark_gone(connection, "r", "m", "v2", NOW)
    assert "It went away before it was scanned." in shown(site, address()).text


def test_a_version_whose_report_was_dropped_keeps_verdict_and_findings(
    site: Site, database: Database
) -> None:
    with database.write() as connection:
        record = reported(connection, among_healthy(broken()), findings=[finding(layer="fc2")])
        connection.execute(sa.update(tables.versions).values(report=None))
    text = shown(site, address()).text

    assert "fail Its report is not kept any more." in text
    assert "Scan it again for the whole report." in text
    assert "fc2: 3 of 10 rows are zero (baseline 0)" in text
    assert site.get(address()).text.count(f"api/v1/versions/{record.id}/report") == 0


def test_a_report_of_another_release_is_told_and_the_page_stands(site: Site, database: Database) -> None:
    with database.write() as connection:
        judged(connection, "v2", Verdict.WARN)
    text = shown(site, address()).text

    assert "warn Its report cannot be read." in text
    assert "3 of 10 rows are zero" in text


def test_a_version_that_is_gone_or_rescanned_or_replaced_says_so_above_its_report(
    site: Site, database: Database
) -> None:
    with database.write() as connection:
        record = reported(connection, among_healthy(broken()))
        versions.reopen(connection, record.id)
        versions.mark_gone(connection, "r", "m", "v2", later(60))
    text = shown(site, address()).text
    assert "Its registry has not listed this version since 2025-03-01 12:01 UTC." in text
    assert "This version waits for another scan." in text

    with database.write() as connection:
        registered(connection, "v2", fingerprint="00ff" * 16)
    earlier = shown(site, address(fingerprint=record.fingerprint))
    assert "Other bytes are under the name of this version now." in earlier.text
    assert "fc2 is broken" in earlier.text
    layers = [link for link in earlier.all("a", "href") if link.startswith("layer?")]
    assert layers
    assert all(parse_qs(urlsplit(link).query)["fingerprint"] == [record.fingerprint] for link in layers)
    assert "It waits for its scan." in shown(site, address()).text


@pytest.mark.parametrize("name", [HOSTILE, "a\nb\u202ec", "\U0001f4a3" * 40, "x" * 4000, "", " ", "</title>"])
def test_names_of_strangers_are_text_and_nothing_else(site: Site, database: Database, name: str) -> None:
    report = report_of(among_healthy(broken(name), unreadable_layer(f"u{name}")))
    assert report.baseline is not None
    odd = {"version": name, "name": name, "source": f"r:{name}", "chosen_by": f"history (not {name})"}
    with database.write() as connection:
        reported(
            connection,
            report,
            name,
            name,
            baseline=report.baseline.model_copy(update={**odd, "because": name}),
        )
    answer = site.get(address(name, name))

    assert answer.status_code == 200
    assert holds_nothing_foreign(answer.text)
    assert "style=" not in answer.text
    page = Page(answer.text)
    links = page.all("a", "href")
    assert not [link for link in links if urlsplit(link).scheme or link.startswith("/")]
    layers = [link for link in links if link.startswith("layer?")]
    assert layers
    assert {site.get(f"/{link}").status_code for link in layers} == {200}


def test_the_link_of_an_alert_is_a_page_for_browsers_and_json_for_everything_else(
    site: Site, database: Database
) -> None:
    with database.write() as connection:
        record = reported(connection, among_healthy(broken()))
        refs.point(connection, "r", "m", "latest", record.id, NOW)
    path = "/report?registry=r&model=m&ref=latest"

    page = site.get(path, headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "fc2 is broken" in Page(page.text).text
    assert page.headers["vary"] == "Accept"
    for accept in (
        "*/*",
        "application/json",
        "application/json, text/html;q=0.9",
        "text/html;q=0.5, */*",
        "",
    ):
        answer = site.get(path, headers={"Accept": accept})
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["vary"] == "Accept"
        assert Report.model_validate_json(answer.text).verdict is Verdict.FAIL
    assert "text/html" in site.get(path, headers={"Accept": "text/*"}).headers["content-type"]

    missing = "/report?registry=r&model=m&ref=none"
    assert site.get(missing, headers=BROWSER).status_code == 404
    assert "r/m has no ref none" in Page(site.get(missing, headers=BROWSER).text).text
    assert site.get(missing).json() == {"error": "r/m has no ref 'none'"}
    assert site.get(missing).headers["vary"] == "Accept"


def test_the_link_of_an_alert_shows_the_bytes_that_the_ref_points_at(site: Site, database: Database) -> None:
    with database.write() as connection:
        record = reported(connection, among_healthy(broken()))
        refs.point(connection, "r", "m", "latest", record.id, NOW)
        registered(connection, "v2", fingerprint="00ff" * 16)
        assert versions.current(connection, VersionKey("r", "m", "v2")) != record

    page = Page(site.get("/report?registry=r&model=m&ref=latest", headers=BROWSER).text)
    assert "fc2 is broken" in page.text


def test_a_defect_that_most_layers_share_is_one_of_the_version(site: Site, database: Database) -> None:
    with database.write() as connection:
        report = report_of(among_healthy(broken()))
        whole = report.diagnoses[0].model_copy(update={"layer": None, "layers": 7})
        reported(connection, report, diagnoses=(whole,))
    text = shown(site, address()).text

    assert "fail The version is wrong in 7 tensors: one layer multiplied by a wrong factor." in text


def test_severities_of_alerts_are_those_of_the_episode(site: Site, database: Database) -> None:
    with database.write() as connection:
        reported(connection, among_healthy(broken()), "v3", "fraud", "prod")
        state = fired(connection, version="v3", severity=Severity.WARNING, now=later(-60))
        fired(connection, version="v3", severity=Severity.CRITICAL, now=later(-30))
        ended(connection, state, now=later(-10))
    text = shown(site, address("v3", "fraud", "prod")).text
    assert "ended weights of latest" in text


def test_a_layer_without_a_counterpart_is_shown_without_numbers_of_change(
    site: Site, database: Database
) -> None:
    with database.write() as connection:
        reported(connection, among_healthy(new_layer("fresh")))
    answer = site.get(address()).text
    row = answer[answer.rindex('layer=fresh"') :]
    assert '<td data-label="Relative change" class="numeric">-</td>' in row[: row.index("</tr>")]
