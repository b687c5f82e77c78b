"""Templates to answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from layerwatch import __version__
from layerwatch.alerts.text import plain

HERE = Path(__file__).parent

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # With no referrer at all, browsers would not say where a form comes from.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


PAGES = ((".", "Fleet"), ("compare", "Compare"), ("alerts", "Alerts"), ("status", "Status"))
"""Relative addresses of the pages that every page links to, and their names."""


def render(template: str, status: int = 200, *, page: str = "", **values: Any) -> HTMLResponse:
    """The answer that a template and its values make; ``page`` is the address in :data:`PAGES` it belongs to.

    All pages lie at one level; what is answered elsewhere gives ``root``, the way up to there (``../``).
    """
    text = _TEMPLATES.get_template(template).render({"root": "", "pages": PAGES, "page": page, **values})
    return HTMLResponse(text, status, headers=HEADERS)


def rendered(template: str, **values: Any) -> str:
    """The text that a template and its values make, for what is no answer of its own."""
    return _TEMPLATES.get_template(template).render(values)


def line(text: str, limit: int = 200) -> str:
    """Foreign text as one line without characters that cannot be seen; escaped by the template."""
    return plain(text, limit)


def when(moment: datetime) -> Markup:
    """A time in UTC, to the minute."""
    moment = moment.astimezone(UTC)
    template = Markup('<time datetime="{}">{}</time>')
    return template.format(moment.isoformat(), moment.strftime("%Y-%m-%d %H:%M UTC"))


def length(duration: timedelta) -> str:
    """How long, in the two largest units, rounded down: ``2d 3h``, ``5m``; ``less than a minute``."""
    minutes = max(duration, timedelta()) // timedelta(minutes=1)
    counts = ((minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "m"))
    first = next((place for place, (count, _) in enumerate(counts) if count), None)
    if first is None:
        return "less than a minute"
    return " ".join(f"{count}{unit}" for count, unit in counts[first : first + 2] if count)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(line=line, when=when, length=length)
    environment.globals["version"] = __version__
    return environment


_TEMPLATES = _environment()
