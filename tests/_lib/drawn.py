"""What a chart shows: its markup read as XML, which is stricter than the way browsers read it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, fromstring

from hypothesis import strategies
from markupsafe import Markup

HOSTILE = (
    "</svg><script>alert(1)</script>",
    "</title></svg><img src=x onerror=alert(1)>",
    "two\nlines\tand\x00\x07more",
    "\u202egnp.exe\u2066\u200b",
    "\u05e9\u05dc\u05d5\u05dd",
    "\u6f22\u5b57" * 40,
    "a'b\"c&amp;<d>",
    "x" * 4096,
    "\ud800\uffff\ufffe",
    "",
)

ELEMENTS = {
    *("a", "circle", "desc", "div", "figcaption", "figure", "g", "li", "path", "rect", "svg", "text"),
    *("title", "ul"),
}
"""All that charts are made of."""

names = strategies.one_of(strategies.sampled_from(HOSTILE), strategies.text(max_size=60))
"""Names as strangers give them."""


def read(markup: Markup) -> Element:
    """The root of what is drawn; fails on anything that is no chart."""
    assert isinstance(markup, Markup)
    root = fromstring(f"<root>{markup}</root>")
    for element in root.iter():
        assert element is root or element.tag in ELEMENTS
        assert not any(name.startswith("on") or name == "style" for name in element.attrib)
        assert "nan" not in (element.get("d") or "") and "inf" not in (element.get("d") or "")
    return root


def of_class(root: Element, *names: str) -> list[Element]:
    """Elements inside pictures, in order, that have all these classes; not the samples of legends."""
    return [
        element
        for element in _outside_samples(root)
        if set(names) <= set((element.get("class") or "").split())
    ]


def _outside_samples(root: Element) -> Iterator[Element]:
    yield root
    for child in root:
        if child.get("class") not in ("sample", "chart-legend"):
            yield from _outside_samples(child)


def texts(root: Element) -> list[str]:
    """What is written in pictures."""
    return [element.text or "" for element in _outside_samples(root) if element.tag == "text"]


def titles(root: Element) -> list[str]:
    """What the pointer is told, the picture's own title first."""
    return [element.text or "" for element in root.iter("title")]


def legend(root: Element) -> list[str]:
    """The words of the legend."""
    return [entry[-1].tail or "" for entry in root.iter("li")]


def moved(element: Element) -> tuple[float, float]:
    """Where a mark is put."""
    found = re.fullmatch(r"translate\((\S+) (\S+)\).*", element.get("transform") or "")
    assert found is not None
    return float(found[1]), float(found[2])


def places(element: Element) -> list[tuple[float, float]]:
    """The points of a path of absolute M, L, H and V."""
    points: list[tuple[float, float]] = []
    for letter, numbers in re.findall(r"([MLHV])([-0-9. ]+)", element.get("d") or ""):
        values = [float(number) for number in numbers.split()]
        if letter in "ML":
            points.append((values[0], values[1]))
        else:
            x, y = points[-1]
            points.append((values[0], y) if letter == "H" else (x, values[0]))
    return points
