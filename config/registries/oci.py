"""A registry of OCI artifacts (distribution, Harbor, ...) that holds models."""

from __future__ import annotations

from typing import Literal

from layerwatch.config.base import NonBlank, NonBlankList
from layerwatch.config.registries.base import RemoteRegistrySettings, ServerUrl
from layerwatch.config.secrets import Secret


class OciRegistrySettings(RemoteRegistrySettings):
    """Models stored as OCI artifacts. A model is a repository, a version a manifest digest, refs are tags."""

    kind: Literal["oci"]
    """What the registry is."""

    url: ServerUrl
    """`https://host[:port]`, or `http://` for a registry without TLS."""

    repositories: NonBlankList = ("*",)
    """Names or globs of the repositories; globs need a registry that lists its catalogue."""

    username: NonBlank | None = None
    """User."""

    password: Secret | None = None
    """Password or token of that user."""

    refs: NonBlankList = ("*",)
    """Glob patterns of the tags to watch."""
