"""What is answered when something cannot be answered: JSON with one sentence, ``error``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from layerwatch.daemon.store.errors import StoreError


def add_error_answers(api: FastAPI) -> None:
    """Answer so on every path."""

    @api.exception_handler(StoreError)
    def store_failed(request: Request, error: StoreError) -> JSONResponse:
        # Whoever may read here need not learn where the database is.
        told = f"the store cannot be used now ({error.reason}): see the log of layerwatch"
        return JSONResponse({"error": told}, status_code=503, headers={"Retry-After": "5"})

    @api.exception_handler(RequestValidationError)
    async def plain_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": "; ".join(map(_in_words, error.errors()))}, status_code=422)

    @api.exception_handler(HTTPException)
    async def plain_error(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


def _in_words(error: Mapping[str, Any]) -> str:
    """One entry of ``errors()``, without what was sent."""
    if error["type"] == "json_invalid":
        return "the body is not JSON"
    where = ".".join(map(str, error["loc"][1:])) or error["loc"][0]
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"
