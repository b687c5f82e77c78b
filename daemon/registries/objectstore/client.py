"""Requests to an object store, with failures told in words."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from layerwatch.config.registries.objectstore import ObjectStoreRegistrySettings, Provider
from layerwatch.config.secrets import Secret, SecretError
from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

_AT_A_TIME = 4
_CONNECT = timedelta(seconds=5)
_RETRY: RetryConfig = {
    "max_retries": 1,
    "retry_timeout": timedelta(seconds=2),
    "backoff": {"init_backoff": timedelta(milliseconds=200)},
}
"""One quick retry of what fails at once; what timed out is not tried again here."""

_PATIENCE = 4
"""So many times the timeout one page may take: a server may answer with pages that hold nothing, for ever."""

_PIECE = 2**20
_NOBODY = "layerwatch-asks-for-what-is-not-there"

_NO_CREDENTIALS = (
    "there are no credentials that can be used: set access_key and secret_key, or the provider's environment "
    "variables, or give the workload an identity; for a public bucket set anonymous"
)
_REFUSED = "check the credentials, that they may list and read the bucket, and this machine's clock"

_STATUS = re.compile(r"status code: (\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,60})</Code>")
_TLS = re.compile(
    r"InvalidCertificate|InvalidMessage\(|AlertReceived|PeerIncompatible|PeerMisbehaved|UnknownIssuer"
)
_TIMEOUT = re.compile(r"TimedOut|kind: Timeout")
_CONNECTION = re.compile(r"HttpError|HTTP error|reqwest::Error|hyper")
_IDENTITY_SERVICE = re.compile(
    r"performing [A-Z]+ https?://[^/\s]+/(latest/api/token|latest/meta-data|computeMetadata/|metadata/identity)"
)
"""Where a workload asks who it is, when nothing else says so: AWS, Google, Azure."""

_EXPIRED = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"})
_TOO_FAST = frozenset({"SlowDown", "Throttling", "RequestLimitExceeded", "ServerBusy"})
_FORBIDDEN = frozenset({401, 403})
_GONE = frozenset({404, 410})
_BAD_REQUEST = 400
_TOO_MANY = 429
_UNAVAILABLE = 503
_NOT_SATISFIABLE = 416
_WEAK = "W/"
"""Begins entity tags that cannot be asked for."""

_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_SERVER = 500


class Overwritten(Exception):  # noqa: N818 - named after the state
    """An object is no longer the one that was asked for."""


class UnlistableKey(Exception):  # noqa: N818 - named after the state
    """A key that cannot be a path: the whole listing that holds it is refused."""


class Bucket:
    """What lies below the configured prefix. Safe to be used by several threads; at most four requests at a time.

    Attributes:
        where: for sentences.
    """

    def __init__(self, settings: ObjectStoreRegistrySettings) -> None:
        self._settings = settings
        self._places = threading.BoundedSemaphore(_AT_A_TIME)
        self._guard = threading.Lock()
        self._built: tuple[tuple[str | None, ...], Any] | None = None

        self.where = settings.url
        self._server = f" at {settings.endpoint}" if settings.endpoint is not None else ""

    def pages(self, prefix: str, after: str | None, size: int) -> Iterator[Sequence[ObjectMeta]]:
        """The objects below a folder, ``size`` at a time; paths are relative to the configured prefix.

        Args:
            after: leave out the keys up to this one.

        Raises:
            RegistryUnavailable.
            UnlistableKey: one of the keys cannot be a path.
        """
        asked = f"listing {self.where}{f'/{prefix}' if prefix else ''}{self._server}"
        limit = self._settings.timeout.total_seconds() * _PATIENCE
        circle = RegistryUnavailable(
            RegistryReason.BAD_RESPONSE, f"{asked}: the server lists the same objects over and over"
        )
        begun: dict[str, None] = {}
        with self._told(asked), asyncio.Runner() as runner:
            pages = self._store().list(prefix or None, offset=after, chunk_size=size)

            async def following() -> Sequence[ObjectMeta] | None:
                found: Sequence[ObjectMeta] | None = await anext(pages, None)
                return found

            while True:
                with self._places:
                    page = runner.run(asyncio.wait_for(following(), limit))
                if page is None:
                    return
                if page:
                    first = next(iter(begun), page[0]["path"])
                    if page[0]["path"] in begun or sum(one["path"] == first for one in page) > (not begun):
                        raise circle
                    begun[page[0]["path"]] = None
                yield page

    def folders(self) -> list[str]:
        """Names of the folders at the top, sorted; raises as :meth:`pages`."""
        with self._told(f"listing {self.where}{self._server}"), self._places:
            found = self._store().list_with_delimiter(None)["common_prefixes"]
        return sorted(found)

    def read(self, path: str, begin: int, end: int, e_tag: str) -> bytes:
        """Bytes ``begin`` to ``end`` of an object.

        Args:
            e_tag: of the object that is meant; empty where the store has none.

        Raises:
            RegistryUnavailable: NOT_FOUND when it is not there.
            Overwritten: another object lies there now.
        """
        asked = f"reading {self.where}/{path}{self._server}"
        options: GetOptions = {"range": (begin, end)}
        if e_tag and not e_tag.startswith(_WEAK):
            options["if_match"] = f'"{_bare(e_tag)}"'
        data = bytearray()
        with self._told(asked), self._places:
            result = self._store().get(path, options=options)
            if e_tag and _bare(result.meta["e_tag"] or "") != _bare(e_tag):
                raise Overwritten
            for piece in result.stream(_PIECE):
                data += piece
                if len(data) > end - begin:
                    break
        if len(data) != end - begin:
            raise RegistryUnavailable(
                RegistryReason.UNREACHABLE, f"{asked}: {len(data)} bytes came in place of {end - begin}"
            )
        return bytes(data)

    def require_sound(self) -> None:
        """Raise RegistryUnavailable unless the server says of an object that is not there that it is not there.

        Any page that a proxy puts in place of an answer reads as a listing without objects.
        """
        try:
            with self._told(f"asking for an object of {self.where}{self._server}"), self._places:
                self._store().head(_NOBODY)
        except RegistryUnavailable as error:
            if error.reason is not RegistryReason.NOT_FOUND:
                raise
            return
        raise RegistryUnavailable(
            RegistryReason.BAD_RESPONSE,
            f"{self.where}: what answers has every object that one asks for, so it is no object store: check url and "
            "endpoint, and the proxy",
        )

    def _store(self) -> Any:  # the four kinds of stores have no common type
        """The client; built anew when a secret was rotated."""
        settings = self._settings
        if settings.provider is Provider.LOCAL:
            return self._folder()
        keys = tuple(_revealed(secret) for secret in (settings.access_key, settings.secret_key))
        with self._guard:
            if self._built is None or self._built[0] != keys:
                self._built = (keys, _BUILDERS[settings.provider](settings, keys, _client(settings)))
            return self._built[1]

    def _folder(self) -> LocalStore:
        folder = Path(self._settings.prefix)
        # The client takes a folder that is not there for an empty one.
        if not folder.is_dir():
            raise RegistryUnavailable(
                RegistryReason.NOT_FOUND, f"the folder {folder} does not exist: create or mount it"
            )
        return LocalStore(folder)

    @contextmanager
    def _told(self, asked: str) -> Iterator[None]:
        """Turn the client's errors into typed ones. Their texts hold whole answers, so none is kept."""
        try:
            yield
        except PreconditionError:
            raise Overwritten from None
        except InvalidPathError as error:
            raise UnlistableKey(_quoted(str(error))) from None
        except TimeoutError:
            raise RegistryUnavailable(
                RegistryReason.UNREACHABLE, f"{asked}: the server sends pages without objects and no end"
            ) from None
        except (BaseError, FileNotFoundError, ValueError) as error:
            failure = _failure(asked, error, self._settings)
            if failure is None:
                raise Overwritten from None
            raise failure from None


def _failure(
    asked: str, error: Exception, settings: ObjectStoreRegistrySettings
) -> RegistryUnavailable | None:
    """What an error of the client means; None when the object is another one than was listed."""
    text = str(error)
    status = _number(_STATUS, text)
    code = found.group(1) if (found := _CODE.search(text)) else None
    if status == _NOT_SATISFIABLE:
        return None
    if _IDENTITY_SERVICE.search(text) or (status is None and _says_credentials(text)):
        reason, why = RegistryReason.NOT_PERMITTED, _NO_CREDENTIALS
    elif isinstance(error, PermissionDeniedError | UnauthenticatedError):
        reason, why = RegistryReason.NOT_PERMITTED, _REFUSED
    elif isinstance(error, FileNotFoundError):
        reason, why = RegistryReason.NOT_FOUND, "it is not there: check url and endpoint"
    elif status is not None:
        reason, why = _refusal(status, code, "token request" in text, settings)
    elif settings.provider is Provider.LOCAL:
        reason, why = _of_the_disk(text)
    else:
        reason, why = _without_answer(text, error, settings)
    answer = "" if status is None else f" the server answered {status}{f' ({code})' if code else ''}:"
    return RegistryUnavailable(reason, f"{asked}:{answer} {why}")


def _refusal(
    status: int, code: str | None, for_token: bool, settings: ObjectStoreRegistrySettings
) -> tuple[RegistryReason, str]:
    """What a status means, and what to do."""
    if status in _FORBIDDEN or code in _EXPIRED or (status == _BAD_REQUEST and for_token):
        return RegistryReason.NOT_PERMITTED, _REFUSED
    if status in _GONE:
        missing = f"there is no bucket {settings.bucket}" if code in _NO_BUCKET else "it is not there"
        return RegistryReason.NOT_FOUND, f"{missing}: check url and endpoint"
    if status == _TOO_MANY or (status == _UNAVAILABLE and code in _TOO_FAST):
        return RegistryReason.RATE_LIMITED, "ask less often (poll)"
    if status >= _SERVER:
        return RegistryReason.SERVER_ERROR, "look into the server's log"
    return RegistryReason.BAD_RESPONSE, "check url, endpoint and region"


def _without_answer(
    text: str, error: Exception, settings: ObjectStoreRegistrySettings
) -> tuple[RegistryReason, str]:
    """What it means that no answer came, or none that could be read, and what to do."""
    if isinstance(error, ValueError) and "root_certificate" in text:
        return RegistryReason.CERTIFICATE, f"ca_file {settings.ca_file} holds no certificate in PEM format"
    if "incorrectly configured region" in text:
        return RegistryReason.BAD_RESPONSE, "the bucket lies in another region: set region"
    if _TLS.search(text):
        return RegistryReason.CERTIFICATE, (
            "the server's certificate is not trusted, or it does not speak TLS: set ca_file to the authority that "
            "signed it, and check the scheme of endpoint"
        )
    if _TIMEOUT.search(text):
        seconds = settings.timeout.total_seconds()
        return RegistryReason.UNREACHABLE, (
            f"no answer within {seconds:g} s: check endpoint and the network, or raise timeout"
        )
    if _CONNECTION.search(text):
        return RegistryReason.UNREACHABLE, (
            "the server cannot be reached, or it broke the connection: check endpoint, the network and the proxy"
        )
    return (
        RegistryReason.BAD_RESPONSE,
        "what came back is not the answer of an object store: check url and endpoint",
    )


def _of_the_disk(text: str) -> tuple[RegistryReason, str]:
    if "PermissionDenied" in text:
        return RegistryReason.NOT_PERMITTED, "this user may not read it"
    return RegistryReason.IO_ERROR, "it cannot be read: look at the disk"


def _bare(e_tag: str) -> str:
    """An entity tag without what surrounds it: Azure lists them without the quotes that it answers with."""
    return e_tag.removeprefix(_WEAK).strip('"')


def _says_credentials(text: str) -> bool:
    return any(
        mark in text
        for mark in ("redential error", "Account must be specified", "Invalid Access Key", "service account")
    )


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(found.group(1)) if found else None


def _quoted(text: str) -> str:
    """The key in a sentence of the client, shortened and without control characters."""
    found = re.search(r'Path "(.*?)"', text, re.DOTALL)
    return repr(found.group(1)[:200]) if found else "a key"


def _revealed(secret: Secret | None) -> str | None:
    if secret is None:
        return None
    try:
        return secret.reveal()
    except SecretError as error:
        raise RegistryUnavailable(RegistryReason.NOT_PERMITTED, str(error)) from None


def _client(settings: ObjectStoreRegistrySettings) -> ClientConfig:
    client: ClientConfig = {
        "timeout": settings.timeout,
        "connect_timeout": min(settings.timeout, _CONNECT),
    }
    if settings.endpoint is not None:
        client["allow_http"] = settings.endpoint.startswith("http://")
    if settings.ca_file is not None:
        try:
            client["root_certificate"] = settings.ca_file.read_bytes()
        except OSError as error:
            raise RegistryUnavailable(
                RegistryReason.CERTIFICATE, f"ca_file {settings.ca_file} cannot be read: {error.strerror}"
            ) from error
    return client


Keys = tuple[str | None, ...]


def _s3(settings: ObjectStoreRegistrySettings, keys: Keys, client: ClientConfig) -> S3Store:
    access, secret = keys
    more: dict[str, Any] = {"skip_signature": True} if settings.anonymous else {}
    if access is not None:
        # Keys of the settings must not meet a session token of the environment.
        more["credential_provider"] = lambda: {
            "access_key_id": access,
            "secret_access_key": secret,
            "token": None,
            "expires_at": None,
        }
        more["skip_signature"] = False
    if settings.endpoint is not None:
        more |= {"endpoint": settings.endpoint, "aws_endpoint_url_s3": settings.endpoint}
    if settings.region is not None:
        more["region"] = settings.region
    return S3Store(
        settings.bucket, prefix=settings.prefix or None, client_options=client, retry_config=_RETRY, **more
    )


def _google(settings: ObjectStoreRegistrySettings, keys: Keys, client: ClientConfig) -> GCSStore:
    more: dict[str, Any] = {"skip_signature": True} if settings.anonymous else {}
    if keys[1] is not None:
        more["service_account_key"] = keys[1]
    if settings.endpoint is not None:
        more["base_url"] = settings.endpoint
    return GCSStore(
        settings.bucket, prefix=settings.prefix or None, client_options=client, retry_config=_RETRY, **more
    )


def _azure(settings: ObjectStoreRegistrySettings, keys: Keys, client: ClientConfig) -> AzureStore:
    account, key = keys
    more: dict[str, Any] = {"skip_signature": True} if settings.anonymous else {}
    if account is not None:
        more["account_name"] = account
    if key is not None:
        more["credential_provider"] = lambda: {"access_key": key, "expires_at": None}
        more["skip_signature"] = False
    if settings.endpoint is not None:
        more["endpoint"] = settings.endpoint
    return AzureStore(
        settings.bucket, prefix=settings.prefix or None, client_options=client, retry_config=_RETRY, **more
    )


_BUILDERS: dict[Provider, Callable[[ObjectStoreRegistrySettings, Keys, ClientConfig], Any]] = {
    Provider.S3: _s3,
    Provider.GOOGLE: _google,
    Provider.AZURE: _azure,
}
