"""What the answers of an OCI registry mean, and what went wrong, in plain words that hold no secret."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests

from layerwatch.config.registries import OciRegistrySettings
from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.pace import Deadline
from layerwatch.daemon.registries.sessions import arriving, cutting

_ERROR_BODY = 64 * 1024
_CODE = re.compile(r"[A-Z][A-Z_]{0,39}", re.ASCII)
_OK = frozenset({200, 206})


class NotThere(RegistryUnavailable):
    """The answer was 404.

    Attributes:
        code: the registry's own word for it; without one, the 404 may come from something else that answers there.
    """

    def __init__(self, detail: str, code: str) -> None:
        super().__init__(RegistryReason.NOT_FOUND, detail)
        self.code = code


def read_bounded(response: requests.Response, limit: int, address: str, deadline: Deadline) -> bytes:
    """The whole body.

    Raises:
        RegistryUnavailable: BAD_RESPONSE when it is larger than the limit, UNREACHABLE when it takes too long.
        OSError: the connection broke.
    """
    body = bytearray()
    for block in deadline.kept(arriving(response), cutting(response)):
        body += block
        if len(body) > limit:
            detail = f"{address}: its answer is larger than {limit} bytes"
            raise RegistryUnavailable(RegistryReason.BAD_RESPONSE, detail)
    return bytes(body)


def require_success(
    response: requests.Response, method: str, address: str, settings: OciRegistrySettings
) -> None:
    """Raise RegistryUnavailable unless the answer is one."""
    status = response.status_code
    if status in _OK:
        return
    if status in (401, 403):
        raise refusal(response, method, address, settings)
    code = _code(response, settings)
    said = f"{method} {address} answered {status}{_bracketed(code)}"
    if status == 404:
        raise NotThere(said, code)
    if status == 429:
        raise RegistryUnavailable(
            RegistryReason.RATE_LIMITED, f"{said}: ask less often (poll)", _retry_after(response)
        )
    if status >= 500:
        raise RegistryUnavailable(
            RegistryReason.SERVER_ERROR, f"{said}: look into the registry's log", _retry_after(response)
        )
    raise RegistryUnavailable(
        RegistryReason.BAD_RESPONSE, f"{said}, which a registry does not: is {settings.url} its address?"
    )


def explain(error: OSError, method: str, address: str, settings: OciRegistrySettings) -> RegistryUnavailable:
    """What a failed request means. The text of the error is not repeated: it may hold signed addresses."""
    asked = f"{method} {address}"
    if isinstance(error, requests.exceptions.SSLError):
        text = str(error)
        if "EOF" in text or "reset" in text:
            return RegistryUnavailable(
                RegistryReason.UNREACHABLE, f"{asked}: the connection broke off while it was encrypted"
            )
        if "WRONG_VERSION_NUMBER" in text:
            detail = f"{asked}: the server speaks no TLS: write http:// in url"
        else:
            detail = (
                f"{asked}: its certificate is not trusted ({_verification(text)}): set ca_file to the authority "
                "that signed it"
            )
        return RegistryUnavailable(RegistryReason.CERTIFICATE, detail)
    if isinstance(error, requests.exceptions.ProxyError):
        detail = f"{asked}: the proxy of HTTP_PROXY or HTTPS_PROXY cannot be used: {_cause(error)}"
        return RegistryUnavailable(RegistryReason.UNREACHABLE, detail)
    if isinstance(error, requests.exceptions.Timeout):
        detail = f"{asked}: no answer within {settings.timeout.total_seconds():g} s (timeout)"
        return RegistryUnavailable(RegistryReason.UNREACHABLE, detail)
    broken = (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)
    if isinstance(error, broken):
        detail = f"{asked}: {_cause(error)}: is the registry running, and can it be reached from here?"
        return RegistryUnavailable(RegistryReason.UNREACHABLE, detail)
    if isinstance(error, requests.exceptions.RequestException):
        detail = f"{asked}: the answer cannot be understood ({type(error).__name__})"
        return RegistryUnavailable(RegistryReason.BAD_RESPONSE, detail)
    if settings.ca_file is not None:
        detail = f"{asked}: ca_file {settings.ca_file} cannot be read, or is no PEM file of certificates"
        return RegistryUnavailable(RegistryReason.CERTIFICATE, detail)
    return RegistryUnavailable(RegistryReason.UNREACHABLE, f"{asked}: {_cause(error)}")


def refusal(
    response: requests.Response, method: str, address: str, settings: OciRegistrySettings
) -> RegistryUnavailable:
    if not same_host(response.url, settings.url):
        what = f"{urlsplit(response.url).hostname}, where the registry keeps its blobs, refuses them"
    elif settings.username is None:
        what = "it asks who is there: set username and password"
    else:
        what = f"the user {settings.username} may not do this: check username and password, and the user's rights"
    said = (
        f"{method} {address} answered {response.status_code}{_bracketed(_code(response, settings))}: {what}"
    )
    return RegistryUnavailable(RegistryReason.NOT_PERMITTED, said)


def _code(response: requests.Response, settings: OciRegistrySettings) -> str:
    """The registry's own word for what is wrong, one of the distribution protocol's codes."""
    try:
        errors = json.loads(read_bounded(response, _ERROR_BODY, "", Deadline("", settings.timeout)))["errors"]
        code = errors[0]["code"]
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, RegistryUnavailable):
        return ""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _bracketed(code: str) -> str:
    return f" ({code})" if code else ""


def _retry_after(response: requests.Response) -> timedelta | None:
    """How long the server wants to be left alone; a point in time is measured by the server's own clock."""
    text = response.headers.get("Retry-After", "").strip()
    try:
        if text.isascii() and text.isdigit():
            return timedelta(seconds=int(text))
        return max(
            timedelta(), parsedate_to_datetime(text) - parsedate_to_datetime(response.headers.get("Date", ""))
        )
    except (ValueError, TypeError, OverflowError):
        return None


def first_byte(response: requests.Response, begin: int, address: str) -> int:
    """Position of the first byte that comes: the one that was asked for, or 0 when ranges are not served."""
    if response.status_code == 200:
        return 0
    found = re.match(r"bytes (\d{1,20})-", response.headers.get("Content-Range", ""), re.ASCII)
    if found is None or int(found[1]) != begin:
        detail = f"GET {address}: other bytes came than those from {begin} on that were asked for"
        raise RegistryUnavailable(RegistryReason.BAD_RESPONSE, detail)
    return begin


def same_host(one: str | None, other: str) -> bool:
    return urlsplit(one or "")[:2] == urlsplit(other)[:2]


def without_query(url: str) -> str:
    return url.partition("?")[0]


def _verification(text: str) -> str:
    found = re.search(r"certificate verify failed: ([^(\"'\]]{1,120})", text)
    return found[1].strip() if found else "TLS failed"


def _cause(error: BaseException) -> str:
    """The innermost reason that the system gave, in its words."""
    seen: BaseException | None = error
    said = "the connection broke"
    for _ in range(10):
        if seen is None:
            break
        if isinstance(seen, OSError) and seen.strerror and not isinstance(seen, requests.RequestException):
            said = seen.strerror
        seen = seen.__cause__ or seen.__context__
    return said
