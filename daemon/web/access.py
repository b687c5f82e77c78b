"""Who may change something over HTTP, and how much anybody may send."""

from __future__ import annotations

import hmac

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from layerwatch.config.secrets import SecretError
from layerwatch.config.settings import Settings
from layerwatch.daemon.store.auditlog import Actor, Authentication


def require_token(settings: Settings, authorization: str | None) -> None:
    """Raise 403 without a configured token, 401 without the right one.

    Args:
        authorization: the header of this name, or None.
    """
    token = settings.server.token
    if token is None:
        raise HTTPException(403, "nothing may be changed over HTTP: server.token is not set")
    try:
        expected = f"Bearer {token.reveal()}"
    except SecretError:
        raise HTTPException(503, "the token cannot be read; see the log of the daemon") from None
    if not hmac.compare_digest((authorization or "").encode(), expected.encode()):
        raise HTTPException(401, "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})


def by_token(name: str) -> Actor:
    """Somebody who showed the token and says what they are called."""
    return Actor(name, Authentication.TOKEN)


class BodyLimit:
    """Answers 413 to whoever sends more; before a body is read, nobody knows who sends it."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most_bytes:
                raise HTTPException(413, f"a request has at most {self._most_bytes} bytes")
            return message

        await self._app(scope, counted if scope["type"] == "http" else receive, send)
