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
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def render(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """The answer that a template and its values make."""
    return HTMLResponse(_TEMPLATES.get_template(template).render(values), status, headers=HEADERS)


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
