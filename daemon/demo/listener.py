"""The demonstration's own webhook: takes events on loopback, checks their signature, keeps what it received."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

_LARGEST_BODY = 1 << 20


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One verified event.

    Attributes:
        event_id: the ``webhook-id`` header, equal for every attempt.
        phase: ``firing`` or ``resolved``.
        summary: the sentence for people.
    """

    event_id: str
    phase: str
    model: str
    version: str
    summary: str


class WebhookListener:
    """Listens on a free loopback port until closed."""

    def __init__(self, secret: str) -> None:
        self._events: list[ReceivedEvent] = []
        self._lock = threading.Lock()
        listener = self
        verifier = Webhook(secret)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = min(int(self.headers.get("Content-Length", 0)), _LARGEST_BODY)
                body = self.rfile.read(length)
                try:
                    verifier.verify(body, dict(self.headers.items()))
                except WebhookVerificationError:
                    self._answer(401)
                    return
                listener._keep(self.headers["webhook-id"], body)
                self._answer(204)

            def _answer(self, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/alerts"
        threading.Thread(target=self._server.serve_forever, name="demo-webhook", daemon=True).start()

    def events(self) -> list[ReceivedEvent]:
        """Everything received so far, in order, each event once."""
        with self._lock:
            return list(self._events)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _keep(self, event_id: str, body: bytes) -> None:
        data = json.loads(body)["data"]
        worst = data["alerts"][0]
        event = ReceivedEvent(event_id, data["phase"], worst["model"], worst["version"], data["summary"])
        with self._lock:
            if all(known.event_id != event_id for known in self._events):
                self._events.append(event)
