"""Pages as a test reads them."""

from __future__ import annotations

from html.parser import HTMLParser

from layerwatch_testing.daemons import TOKEN
from sites import Site

HOSTILE = "<script>alert(1)</script>\u202egpj.\u2066exe\"'&"
"""A name that wants to be more than text."""


class Page(HTMLParser):
    """What a page holds: its text, tags, links and fields."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.texts: dict[str, str] = {}
        self._field = ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        if tag not in ("a", "bdi", "code", "time"):
            self.text += " "
        self._field = found.get("name", "") if tag == "textarea" else ""

    def handle_endtag(self, tag: str) -> None:
        self._field = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._field:
            # A browser leaves out a new line right after the tag.
            self.texts[self._field] = data.removeprefix("\n")

    def all(self, tag: str, name: str) -> list[str]:
        """The values of an attribute of every such tag that has it."""
        return [attributes[name] for found, attributes in self.tags if found == tag and name in attributes]

    @property
    def fields(self) -> dict[str, str]:
        """What a browser would post if nobody entered anything."""
        inputs = {
            attributes["name"]: attributes.get("value", "") for tag, attributes in self.tags if tag == "input"
        }
        return {**inputs, **self.texts}


def page(site: Site, path: str = "/alerts") -> Page:
    """The page at a path, which must be there."""
    answer = site.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


def filled(found: Page, **entered: str) -> dict[str, str]:
    """The fields of a page's form with the token, and with what is entered."""
    assert entered.keys() <= found.fields.keys()
    return {**found.fields, "token": TOKEN, **entered}


def holds_nothing_foreign(html: str) -> bool:
    """Whether a page is free of what a hostile name would bring in."""
    found = Page(html)
    tags = {tag for tag, _ in found.tags}
    events = [one for _, attributes in found.tags for one in attributes if one.startswith("on")]
    loaded = tags & {"script", "iframe", "object", "embed", "img", "style"}
    return not loaded and not events and "\u202e" not in html and "\u2066" not in html
