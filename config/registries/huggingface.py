"""The Hugging Face Hub, or a server that speaks its protocol."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from layerwatch.config.base import NonBlankList
from layerwatch.config.registries.base import RemoteRegistrySettings, ServerUrl
from layerwatch.config.secrets import Secret

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.*?\[\]!-]+")
"""An owner, and the name of a repository or a glob pattern of such names."""


class HuggingFaceRegistrySettings(RemoteRegistrySettings):
    """Repositories of the Hugging Face Hub. A version is a commit; refs are branches, tags and `refs/pr/N`."""

    kind: Literal["huggingface"]
    """What the registry is."""

    repositories: NonBlankList
    """`owner/name`, or `owner/*` and other globs below one owner (an organisation or a user)."""

    url: ServerUrl | None = None
    """Address of the server; null for the public one, or what HF_ENDPOINT says."""

    token: Secret | None = None
    """Access token, for private and gated repositories."""

    refs: NonBlankList = ("main",)
    """Glob patterns of branches, tags and pull requests (`refs/pr/*`) to watch."""

    @field_validator("repositories")
    @classmethod
    def _below_one_owner(cls, repositories: tuple[str, ...]) -> tuple[str, ...]:
        for repository in repositories:
            if not _REPOSITORY.fullmatch(repository):
                raise ValueError(
                    f"{repository!r} must be owner/name, or owner/* or another glob below one owner"
                )
        return repositories
