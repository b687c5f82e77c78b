"""Elements of SVG and the frame that every chart stands in. All text is escaped here, and nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

from markupsafe import Markup, escape

from layerwatch.alerts.text import plain

CHARACTER = 6.4
"""Width of a character of a name, in the units of a picture."""

MOST_STOPS = 60
"""Links that a keyboard stops at. Of more, only those to what is not well are stops; tables have all of them."""

_READ = 400
_TOLD = 120
_LEAST_HEAD = 3


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: a sample, 18 x 12 units, and its words."""

    sample: Markup
    words: str


def tag(name: str, *content: str | Markup, **attributes: str | float | None) -> Markup:
    """One element.

    Args:
        content: text is escaped, Markup is not.
        attributes: ``class_`` is written ``class`` and ``text_anchor`` ``text-anchor``; those that are None are left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value) if isinstance(value, str) else units(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join(map(escape, content))
    return Markup(f"<{name}{written}>{inner}</{name}>" if inner else f"<{name}{written}/>")


def units(value: float) -> str:
    """A finite coordinate as short as a tenth of a pixel allows."""
    text = f"{value:.1f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text


def told(text: str) -> str:
    """Foreign text in a title."""
    return shortened(text, _TOLD)


def shortened(text: str, width: int) -> str:
    """Foreign text as a label: one line, cut in its middle, because names of layers differ at both ends.

    Args:
        width: in characters, at least 3; those of East Asia count twice.
    """
    line = plain(text, _READ) or "?"
    if columns(line) <= width:
        return line
    end = _within(line[::-1], (width - 1) // 2)[::-1]
    return _within(line, width - 1 - columns(end)) + "…" + end


def labels(names: Sequence[str], width: int) -> list[str]:
    """Names of layers as labels beside each other: without the last part where all share it, such as ``.weight``.

    Long ones keep what follows the first number among their parts, which is the number of the block.

    Args:
        width: in characters, at least 10; those of East Asia count twice.
    """
    ends = {name.rpartition(".")[2] if "." in name else "" for name in names}
    shared = len(names) > 1 and len(ends) == 1 and ends != {""}
    return [_label(plain(name.rpartition(".")[0] if shared else name, _READ), width) for name in names]


def _label(name: str, width: int) -> str:
    parts = name.split(".")
    block = next((place for place, part in enumerate(parts) if part.isdecimal()), 0)
    if block == 0 or columns(name) <= width:
        return shortened(name, width)
    rest = ".".join(parts[block:])
    room = max(_LEAST_HEAD, width - 1 - columns(rest))
    return _within(name, room) + "…" + shortened(rest, width - 1 - room)


def columns(text: str) -> int:
    """Width of a line in characters; those of East Asia count twice."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def _within(text: str, width: int) -> str:
    used = 0
    for place, character in enumerate(text):
        used += columns(character)
        if used > width:
            return text[:place]
    return text


def linked(href: str | None, *content: Markup, css: str, is_stop: bool = True) -> Markup:
    """A link around what is drawn, or a group where there is nowhere to go."""
    if href is None:
        return tag("g", *content, class_=css)
    return tag("a", *content, class_=css, href=href, tabindex=None if is_stop else "-1")


def picture(
    width: float,
    height: float,
    title: str,
    description: str,
    content: Iterable[Markup],
    *,
    css: str,
    has_links: bool = False,
) -> Markup:
    """The SVG element.

    Equal pictures have equal ids. One with links is a group: what is inside an image is told to nobody who hears it.
    """
    body = Markup("").join(content)
    title, description = plain(title, _READ) or "?", plain(description, 2 * _READ)
    key = hashlib.sha256(repr((css, title, description, str(body))).encode()).hexdigest()[:12]
    return tag(
        "svg",
        tag("title", title, id=f"title-{key}"),
        tag("desc", description, id=f"description-{key}"),
        body,
        class_=f"chart {css}",
        viewBox=f"0 0 {units(width)} {units(height)}",
        width=width,
        height=height,
        role="group" if has_links else "img",
        aria_labelledby=f"title-{key} description-{key}",
    )


def figure(image: Markup, keys: Sequence[Key] = (), *, css: str = "", caption: str = "") -> Markup:
    """A picture with its caption above and its legend below, whose words stay readable however small the picture is."""
    entries = [
        tag("li", tag("svg", key.sample, class_="sample", viewBox="0 0 18 12", aria_hidden="true"), key.words)
        for key in keys
    ]
    return tag(
        "figure",
        *([tag("figcaption", caption)] if caption else []),
        image,
        *([tag("ul", *entries, class_="chart-legend")] if entries else []),
        class_=f"chart-figure {css}".strip(),
    )


def scrolling(image: Markup, name: str) -> Markup:
    """A box that a picture wider than the page is moved in."""
    label = plain(name, _READ) or "?"
    return tag("div", image, class_="scroll", tabindex="0", role="region", aria_label=label)
