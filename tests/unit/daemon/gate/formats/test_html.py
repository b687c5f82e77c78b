"""HTML: one file with everything in it, which loads nothing, runs nothing and shows foreign names as text."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given

from layerwatch.daemon.gate.formats.html import to_html
from layerwatch.daemon.gate.formats.rendering import Rendering, Spectra
from layerwatch.daemon.gate.ignorefile import IgnoreFile
from layerwatch.daemon.gate.outcome import GatePolicy, decided
from layerwatch.daemon.web.pages.document import MOST_PICTURED
from layerwatch.metrics.measurement import Measurement
from layerwatch.metrics.report import Report
from layerwatch_testing.examinations import (
    aligned,
    among_healthy,
    change,
    examination,
    layer,
    unreadable_layer,
)
from layerwatch_testing.gating import TODAY, broken, entry
from layerwatch_testing.plotting import heavy_tailed, measured
from layerwatch_testing.reports import report_of
from layerwatch_testing.reportstrategies import REPORTS
from wholedocuments import assert_whole


def scaled(name: str = "fc2") -> Report:
    wrong = layer(name, change=change(aligned=aligned(6.98, 0.998), norm_ratio=8.0))
    return report_of(among_healthy(wrong, unreadable_layer("dark")))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    return measured(tmp_path_factory.mktemp("layer"), heavy_tailed(96, 64), shuffled=False)


def test_it_says_in_one_file_what_the_page_of_the_daemon_says(one: Measurement) -> None:
    spectra: Spectra = lambda name: (one, one) if name == "fc2" else (None, None)
    found = assert_whole(to_html(scaled(), Rendering(spectra=spectra)))

    assert "fail fc2 is broken: one layer multiplied by a wrong factor." in found.text
    assert "Compared with v2" in found.text
    assert "Do Check the scale of this layer in the export" in found.text
    assert "Alpha by depth" in found.text
    assert "measured: norm ratio 8 cosine 0.998" in found.text
    assert "dark: could not be examined: 3 bytes are missing" in found.text
    assert "It was not measured, so there is nothing to draw." in found.text
    assert "Weights do not know the function" in found.text
    assert "What the rules mean scaled: one layer multiplied by a wrong factor" in found.text
    for words in ("Spectral density", "CCDF", "Norms of the rows", "Norms of the columns"):
        assert words in found.text


def test_links_lead_to_the_pictures_and_to_what_the_rules_mean(one: Measurement) -> None:
    found = assert_whole(to_html(scaled(), Rendering(spectra=lambda name: (one, None))))
    links = {attributes["href"] for attributes in found.named("a")}

    assert {"#layer-1", "#rule-scaled", "#undecided"} <= links


def test_without_spectra_it_says_why_there_are_no_pictures() -> None:
    found = assert_whole(to_html(scaled(), Rendering()))

    assert "made from a stored report, which holds no spectra" in found.text
    assert "Spectral density" not in found.text
    assert "fc2 is broken" in found.text


def test_of_many_layers_the_most_conspicuous_have_pictures(one: Measurement) -> None:
    layers = [layer(f"l{place}", change=change(aligned=aligned(0.001 * place))) for place in range(90)]
    report = report_of(examination(*layers, broken("bad")))
    found = assert_whole(to_html(report, Rendering(spectra=lambda name: (one, None))))

    blocks = [one for one in found.named("article") if one.get("class") == "layer-block"]
    assert len(blocks) == MOST_PICTURED
    assert f"Pictures of the {MOST_PICTURED} most conspicuous layers; 31 more layers without" in found.text
    pictured = found.text[found.text.index("31 more layers without") :]
    assert pictured.index("bad broken") < pictured.index("l89 ok") < pictured.index("l88 ok")
    assert "l5 ok" not in pictured


def test_the_answer_of_the_gate_and_what_is_suppressed_are_told(one: Measurement) -> None:
    ignores = IgnoreFile("ignore.yaml", "00" * 32, (entry(layer="fc"), entry(layer="gone")))
    report = decided(report_of(among_healthy(broken("fc"))), GatePolicy(), ignores, TODAY)
    found = assert_whole(to_html(report, Rendering()))

    assert "Gate The gate passes: no finding at or above critical counts (1 suppressed)." in found.text
    assert "ignore.yaml:2: the entry for non_finite in gone matches no finding: remove it" in found.text
    assert "suppressed until 2026-12-31: known" in found.text
    # Nothing is left to be done about it.
    assert "What to do now" not in found.text


@given(REPORTS)
def test_every_report_is_a_document_without_foreign_tags_links_or_scripts(report: Report) -> None:
    html = to_html(report, Rendering())

    assert_whole(html)
    html.encode("utf-8")
    assert not set("\u202e\u2066\x00\x1b") & set(html)


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "\u202egpj.exe", "x" * 4000, "\U0001f4a3", "a\nb", ""]
)
def test_hostile_names_stand_beside_pictures_as_text(one: Measurement, name: str) -> None:
    html = to_html(scaled(name), Rendering(spectra=lambda layer: (one, one)))

    found = assert_whole(html)
    assert "\u202e" not in html
    assert re.search(r"is broken: one layer multiplied", found.text)


def test_other_formats_do_not_load_what_pages_are_made_with() -> None:
    program = (
        "import sys\n"
        "import layerwatch.daemon.cli\n"
        "import layerwatch.daemon.gate.formats\n"
        "print(sorted({'jinja2', 'fastapi', 'sqlalchemy'} & set(sys.modules)))\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert printed.stdout == "[]\n"
