"""Whether whoever asks would rather read a page than JSON (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Iterator

_HTML = "text/html"
_JSON = "application/json"


def prefers_html(accept: str) -> bool:
    """True where the header Accept gives HTML more weight than JSON: browsers do, curl's ``*/*`` does not."""
    ranges = list(_ranges(accept))
    return _weight(_HTML, ranges) > _weight(_JSON, ranges)


def _weight(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """Of the most specific range that the type is in; 0 where none is."""
    kind = media_type.partition("/")[0]
    for wanted in (media_type, f"{kind}/*", "*/*"):
        found = [weight for name, weight in ranges if name == wanted]
        if found:
            return max(found)
    return 0.0


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    for part in accept.split(","):
        name, *parameters = (one.strip().lower() for one in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        yield name, weight
