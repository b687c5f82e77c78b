"""The page ``/status``: how the daemon does, what is wrong with it, and what to do about that."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Response

from layerwatch.config.redaction import dump_redacted
from layerwatch.daemon.statusfacts import StatusFacts
from layerwatch.daemon.store import auditlog, condition
from layerwatch.daemon.store.auditlog import AuditEntry, AuditRecord
from layerwatch.daemon.store.condition import QueuedVersion, Unexamined
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.store.records import VersionKey
from layerwatch.daemon.web.pages import whattodo
from layerwatch.daemon.web.pages.context import PageContext
from layerwatch.daemon.web.pages.links import VersionLinks
from layerwatch.daemon.web.pages.rendering import render
from layerwatch.daemon.web.pages.statusview import (
    MOST_VERSIONS,
    StoreView,
    problems,
    receiver_problems,
    registry_problems,
    size,
    span,
)

MOST_ENTRIES = 50
"""Entries of the audit log that are shown."""


def status_page(context: PageContext) -> APIRouter:
    """GET ``/status``."""
    router = APIRouter()

    @router.get("/status")
    def show() -> Response:
        facts, now = context.facts(), context.decisions.clock()
        store, entries = _store(context, facts, now)
        return render(
            "status.html",
            page="status",
            now=now,
            facts=facts,
            store=store,
            problems=problems(facts, store, now),
            registry_problems={
                one.name: list(registry_problems(one, facts, now)) for one in facts.registries
            },
            receiver_problems={
                one.name: list(receiver_problems(one, store.receivers.get(one.name), now))
                for one in facts.receivers
            },
            retrying=[_retrying(one, facts) for one in store.queue.retrying] if store.queue else [],
            running=[_link(one.key) for one in store.queue.running] if store.queue else [],
            unexamined=[_unexamined(one) for one in store.queue.last_unexamined] if store.queue else [],
            configuration=dump_redacted(context.settings()),
            audit=[_entry(one.entry) for one in entries],
            span=span,
            size=size,
        )

    return router


def _store(context: PageContext, facts: StatusFacts, now: datetime) -> tuple[StoreView, list[AuditRecord]]:
    """What the store tells. The page is there to say so when it cannot."""
    names = [one.name for one in facts.receivers if not one.is_heartbeat]
    try:
        with context.database.read() as connection:
            kind, bytes_ = condition.kind_and_size(connection)
            view = StoreView(
                kind=kind,
                size_bytes=bytes_,
                firing=condition.firing_alerts(connection),
                versions=condition.versions_by_registry(connection),
                queue=condition.queue(connection, MOST_VERSIONS),
                receivers=condition.receivers(connection, names, now),
            )
            return view, auditlog.list_(connection, MOST_ENTRIES)
    except StoreError as error:
        return StoreView(trouble=error.reason), []


def _link(key: VersionKey, fingerprint: str = "") -> dict[str, Any]:
    return {"key": key, "link": VersionLinks(key.registry, key.model, key.version, fingerprint).this()}


def _retrying(one: QueuedVersion, facts: StatusFacts) -> dict[str, Any]:
    error = facts.setbacks.get(one.id)
    return {
        **_link(one.key),
        "attempts": one.attempts,
        "next": one.not_before,
        "reason": error.reason if error else "",
        "words": error.detail if error else "why is in the log of the daemon",
        "todo": whattodo.about_scan(error.reason) if error else "",
    }


def _unexamined(one: Unexamined) -> dict[str, Any]:
    links = VersionLinks(one.key.registry, one.key.model, one.key.version, one.fingerprint)
    return {
        **_link(one.key, one.fingerprint),
        "judged_at": one.judged_at,
        "layer": one.layer,
        "layer_link": links.layer(one.layer) if one.layer else None,
        "words": one.words or "not all of it could be examined",
        "todo": whattodo.about_scan(one.reason),
        "rescan": links.act("rescan"),
    }


def _entry(entry: AuditEntry) -> dict[str, Any]:
    about, link = "", None
    if entry.registry is not None and entry.model is not None:
        about = f"{entry.registry}/{entry.model}"
        if entry.version is not None:
            about += f" {entry.version}"
            link = VersionLinks(entry.registry, entry.model, entry.version).this()
    return {"entry": entry, "about": about, "link": link}
