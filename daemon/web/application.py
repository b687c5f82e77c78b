"""The HTTP paths of the daemon. State changes need the bearer token; everything else only reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client.exposition import choose_encoder, gzip_accepted
from starlette.concurrency import run_in_threadpool

from layerwatch import __version__
from layerwatch.alerts.people import EntryError, checked_name
from layerwatch.config.errors import ConfigError
from layerwatch.config.redaction import dump_redacted
from layerwatch.config.secrets import SecretError
from layerwatch.daemon.registries.hooks import HookReason, HookRefused
from layerwatch.daemon.statusfacts import facts_of
from layerwatch.daemon.store import outbox, refs, versions
from layerwatch.daemon.store.auditlog import Actor
from layerwatch.daemon.store.errors import StoreError
from layerwatch.daemon.store.outbox import OutboxStatus
from layerwatch.daemon.web.access import BodyLimit, by_token, require_token
from layerwatch.daemon.web.admission import Admission
from layerwatch.daemon.web.audit import audit_router
from layerwatch.daemon.web.decisions import Decisions, refused
from layerwatch.daemon.web.errors import add_error_answers
from layerwatch.daemon.web.pages import pages_router
from layerwatch.daemon.web.pages.context import PageContext
from layerwatch.daemon.web.reports import reports_router
from layerwatch.daemon.web.silences import silences_router
from layerwatch.daemon.web.spectra import spectra_router
from layerwatch.daemon.web.spectrumdata import spectrum_data_router
from layerwatch.daemon.web.versions import versions_router
from layerwatch.daemon.web.views import DeliveryView, ModelView, RefView, VersionView
from layerwatch.metrics.rules import RULES

if TYPE_CHECKING:
    from layerwatch.daemon.app import App

RowNumber = Annotated[int, Path(ge=1, le=2**63 - 1)]
_LARGEST_BODY = 2**20


def build_application(app: App) -> FastAPI:
    """The ASGI application of one daemon."""
    api = FastAPI(
        title="layerwatch",
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        # A redirect would name this server, and leave the prefix of a proxy.
        redirect_slashes=False,
    )

    def authorised(authorization: Annotated[str | None, Header()] = None) -> None:
        require_token(app.live.settings, authorization)

    @api.get(
        "/metrics",
        response_class=Response,
        summary="Prometheus text format 0.0.4, or OpenMetrics where asked for",
    )
    def metrics(
        accept: Annotated[str, Header()] = "", accept_encoding: Annotated[str, Header()] = ""
    ) -> Response:
        # The gauges about models were rendered when they changed; only the daemon's own are made here.
        encode, media_type = choose_encoder(accept)
        exposition, own = app.snapshot.exposition, encode(app.metrics)
        headers = {"Content-Type": media_type, "Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(accept_encoding):
            return Response(exposition.gzipped_with(own), headers={**headers, "Content-Encoding": "gzip"})
        return Response(exposition.followed_by(own), headers=headers)

    @api.get("/-/healthy", response_class=PlainTextResponse, summary="200 while every loop reports in time")
    def healthy() -> PlainTextResponse:
        late = app.heartbeats.late()
        if late:
            return PlainTextResponse("\n".join(map(str, late)) + "\n", status_code=503)
        return PlainTextResponse("healthy\n")

    @api.get("/-/ready", response_class=PlainTextResponse, summary="200 once every registry was listed")
    def ready() -> PlainTextResponse:
        waiting = app.not_ready()
        if waiting:
            return PlainTextResponse("\n".join(waiting) + "\n", status_code=503)
        return PlainTextResponse("ready\n")

    @api.post("/-/reload", dependencies=[Depends(authorised)], summary="Load the configuration again")
    def reload(by: Annotated[str, Query(description="Who wants it.")] = "the API") -> JSONResponse:
        actor = _named(by)
        try:
            return JSONResponse({"reloaded": True, "needs_restart": app.reload(actor)})
        except ConfigError as error:
            return JSONResponse({"reloaded": False, "problems": str(error).splitlines()}, status_code=400)

    @api.post("/hooks/{registry}", summary="A hint to look at a registry now")
    async def hook(
        registry: str, request: Request, authorization: Annotated[str | None, Header()] = None
    ) -> dict[str, bool]:
        body = await request.body()
        looking = await run_in_threadpool(_hook, app, registry, dict(request.headers), body, authorization)
        return {"looking": looking}

    @api.post(
        "/api/v1/deliveries/{delivery_id}/replay",
        dependencies=[Depends(authorised)],
        summary="Send an event again that was given up, under its old id",
    )
    def replay(
        delivery_id: RowNumber, by: Annotated[str, Query(description="Who wants it.")] = "the API"
    ) -> dict[str, bool]:
        try:
            decisions.replay(_named(by), delivery_id)
        except StoreError as error:
            raise refused(error) from None
        return {"queued": True}

    api.add_middleware(BodyLimit, most_bytes=_LARGEST_BODY)
    notifier = app.alert_loops.notifier
    decisions = Decisions(
        app.database,
        lambda: app.live.settings,
        lambda: notifier.muted,
        notifier.wake,
        follow=app.after_verdict,
        accepted=app.changed,
        queued=app.wake_scans,
    )
    api.include_router(silences_router(decisions))
    api.include_router(versions_router(decisions))
    api.include_router(audit_router(decisions))
    admission = Admission(lambda: app.live.settings, decisions.clock)
    context = PageContext(
        app.database, lambda: app.live.settings, decisions, admission, lambda: facts_of(app)
    )
    api.include_router(pages_router(context))
    api.include_router(reports_router(context))
    api.include_router(spectra_router(app.database))
    api.include_router(spectrum_data_router(app.database))
    _add_reading(api, app)
    add_error_answers(api)
    return api


def _add_reading(api: FastAPI, app: App) -> None:
    """The paths that only read the store."""

    @api.get("/api/v1/models")
    def models() -> list[ModelView]:
        with app.database.read() as connection:
            by_model: dict[tuple[str, str], list[RefView]] = {key: [] for key in versions.models(connection)}
            for ref in refs.list_refs(connection):
                version = versions.get_without_report(connection, ref.version_id)
                if version is not None:
                    view = RefView(ref=ref.ref, version=version.key.version, verdict=version.verdict)
                    by_model.setdefault((ref.registry, ref.model), []).append(view)
        return [
            ModelView(registry=key[0], model=key[1], refs=found) for key, found in sorted(by_model.items())
        ]

    @api.get("/api/v1/versions")
    def list_versions(
        registry: str | None = None,
        model: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    ) -> list[VersionView]:
        with app.database.read() as connection:
            found = versions.list_versions(connection, registry, model, limit=limit, before=before)
            return [VersionView.of(record) for record in found]

    @api.get("/api/v1/versions/{version_id}")
    def version(version_id: RowNumber) -> VersionView:
        with app.database.read() as connection:
            record = versions.get(connection, version_id)
        if record is None:
            raise HTTPException(404, f"no version has the number {version_id}")
        return VersionView.of(record)

    @api.get("/api/v1/deliveries", summary="Events and where they are, latest first")
    def deliveries(
        status: OutboxStatus | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
    ) -> list[DeliveryView]:
        with app.database.read() as connection:
            return [DeliveryView.of(one) for one in outbox.list_outbox(connection, limit, status)]

    @api.get("/api/v1/config", response_class=PlainTextResponse, summary="YAML, secrets hidden")
    def config() -> str:
        return dump_redacted(app.live.settings)

    @api.get("/explain", response_class=PlainTextResponse, include_in_schema=False)
    def list_rules() -> str:
        return "".join(f"{one.name}: {one.title}\n" for one in RULES)

    @api.get("/explain/{rule}", response_class=PlainTextResponse, include_in_schema=False)
    def explain(rule: str) -> str:
        for one in RULES:
            if one.name == rule:
                return f"{one.name}: {one.title}\n\n{one.explanation}\n"
        raise HTTPException(404, f"there is no rule {rule!r}")


def _named(name: str) -> Actor:
    """Somebody with the token; raises HTTPException for a name that cannot be kept."""
    try:
        return by_token(checked_name(name, "by"))
    except EntryError as error:
        raise refused(error) from None


def _hook(
    app: App, registry: str, headers: Mapping[str, str], body: bytes, authorization: str | None
) -> bool:
    """Whether a look follows; raises HTTPException. Without a secret of its own a hook takes the server's token."""
    try:
        event = app.hooks.take(registry, headers, body)
    except HookRefused as refused:
        status = 400 if refused.reason is HookReason.MALFORMED else 401
        raise HTTPException(status, refused.detail) from None
    except SecretError:
        raise HTTPException(503, "the hook's secret cannot be read; see the log of the daemon") from None
    except KeyError:
        # Strangers are not told which registries there are.
        require_token(app.live.settings, authorization)
        raise HTTPException(404, f"no registry is called {registry!r}") from None
    if event is None:
        require_token(app.live.settings, authorization)
        app.look_now(registry)
        return True
    return event.relevant
