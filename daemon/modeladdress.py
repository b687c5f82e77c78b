"""Addresses of models in remote registries, as the command line takes them, and the registries behind them.

``mlflow:/name@alias``, ``mlflow:/name/3``, ``hf:owner/name@revision``, ``oci:host/name:tag``, ``s3://bucket/model/version``
(also ``gs:`` and ``az:``). Where the servers are and who asks is taken from the environment that their own clients use.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from layerwatch.config.registries import RegistrySettings
from layerwatch.daemon.registries import build_registry
from layerwatch.daemon.registries.base import Progress, no_progress
from layerwatch.daemon.registries.downloads import Downloads
from layerwatch.daemon.registries.remote import RemoteRegistry

_NAME = "command-line"
_STORES = ("s3", "gs", "az")
SCHEMES = ("mlflow", "hf", "oci", *_STORES)
"""What an address may begin with; everything else is a path."""

_VARIABLES = {
    "mlflow": "MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN, "
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "huggingface": "HF_ENDPOINT, HF_TOKEN",
    "oci": "OCI_USERNAME, OCI_PASSWORD",
    "objectstore": "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the provider's other "
    "variables",
}
"""Where the settings of each kind come from on the command line."""

_SETTINGS: TypeAdapter[RegistrySettings] = TypeAdapter(RegistrySettings)


class AddressError(ValueError):
    """An address that cannot be one, or whose server is not known; the message says what to write or set."""


@dataclass(frozen=True, slots=True)
class Address:
    """A model in a remote registry.

    Attributes:
        text: as it was given.
        model: name in the registry.
        reference: a ref, a number, a digest; None for the newest version.
        settings: of a registry that holds it.
    """

    text: str
    model: str
    reference: str | None
    settings: RegistrySettings

    @property
    def variables(self) -> str:
        """The variables of the environment that settings came from."""
        return _VARIABLES[self.settings.kind]


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model at hand.

    Attributes:
        path: its files, or the one file.
        source: the address.
        name, version: as its registry calls them.
    """

    path: Path
    source: str
    name: str
    version: str


def parse_address(text: str, environ: Mapping[str, str]) -> Address | None:
    """Read an address; None for what is a path.

    Raises:
        AddressError.
    """
    scheme, separator, rest = text.partition(":")
    if not separator or scheme not in SCHEMES:
        return None
    if scheme in _STORES:
        return _in_object_store(text, scheme, rest, environ)
    if scheme == "mlflow":
        return _in_mlflow(text, rest, environ)
    if scheme == "hf":
        return _in_hub(text, rest, environ)
    return _in_oci(text, rest, environ)


@contextmanager
def opened(address: Address, downloads: Downloads, progress: Progress = no_progress) -> Iterator[OpenedModel]:
    """The model's files on the local disk, valid inside the context; raises RegistryUnavailable, UnreadableError."""
    registry = build_registry(address.settings, downloads)
    assert isinstance(registry, RemoteRegistry)
    found = registry.source.resolve(address.model, address.reference)
    with registry.open(found.location, progress) as path:
        yield OpenedModel(path, address.text, found.model, found.version)


def _in_mlflow(text: str, rest: str, environ: Mapping[str, str]) -> Address:
    name, at, alias = rest.removeprefix("//").removeprefix("/").partition("@")
    reference: str | None = f"@{alias}" if at else None
    if not at and "/" in name:
        name, _, reference = name.partition("/")
    if not name or reference in ("", "@") or "/" in (reference or ""):
        raise AddressError(f"{text}: must be mlflow:/NAME, mlflow:/NAME/VERSION or mlflow:/NAME@ALIAS")
    url = environ.get("MLFLOW_TRACKING_URI", "")
    if not url:
        raise AddressError(f"{text}: set MLFLOW_TRACKING_URI to the address of the MLflow server")
    settings = {
        "url": url,
        "username": environ.get("MLFLOW_TRACKING_USERNAME"),
        "password": environ.get("MLFLOW_TRACKING_PASSWORD"),
        "token": environ.get("MLFLOW_TRACKING_TOKEN"),
        "ca_file": environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"),
    }
    return Address(text, name, reference, _settings(text, "mlflow", settings))


def _in_hub(text: str, rest: str, environ: Mapping[str, str]) -> Address:
    name, at, revision = rest.removeprefix("//").partition("@")
    if name.count("/") != 1 or not all(name.split("/")) or (at and not revision):
        raise AddressError(f"{text}: must be hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    settings = {
        "repositories": [name],
        "url": environ.get("HF_ENDPOINT"),
        "token": environ.get("HF_TOKEN"),
    }
    return Address(text, name, revision or None, _settings(text, "huggingface", settings))


def _in_oci(text: str, rest: str, environ: Mapping[str, str]) -> Address:
    host, _, path = rest.removeprefix("//").partition("/")
    name, at, digest = path.partition("@")
    tag = None
    if not at:
        name, _, tag = path.partition(":")
    reference = digest or tag or None
    if not host or not name:
        raise AddressError(f"{text}: must be oci:HOST/NAME:TAG or oci:HOST/NAME@sha256:DIGEST")
    settings = {
        "url": f"{'http' if _is_loopback(host) else 'https'}://{host}",
        "repositories": [name],
        "username": environ.get("OCI_USERNAME"),
        "password": environ.get("OCI_PASSWORD"),
    }
    return Address(text, name, reference, _settings(text, "oci", settings))


def _in_object_store(text: str, scheme: str, rest: str, environ: Mapping[str, str]) -> Address:
    parts = [part for part in rest.removeprefix("//").split("/") if part]
    if len(parts) < 3:
        raise AddressError(f"{text}: must be {scheme}://BUCKET/.../MODEL/VERSION")
    *bucket_and_prefix, model, version = parts
    settings: dict[str, Any] = {"url": f"{scheme}://{'/'.join(bucket_and_prefix)}", "settle": "0s"}
    if scheme == "s3":
        settings["endpoint"] = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL")
        settings["region"] = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    return Address(text, model, version, _settings(text, "objectstore", settings))


def _settings(text: str, kind: str, values: Mapping[str, Any]) -> RegistrySettings:
    given = {key: value for key, value in values.items() if value}
    try:
        return _SETTINGS.validate_python({"name": _NAME, "kind": kind, **given})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"][1:]))
        told = f"{text}: {where}: {first['msg']} (from the address, or {_VARIABLES[kind]})"
        raise AddressError(told) from None


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] or host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
