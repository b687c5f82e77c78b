"""An MLflow tracking server with its model registry."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from layerwatch.config.base import NonBlank
from layerwatch.config.registries.base import RemoteRegistrySettings, ServerUrl
from layerwatch.config.secrets import Secret


class MlflowRegistrySettings(RemoteRegistrySettings):
    """An MLflow tracking server. Refs are `latest`, aliases, with or without @, and the stages `Production` and `Staging`."""

    kind: Literal["mlflow"]
    """What the registry is."""

    url: ServerUrl
    """Address of the server."""

    username: NonBlank | None = None
    """User of basic authentication."""

    password: Secret | None = None
    """Its password."""

    token: Secret | None = None
    """Bearer token, in place of user and password."""

    write_verdict: bool = False
    """Whether each version gets the tags `layerwatch.verdict`, `.report` and `.fingerprint`."""

    @model_validator(mode="after")
    def _one_kind_of_credentials(self) -> Self:
        if self.token is not None and (self.username is not None or self.password is not None):
            raise ValueError("give either token, or username and password")
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together; give both, or token")
        return self
