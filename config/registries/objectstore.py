"""A bucket of an object store: S3 and what speaks its protocol, Google Cloud Storage, Azure, or a local folder."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal, Self
from urllib.parse import unquote

from pydantic import AfterValidator, WithJsonSchema, field_validator, model_validator

from layerwatch.config.base import NonBlank
from layerwatch.config.quantities import Duration
from layerwatch.config.registries.base import RemoteRegistrySettings, ServerUrl
from layerwatch.config.secrets import Secret


class Provider(StrEnum):
    """Who keeps the objects. The value is the scheme of the URL."""

    S3 = "s3"
    GOOGLE = "gs"
    AZURE = "az"
    LOCAL = "file"


_EXAMPLES = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder"


def _bucket_url(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    bucket, _, prefix = rest.rstrip("/").partition("/")
    if not separator or scheme not in tuple(Provider):
        raise ValueError(f"must be a URL such as {_EXAMPLES}")
    if scheme == Provider.LOCAL:
        if bucket or not prefix:
            raise ValueError("must be file:/// and the full path of a folder")
    elif not bucket or any(mark in bucket for mark in "@:?# "):
        raise ValueError("must name a bucket, without user, password or port; these have keys of their own")
    if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
        raise ValueError("must not hold empty parts, . or .. after the bucket")
    return f"{scheme}://{rest.rstrip('/')}"


BucketUrl = Annotated[
    str,
    AfterValidator(_bucket_url),
    WithJsonSchema({"type": "string", "pattern": "^(s3|gs|az)://[^/@:?# ]+|^file:///.+"}),
]
"""A bucket and, after it, what the keys of all objects in question begin with."""


class ObjectStoreRegistrySettings(RemoteRegistrySettings):
    """A bucket: `PREFIX/MODEL/VERSION/files`. Refs are `latest` and small objects `PREFIX/MODEL/.refs/REF`."""

    kind: Literal["objectstore"]
    """What the registry is."""

    url: BucketUrl
    """`s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or `file:///folder`."""

    endpoint: ServerUrl | None = None
    """Address of another server that speaks the provider's protocol; null for the provider's own."""

    region: NonBlank | None = None
    """Region of an S3 bucket; null for what the environment says."""

    access_key: Secret | None = None
    """S3: access key. Azure: name of the account. Null for what the environment or the workload's identity gives."""

    secret_key: Secret | None = None
    """S3: its secret. Azure: key of the account. Google: a service account's key, the text of its JSON file."""

    anonymous: bool = False
    """Whether to ask without any credentials, as a public bucket allows."""

    settle: Duration = timedelta(seconds=30)
    """How long all objects of a version must be unchanged before it is believed complete."""

    complete_marker: NonBlank | None = None
    """Name of an object whose presence says that a version is complete; then `settle` is not waited for."""

    order: Literal["name", "time"] = "name"
    """What makes a version newer than another: its name (v2 before v10), or the time of its newest weight file."""

    @property
    def provider(self) -> Provider:
        """Who keeps the objects."""
        return Provider(self.url.partition("://")[0])

    @property
    def bucket(self) -> str:
        """The bucket or container; empty for a local folder."""
        return self.url.partition("://")[2].partition("/")[0]

    @property
    def prefix(self) -> str:
        """What comes after the bucket, without slashes around it; for a local folder its path."""
        rest = self.url.partition("://")[2]
        return unquote(rest) if self.provider is Provider.LOCAL else rest.partition("/")[2]

    @field_validator("complete_marker")
    @classmethod
    def _a_plain_name(cls, name: str | None) -> str | None:
        if name is not None and (name in (".", "..") or "/" in name or "\0" in name):
            raise ValueError("must be a name inside the version's prefix, without /")
        return name

    @model_validator(mode="after")
    def _keys_that_the_provider_knows(self) -> Self:
        if self.provider is Provider.S3 and (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key belong together: give both or neither")
        if self.provider is Provider.AZURE and self.secret_key is not None and self.access_key is None:
            raise ValueError("secret_key is the key of an account: give its name as access_key")
        if self.provider is Provider.GOOGLE and self.access_key is not None:
            raise ValueError(
                "Google has no access_key: give a service account's key as secret_key, or neither"
            )
        if self.anonymous and self.secret_key is not None:
            raise ValueError("anonymous means without credentials: leave out secret_key")
        if self.provider is Provider.LOCAL:
            for key in ("endpoint", "region", "access_key", "secret_key", "ca_file"):
                if getattr(self, key) is not None:
                    raise ValueError(f"a local folder has no {key}")
        return self
