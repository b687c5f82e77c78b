"""The process that Apprise sends from: ``python -m layerwatch.alerts.appriseprocess``, one for each message.

Apprise connects by itself, over many protocols and from threads of its own. What `layerwatch.alerts.http` does for one
request is done here for a whole process, by an audit hook (https://peps.python.org/pep-0578/), which no code of Apprise
can go round: every connection and datagram is held against the address policy just before it leaves, with the address
that it really goes to, and no program is started. Besides, redirects are never followed, and the process ends by itself
when its time is over or when an answer outgrows its memory.

It reads a `Job` from its input and writes an `Outcome`, as JSON. The URL is in the input and not in the arguments or the
environment, which other processes can read.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import requests

from layerwatch.alerts.addresses import AddressPolicy
from layerwatch.alerts.errors import DeliveryError, DeliveryReason
from layerwatch.alerts.http import endpoint, forbidden, status_error, translated

_MEMORY_LIMIT = 2 * 2**30
"""Bytes of address space, of which most is never used."""

_CONNECTING = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_STARTING = frozenset(
    {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"}
)


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done.

    Attributes:
        url: one Apprise URL.
        allowed: private networks that may be connected to.
        seconds: time limit.
        message: arguments of Apprise's ``notify``; None only looks whether the URL can be used, without the network.
    """

    url: str
    allowed: tuple[str, ...]
    seconds: float
    message: dict[str, Any] | None

    def encoded(self) -> bytes:
        """As the process reads it."""
        return json.dumps(asdict(self)).encode()

    def __repr__(self) -> str:
        return "<Job>"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it: delivered when ``reason`` is None, else a `DeliveryError` in parts."""

    reason: str | None = None
    detail: str = ""
    retryable: bool = False
    retry_after: float | None = None

    @classmethod
    def of(cls, error: DeliveryError) -> Self:
        """The outcome that stands for this error."""
        wait = error.retry_after
        seconds = None if wait is None else wait.total_seconds()
        return cls(error.reason.value, error.detail, error.retryable, seconds)

    def encoded(self) -> bytes:
        """As the process writes it."""
        return json.dumps(asdict(self)).encode()

    def error(self) -> DeliveryError | None:
        """The error that it stands for."""
        if self.reason is None:
            return None
        return DeliveryError(
            DeliveryReason(self.reason),
            self.detail,
            retryable=self.retryable,
            retry_after=None if self.retry_after is None else timedelta(seconds=self.retry_after),
        )


class _Guard:
    """The audit hook.

    Attributes:
        refusal: of the last connection; None when it was let through, as after the first of a name's addresses was not.
    """

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self.refusal: DeliveryError | None = None

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STARTING:
            raise PermissionError("no program may be started")
        if event not in _CONNECTING or arguments[1] is None:  # None: a socket that was connected before.
            return
        self.refusal = self._refusal(arguments[1])
        if self.refusal is not None:
            raise PermissionError("the address is refused")

    def _refusal(self, address: object) -> DeliveryError | None:
        host = str(address[0]) if isinstance(address, tuple) else None
        problem = "it is no IP address, and no other kind can be checked"
        try:
            if host is not None:
                refused = self._policy.refusal(host)
                return None if refused is None else forbidden("Apprise", host, refused)
        except ValueError:
            # It would be looked up behind the hook, and could be answered otherwise than when it was checked.
            problem = (
                f"{host} is a name, and this service's connections can only be checked by address; write that"
            )
        detail = f"Apprise: what it connects to is refused: {problem}"
        return DeliveryError(DeliveryReason.FORBIDDEN_ADDRESS, detail, retryable=False)


class _Answers:
    """What was wrong with the last answer over HTTP; redirects are answers, and not followed."""

    def __init__(self) -> None:
        self.failure: DeliveryError | None = None

    def watch(self, send: Callable[..., requests.Response]) -> Callable[..., requests.Response]:
        """``requests.Session.send``, watched."""

        def watched(session: object, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
            where = endpoint(str(request.url))
            try:
                response = send(session, request, **{**settings, "allow_redirects": False})
            except Exception as error:
                self.failure = translated(error, where, _limit(settings.get("timeout")), expired=False)
                raise
            now = datetime.now(UTC)
            self.failure = status_error(response.status_code, response.headers.get("Retry-After"), where, now)
            return response

        return watched


def _limit(timeout: Any) -> timedelta:
    """The longer of the limits that Apprise set for connecting and for reading."""
    limits = timeout if isinstance(timeout, tuple) else (timeout,)
    return timedelta(seconds=max((limit for limit in limits if limit is not None), default=0))


def main() -> None:
    """Do the job on standard input."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    _silence()
    read = json.load(sys.stdin)
    job = Job(read["url"], tuple(read["allowed"]), read["seconds"], read["message"])
    signal.setitimer(signal.ITIMER_REAL, job.seconds)
    with contextlib.suppress(ValueError):  # A lower limit is in force.
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    try:
        _do(job)
        outcome = Outcome()
    except DeliveryError as error:
        outcome = Outcome.of(error)
    answer.write(outcome.encoded())
    answer.flush()
    # Threads of Apprise that still wait for something are not waited for.
    os._exit(0)


def _silence() -> None:
    """Nothing but the outcome is written: what Apprise says holds URLs."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.dup2(nothing, sys.stderr.fileno())


def _do(job: Job) -> None:
    guard, answers = _Guard(AddressPolicy.from_cidrs(job.allowed)), _Answers()
    sys.addaudithook(guard)
    service = _service(job.url)
    if job.message is None:
        return
    # This process is Apprise's alone.
    requests.Session.send = answers.watch(requests.Session.send)  # type: ignore[method-assign]
    problem = "did not deliver and does not say why"
    try:
        if service.notify(**job.message):
            return
    except Exception as error:  # noqa: BLE001 - whatever a plug-in raises; its text may carry the URL
        problem = f"broke down ({type(error).__name__})"
    failure = guard.refusal or answers.failure
    if failure is None:
        detail = f"Apprise {problem}; try the URL with the command apprise -vv"
        failure = DeliveryError(DeliveryReason.UNEXPECTED, detail, retryable=True)
    raise failure


def _service(url: str) -> Any:
    apprise = importlib.import_module("apprise")
    asset = apprise.AppriseAsset(async_mode=False, http_redirects=False, storage_mode="memory")
    service = apprise.Apprise(asset=asset)
    if not (service.add(url) and len(service) == 1):
        detail = "url is not one URL that Apprise understands; see https://appriseit.com/services/"
        raise DeliveryError(DeliveryReason.BAD_URL, detail, retryable=False)
    if not service[0].verify_certificate:
        detail = "url turns the check of certificates off (verify); leave that out and set ca_file"
        raise DeliveryError(DeliveryReason.BAD_URL, detail, retryable=False)
    return service


if __name__ == "__main__":
    main()
