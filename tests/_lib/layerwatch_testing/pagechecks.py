"""What can be said of a page that is open: who cannot read it, and what stands out of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

_AXE = Path(__file__).parents[1] / "vendored" / "axe-core-4.14.1" / "axe.min.js"
_SERIOUS = ("serious", "critical")

# Of what is too wide, the innermost elements. What scrolls inside a box of its own is where it belongs, and what only
# those hear who have a page read to them lies in a box of one pixel.
_TOO_WIDE = """() => {
  const width = document.scrollingElement.clientWidth;
  const scrolls = (element) => element && element !== document.body && element !== document.documentElement
    && (["auto", "scroll"].includes(getComputedStyle(element).overflowX) || element.clientWidth === 1
      || scrolls(element.parentElement));
  const wide = [...document.body.querySelectorAll("*")].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.height > 0 && box.right > width + 1 && !element.closest("svg *")
      && getComputedStyle(element).visibility === "visible" && !scrolls(element.parentElement);
  });
  const innermost = wide.filter((element) => !wide.some((other) => other !== element && element.contains(other)));
  const told = innermost.map((element) => `${element.tagName.toLowerCase()}.${element.getAttribute("class") ?? ""} ends at `
    + `${Math.round(element.getBoundingClientRect().right)} of ${width}: ${element.textContent.trim().slice(0, 60)}`);
  const over = document.scrollingElement.scrollWidth - width;
  return over > 0 ? [`the page is ${over} pixels too wide`, ...told] : told;
}"""


def accessibility(page: Page) -> list[str]:
    """What axe-core (https://github.com/dequelabs/axe-core) finds serious or critical, with where it is."""
    page.evaluate(_axe())
    violations: list[dict[str, Any]] = page.evaluate(
        "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
    )
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: {node['html'][:200]} {_data(node)}".rstrip()
        for one in violations
        if one["impact"] in _SERIOUS
        for node in one["nodes"]
    ]


def too_wide(page: Page) -> list[str]:
    """What makes a page scroll sideways, or is cut off at its edge."""
    found: list[str] = page.evaluate(_TOO_WIDE)
    return found


@cache
def _axe() -> str:
    return _AXE.read_text(encoding="utf-8")


def _data(node: dict[str, Any]) -> str:
    """The colours and their contrast, where it is about that."""
    return "; ".join(check["message"] for check in node["any"])
