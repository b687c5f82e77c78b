"""Names that attack whoever reads them, on every page, in the static report and in messages, with a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urljoin, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from hookserver import HookServer
from layerwatch.alerts.receivers.slack import encode_for_slack
from layerwatch.alerts.text import plain
from layerwatch_testing import processes
from layerwatch_testing.browser import Visitor
from layerwatch_testing.daemons import DaemonProcess, directory, write_config
from layerwatch_testing.networks import Network
from layerwatch_testing.pagechecks import too_wide
from layerwatch_testing.servers import free_port
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.base import WEIGHTS
from layerwatch_testing.worlds.directory import DirectoryWorld

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]

SCRIPT = "<script>alert(1)</script>"
LONG = "<b onclick=alert(2)>" + "very_long_name." * 266 + "end"

LAYERS = (
    SCRIPT,
    "\"'><img src=x onerror=alert(3)>",
    "\u202egpj.exe\u2066 turned round",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "javascript:alert(4)//",
    "🦆🧨👩‍👩‍👧 layer",
    "first line\nsecond\tline\u2028third",
    "</textarea></svg></style></title><svg onload=alert(5)>",
    "../../etc/passwd?a=b&layer=other#part",
    LONG,
)
"""Of 10 to 4,000 characters. The first is broken in every second version."""

# What a folder may be called: up to 255 bytes without a slash.
MODELS = (
    "<img src=x onerror=alert(6)>",
    "\u202eledom\u2066 \"onmouseover='alert(7)' 🧨",
    "new\nline & <b>" + "m" * 220,
)
VERSIONS = ("1 <svg onload=alert(8)>", "2 \u202e\"'><img src=x onerror=alert(9)>\n" + "v" * 190)

_PAGES = ("/", "/model", "/version", "/layer", "/compare", "/alerts", "/status", "/act", "/report")

# Which turn the direction of text, or hide in it.
UNSEEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")

_SUSPICIOUS = """() => {
  const all = [...document.querySelectorAll("*")];
  const handlers = all.flatMap((one) => [...one.attributes].filter((a) => a.name.startsWith("on"))
    .map((a) => `${one.tagName} ${a.name}=${a.value}`));
  const scripts = [...document.scripts].filter((one) => !one.src || one.textContent.trim())
    .map((one) => `script: ${one.textContent.slice(0, 100)}`);
  const links = all.filter((one) => ["href", "src", "action", "formaction"].some((name) =>
    /^\\s*(javascript|data|vbscript):/i.test(one.getAttribute(name) ?? ""))).map((one) => one.outerHTML.slice(0, 200));
  const foreign = [...document.querySelectorAll("img[src=x], b[onclick], svg[onload], base, iframe, object, embed")]
    .map((one) => one.outerHTML.slice(0, 200));
  return [...handlers, ...scripts, ...links, ...foreign];
}"""
_SHOWN = """() => [document.title, document.body.innerText, ...[...document.querySelectorAll("[title], [aria-label], title")]
  .map((one) => one.getAttribute("title") ?? one.getAttribute("aria-label") ?? one.textContent)].join("\\n")"""


@dataclass(frozen=True, slots=True)
class HostileFleet:
    """A daemon over models that a stranger named; every model's second version is broken."""

    daemon: DaemonProcess
    world: DirectoryWorld
    hook: HookServer

    @property
    def home(self) -> str:
        return f"{self.daemon.address}/"


def _weights(broken: bool) -> Network:
    generator = np.random.default_rng(7)
    state = {name: generator.standard_normal((40, 32)).astype(np.float32) / np.float32(6) for name in LAYERS}
    return {**state, SCRIPT: state[SCRIPT] * np.float32(300)} if broken else state


@pytest.fixture(scope="module")
def hostile(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileFleet]:
    folder = tmp_path_factory.mktemp("hostile")
    world = DirectoryWorld(folder, marker=None)
    lineage = json.dumps({"parent": VERSIONS[0], "relation": "finetuned"}).encode()
    for model in MODELS:
        world.publish(model, VERSIONS[0], _weights(broken=False))
    with HookServer() as hook:
        port = free_port()
        receiver = {
            "name": "hook",
            "kind": "webhook",
            "url": hook.url,
            "allow_private_cidrs": ["127.0.0.0/8"],
        }
        config = write_config(
            folder / "layerwatch.yaml",
            directory("strangers", world.root),
            receivers=[receiver],
            server={"external_url": f"http://127.0.0.1:{port}"},
            port=port,
        )
        with DaemonProcess(config) as daemon:
            daemon.wait_until_listening()
            for model in MODELS:
                assert daemon.wait_for_verdict(f"strangers/{model}/{VERSIONS[0]}") == "pass"
                world.publish(model, VERSIONS[1], _weights(broken=True), lineage)
            for model in MODELS:
                assert daemon.wait_for_verdict(f"strangers/{model}/{VERSIONS[1]}") == "fail"
            until(lambda: len(hook.received) >= len(MODELS), "every alert is told")
            yield HostileFleet(daemon, world, hook)


def test_no_name_runs_anything_or_hides_on_any_page(browser: Browser, hostile: HostileFleet) -> None:
    problems: list[str] = []
    texts = ""
    waiting = [hostile.home]
    seen: set[tuple[str, str, str]] = set()
    pages = 0
    with Visitor(browser, hostile.home) as visitor:
        while waiting:
            asked = waiting.pop(0)
            parts = urlsplit(asked)
            # Every page with every name in every place; not with every combination of them.
            named = {(parts.path, place, name) for place, name in (*parse_qsl(parts.query), ("", ""))}
            if named <= seen:
                continue
            seen |= named
            response = visitor.page.goto(asked)
            assert response is not None
            problems += visitor.take_complaints()
            assert response.headers["content-type"].startswith("text/html"), asked
            pages += 1
            shown, wrong = _looked_at(visitor.page)
            texts += shown
            problems += [f"{one} (on {asked})" for one in wrong]
            links: list[str] = visitor.page.evaluate("[...document.links].map((one) => one.href)")
            waiting += [
                one.partition("#")[0]
                for one in links
                if one.startswith(hostile.home) and urlsplit(one).path in _PAGES
            ]
    assert problems == []
    assert pages > len(MODELS) + len(VERSIONS) + len(LAYERS)
    for name in (*MODELS, *VERSIONS, *LAYERS[:-1]):
        assert plain(name, 60).rstrip("…") in " ".join(texts.split()), name


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desktop", "phone"])
def test_no_name_is_so_long_that_a_page_gets_too_wide(
    browser: Browser, hostile: HostileFleet, size: tuple[int, int]
) -> None:
    with Visitor(browser, hostile.home, size=size) as visitor:
        visitor.open()
        assert too_wide(visitor.page) == []
        for path in ("model?", "version?", "layer?", "alerts", "compare"):
            link = visitor.page.locator(f"main a[href^='{path}'], nav a[href^='{path}']").last
            visitor.page.goto(urljoin(visitor.page.url, link.get_attribute("href") or ""))
            visitor.settle()
            visitor.screenshot(f"hostile-{path.rstrip('?')}-{size[0]}")
            assert too_wide(visitor.page) == [], visitor.page.url
        assert visitor.take_complaints() == []


def test_the_static_report_runs_and_asks_for_nothing(
    browser: Browser, hostile: HostileFleet, tmp_path: Path
) -> None:
    before, after = (hostile.world.folder(MODELS[0], version) / WEIGHTS for version in VERSIONS)
    report = tmp_path / "report.html"
    arguments = ["scan", str(after), "--baseline", str(before), "--format", "html", "-o", str(report)]
    finished = processes.layerwatch(arguments, tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    for scripts in (True, False):
        with Visitor(browser, tmp_path.as_uri() + "/", scripts=scripts) as visitor:
            visitor.open(report.name)
            shown, wrong = _looked_at(visitor.page)
            assert wrong == []
            assert SCRIPT in shown
            assert too_wide(visitor.page) == []
            assert visitor.take_complaints() == []
            assert visitor.requests == [report.as_uri()]


def test_messages_to_slack_carry_no_markup_of_strangers(hostile: HostileFleet) -> None:
    for received in list(hostile.hook.received):
        body = encode_for_slack(received.body.decode())
        texts = " ".join(block["text"]["text"] for block in json.loads(body)["blocks"])
        assert "alert(1)" in texts
        # What is left in angle brackets are links of our own.
        assert all(one.startswith(f"<{hostile.daemon.address}/") for one in re.findall(r"<[^>]*>", texts)), (
            texts
        )
        assert not UNSEEN.search(texts)


def _looked_at(page: Page) -> tuple[str, list[str]]:
    """What can be read on a page, and what on it could do harm."""
    shown: str = page.evaluate(_SHOWN)
    wrong: list[str] = page.evaluate(_SUSPICIOUS)
    hidden = UNSEEN.search(shown)
    if hidden is not None:
        around = shown[max(0, hidden.start() - 30) : hidden.end() + 30]
        wrong.append(f"a character that cannot be seen: {around!r}")
    return shown, wrong
