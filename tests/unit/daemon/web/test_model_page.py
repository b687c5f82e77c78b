"""The page of a model: how it is now, where its versions come from, since when what moved."""

from __future__ import annotations

from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import sqlalchemy as sa

from firedalerts import fired
from layerwatch.alerts.silences import new_silence
from layerwatch.config.matchers import parsed
from layerwatch.daemon.registries.base import DeclaredLineage
from layerwatch.daemon.store import baselines, lineage, queue, refs, retention, silences, tables, versions
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.lineage import WEIGHTS, LineageEdge
from layerwatch.daemon.store.records import Lineage
from layerwatch.daemon.web.pages.model import PER_PAGE
from layerwatch.daemon.web.pages.modelpictures import HEAT_LAYERS, HEAT_VERSIONS
from layerwatch.daemon.web.pages.modelview import MOST_CHANGES
from layerwatch.metrics.findings import Verdict
from layerwatch.metrics.relation import Relation
from layerwatch.metrics.report import BaselinePart
from layerwatch_testing.examinations import (
    aligned,
    change,
    examination,
    layer,
    measurement,
    new_layer,
    numbers,
)
from layerwatch_testing.networks import finetuned, network, with_wrong_scale
from layerwatch_testing.rigs import Rig
from layerwatch_testing.worlds.directory import DirectoryWorld
from readpages import HOSTILE, Page, holds_nothing_foreign, page
from sites import Site
from storedreports import measured, reported
from storetools import NOW, finding, judged, later, registered
from verdicts import critical, judge


def address(model: str = "m", registry: str = "r", **other: str) -> str:
    return f"/model?{urlencode({'registry': registry, 'model': model, **other})}"


def timeline(found: Page) -> str:
    """The text of the table of versions."""
    begin = found.text.index("Version Verdict Worst")
    return found.text[begin : found.text.index("The same as data", begin)]


def titles(found: Page) -> list[str]:
    """What the pictures are called, in order."""
    known = (
        "Alpha of every layer, in the order of the file, over its baseline's",
        "Alpha of every layer in the last versions",
        "Relative change of every layer from the baseline of each version",
        "Status of every layer in the last versions",
        "Where the versions come from",
    )
    return sorted((one for one in known if one in found.text), key=found.text.index)


def parent(version: str) -> BaselinePart:
    """A version of the same model as baseline, as it is registered in these tests."""
    return BaselinePart(
        source="r:/models/m",
        name="m",
        version=version,
        fingerprint=f"bytes-of-r-m-{version}",
        format="safetensors",
        size_bytes=1,
        relation="finetuned",
        chosen_by="parent",
    )


@pytest.fixture
def scaled(rig: Rig, world: DirectoryWorld) -> Rig:
    """reg/m: v1 and v2 are healthy; v3 was quantised from v2, and fc2 has a wrong scale."""
    healthy = finetuned(network())
    world.publish("m", "v1", network())
    world.publish("m", "v2", healthy)
    declared = b'{"parent": "v2", "relation": "quantized"}'
    world.publish("m", "v3", with_wrong_scale(finetuned(healthy, 3)), lineage=declared)
    rig.cycle()
    return rig


def test_after_real_scans_the_page_says_what_broke_and_since_when(scaled: Rig, site: Site) -> None:
    found = page(site, address(registry="reg"))
    first = found.text[: found.text.index("What changed since v2")]
    assert "fail v3: fc2 is broken: one layer multiplied by a wrong factor." in first
    assert "same direction as the baseline" in first
    assert "Compared with m v2, the version that it declares as its parent; relation: quantized" in first
    assert "1 broken, 2 ok" in first
    assert "Refs latest → v3" in first
    assert "firing weights of latest since" in first
    links = found.all("a", "href")
    named = "registry=reg&model=m&version=v3"
    assert f"version?{named}" in links
    assert f"layer?{named}&layer=fc2" in links
    assert f"act?action=accept&{named}" in links
    assert f"act?action=rescan&{named}" in links
    assert "alerts?silence=reg%2Fm#form" in links
    sides = {"a_registry": "reg", "a_model": "m", "a_version": "v3"}
    sides |= {"b_registry": "reg", "b_model": "m", "b_version": "v2"}
    assert f"compare?{urlencode(sides)}" in links
    # fc2 changed most.
    changed = found.text[found.text.index("Layer Status Relative change") :]
    assert changed.index("fc2 broken") < changed.index("fc1 ok")
    rows = timeline(found)
    assert rows.index("v3 current fail fc2 ") < rows.index("v2 pass") < rows.index("v1 pass")
    assert "1 broken" in rows
    assert "quantized from v2" in rows
    assert titles(found) == [
        "Alpha of every layer, in the order of the file, over its baseline's",
        "Alpha of every layer in the last versions",
        "Where the versions come from",
    ]
    assert "Hints for training theory, not a verdict" in found.text


def test_a_model_that_is_not_there_says_so_and_leads_on(site: Site) -> None:
    answer = site.get(address("nothing"))
    assert answer.status_code == 404
    found = Page(answer.text)
    assert "There is no model 'nothing' in a registry 'r'." in found.text
    assert "." in found.all("a", "href")
    assert site.get("/model").status_code == 404


def test_a_version_that_passed_says_so_and_offers_nothing_to_accept(site: Site, database: Database) -> None:
    with database.write() as connection:
        reported(connection, examination(layer("fc1")), "v1")
    found = page(site, address())
    assert "pass v1 shows no defect." in found.text
    assert "Alerts none fires" in found.text
    assert not [link for link in found.all("a", "href") if "accept" in link or "silence" in link]


def test_before_the_first_verdict_the_page_says_what_it_waits_for(site: Site, database: Database) -> None:
    with database.write() as connection:
        registered(connection, "v1")
    assert "not judged v1 waits for its scan; nothing was judged before it." in page(site, address()).text
    with database.write() as connection:
        queue.claim_next(connection, NOW)
    found = page(site, address())
    assert "v1 is being scanned; nothing was judged before it." in found.text
    assert "not judged is being scanned" in timeline(found)
    assert "Refs none" in found.text


def test_a_version_whose_report_is_not_kept_still_says_what_was_worst(site: Site, database: Database) -> None:
    with database.write() as connection:
        for version in ("v1", "v2"):
            judge(connection, version, critical("fc1"))
        old = versions.list_versions(connection)[-1]
        connection.execute(sa.update(tables.versions).values(report=None))
        refs.point(connection, "r", "m", "latest", old.id, NOW)
    found = page(site, address())
    assert "fail v1: fc1 was the worst layer. norm ratio 8.0" in found.text


def test_a_report_that_cannot_be_read_does_not_hide_the_model(site: Site, database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v1", critical("fc1"))
    assert "fail v1: fc1 was the worst layer." in page(site, address()).text


def test_a_model_that_its_registry_lost_is_remembered(site: Site, database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v1", critical("fc1"))
        versions.mark_gone(connection, "r", "m", "v1", NOW)
    found = page(site, address())
    assert "Its registry offers no version of this model any more." in found.text
    assert "v1 gone fail fc1 norm ratio 8.0" in timeline(found)
    assert not [link for link in found.all("a", "href") if link.startswith("act?")]


def test_what_a_person_accepted_is_said_and_not_offered_again(site: Site, database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v1", critical())
        baselines.accept(connection, "r", "m", "v1", "ann", "meant", NOW)
    found = page(site, address())
    assert "Accepted A person called this version normal." in found.text
    assert "Next baseline v1, accepted by ann" in found.text
    assert not [link for link in found.all("a", "href") if "action=accept" in link]


def test_alerts_that_are_silenced_or_looked_after_say_so(site: Site, database: Database) -> None:
    with database.write() as connection:
        judge(connection, "v3", critical())
        fired(connection, "r/m", now=later(-3600))
        fired(connection, "r/other")
        new = new_silence(parsed(["model=m"]), "bob", "planned", NOW, later(7200))
        silences.add(connection, new, NOW)
    text = page(site, address()).text
    assert "silenced weights of latest since 2025-03-01 11:00 UTC; silence 1 by bob: planned" in text


def test_what_changed_lists_the_layers_that_moved_most_and_counts_the_others(
    site: Site, database: Database
) -> None:
    moved = [
        layer(f"fc{number:02}", change=change(aligned=aligned(number / 100), alpha_shift=0.5))
        for number in range(MOST_CHANGES + 3)
    ]
    with database.write() as connection:
        old = registered(connection, "v1")
        record = reported(connection, examination(*moved), "v2", baseline=parent("v1"))
        stored = [("fc01", measurement(digest="1")), ("gone<b>", measurement(digest="2"))]
        measured(connection, old.fingerprint, stored)
        stored = [("fc01", measurement(digest="3", dtype="I8")), ("new", measurement(digest="4"))]
        measured(connection, record.fingerprint, stored)
    found = page(site, address())
    text = found.text[found.text.index("What changed since v1") : found.text.index("Alpha by depth")]
    assert "fc14 ok 0.140 3.00 ± 0.40" in text
    assert "fc03 ok 0.030" in text
    assert "fc02 " not in text
    assert "2 more layers changed less" in text
    assert "1 layer has the same weights as before." in text
    assert "1 tensor is stored as I8 instead of F32." in text
    assert "New: new." in text
    assert "Gone: gone<b>." in text


def test_without_a_baseline_nothing_is_said_to_have_changed(site: Site, database: Database) -> None:
    with database.write() as connection:
        reported(connection, examination(new_layer("fc1"), has_baseline=False), "v1")
    found = page(site, address())
    assert "What changed" not in found.text
    assert "Compared with" not in found.text
    assert not [link for link in found.all("a", "href") if link.startswith("compare?")]
    assert "Alpha by depth" in found.text


def test_baselines_have_their_standard_error_in_the_picture(site: Site, database: Database) -> None:
    with database.write() as connection:
        reported(connection, examination(layer("fc1"), layer("fc2")), "v1", baseline=None)
        reported(connection, examination(layer("fc1"), layer("fc2")), "v2", baseline=parent("v1"))
    assert "baseline ± standard error" in page(site, address()).text


def test_the_heatmap_shows_what_is_asked_for(site: Site, database: Database) -> None:
    with database.write() as connection:
        for number in range(HEAT_VERSIONS + 2):
            reported(connection, examination(layer("fc1"), layer("fc2")), f"v{number}")
    found = page(site, address())
    heats = [link for link in found.all("a", "href") if "heat=" in link]
    assert [parse_qs(urlsplit(link).query)["heat"] for link in heats] == [
        ["alpha"],
        ["relative_change"],
        ["status"],
    ]
    assert all(link.endswith("#heat") for link in heats)
    assert "Alpha of every layer in the last versions" in titles(found)
    assert f"version=v{HEAT_VERSIONS + 1}&layer=fc2" in " ".join(found.all("a", "href"))
    # The oldest ones are too many.
    assert "version=v1&layer=fc2" not in " ".join(found.all("a", "href"))
    changed = page(site, address(heat="relative_change"))
    assert "Relative change of every layer from the baseline of each version" in titles(changed)
    assert "Status of every layer in the last versions" in titles(page(site, address(heat="status")))
    assert "Alpha of every layer in the last versions" in titles(page(site, address(heat=HOSTILE)))


def test_of_very_many_layers_the_heatmap_shows_the_most_conspicuous(site: Site, database: Database) -> None:
    names = [f"fc{number:04}" for number in range(HEAT_LAYERS + 40)]
    quiet = [layer(name, change=change(aligned=aligned(0.01))) for name in names]
    moved = dict(zip(names, quiet, strict=True))
    moved["fc0230"] = layer("fc0230", change=change(aligned=aligned(0.3)))
    moved["fc0239"] = layer("fc0239", measurement=measurement(non_finite=3))
    with database.write() as connection:
        reported(connection, examination(*moved.values()), "v1")
    text = page(site, address()).text
    assert "The 40 least conspicuous layers are not shown." in text
    heat = text[text.index("Layers over versions") :]
    assert "fc0230" in heat
    assert "fc0239" in heat
    assert "fc0199" not in heat


def test_the_timeline_has_every_revision_a_page_at_a_time(site: Site, database: Database) -> None:
    with database.write() as connection:
        for number in range(PER_PAGE + 2):
            judge(connection, f"v{number}")
        registered(connection, "v3", fingerprint="new bytes")
    found = page(site, address())
    total = PER_PAGE + 3
    assert f"m {total} revisions" in found.text
    assert timeline(found).index(f"v{PER_PAGE + 1} current") < timeline(found).index("v4 pass")
    (link,) = [
        attributes["href"] for tag, attributes in found.tags if tag == "a" and attributes.get("rel") == "next"
    ]
    assert link == "model?registry=r&model=m&page=2#versions"
    second = timeline(page(site, address(page="2")))
    assert "v1 pass" in second
    assert "v4" not in second
    assert page(site, address(page="77")).text == page(site, address(page="2")).text
    third = timeline(found)
    assert third.index("v3 not judged waits for a scan") < third.index("v3 replaced pass")
    replaced = [link for link in found.all("a", "href") if "fingerprint=bytes-of-r-m-v3" in link]
    assert replaced


def test_where_versions_come_from_is_declared_or_found(site: Site, database: Database) -> None:
    with database.write() as connection:
        first = judge(connection, "v1")
        judge(connection, "v2", lineage=Lineage("v1", "finetuned", "card", 0.9))
        third = judge(connection, "v3")
        merged = judge(connection, "v4", lineage=Lineage("v2", "merged", "card", 0.9))
        declared = (DeclaredLineage("v2", Relation.MERGED, "card"), DeclaredLineage("v3", None, "tag"))
        lineage.save_declared(connection, merged.id, declared, NOW)
        seen = LineageEdge("r/m/v1", first.id, None, WEIGHTS, 0.9)
        unsure = LineageEdge("hub/base/v9", None, None, WEIGHTS, 0.3)
        lineage.save_found(connection, third.id, (unsure, seen), NOW)
    found = page(site, address())
    rows = timeline(found)
    assert "merged from v2 and 1 more" in rows
    assert "finetuned from v1" in rows
    assert "from r/m/v1 found in the weights" in rows
    assert "hub/base" not in rows
    assert "Where the versions come from" in titles(found)


def test_other_versions_can_be_held_against_the_current_one(site: Site, database: Database) -> None:
    with database.write() as connection:
        for version in ("v1", "v2"):
            judge(connection, version)
        registered(connection, "v3")
    (link,) = [link for link in page(site, address()).all("a", "href") if link.startswith("compare?")]
    asked = parse_qs(urlsplit(link).query)
    assert (asked["a_version"], asked["b_version"]) == (["v2"], ["v1"])


def test_hints_about_retraining_leave_out_fits_that_deserve_no_trust(site: Site, database: Database) -> None:
    with database.write() as connection:
        for fit in ("ok", "poor_fit"):
            found = measurement(numbers=numbers(fit_status=fit))
            layers = [layer(f"fc{number}", measurement=found) for number in range(4)]
            for version in ("v1", "v2", "v3"):
                reported(connection, examination(*layers), version, model=fit)
    assert "4 of 4 layers can be followed" in page(site, address("ok")).text
    assert "0 of 0 layers can be followed" in page(site, address("poor_fit")).text


def test_what_retention_dropped_leaves_no_hole_in_the_page(site: Site, database: Database) -> None:
    with database.write() as connection:
        for number in range(4):
            reported(connection, examination(layer("fc1")), f"v{number}")
        retention.prune(connection, 1, NOW)
    found = page(site, address())
    assert "v0 pass 3.00" in timeline(found)
    assert "version=v0&layer" not in " ".join(found.all("a", "href"))


def test_no_name_brings_anything_into_the_page(site: Site, database: Database) -> None:
    bad = layer(HOSTILE, measurement=measurement(non_finite=3), dtype=HOSTILE)
    baseline = parent("v1").model_copy(
        update={"name": HOSTILE, "version": HOSTILE, "relation": HOSTILE, "source": HOSTILE}
    )
    with database.write() as connection:
        old = judged(connection, "v1", model=HOSTILE)
        record = reported(
            connection,
            examination(bad),
            HOSTILE,
            HOSTILE,
            findings=[finding(layer=HOSTILE)],
            baseline=baseline.model_copy(update={"fingerprint": old.fingerprint}),
        )
        measured(connection, old.fingerprint, [(f"{HOSTILE}1", measurement(digest="1"))])
        measured(connection, record.fingerprint, [(f"{HOSTILE}2", measurement(digest="2", dtype=HOSTILE))])
        declared = (DeclaredLineage(HOSTILE, None, "card"),)
        lineage.save_declared(connection, record.id, declared, NOW)
        refs.point(connection, "r", HOSTILE, HOSTILE, record.id, NOW)
        fired(connection, f"r/{HOSTILE}", ref=HOSTILE, layers=[HOSTILE])
        baselines.accept(connection, "r", HOSTILE, HOSTILE, HOSTILE, HOSTILE, NOW)
        judged(connection, "", Verdict.WARN, model="")
    for path in (address(HOSTILE), address(HOSTILE, heat="status"), address("")):
        answer = site.get(path)
        assert answer.status_code == 200
        assert holds_nothing_foreign(answer.text)
        assert not [link for link in Page(answer.text).all("a", "href") if link.startswith(("/", "java"))]
    assert holds_nothing_foreign(site.get(address(HOSTILE, registry=HOSTILE)).text)
