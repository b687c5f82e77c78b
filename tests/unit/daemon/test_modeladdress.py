"""Addresses of remote models on the command line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.config.registries import (
    HuggingFaceRegistrySettings,
    MlflowRegistrySettings,
    ObjectStoreRegistrySettings,
    OciRegistrySettings,
)
from layerwatch.daemon.modeladdress import SCHEMES, AddressError, parse_address

MLFLOW = {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}


@pytest.mark.parametrize(
    ("text", "kind", "model", "reference"),
    [
        ("mlflow:/fraud", MlflowRegistrySettings, "fraud", None),
        ("mlflow:/fraud/3", MlflowRegistrySettings, "fraud", "3"),
        ("mlflow:/fraud@champion", MlflowRegistrySettings, "fraud", "@champion"),
        ("mlflow://fraud@champion", MlflowRegistrySettings, "fraud", "@champion"),
        ("hf:acme/bert", HuggingFaceRegistrySettings, "acme/bert", None),
        ("hf:acme/bert@v1.0", HuggingFaceRegistrySettings, "acme/bert", "v1.0"),
        ("hf:acme/bert@refs/pr/7", HuggingFaceRegistrySettings, "acme/bert", "refs/pr/7"),
        ("oci:registry:5000/models/bert:prod", OciRegistrySettings, "models/bert", "prod"),
        ("oci:registry/bert", OciRegistrySettings, "bert", None),
        ("oci:registry/bert@sha256:0a", OciRegistrySettings, "bert", "sha256:0a"),
        ("s3://bucket/team/bert/v7", ObjectStoreRegistrySettings, "bert", "v7"),
        ("gs://bucket/bert/v7/", ObjectStoreRegistrySettings, "bert", "v7"),
        ("az://container/bert/v7", ObjectStoreRegistrySettings, "bert", "v7"),
    ],
)
def test_each_form_names_a_model_and_what_is_meant_of_it(
    text: str, kind: type, model: str, reference: str | None
) -> None:
    address = parse_address(text, MLFLOW)
    assert address is not None
    assert isinstance(address.settings, kind)
    assert (address.text, address.model, address.reference) == (text, model, reference)


@pytest.mark.parametrize(
    "text", ["model.safetensors", "./mlflow", "/a/b", "C:/x", "file:/a", "hf", "a:b", ""]
)
def test_everything_else_is_a_path(text: str) -> None:
    assert parse_address(text, MLFLOW) is None


@pytest.mark.parametrize(
    "text",
    [
        *("mlflow:", "mlflow:/", "mlflow:/a/", "mlflow:/a@", "mlflow:/a/1/2"),
        *("hf:", "hf:bert", "hf:a/b/c", "hf:a/b@", "hf:/b"),
        *("oci:", "oci:host", "oci:host/", "oci:/name"),
        *("s3:", "s3://bucket", "s3://bucket/model"),
    ],
)
def test_what_cannot_be_an_address_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(AddressError, match="must be"):
        parse_address(text, MLFLOW)


def test_an_mlflow_address_needs_to_know_the_server() -> None:
    with pytest.raises(AddressError, match="set MLFLOW_TRACKING_URI"):
        parse_address("mlflow:/fraud", {})


def test_a_server_given_with_a_password_in_its_url_is_refused_without_repeating_it() -> None:
    with pytest.raises(AddressError) as refused:
        parse_address("mlflow:/fraud", {"MLFLOW_TRACKING_URI": "http://me:s3cret@mlflow:5000"})
    assert "s3cret" not in str(refused.value)
    assert "MLFLOW_TRACKING_" in str(refused.value)


def settings_of(text: str, environ: dict[str, str]) -> Any:
    address = parse_address(text, environ)
    assert address is not None
    return address.settings


def test_servers_and_credentials_come_from_the_variables_of_their_own_clients() -> None:
    mlflow = settings_of(
        "mlflow:/a", {**MLFLOW, "MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "s3cret"}
    )
    assert (mlflow.url, mlflow.username, mlflow.password.reveal()) == ("http://mlflow:5000", "me", "s3cret")
    hub = settings_of("hf:a/b", {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "s3cret"})
    assert (hub.url, hub.token.reveal()) == ("http://127.0.0.1:9", "s3cret")
    oci = settings_of("oci:h/a", {"OCI_USERNAME": "me", "OCI_PASSWORD": "s3cret"})
    assert (oci.username, oci.password.reveal()) == ("me", "s3cret")
    assert "s3cret" not in repr([mlflow, hub, oci])


@pytest.mark.parametrize(
    ("host", "scheme"),
    [
        ("registry.internal", "https"),
        ("localhost:5000", "http"),
        ("127.0.0.1:5000", "http"),
        ("10.0.0.1", "https"),
    ],
)
def test_only_a_registry_on_this_machine_is_spoken_to_without_tls(host: str, scheme: str) -> None:
    assert settings_of(f"oci:{host}/a:b", {}).url == f"{scheme}://{host}"


@given(scheme=st.sampled_from(SCHEMES), rest=st.text(max_size=40))
def test_any_text_is_an_address_or_refused(scheme: str, rest: str) -> None:
    try:
        address = parse_address(f"{scheme}:{rest}", MLFLOW)
    except AddressError:
        return
    assert address is not None
    assert address.model
