"""Artifacts of MLflow that lie in an object store, where clients read them directly."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from layerwatch.config.extras import how_to_install
from layerwatch.daemon.registries.base import RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.downloads import RemoteFile
from layerwatch.daemon.registries.pace import longest, paced
from layerwatch.metrics.errors import UnreadableError, UnreadableReason

SCHEMES = frozenset({"s3", "s3a", "gs", "abfs", "abfss"})
"""Of addresses ``scheme://bucket/prefix``."""

_WHOLE = timedelta(days=1)
"""For the whole of a large object, which may take as long as it takes at a fair pace."""

_ENDPOINTS = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Environment variables with the address of a server that speaks the S3 protocol."""


class BucketUnavailable(RegistryUnavailable):
    """A bucket, or what is in it, cannot be read now. That says nothing of the MLflow server that named it."""


class MlflowBuckets:
    """Reads buckets with the credentials of the environment or the workload's identity.

    Args:
        timeout: how long to wait for a connection and for each piece.
        limit: so many files of one version are read at most.
    """

    def __init__(self, timeout: timedelta, limit: int) -> None:
        self._timeout = timeout
        self._limit = limit
        self._store = lru_cache(maxsize=16)(self._opened)

    def files(self, url: str) -> list[RemoteFile]:
        """The objects below an address, or the one that it names; raises RegistryUnavailable."""
        import_obstore()
        import obstore

        try:
            bucket, prefix = _split(url)
            store = self._store(bucket, longest(self._timeout))
            found = []
            for batch in _batches(obstore.list(store, prefix or None), longest(self._timeout), url):
                for entry in batch:
                    path = entry["path"][len(prefix) :].lstrip("/")
                    found.append(_file(bucket, path, entry))
                    if len(found) > self._limit:
                        raise BucketUnavailable(
                            RegistryReason.BAD_RESPONSE, f"{url} holds more than {self._limit} objects"
                        )
            if not found and prefix:
                # A prefix lists what is below it, not the object of that very name.
                head = obstore.head(store, prefix)
                found.append(_file(bucket, prefix.rpartition("/")[2], head))
        except obstore.exceptions.BaseError as error:
            if isinstance(error, obstore.exceptions.NotFoundError):
                return []
            raise _unavailable(url, error) from None
        except ValueError:
            # What cannot even be taken for an address of a bucket.
            raise BucketUnavailable(
                RegistryReason.BAD_RESPONSE, f"{_shown(url)} is no address of an object store"
            ) from None
        return found

    def stream(self, url: str, identity: str, begin: int, end: int) -> Iterator[bytes]:
        """Bytes of an object; raises RegistryUnavailable, also half-way, UnreadableError when it is another by now."""
        import_obstore()
        import obstore

        if end <= begin:
            return
        bucket, path = _split(url)
        try:
            options: Any = {"range": (begin, end)}
            if identity.startswith('"'):
                options["if_match"] = identity
            result = obstore.get(self._store(bucket, _WHOLE), path, options=options)
            # Each piece as it arrives: whoever waits for larger ones cannot tell a slow store from a dead one.
            pieces = (bytes(piece) for piece in result.stream(min_chunk_size=1))
            left = end - begin
            for piece in paced(pieces, f"reading {url}", self._timeout):
                yield piece[:left]
                left -= len(piece)
                if left <= 0:
                    return
        except obstore.exceptions.PreconditionError:
            raise UnreadableError(
                UnreadableReason.CHANGED_WHILE_READING, url, "it was written again while it was fetched"
            ) from None
        except obstore.exceptions.BaseError as error:
            raise _unavailable(url, error) from None

    def _opened(self, bucket: str, longest_answer: timedelta) -> Any:
        from obstore.store import from_url

        options: dict[str, Any] = {"connect_timeout": self._timeout, "read_timeout": self._timeout}
        options["timeout"] = longest_answer
        config: dict[str, Any] = {}
        if bucket.startswith("s3"):
            endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
            if endpoint is not None:
                config["endpoint"] = endpoint
                config["virtual_hosted_style_request"] = False
                options["allow_http"] = endpoint.startswith("http://")
        retries: Any = {"max_retries": 1, "retry_timeout": timedelta(seconds=10)}
        client: Any = options
        return from_url(bucket, client_options=client, retry_config=retries, **config)


def _batches(batches: Any, limit: timedelta, url: str) -> Iterator[Any]:
    """The pages of a listing; a store may send ones that hold nothing, for ever, and the client asks on and on."""

    async def following() -> Any:
        return await anext(batches, None)

    with asyncio.Runner() as runner:
        while True:
            try:
                batch = runner.run(asyncio.wait_for(following(), limit.total_seconds()))
            except TimeoutError:
                raise RegistryUnavailable(
                    RegistryReason.UNREACHABLE,
                    f"listing {url}: the store sends pages without objects and no end",
                ) from None
            if batch is None:
                return
            yield batch


def import_obstore() -> None:
    """Raise RegistryUnavailable where obstore is not installed."""
    try:
        import obstore  # noqa: F401
    except ModuleNotFoundError as error:
        raise BucketUnavailable(
            RegistryReason.NOT_INSTALLED,
            "these artifacts lie in an object store and need the package obstore: "
            + how_to_install("objectstore"),
        ) from error


def _split(url: str) -> tuple[str, str]:
    """``scheme://bucket`` and the path in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", unquote(parts.path).strip("/")


def _file(bucket: str, path: str, entry: Any) -> RemoteFile:
    identity = entry.get("version") or entry.get("e_tag") or str(entry["last_modified"])
    return RemoteFile(path, int(entry["size"]), str(identity), address=f"{bucket}/{entry['path']}")


def _shown(url: str) -> str:
    return url if len(url) <= 200 and url.isprintable() else f"{url[:200]!r}..."


def _unavailable(url: str, error: Exception) -> BucketUnavailable:
    """The store's own text may hold signed addresses and is not repeated."""
    from obstore import exceptions

    if isinstance(error, exceptions.NotFoundError):
        return BucketUnavailable(RegistryReason.VERSION_GONE, f"{url} is not there")
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return BucketUnavailable(
            RegistryReason.NOT_PERMITTED,
            f"{url}: the store refuses the credentials of the environment: set those of a user who may read it",
        )
    return BucketUnavailable(
        RegistryReason.UNREACHABLE,
        f"{url}: the store gives no answer: are its address and its credentials set in the environment?",
    )
