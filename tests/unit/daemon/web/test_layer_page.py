"""The page of a layer: what was found, its numbers beside the baseline's, its pictures, and the points behind them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray

from layerwatch.alerts.payload import name
from layerwatch.daemon.store import tables
from layerwatch.daemon.store.database import Database
from layerwatch.daemon.store.records import VersionRecord
from layerwatch.daemon.web.spectrumdata import MOST_POINTS
from layerwatch.metrics.examination import MissingLayer
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.report import BaselinePart
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    examination,
    layer,
    unreadable_layer,
    vector,
)
from layerwatch_testing.plotting import gaussian, heavy_tailed, plotted
from layerwatch_testing.reports import report_of
from readpages import HOSTILE, Page, holds_nothing_foreign
from sites import Site
from storedreports import measured, reported

Weights = Mapping[str, NDArray[Any]]

OWN_SCRIPTS = ["static/vendored/uplot-1.6.32.iife.min.js", "static/spectrum.js"]


def path(page: str = "/layer", layer: str = "fc2", version: str = "v2", **other: str) -> str:
    asked = {"registry": "r", "model": "m", "version": version, "layer": layer, **other}
    return f"{page}?{urlencode(asked)}"


def shown(site: Site, address: str) -> Page:
    answer = site.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


def taken(folder: Path, weights: Weights) -> list[tuple[str, Measurement]]:
    return [
        (one.name, one.measurement)
        for one in plotted(folder, weights, shuffled=False)
        if one.measurement is not None
    ]


def pair(database: Database, folder: Path, new: Weights, old: Weights) -> tuple[VersionRecord, VersionRecord]:
    """v1, and v2 that was judged against it and whose fc2 is broken; both measured."""
    found = dict(taken(folder, new))
    layers = [
        layer(
            one,
            shape=here.shape,
            measurement=here,
            change=change(aligned=aligned(6.98, 0.998), norm_ratio=8.0) if one == "fc2" else change(),
        )
        for one, here in found.items()
    ]
    with database.write() as connection:
        before = reported(connection, examination(has_baseline=False), "v1")
        measured(connection, before.fingerprint, taken(folder, old))
        report = report_of(among_healthy(*layers))
        assert report.baseline is not None
        part = {"name": "m", "version": "v1", "fingerprint": before.fingerprint}
        record = reported(connection, report, baseline=report.baseline.model_copy(update=part))
        measured(connection, record.fingerprint, found.items())
    return before, record


def weights(scale: float = 1.0) -> Weights:
    return {"fc1.weight": gaussian(64, 48), "fc2.weight": heavy_tailed(96, 64) * np.float32(scale)}


@pytest.fixture
def broken(database: Database, tmp_path: Path) -> VersionRecord:
    return pair(database, tmp_path, weights(8.0), weights())[1]


def test_a_broken_layer_is_told_in_words_numbers_and_pictures(site: Site, broken: VersionRecord) -> None:
    page = shown(site, path())

    assert "fc2 broken linear, 96 × 64, F32" in page.text
    assert "Compared with m v1. Both weights were compared element by element." in page.text
    assert "Do Check the scale of this layer in the export; compare it with the parent's." in page.text
    assert "same direction as the baseline" in page.text
    charts = [
        attributes for tag, attributes in page.tags if tag == "svg" and "chart" in attributes["class"].split()
    ]
    assert len(charts) == 4
    for words in ("Spectral density", "CCDF", "Norms of the rows", "Norms of the columns"):
        assert words in page.text


def test_numbers_stand_beside_the_baselines_with_what_they_mean_and_where_they_are_from(
    site: Site, broken: VersionRecord, tmp_path: Path
) -> None:
    text = shown(site, path()).text
    new, old = (dict(taken(tmp_path, weights(scale)))["fc2"] for scale in (8.0, 1.0))
    assert new.numbers is not None
    assert old.numbers is not None

    alphas = [f"{one.numbers.alpha:.2f} ± {one.numbers.alpha_sigma:.2f}" for one in (new, old) if one.numbers]
    assert f"alpha {alphas[0]} {alphas[1]} exponent of the power law in the tail" in text
    assert "Martin & Mahoney 2021" in text
    norms = [f"{one.numbers.log_norm:.3g}" for one in (new, old) if one.numbers]
    assert f"log norm {norms[0]} {norms[1]} log10 of the squared Frobenius norm" in text
    ranks = [f"{one.numbers.stable_rank:.2f}" for one in (new, old) if one.numbers]
    assert f"stable rank {ranks[0]} {ranks[1]} sum of eigenvalues over the largest" in text
    assert "relative change 6.980 norm of the difference over the baseline's norm" in text


def test_layers_lead_to_those_before_and_after_them_and_to_the_picture(
    site: Site, broken: VersionRecord
) -> None:
    report = broken.report
    assert report is not None
    page = shown(site, path())
    neighbours = {
        attributes["rel"]: parse_qs(urlsplit(attributes["href"]).query)["layer"]
        for tag, attributes in page.tags
        if tag == "a" and "rel" in attributes
    }

    assert neighbours["prev"] == ["fc1"]
    assert "next" not in neighbours or neighbours["next"] != ["fc2"]
    (picture,) = [link for link in page.all("a", "href") if link.startswith("spectrum.png?")]
    answer = site.get(f"/{picture}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert "version?registry=r&model=m&version=v2" in page.all("a", "href")


def test_scripts_are_the_daemons_own_and_get_the_address_of_the_points(
    site: Site, broken: VersionRecord
) -> None:
    page = shown(site, path())

    assert page.all("script", "src") == OWN_SCRIPTS
    assert {site.get(f"/{one}").status_code for one in OWN_SCRIPTS} == {200}
    (address,) = page.all("div", "data-spectrum")
    assert site.get(f"/{address}").json()["layer"] == "fc2"
    assert len(page.all("div", "data-drawn")) == 2


def test_the_points_are_those_of_the_spectra(site: Site, broken: VersionRecord, tmp_path: Path) -> None:
    told = site.get(path("/spectrum.json")).json()
    new, old = (dict(taken(tmp_path, weights(scale)))["fc2"] for scale in (8.0, 1.0))
    assert new.spectrum is not None
    assert old.spectrum is not None
    assert new.numbers is not None

    assert (told["layer"], told["version"], told["baseline"]) == ("fc2", "v2", "v1")
    assert told["alpha"] == pytest.approx(new.numbers.alpha)
    curves = told["ccdf"]
    for side, one in (("layer", new), ("baseline", old)):
        assert one.spectrum is not None
        for x, share in list(zip(curves["x"], curves[side], strict=True))[::7]:
            expected = np.mean(one.spectrum >= np.float32(x) * (1 - 1e-4))
            assert (share or 0.0) == pytest.approx(expected, abs=1.5 / len(one.spectrum))
    shares = [share for share in curves["layer"] if share is not None]
    assert shares == sorted(shares, reverse=True)
    density = told["density"]
    assert len(density["x"]) == len(density["layer"]) == len(density["baseline"]) == len(density["fit"])
    assert all(value is None or value > 0 for name in ("layer", "fit") for value in curves[name])


def test_points_of_large_layers_are_thinned_and_the_largest_eigenvalues_stay(
    site: Site, database: Database, tmp_path: Path
) -> None:
    large = {"fc2.weight": heavy_tailed(1200, 1000)}
    pair(database, tmp_path, large, {"fc2.weight": heavy_tailed(1200, 1000, seed=1)})
    curves = site.get(path("/spectrum.json")).json()["ccdf"]
    (found,) = taken(tmp_path, large)

    assert len(curves["x"]) == MOST_POINTS
    assert curves["x"] == sorted(set(curves["x"]))
    assert found[1].spectrum is not None
    top = {float(f"{value:.9g}") for value in found[1].spectrum[-50:].astype(float)}
    assert top <= set(curves["x"])


def test_a_layer_of_the_same_bytes_has_no_second_curve(
    site: Site, database: Database, tmp_path: Path
) -> None:
    pair(database, tmp_path, weights(), weights())
    told = site.get(path("/spectrum.json", "fc1")).json()

    assert told["baseline"] is None
    assert told["ccdf"]["baseline"] is None


def test_points_that_are_not_there_are_refused_with_the_reason(
    site: Site, database: Database, tmp_path: Path
) -> None:
    pair(database, tmp_path, {"fc2.weight": np.zeros((64, 64), np.float32)}, weights())

    zero = site.get(path("/spectrum.json"))
    assert (zero.status_code, zero.json()) == (404, {"error": "fc2 has no spectrum: every element is zero."})
    assert site.get(path("/spectrum.json", "none")).status_code == 404
    assert site.get(path("/spectrum.json", fingerprint="latest")).status_code == 422
    assert "There is no spectrum to draw: Every element is zero." in shown(site, path()).text
    with database.write() as connection:
        connection.execute(sa.delete(tables.measurements))
    gone = site.get(path("/spectrum.json"))
    assert (gone.status_code, gone.json()) == (404, {"error": "the spectrum of fc2 is not kept any more"})


def test_a_layer_whose_measurements_were_dropped_keeps_its_numbers(
    site: Site, database: Database, broken: VersionRecord
) -> None:
    with database.write() as connection:
        connection.execute(sa.delete(tables.measurements))
        connection.execute(sa.delete(tables.contents))
    page = shown(site, path())

    assert "Its spectrum is not kept any more" in page.text
    assert "same direction as the baseline" in page.text
    assert "exponent of the power law in the tail" in page.text
    assert not page.all("script", "src")


def test_a_layer_that_could_not_be_examined_is_words(site: Site, database: Database) -> None:
    with database.write() as connection:
        reported(connection, among_healthy(unreadable_layer("dark")))
    page = shown(site, path(layer="dark"))

    assert "Not examined could not be examined: 3 bytes are missing" in page.text
    assert "What could not be examined is not known to be good." in page.text
    assert not page.all("script", "src")


def test_a_vector_is_words_and_numbers(site: Site, database: Database, tmp_path: Path) -> None:
    bias = np.linspace(-1, 1, 64).astype(np.float32)
    with database.write() as connection:
        record = reported(connection, among_healthy(vector("fc.bias")))
        found = [one for one in taken(tmp_path, {"fc.weight": gaussian(64, 64), "fc.bias": bias})]
        measured(connection, record.fingerprint, found)
    page = shown(site, path(layer="fc.bias"))

    assert "There is no spectrum to draw: A vector has no spectrum." in page.text
    assert "largest weight 1 largest absolute value of an element" in page.text
    assert not page.all("script", "src")


def test_a_layer_that_the_version_lacks_says_so(site: Site, database: Database) -> None:
    lacking = among_healthy(missing=(MissingLayer("lost", (64, 64)),))
    with database.write() as connection:
        reported(connection, lacking)
    text = shown(site, path(layer="lost")).text

    assert "This version has no such layer; its baseline has it." in text
    assert "lost broken missing" in text


def test_what_is_not_there_is_a_page_with_ways_on(site: Site, database: Database) -> None:
    with database.write() as connection:
        reported(connection, among_healthy(), "v2")
    for address in (path(layer="none"), path(version="v9"), path(layer=HOSTILE), "/layer"):
        answer = site.get(address)
        assert answer.status_code == 404
        assert holds_nothing_foreign(answer.text)
        assert [link for link in Page(answer.text).all("a", "href") if link.startswith("version?")]


@pytest.mark.parametrize(
    "odd",
    [HOSTILE, "a\nb\u202ec", "\U0001f4a3" * 300, "x" * 4000, " ", "</title><svg onload=x>", "a/b?c=d&e#f"],
)
def test_names_of_strangers_are_text_and_nothing_else(
    site: Site, database: Database, tmp_path: Path, odd: str
) -> None:
    ((_, one),) = taken(tmp_path, {"fc2.weight": heavy_tailed(96, 64)})
    found = among_healthy(
        layer(
            odd, measurement=one, shape=one.shape, change=change(aligned=aligned(6.98, 0.998), norm_ratio=8.0)
        )
    )
    report = report_of(found)
    assert report.baseline is not None
    baseline = BaselinePart(**{**report.baseline.model_dump(), "name": odd, "version": odd})
    with database.write() as connection:
        record = reported(connection, report, baseline=baseline)
        measured(connection, record.fingerprint, [(odd, one)])
    # As the page of the version links to it, and as an alert does.
    version = Page(site.get("/version?registry=r&model=m&version=v2").text)
    (link,) = {one for one in version.all("a", "href") if one.startswith("layer?")} - others(version, odd)
    for address in (f"/{link}", path(layer=name(odd))):
        answer = site.get(address)
        assert answer.status_code == 200
        page = Page(answer.text)
        assert page.all("script", "src") == OWN_SCRIPTS
        assert holds_nothing_foreign(answer.text.replace("<script src=", "<link data-script="))
        assert "style=" not in answer.text
        links = page.all("a", "href")
        assert not [one for one in links if urlsplit(one).scheme or one.startswith("/")]
        (data,) = page.all("div", "data-spectrum")
        assert site.get(f"/{data}").status_code == 200


def others(version: Page, odd: str) -> set[str]:
    """Links to the layers that are called otherwise."""
    return {
        one
        for one in version.all("a", "href")
        if one.startswith("layer?")
        and parse_qs(urlsplit(one).query, keep_blank_values=True)["layer"][0] not in (odd, name(odd))
    }
