"""The page ``/``: every model that a registry offers, the worst first, and the ways to everything else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from markupsafe import Markup
from sqlalchemy import Connection

from layerwatch.alerts.model import AlertState
from layerwatch.config.registries import RegistrySettings
from layerwatch.daemon.store import alerts, baselines, fleet, summaries
from layerwatch.daemon.store.fleet import FleetFilter, FleetModel, FleetOrder
from layerwatch.daemon.store.records import VersionKey
from layerwatch.daemon.web.charts.sparkline import sparkline
from layerwatch.daemon.web.decisions import Decisions
from layerwatch.daemon.web.pages.context import PageContext
from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.daemon.web.pages.paging import Paging
from layerwatch.daemon.web.pages.rendering import render
from layerwatch.metrics.findings import Verdict

PER_PAGE = 50
TREND = 50
"""Versions in the line of a row."""

_LONGEST_TEXT = 200
_UNJUDGED = "none"
_ORDERS = {
    FleetOrder.WORST: "worst first",
    FleetOrder.NAME: "name",
    FleetOrder.SCANNED: "last scan",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for; what it says wrongly counts as not said.

    Attributes:
        verdict: a verdict, ``none`` for models without one, or empty for all.
        page: from 1.
    """

    text: str = ""
    registry: str = ""
    verdict: str = ""
    order: FleetOrder = FleetOrder.WORST
    page: int = 1

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> Asked:
        """Out of a query."""
        verdict, order, page = (asked.get(name, "") for name in ("verdict", "sort", "page"))
        return cls(
            text=" ".join(asked.get("q", "").split())[:_LONGEST_TEXT],
            registry=asked.get("registry", ""),
            verdict=verdict if verdict in (*Verdict, _UNJUDGED) else "",
            order=FleetOrder(order) if order in list(FleetOrder) else FleetOrder.WORST,
            page=int(page) if page.isascii() and page.isdecimal() and len(page) < 9 else 1,
        )

    @property
    def verdicts(self) -> tuple[Verdict | None, ...]:
        """The verdicts that are asked for; empty for all."""
        if not self.verdict:
            return ()
        return (None,) if self.verdict == _UNJUDGED else (Verdict(self.verdict),)

    @property
    def filter(self) -> FleetFilter:
        """All but the verdict."""
        return FleetFilter(self.text, self.registry or None)

    def link(self, **other: str) -> str:
        """This page with something else asked for; its first page unless ``page`` is given."""
        said = {
            "q": self.text,
            "registry": self.registry,
            "verdict": self.verdict,
            "sort": "" if self.order is FleetOrder.WORST else self.order.value,
        }
        query = urlencode({name: value for name, value in {**said, **other}.items() if value})
        return f".?{query}" if query else "."


@dataclass(frozen=True, slots=True)
class FleetRow:
    """A model as the page shows it.

    Attributes:
        layer_link: of the worst layer; None where nothing is wrong with a single one.
        trend: mean alpha over the last versions.
        firing: its alerts that fire; ``muted`` of them are told to nobody.
        muted_by: why, of the first of those.
        is_accepted: a person called this version normal.
    """

    model: FleetModel
    links: VersionLinks
    layer_link: str | None
    trend: Markup
    firing: int
    severity: str
    muted: int
    muted_by: str
    is_accepted: bool


def fleet_page(context: PageContext) -> APIRouter:
    """GET ``/``. To htmx, which says so in a header, only the rows."""
    router = APIRouter()

    @router.get("/")
    def show(request: Request) -> Response:
        headers = request.headers
        only_rows = "hx-request" in headers and "hx-history-restore-request" not in headers
        return _page(context, Asked.of(request.query_params), only_rows)

    return router


def _page(context: PageContext, asked: Asked, only_rows: bool) -> Response:
    decisions = context.decisions
    with context.database.read() as connection:
        counts = fleet.counts(connection, asked.filter)
        found = sum(counts[verdict] for verdict in asked.verdicts or counts)
        paging = Paging.of(asked.page, PER_PAGE, found)
        models = fleet.page(connection, asked.filter, asked.verdicts, asked.order, PER_PAGE, paging.offset)
        rows = _rows(connection, models, decisions)
        registries = [] if only_rows else fleet.registries(connection)
    values: dict[str, Any] = {
        "now": decisions.clock(),
        "asked": asked,
        "rows": rows,
        "found": found,
        "filters": _filters(asked, counts),
        "paging": paging,
        "previous": asked.link(page=str(paging.page - 1)),
        "next": asked.link(page=str(paging.page + 1)),
    }
    if only_rows:
        return render("fleet_rows.html", only_rows=True, **values)
    return render(
        "fleet.html",
        page=".",
        only_rows=False,
        registries=registries,
        orders=_ORDERS,
        configured=[_described(one) for one in context.settings().registries],
        **values,
    )


def _filters(asked: Asked, counts: Mapping[Verdict | None, int]) -> list[tuple[str, str, int, str, bool]]:
    """(words, verdict, models, link, whether it is on) of each verdict, and of all of them."""
    total = sum(counts.values())
    found = [("all", "", total, asked.link(verdict=""), not asked.verdict)]
    for verdict, count in counts.items():
        name = _UNJUDGED if verdict is None else verdict.value
        words = "not judged yet" if verdict is None else name
        found.append((words, name, count, asked.link(verdict=name), asked.verdict == name))
    return found


def _rows(connection: Connection, models: Sequence[FleetModel], decisions: Decisions) -> list[FleetRow]:
    names = [(one.registry, one.model) for one in models]
    firing: defaultdict[tuple[str, str], list[AlertState]] = defaultdict(list)
    states = alerts.firing_of(connection, names)
    for state in states:
        firing[state.identity.registry, state.identity.model].append(state)
    muted = decisions.why_muted(connection, states)
    accepted = baselines.accepted_among(
        connection,
        [(_key(one), one.fingerprint) for one in models if one.verdict not in (None, Verdict.PASS)],
    )
    rows = []
    for one in models:
        own = firing[one.registry, one.model]
        silent = [muted[state.identity] for state in own if state.identity in muted]
        links = VersionLinks(one.registry, one.model, one.version, one.fingerprint if one.is_replaced else "")
        rows.append(
            FleetRow(
                model=one,
                links=links,
                layer_link=links.layer(one.worst_layer) if one.worst_layer else None,
                trend=_trend(connection, one),
                firing=len(own),
                severity=str(max((state.severity for state in own), key=lambda it: it.rank, default="")),
                muted=len(silent),
                muted_by=silent[0] if silent else "",
                is_accepted=(_key(one), one.fingerprint) in accepted,
            )
        )
    return rows


def _key(model: FleetModel) -> VersionKey:
    return VersionKey(model.registry, model.model, model.version)


def _trend(connection: Connection, model: FleetModel) -> Markup:
    course = summaries.mean_alphas(connection, model.registry, model.model, TREND)
    if all(alpha is None for alpha, _ in course):
        return Markup("")
    return sparkline(
        [alpha for alpha, _ in course],
        f"mean alpha of {model.model} over its last versions",
        [verdict for _, verdict in course],
    )


def _described(registry: RegistrySettings) -> tuple[str, str]:
    return registry.name, registry.kind
