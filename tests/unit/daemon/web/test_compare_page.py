"""Two versions side by side: how they are chosen without scripts, how layers are aligned, and what is said of them."""

from __future__ import annotations

from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st

from layerwatch.daemon.store import refs
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.web.pages.aligning import aligned
from layerwatch.daemon.web.pages.compareview import MOST_ROWS
from layerwatch_testing.examinations import examination, measurement, new_layer, numbers
from readpages import HOSTILE, Page, page
from sites import Site
from storedreports import measured, reported
from storetools import NOW, judged, registered


def address(a: tuple[str, str, str], b: tuple[str, str, str] = ("", "", "")) -> str:
    asked = {
        f"{side}_{field}": value
        for side, values in (("a", a), ("b", b))
        for field, value in zip(("registry", "model", "version"), values, strict=True)
        if value
    }
    return f"/compare?{urlencode(asked)}"


def chosen(found: Page, name: str) -> str:
    """The option of a select that is chosen."""
    inside, value = False, ""
    for tag, attributes in found.tags:
        if tag == "select":
            inside = attributes["name"] == name
        if tag == "option" and inside and "selected" in attributes:
            value = attributes["value"]
    return value


def kept(database: Database, version: str, model: str = "m", **alphas: float) -> None:
    """A judged version with these layers, each with its alpha, in the report and in the measurements."""
    found = {
        name: measurement(
            digest=f"{model}-{version}-{name}",
            numbers=numbers(alpha=alpha, alpha_sigma=0.3, stable_rank=alpha),
        )
        for name, alpha in alphas.items()
    }
    with database.write() as connection:
        layers = [new_layer(name, measurement=one) for name, one in found.items()]
        record = reported(connection, examination(*layers, has_baseline=False), version, model)
        measured(connection, record.fingerprint, found.items())


def test_the_empty_form_says_what_it_compares_and_that_it_judges_nothing(
    site: Site, database: Database
) -> None:
    kept(database, "v1", fc=3.0)
    found = page(site, "/compare")
    assert "No verdict is given here" in found.text
    assert found.fields == dict.fromkeys(("a_model", "a_version", "b_model", "b_version"), "")
    lists = [attributes["id"] for tag, attributes in found.tags if tag == "datalist"]
    assert lists == ["a_models", "b_models"]
    assert [
        attributes["value"] for tag, attributes in found.tags if tag == "option" and attributes["value"]
    ] == ["r", "m", "r", "m"]
    labelled = set(found.all("label", "for"))
    assert {one for tag in ("input", "select") for one in found.all(tag, "id")} <= labelled


def test_two_versions_are_shown_layer_by_layer(site: Site, database: Database) -> None:
    kept(database, "v1", fc1=3.0, fc2=2.0, old=4.0)
    kept(database, "v2", fc1=5.0, fc2=2.3, new=4.0)
    found = page(site, address(("r", "m", "v2"), ("r", "m", "v1")))
    assert "A m v2 and B m v1" in found.text
    assert "2 layers are in both, 1 only in A, 1 only in B." in found.text
    assert "Alpha of 1 of those in both differs by 3 standard errors or more." in found.text
    # The shift over the standard error of both, which is 0.42.
    assert "fc1 ok ok 5.00 ± 0.30 3.00 ± 0.30 +2.00 +4.7 5.00 3.00 1.800 1.800" in found.text
    assert "fc2 ok ok 2.30 ± 0.30 2.00 ± 0.30 +0.30 +0.7" in found.text
    assert "new only in A ok no such layer 4.00 ± 0.30 - - 4.00" in found.text
    assert "old only in B no such layer ok 4.00 ± 0.30 - -" in found.text
    links = found.all("a", "href")
    assert "layer?registry=r&model=m&version=v2&layer=fc1" in links
    assert "layer?registry=r&model=m&version=v1&layer=fc1" in links
    assert "version?registry=r&model=m&version=v1" in links
    (swapped,) = [link for link in links if link.startswith("compare?")]
    other = page(site, f"/{swapped}")
    assert "A m v1 and B m v2" in other.text
    assert "fc1 ok ok 3.00 ± 0.30 5.00 ± 0.30 -2.00 -4.7" in other.text
    assert "baseline ± standard error" in found.text


def test_models_are_aligned_although_one_was_wrapped(site: Site, database: Database) -> None:
    kept(database, "v1", "m", **{"encoder.fc1": 3.0, "encoder.fc2": 3.0, "head": 3.0})
    kept(
        database,
        "v1",
        model="wrapped",
        **{"base.model.encoder.fc1": 3.0, "base.model.encoder.fc2": 3.0, "lora": 3.0},
    )
    found = page(site, address(("r", "wrapped", "v1"), ("r", "m", "v1")))
    assert "2 layers are in both, 1 only in A, 1 only in B." in found.text
    assert "base.model.encoder.fc1 in B encoder.fc1" in found.text


def test_without_a_version_the_current_one_is_meant(site: Site, database: Database) -> None:
    kept(database, "v1", fc=3.0)
    kept(database, "v2", fc=3.0)
    with database.write() as connection:
        pointed = judged(connection, "v0")
        refs.point(connection, "r", "m", "latest", pointed.id, NOW)
    # A name that only one registry has needs none.
    found = page(site, address(("", "m", ""), ("r", "m", "v2")))
    assert chosen(found, "a_version") == "v0"
    assert chosen(found, "a_registry") == "r"
    assert chosen(found, "b_version") == "v2"
    assert "Of A there are no numbers: it was not measured yet, or they are not kept any more." in found.text


def test_a_part_of_a_name_offers_the_models_that_have_it(site: Site, database: Database) -> None:
    for model in ("fraud-a", "fraud-b", "spam"):
        kept(database, "v1", model=model, fc=3.0)
    answer = site.get(address(("", "FRAUD", ""), ("r", "spam", "v1")))
    assert answer.status_code == 404
    found = Page(answer.text)
    assert "There is no such model; these have it in their names: r/fraud-a r/fraud-b" in found.text
    link = next(link for link in found.all("a", "href") if "fraud-b" in link)
    assert "A fraud-b v1 and B spam v1" in page(site, f"/{link}").text
    nothing = Page(site.get(address(("r", "nothing", ""))).text)
    assert "There is no such model." in nothing.text


def test_a_version_that_is_not_there_is_asked_for_again(site: Site, database: Database) -> None:
    kept(database, "v1", fc=3.0)
    answer = site.get(address(("r", "m", "v9"), ("r", "m", "v1")))
    assert answer.status_code == 404
    assert "The model has no such version." in Page(answer.text).text
    assert "choose one" in Page(answer.text).text


def test_what_was_not_judged_or_examined_is_said(site: Site, database: Database) -> None:
    kept(database, "v1", fc=3.0)
    with database.write() as connection:
        record = registered(connection, "v2")
        nothing = measurement(digest="x", numbers=numbers(alpha=None, alpha_sigma=None))
        measured(connection, record.fingerprint, [("fc", nothing)])
    text = page(site, address(("r", "m", "v2"), ("r", "m", "v1"))).text
    assert "fc not judged ok - 3.00 ± 0.30 - -" in text
    assert "Alpha of 0 of those" in text


def test_of_very_many_layers_those_that_differ_most_are_shown(site: Site, database: Database) -> None:
    names = [f"fc{number:04}" for number in range(MOST_ROWS + 5)]
    kept(database, "v1", "m", **dict.fromkeys(names, 3.0))
    kept(database, "v2", "m", **{**dict.fromkeys(names, 3.0), names[-1]: 6.0})
    found = page(site, address(("r", "m", "v2"), ("r", "m", "v1")))
    assert "5 layers that differ less are not shown." in found.text
    rows = [attributes for tag, attributes in found.tags if tag == "th" and attributes.get("scope") == "row"]
    assert len(rows) == MOST_ROWS
    assert f"{names[-1]} ok ok 6.00" in found.text


def test_no_name_brings_anything_into_the_page(site: Site, database: Database) -> None:
    kept(database, HOSTILE, model=HOSTILE, **{HOSTILE: 3.0})
    kept(database, "v1", model=HOSTILE, **{f"x.{HOSTILE}": 3.0})
    for path in (
        address(("r", HOSTILE, HOSTILE), ("r", HOSTILE, "v1")),
        address(("r", HOSTILE, "nothing"), (HOSTILE, HOSTILE, HOSTILE)),
        address(("", "alert(1)", "")),
    ):
        found = Page(site.get(path).text)
        tags = {tag for tag, _ in found.tags}
        assert not tags & {"script", "img", "iframe", "style", "object"}
        assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
        assert "\u202e" not in found.text
        assert "\u2066" not in found.text
    both = page(site, address(("r", HOSTILE, HOSTILE), ("r", HOSTILE, "v1")))
    # What the form would send again is the name as it is.
    assert chosen(both, "a_version") == HOSTILE
    assert both.fields["a_model"] == HOSTILE
    assert "1 layer is in both" in both.text


def test_names_are_aligned_behind_one_prefix_of_each_model() -> None:
    first = ["model.layers.0.q", "model.layers.0.k", "model.norm", "lm_head"]
    second = ["base.layers.0.q", "base.layers.0.k", "base.norm", "classifier"]
    assert aligned(first, second) == [
        ("model.layers.0.q", "base.layers.0.q"),
        ("model.layers.0.k", "base.layers.0.k"),
        ("model.norm", "base.norm"),
        ("lm_head", None),
        (None, "classifier"),
    ]


def test_a_last_part_that_a_few_share_aligns_nothing() -> None:
    first = ["encoder.0.weight", "encoder.1.bias", "encoder.2.scale"]
    second = ["decoder.9.weight", "decoder.8.zero", "decoder.7.other"]
    assert aligned(first, second) == [*((name, None) for name in first), *((None, name) for name in second)]


_NAMES = st.lists(st.text(alphabet="ab.", max_size=5), unique=True, max_size=8)


@given(first=_NAMES, second=_NAMES)
def test_every_layer_is_in_one_pair_and_equal_names_are_together(first: list[str], second: list[str]) -> None:
    pairs = aligned(first, second)
    assert [one for one, _ in pairs if one is not None] == first
    assert sorted(other for _, other in pairs if other is not None) == sorted(second)
    assert {(name, name) for name in first if name in second} <= set(pairs)


def test_thousands_of_names_that_share_their_last_part_are_no_pairs_without_number() -> None:
    left, right = ([f"{side}{number}.weight" for number in range(5000)] for side in "tu")

    assert aligned(left, right)[0] == ("t0.weight", None)
    assert len(aligned(left, right)) == 10_000


def test_a_wrapped_network_is_recognised_among_thousands_of_layers() -> None:
    names = [f"layers.{number}.attention.weight" for number in range(2000)]

    assert aligned(names, [f"model.{name}" for name in names])[7] == (names[7], f"model.{names[7]}")
