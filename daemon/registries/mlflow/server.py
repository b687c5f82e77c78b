"""Requests to an MLflow server: credentials, certificates, bounds, and what went wrong in words.

mlflow's own client is not used. It takes timeouts and retries from variables of the whole process, shares one session
and its cookies among all servers, loses the status and ``Retry-After`` of a refusal, reads answers of any length, and
takes a hundred megabytes of memory. What is asked here is MLflow's documented REST interface.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests

from layerwatch.config.registries import MlflowRegistrySettings
from layerwatch.config.secrets import SecretError
from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.pace import Deadline, paced
from layerwatch.daemon.registries.sessions import BoundedSession, arriving, cutting, part_of
from layerwatch.metrics.errors import UnreadableError, UnreadableReason

_LARGEST_ANSWER = 64 * 2**20
_LARGEST_REFUSAL = 64 * 1024
_AT_ONCE = 4
_LONGEST_REST = timedelta(days=1)
_LONGEST_QUOTE = 200

Parameters = Mapping[str, str | int | list[str]]


class NotThere(Exception):  # noqa: N818 - named after the state
    """The server knows no such record."""


class MlflowServer:
    """One MLflow server. Safe to be used by several threads; at most four questions are asked at a time.

    Redirects are not followed: credentials go to the configured address and nowhere else.
    """

    def __init__(self, settings: MlflowRegistrySettings) -> None:
        self._settings = settings
        self.url: str = settings.url
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        self._session = BoundedSession(_AT_ONCE)
        # A callable of its own also keeps requests from looking for credentials in ~/.netrc.
        self._session.auth = self._authorize
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers["User-Agent"] = "layerwatch"
        self._session.headers["Accept-Encoding"] = "identity"

    def get(self, path: str, parameters: Parameters | None = None) -> dict[str, Any]:
        """The JSON object at a path; raises NotThere, RegistryUnavailable."""
        with self._slots:
            return self._json("GET", path, parameters, None)

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        """Send a JSON object, get one; raises NotThere, RegistryUnavailable."""
        with self._slots:
            return self._json("POST", path, None, body)

    def etag(self, path: str, parameters: Parameters) -> str:
        """The ETag of a file, empty when it has none; raises NotThere, RegistryUnavailable.

        By a range of one byte: HEAD is answered by another part of the server, with another ETag.
        """
        with self._slots:
            deadline = self._deadline(f"GET {self.url}{path}")
            response = self._ask("GET", path, parameters, headers={"Range": "bytes=0-0"})
            with closing(response):
                if response.headers.get("Content-Length") == "1":
                    # Read, so that the connection can be used again.
                    _bounded(response, 1, deadline)
                return response.headers.get("ETag", "")

    def stream(
        self, path: str, parameters: Parameters, begin: int, end: int, etag: str | None
    ) -> Iterator[bytes]:
        """Bytes ``begin`` to ``end`` of a file.

        Args:
            etag: what its ETag must be still, or None.

        Raises:
            RegistryUnavailable: at once, or when the connection breaks.
            UnreadableError: the file is another one by now.
        """
        asked = f"GET {self.url}{path}"
        if end <= begin:
            return
        headers = {"Range": f"bytes={begin}-{end - 1}"}
        try:
            response = self._ask("GET", path, parameters, headers=headers)
        except NotThere as error:
            raise RegistryUnavailable(RegistryReason.VERSION_GONE, f"{asked}: {error}") from None
        with closing(response):
            if etag is not None and response.headers.get("ETag", "") != etag:
                raise UnreadableError(
                    UnreadableReason.CHANGED_WHILE_READING, path, "it was written again while it was fetched"
                )
            position = _begin_of(response, asked, begin)
            try:
                blocks = paced(arriving(response), asked, self._settings.timeout, cutting(response))
                yield from part_of(blocks, position, begin, end)
            except (requests.RequestException, OSError) as error:
                raise self._failed(asked, error) from error

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        settings = self._settings
        if settings.token is not None:
            request.headers["Authorization"] = f"Bearer {settings.token.reveal()}"
        elif settings.username is not None:
            password = settings.password.reveal() if settings.password is not None else ""
            pair = base64.b64encode(f"{settings.username}:{password}".encode()).decode()
            request.headers["Authorization"] = f"Basic {pair}"
        return request

    def _json(
        self, method: str, path: str, parameters: Parameters | None, body: Mapping[str, object] | None
    ) -> dict[str, Any]:
        asked = f"{method} {self.url}{path}"
        deadline = self._deadline(asked)
        try:
            with closing(self._ask(method, path, parameters, body)) as response:
                text = _bounded(response, _LARGEST_ANSWER, deadline)
        except (requests.RequestException, OSError) as error:
            raise self._failed(asked, error) from error
        if text is None:
            raise RegistryUnavailable(
                RegistryReason.BAD_RESPONSE, f"{asked}: more than {_LARGEST_ANSWER} bytes came back"
            )
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise RegistryUnavailable(
                RegistryReason.BAD_RESPONSE,
                f"{asked}: what came back is no JSON object: is url the address of an MLflow server, and is there "
                "no login page in front of it?",
            )
        return answer

    def _ask(
        self,
        method: str,
        path: str,
        parameters: Parameters | None,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """A response with a status of success, its body not read yet."""
        asked = f"{method} {self.url}{path}"
        for attempts_left in (1, 0):
            try:
                response = self._session.request(
                    method,
                    f"{self.url}{path}",
                    params=parameters,
                    json=body,
                    headers=headers,
                    timeout=self._settings.timeout.total_seconds(),
                    # Given with each request: on a session it would yield to REQUESTS_CA_BUNDLE.
                    verify=str(self._settings.ca_file) if self._settings.ca_file is not None else True,
                    allow_redirects=False,
                    stream=True,
                )
                break
            except SecretError as error:
                raise RegistryUnavailable(RegistryReason.NOT_PERMITTED, f"{self.url}: {error}") from None
            except (requests.RequestException, OSError) as error:
                # A kept connection that the server closed meanwhile breaks at the first byte.
                if not attempts_left or not isinstance(_cause(error), ConnectionResetError | BrokenPipeError):
                    raise self._failed(asked, error) from error
        if response.status_code < 300:
            return response
        with closing(response):
            raise self._refusal(asked, response)

    def _deadline(self, asked: str) -> Deadline:
        return Deadline(asked, self._settings.timeout)

    def _failed(self, asked: str, error: Exception) -> RegistryUnavailable:
        """Why no answer came. The error's own text may hold a proxy's password and is not repeated."""
        ca_file = self._settings.ca_file
        if isinstance(error, requests.exceptions.SSLError) or isinstance(_cause(error), ssl.SSLError):
            cause = _cause(error)
            said = getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or "TLS failed"
            return RegistryUnavailable(
                RegistryReason.CERTIFICATE,
                f"{asked}: the connection is not trusted: {_quote(str(said))}: set ca_file to the certificate of the "
                "authority that signed the server's, or mend that",
            )
        if ca_file is not None and not ca_file.is_file():
            return RegistryUnavailable(RegistryReason.CERTIFICATE, f"ca_file {ca_file} does not exist")
        if isinstance(error, requests.Timeout):
            seconds = self._settings.timeout.total_seconds()
            return RegistryUnavailable(RegistryReason.UNREACHABLE, f"{asked}: no answer in {seconds:g} s")
        proxy = (
            " through the proxy of the environment"
            if isinstance(error, requests.exceptions.ProxyError)
            else ""
        )
        cause = _cause(error)
        said = (
            _quote(str(cause.strerror)) if isinstance(cause, OSError) and cause.strerror else "it broke off"
        )
        return RegistryUnavailable(
            RegistryReason.UNREACHABLE,
            f"{asked}: no connection{proxy}: {said}: does the server run, is url right?",
        )

    def _refusal(self, asked: str, response: requests.Response) -> Exception:
        status = response.status_code
        code, message = _error_of(response, self._deadline(asked))
        told = f"{asked}: {status}{': ' + message if message else ''}"
        if status == 404 and code == "RESOURCE_DOES_NOT_EXIST":
            return NotThere(message)
        if status == 401:
            given = self._settings.token is not None or self._settings.username is not None
            advice = (
                "the credentials are not accepted: mend them"
                if given
                else "set username and password, or token"
            )
            return RegistryUnavailable(RegistryReason.NOT_PERMITTED, f"{told}: {advice}")
        if status == 403:
            return RegistryUnavailable(
                RegistryReason.NOT_PERMITTED, f"{told}: give this user the right to read it"
            )
        if status == 429:
            return RegistryUnavailable(
                RegistryReason.RATE_LIMITED,
                f"{told}: it asks to be left alone for a while",
                _retry_after(response),
            )
        if status >= 500:
            advice = "the log of the server, or of the proxy before it, says why"
            return RegistryUnavailable(
                RegistryReason.SERVER_ERROR, f"{told}: {advice}", _retry_after(response)
            )
        if status < 400:
            target = urlsplit(response.headers.get("Location", ""))
            place = _quote(f"{target.scheme}://{target.hostname}") if target.hostname else "another path"
            return RegistryUnavailable(
                RegistryReason.BAD_RESPONSE, f"{told}: it redirects to {place}: set url to where that leads"
            )
        if status == 404:
            told = f"{told}: is url the address of an MLflow server?"
        return RegistryUnavailable(RegistryReason.BAD_RESPONSE, told)


def _bounded(response: requests.Response, limit: int, deadline: Deadline) -> bytes | None:
    """The body, or None when it is larger."""
    blocks = []
    size = 0
    for block in deadline.kept(arriving(response), cutting(response)):
        size += len(block)
        if size > limit:
            return None
        blocks.append(block)
    return b"".join(blocks)


def _begin_of(response: requests.Response, asked: str, begin: int) -> int:
    """The position in the file of the first byte of a body."""
    if response.status_code != 206:
        return 0
    content_range = response.headers.get("Content-Range", "")
    if not content_range.startswith(f"bytes {begin}-"):
        raise RegistryUnavailable(
            RegistryReason.BAD_RESPONSE,
            f"{asked}: other bytes came than those from {begin} on that were asked for",
        )
    return begin


def _error_of(response: requests.Response, deadline: Deadline) -> tuple[str, str]:
    """MLflow's error code and message, as far as a refusal has them."""
    try:
        text = _bounded(response, _LARGEST_REFUSAL, deadline)
        answer = json.loads(text or b"")
        return str(answer.get("error_code", "")), _quote(str(answer.get("message", "")))
    except (
        requests.RequestException,
        RegistryUnavailable,
        OSError,
        ValueError,
        AttributeError,
        RecursionError,
    ):
        return "", ""


def _retry_after(response: requests.Response) -> timedelta | None:
    text = response.headers.get("Retry-After", "").strip()
    try:
        if text.isascii() and text.isdigit():
            return min(timedelta(seconds=min(int(text), 10**6)), _LONGEST_REST)
        # Both by the server's clock.
        rest = parsedate_to_datetime(text) - parsedate_to_datetime(response.headers.get("Date", ""))
    except (ValueError, TypeError):
        return None
    return min(max(rest, timedelta()), _LONGEST_REST)


def _cause(error: BaseException) -> BaseException:
    """The operating system's own error at the bottom of those of the libraries, where there is one."""
    seen = error
    for _ in range(10):
        below = seen.__cause__ or seen.__context__ or getattr(seen, "reason", None)
        if below is None and seen.args and isinstance(seen.args[-1], BaseException):
            below = seen.args[-1]
        if not isinstance(below, BaseException):
            break
        seen = below
    return seen


def _quote(text: str) -> str:
    """One short line of what another said."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[:2000]).split())
    return line if len(line) <= _LONGEST_QUOTE else f"{line[:_LONGEST_QUOTE]}..."
