"""The pages as people use them: in Chromium, over the demonstration's models, on a daemon of its own process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import parse_qs, urldefrag, urljoin, urlsplit

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect

from layerwatch_testing import processes
from layerwatch_testing.browser import Scheme, Visitor
from layerwatch_testing.daemons import TOKEN
from layerwatch_testing.demofleet import (
    BROKEN,
    BROKEN_LAYERS,
    CNN,
    MLP,
    REGISTRY,
    DemoFleet,
    demo_fleet,
    every_page,
    of_version,
)
from layerwatch_testing.pagechecks import accessibility, too_wide
from layerwatch_testing.prefixproxy import PrefixProxy
from layerwatch_testing.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]

DESKTOP = (1280, 900)
PHONE = (390, 844)


@dataclass(frozen=True, slots=True)
class Look:
    size: tuple[int, int]
    scheme: Scheme


LOOKS = {
    "desktop-light": Look(DESKTOP, "light"),
    "desktop-dark": Look(DESKTOP, "dark"),
    "phone-light": Look(PHONE, "light"),
    "phone-dark": Look(PHONE, "dark"),
}
PAGES = every_page()


@pytest.fixture(scope="module")
def fleet(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoFleet]:
    """The demonstration's models up to the version that is broken (two minutes, for which the browser must be there)."""
    with demo_fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_every_page_fits_is_accessible_and_asks_nobody_else(
    browser: Browser, fleet: DemoFleet, name: str, look: str
) -> None:
    with Visitor(browser, fleet.home, size=LOOKS[look].size, scheme=LOOKS[look].scheme) as visitor:
        assert visitor.open(PAGES[name]) == 200
        visitor.screenshot(f"{name}-{look}")
        expect(visitor.page.get_by_role("heading", level=1)).to_have_count(1)
        assert too_wide(visitor.page) == []
        # What is folded away must be as good.
        visitor.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert too_wide(visitor.page) == []
        assert visitor.take_complaints() == []
        assert accessibility(visitor.page) == []


@pytest.mark.parametrize("name", PAGES)
def test_every_page_works_without_scripts(browser: Browser, fleet: DemoFleet, name: str) -> None:
    with Visitor(browser, fleet.home, scripts=False) as visitor:
        assert visitor.open(PAGES[name]) == 200
        expect(visitor.page.get_by_role("heading", level=1)).to_be_visible()
        assert visitor.take_complaints() == []


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_the_fleet_is_searched(browser: Browser, fleet: DemoFleet, scripts: bool) -> None:
    with Visitor(browser, fleet.home, scripts=scripts) as visitor:
        visitor.open()
        main = visitor.page.get_by_role("main")
        expect(main).to_contain_text(CNN)
        search = main.get_by_role("searchbox")
        search.fill("mlp")
        if not scripts:
            search.press("Enter")
        expect(main.get_by_role("link", name=CNN)).to_have_count(0)
        expect(main.get_by_role("link", name=MLP).first).to_be_visible()
        expect(visitor.page).to_have_url(re.compile(r"[?&]q=mlp\b"))
        visitor.page.go_back()
        expect(main.get_by_role("link", name=CNN).first).to_be_visible()
        assert visitor.take_complaints() == []


def test_the_pictures_of_a_layer_are_there_without_scripts(browser: Browser, fleet: DemoFleet) -> None:
    with Visitor(browser, fleet.home, scripts=False) as visitor:
        visitor.open(PAGES["layer"])
        tail = _tail(visitor.page)
        expect(tail.get_by_role("img")).to_be_visible()
        for line in ("layer", "baseline", "fit"):
            expect(tail.locator(f"svg path.{line}").first).to_be_visible()
        expect(visitor.page.locator("main canvas")).to_have_count(0)
        assert visitor.take_complaints() == []


def test_the_broken_layer_is_reached_by_keyboard_alone(browser: Browser, fleet: DemoFleet) -> None:
    with Visitor(browser, fleet.home) as visitor:
        visitor.open()
        for link, arrives in ((MLP, "/model"), (BROKEN, "/version"), (BROKEN_LAYERS[MLP], "/layer")):
            _tab_to(visitor.page, re.compile(rf"(?<!\w){link}(?!\w)"), arrives)
            visitor.page.keyboard.press("Enter")
            visitor.page.wait_for_url(re.compile(rf"{arrives}\?"))
            visitor.settle()
        assert parse_qs(urlsplit(visitor.page.url).query)["layer"] == [BROKEN_LAYERS[MLP]]
        assert visitor.take_complaints() == []


def test_the_first_tab_leads_past_the_navigation(browser: Browser, fleet: DemoFleet) -> None:
    with Visitor(browser, fleet.home) as visitor:
        visitor.open()
        expect(visitor.page.get_by_role("link", name="To the content")).not_to_be_in_viewport()
        visitor.page.keyboard.press("Tab")
        skip = visitor.page.get_by_role("link", name="To the content")
        expect(skip).to_be_focused()
        expect(skip).to_be_in_viewport()
        visitor.page.keyboard.press("Enter")
        visitor.page.keyboard.press("Tab")
        assert visitor.page.evaluate("document.activeElement.closest('main') !== null")


def test_behind_a_proxy_with_a_prefix_every_link_leads_somewhere(fleet: DemoFleet) -> None:
    with PrefixProxy(fleet.daemon.address, "/watch") as proxy, requests.Session() as session:
        waiting, seen, broken = [proxy.home], {proxy.home}, []
        while waiting:
            asked = waiting.pop(0)
            answer = session.get(asked, timeout=30)
            if answer.status_code != 200:
                broken.append((answer.status_code, asked))
            if not answer.headers["content-type"].startswith("text/html"):
                continue
            for link in _Links(answer.text).found:
                leads = urldefrag(urljoin(answer.url, link)).url
                if urlsplit(leads).netloc == urlsplit(proxy.home).netloc and leads not in seen:
                    seen.add(leads)
                    waiting.append(leads)
            assert len(seen) < 2000, "links that have no end"
        assert broken == []
        assert proxy.stray == []
        walked = {urlsplit(one).path.removeprefix("/watch/") for one in seen}
        assert walked >= {urlsplit(one).path for one in PAGES.values()} - {"report"}


def test_behind_a_proxy_with_a_prefix_pages_load_and_post_only_below_it(
    browser: Browser, fleet: DemoFleet
) -> None:
    with PrefixProxy(fleet.daemon.address, "/watch") as proxy, Visitor(browser, proxy.home) as visitor:
        for page in PAGES.values():
            assert visitor.open(page) == 200
        assert visitor.take_complaints() == []
        visitor.open(of_version("act", action="rescan"))
        _fill_in(visitor.page, "ann", "looked at again")
        visitor.settle()
        assert visitor.page.url.startswith(proxy.home)
        assert visitor.take_complaints() == []
        assert proxy.stray == []


def test_a_wrong_token_changes_nothing_and_what_was_entered_is_kept(
    browser: Browser, fleet: DemoFleet
) -> None:
    with Visitor(browser, fleet.home) as visitor:
        visitor.open(of_version("act", CNN, action="accept"))
        _fill_in(visitor.page, "mallory", "looks fine to me", token="guessed")
        expect(visitor.page.get_by_role("alert")).to_contain_text("token is wrong")
        expect(visitor.page.get_by_label("Your name")).to_have_value("mallory")
        expect(visitor.page.get_by_label("Reason")).to_have_value("looks fine to me")
        expect(visitor.page.get_by_label("Token")).to_have_value("")
        assert all("403" in complaint for complaint in visitor.take_complaints())
        assert accessibility(visitor.page) == []
        visitor.open(of_version("version", CNN))
        expect(visitor.page.get_by_role("main")).not_to_contain_text("mallory")
    assert "accepted" not in _command(fleet, "baseline", "versions", f"{REGISTRY}/{CNN}")


def test_from_the_alert_over_the_layer_to_the_accepted_version(browser: Browser, fleet: DemoFleet) -> None:
    told = fleet.told(MLP, "firing")
    assert told is not None
    with Visitor(browser, fleet.home) as visitor:
        page = visitor.page
        # The alert's link names the ref; what is looked at is the version.
        page.goto(told["links"]["report"])
        main = page.get_by_role("main")
        expect(page.get_by_role("heading", level=1)).to_contain_text(f"{MLP}")
        expect(main).to_contain_text(BROKEN)
        expect(main).to_contain_text("one layer multiplied by a wrong factor")
        main.get_by_role("link", name=BROKEN_LAYERS[MLP], exact=True).first.click()
        for canvas in page.locator("main canvas").all():
            _expect_drawn(canvas)
        expect(page.locator("main canvas")).to_have_count(2)
        # Values under the pointer are in place of the same picture without them.
        expect(_tail(page)).to_be_hidden()
        page.go_back()
        visitor.settle()
        main.get_by_role("link", name=re.compile("accept", re.IGNORECASE)).first.click()
        _fill_in(page, "ann", "scaled on purpose")
        visitor.settle()
        expect(main).to_contain_text("scaled on purpose")
        assert visitor.take_complaints() == []
        assert accessibility(page) == []

        # As `layerwatch baseline accept` does: the alert ends, the verdict stays as it was found.
        until(lambda: fleet.told(MLP, "resolved"), "the webhook is told that the alert ended")
        assert f"{BROKEN} accepted by ann" in _command(fleet, "baseline", "list")
        visitor.open("alerts")
        expect(_section(page, "Firing")).not_to_contain_text(MLP)
        expect(_section(page, "Ended")).to_contain_text(f"{BROKEN} was accepted")
        visitor.open(PAGES["version"])
        expect(main).to_contain_text(re.compile("accepted", re.IGNORECASE))
        expect(main).to_contain_text("ann")
        assert fleet.daemon.verdicts()[f"{REGISTRY}/{MLP}/{BROKEN}"] == "fail"
        assert visitor.take_complaints() == []
        assert accessibility(page) == []


def test_a_rescan_judges_again_and_an_accepted_version_stays_accepted(
    browser: Browser, fleet: DemoFleet
) -> None:
    before = _judged_at(fleet, CNN, "v4")
    with Visitor(browser, fleet.home) as visitor:
        visitor.open(of_version("act", CNN, "v4", action="accept"))
        _fill_in(visitor.page, "ann", "the reference")
        visitor.open(of_version("act", CNN, "v4", action="rescan"))
        _fill_in(visitor.page, "ann", "is it still so?")
        until(lambda: _judged_at(fleet, CNN, "v4") > before, "the version is judged again")
        visitor.open(of_version("version", CNN, "v4"))
        expect(visitor.page.get_by_role("main")).to_contain_text(re.compile("accepted", re.IGNORECASE))
        assert visitor.take_complaints() == []
    assert "pass (accepted)" in _command(fleet, "baseline", "versions", f"{REGISTRY}/{CNN}")


def test_an_alert_is_silenced_from_its_version(browser: Browser, fleet: DemoFleet) -> None:
    told = fleet.told(CNN, "firing")
    assert told is not None
    with Visitor(browser, fleet.home) as visitor:
        page = visitor.page
        page.goto(told["links"]["report"])
        main = page.get_by_role("main")
        main.get_by_role("link", name=re.compile("silence", re.IGNORECASE)).first.click()
        expect(page.get_by_label("Alerts")).to_have_value(re.compile(CNN))
        page.get_by_label("For").fill("2h")
        _fill_in(page, "bob", "known, being mended")
        expect(page.get_by_role("status")).to_contain_text("is kept")
        row = main.get_by_role("row").filter(has_text=f"{REGISTRY}/{CNN}").first
        expect(row).to_contain_text("muted")
        expect(row).to_contain_text("bob")
        assert visitor.take_complaints() == []
        assert accessibility(page) == []


class _Links(HTMLParser):
    """Every address that a page names."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value is not None]


def _section(page: Page, heading: str) -> Locator:
    return page.locator("section").filter(has=page.get_by_role("heading", name=heading))


def _tail(page: Page) -> Locator:
    """The picture that is drawn without scripts: how the eigenvalues' tail falls, and the law that was fitted to it."""
    return page.get_by_role("figure").filter(has_text="Cumulative from above")


def _expect_drawn(canvas: Locator) -> None:
    expect(canvas).to_be_visible()
    colours = """(canvas) => new Set(new Uint32Array(
        canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"""
    until(lambda: canvas.evaluate(colours) > 3, "the canvas is drawn")


def _tab_to(page: Page, name: re.Pattern[str], path: str) -> None:
    """Press Tab until a link to that page of that name has the focus, and can be seen to have it."""
    for _ in range(100):
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if not focused.count() or focused.evaluate("(one) => one.tagName") != "A":
            continue
        target = urlsplit(urljoin(page.url, focused.get_attribute("href") or "")).path
        if target == path and name.search(focused.inner_text()):
            expect(focused).to_be_in_viewport()
            outline = focused.evaluate("(one) => getComputedStyle(one).outlineStyle")
            assert outline != "none", f"nobody sees that {focused.inner_text()} has the focus"
            return
    raise AssertionError(f"no link {name.pattern} to {path} on {page.url}")


def _fill_in(page: Page, by: str, reason: str, token: str = TOKEN) -> None:
    page.get_by_label("Your name").fill(by)
    page.get_by_label("Reason").fill(reason)
    page.get_by_label("Token").fill(token)
    page.locator("form", has=page.get_by_label("Token")).get_by_role("button").click()


def _judged_at(fleet: DemoFleet, model: str, version: str) -> str:
    rows = fleet.daemon.get("/api/v1/versions", model=model).json()
    return next(str(row["judged_at"]) for row in rows if row["version"] == version)


def _command(fleet: DemoFleet, *arguments: str) -> str:
    folder = fleet.registry.parent
    finished = processes.layerwatch([*arguments, "-c", str(folder / "layerwatch.yaml")], folder)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout
