"""HTML files that hold all they need, as a test reads them."""

from __future__ import annotations

from html.parser import HTMLParser

LOADING = {
    "script",
    "link",
    "img",
    "iframe",
    "object",
    "embed",
    "image",
    "use",
    "video",
    "audio",
    "base",
    "form",
}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Document(HTMLParser):
    """The tags of a document, and what is text in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._in_style = False
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._in_style = tag == "style"
        if tag not in ("a", "bdi", "code"):
            self.text += " "

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if not self._in_style:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for found, attributes in self.tags if found == tag]


def assert_whole(html: str) -> Document:
    """It needs nothing but itself."""
    found = Document(html)
    assert not LOADING & {tag for tag, _ in found.tags}
    assert len(found.named("style")) == 1
    assert [one["content"] for one in found.named("meta") if "http-equiv" in one] == [POLICY]
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src")], tag
    anchors = {attributes["id"] for _, attributes in found.tags if "id" in attributes}
    links = [one["href"] for one in found.named("a")]
    assert {link[:1] for link in links} <= {"#"}
    assert {link[1:] for link in links} <= anchors
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    return found
