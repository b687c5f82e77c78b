"""What is common to the registries that are asked with requests: nothing that a server sends is waited for, or read,
without an end."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import DecodeError, ProtocolError, ReadTimeoutError
from urllib3.exceptions import SSLError as TlsError
from urllib3.response import BaseHTTPResponse, HTTPResponse

from layerwatch.daemon.registries.pace import cut_off, longest

_PIECE = 256 * 1024


class _Socket(Protocol):
    def shutdown(self, how: int, /) -> None:
        """Of a socket."""


class BoundedSession(requests.Session):
    """A session in which headers must come within the time for an answer, and bodies of redirects are not read.

    Args:
        connections: to one host, at most, that are kept.
    """

    def __init__(self, connections: int) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(pool_maxsize=connections, max_retries=0))

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """As in requests, which would then read the redirect's body to its end, even where it is not followed."""
        target = super().get_redirect_target(resp)
        if target is not None:
            resp.close()
            resp.raw = HTTPResponse(io.BytesIO(), preload_content=False)
        return target


def arriving(response: requests.Response) -> Iterator[bytes]:
    """The body in blocks of at most 256 KiB, each as soon as it arrives.

    Raises:
        requests.RequestException.
    """
    try:
        while block := response.raw.read1(_PIECE, decode_content=True):
            yield block
    except ProtocolError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error
    except DecodeError as error:
        raise requests.exceptions.ContentDecodingError(error) from error
    except ReadTimeoutError as error:
        raise requests.exceptions.ReadTimeout(error) from error
    except TlsError as error:
        raise requests.exceptions.SSLError(error) from error


def part_of(blocks: Iterable[bytes], position: int, begin: int, end: int) -> Iterator[bytes]:
    """Bytes ``begin`` to ``end`` of a file whose blocks arrive from ``position`` on; ends with the last one wanted."""
    for block in blocks:
        wanted = block[max(0, begin - position) : max(0, end - position)]
        position += len(block)
        if wanted:
            yield wanted
        if position >= end:
            return


def cutting(response: requests.Response) -> Callable[[], None]:
    """Ends what is read from a response."""

    def cut() -> None:
        # It may be over by now, and its connection with another one.
        with suppress(OSError, RuntimeError, ValueError, AttributeError):
            response.raw.shutdown()

    return cut


class _Plain(HTTPConnection):
    def getresponse(self) -> Any:
        return _in_time(self, super().getresponse)


class _Secure(HTTPSConnection):
    def getresponse(self) -> Any:
        return _in_time(self, super().getresponse)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


_POOLS = {"http": _PlainPool, "https": _SecurePool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *rest: Any, **named: Any) -> None:
        super().init_poolmanager(*rest, **named)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *rest: Any, **named: Any) -> Any:
        manager = super().proxy_manager_for(*rest, **named)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def _in_time(connection: HTTPConnection, receive: Callable[[], BaseHTTPResponse]) -> BaseHTTPResponse:
    """Status and headers; raises TimeoutError when they dribble."""
    if not isinstance(connection.timeout, int | float):
        return receive()
    limit = longest(timedelta(seconds=connection.timeout))
    with cut_off(limit, partial(_shut, connection.sock)) as happened:
        try:
            response = receive()
        except Exception as error:
            if happened.is_set():
                raise TimeoutError from error
            raise
    if happened.is_set():
        raise TimeoutError
    return response


def _shut(connected: _Socket | None) -> None:
    if connected is not None:
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)
