"""Settings of registries: one kind beside the other, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from layerwatch.config.errors import ConfigError
from layerwatch.config.loading import load_settings, secret_problems
from layerwatch.config.redaction import dump_redacted
from layerwatch.config.registries import (
    HuggingFaceRegistrySettings,
    MlflowRegistrySettings,
    ObjectStoreRegistrySettings,
    OciRegistrySettings,
    RegistrySettings,
    RemoteRegistrySettings,
)
from layerwatch.config.secrets import Secret

Writer = Callable[[str], Path]

NEEDED: Mapping[str, str] = {
    "directory": "path: m",
    "mlflow": "url: 'http://h:5000'",
    "huggingface": "repositories: [o/n]",
    "oci": "url: 'https://h'",
    "objectstore": "url: 's3://bucket'",
}
REMOTE = sorted(NEEDED.keys() - {"directory"})


def one(write_config: Writer, kind: str, more: str = "") -> RegistrySettings:
    """The settings of one registry with no more than it needs, and some more."""
    path = write_config(
        f"registries: [{{name: r, kind: {kind}, {NEEDED[kind]}{', ' if more else ''}{more}}}]"
    )
    (settings,) = load_settings(path, {}).registries
    return settings


def refused(write_config: Writer, kind: str, more: str) -> str:
    """What is said of a registry."""
    with pytest.raises(ConfigError) as caught:
        one(write_config, kind, more)
    return str(caught.value)


@pytest.mark.parametrize("kind", NEEDED)
def test_every_kind_is_told_by_its_name_and_watches_all_models(write_config: Writer, kind: str) -> None:
    settings = one(write_config, kind)
    assert (settings.name, settings.kind, settings.models) == ("r", kind, ("*",))
    assert settings.reconcile == timedelta(hours=6)
    assert settings.hook_secret is None


def test_every_kind_watches_the_refs_that_its_users_mean(write_config: Writer) -> None:
    assert {kind: one(write_config, kind).refs for kind in NEEDED} == {
        "directory": ("latest",),
        "mlflow": ("latest",),
        "huggingface": ("main",),
        "oci": ("*",),
        "objectstore": ("latest",),
    }


def test_what_costs_requests_is_looked_at_less_often(write_config: Writer) -> None:
    assert one(write_config, "directory").poll == timedelta(seconds=30)
    for kind in REMOTE:
        assert one(write_config, kind).poll == timedelta(minutes=2)


@pytest.mark.parametrize("kind", REMOTE)
def test_a_registry_behind_a_network_has_a_timeout_an_authority_and_a_rehash(
    write_config: Writer, kind: str, tmp_path: Path
) -> None:
    settings = one(write_config, kind, "ca_file: ca.pem, timeout: 5s, rehash: 7d")
    assert isinstance(settings, RemoteRegistrySettings)
    assert settings.ca_file == tmp_path / "ca.pem"
    assert (settings.timeout, settings.rehash) == (timedelta(seconds=5), timedelta(days=7))
    for wrong in ("timeout: 0s", "rehash: 0s", "poll: 0s", "reconcile: 0s", "timeout: 5"):
        assert wrong.partition(":")[0] in refused(write_config, kind, wrong)


def test_a_directory_knows_nothing_of_networks(write_config: Writer) -> None:
    for key in ("timeout: 5s", "ca_file: x", "rehash: 7d", "url: 'http://h'"):
        assert "unknown key" in refused(write_config, "directory", key)


@pytest.mark.parametrize("kind", REMOTE)
def test_a_kind_that_needs_something_says_what(write_config: Writer, kind: str) -> None:
    path = write_config(f"registries: [{{name: r, kind: {kind}}}]")
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    (problem,) = caught.value.problems
    assert problem.path == f"registries[0].{NEEDED[kind].partition(':')[0]}"


def test_a_key_of_another_kind_is_unknown(write_config: Writer) -> None:
    assert "unknown key" in refused(write_config, "oci", "write_verdict: true")
    assert "unknown key" in refused(write_config, "mlflow", "repositories: [a]")
    assert "unknown key" in refused(write_config, "huggingface", "password: x")


@pytest.mark.parametrize("kind", ["mlflow", "oci"])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("h:5000", "must be a URL"),
        ("ftp://h", "must be a URL"),
        ("http://", "must be a URL"),
        ("http://h:99999", "must be a URL"),
        ("http://h:0", "must be a URL"),
        ("http://[::1", "must be a URL"),
        ("http://user:pass@h", "must not hold a user"),
        ("http://h/?token=x", "must not hold a user"),
        ("http://h/#x", "must not hold a user"),
    ],
)
def test_an_address_is_a_plain_http_url(write_config: Writer, kind: str, url: str, message: str) -> None:
    path = write_config(f"registries: [{{name: r, kind: {kind}, url: '{url}'}}]")
    with pytest.raises(ConfigError, match=message) as caught:
        load_settings(path, {})
    assert "pass" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://h:5000/", "http://h:5000"),
        ("https://h/mlflow/", "https://h/mlflow"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_an_address_is_kept_without_a_slash_at_its_end(url: str, kept: str) -> None:
    assert MlflowRegistrySettings(name="r", kind="mlflow", url=url).url == kept
    assert OciRegistrySettings(name="r", kind="oci", url=url).url == kept


def test_an_empty_list_of_models_refs_or_repositories_is_refused(write_config: Writer) -> None:
    for kind in NEEDED:
        assert "models" in refused(write_config, kind, "models: []")
        assert "refs" in refused(write_config, kind, "refs: []")
    with pytest.raises(ConfigError, match="repositories"):
        load_settings(
            write_config("registries: [{name: r, kind: huggingface, repositories: []}]"),
            {},
        )


@pytest.mark.parametrize("kind", ["directory", "objectstore"])
@pytest.mark.parametrize("marker", ["a/b", "..", ".", "''"])
def test_a_marker_is_the_name_of_a_file(write_config: Writer, kind: str, marker: str) -> None:
    assert "complete_marker" in refused(write_config, kind, f"complete_marker: {marker}")


def test_names_must_differ_across_kinds(write_config: Writer) -> None:
    path = write_config(
        "registries:\n  - {name: r, kind: directory, path: m}\n  - {name: r, kind: mlflow, url: 'http://h'}\n"
    )
    with pytest.raises(ConfigError, match='the name "r" is already used'):
        load_settings(path, {})


def secrets_of_all() -> str:
    return (
        "registries:\n"
        "  - {name: a, kind: mlflow, url: 'http://h', username: u, password: hush-1, hook_secret: hush-2}\n"
        "  - {name: e, kind: mlflow, url: 'http://h', token: hush-3}\n"
        "  - {name: b, kind: huggingface, repositories: [o/n], token: hush-4}\n"
        "  - {name: c, kind: oci, url: 'http://h', username: u, password: hush-5}\n"
        "  - {name: d, kind: objectstore, url: 's3://b', access_key: hush-6, secret_key: hush-7}\n"
    )


def test_no_secret_of_a_registry_is_shown(write_config: Writer) -> None:
    settings = load_settings(write_config(secrets_of_all()), {})
    mlflow, other, hub, oci, bucket = settings.registries
    assert isinstance(mlflow, MlflowRegistrySettings)
    assert isinstance(other, MlflowRegistrySettings)
    assert isinstance(hub, HuggingFaceRegistrySettings)
    assert isinstance(oci, OciRegistrySettings)
    assert isinstance(bucket, ObjectStoreRegistrySettings)
    held = (mlflow.password, mlflow.hook_secret, other.token, hub.token, oci.password, bucket.access_key)
    assert [one.reveal() for one in (*held, bucket.secret_key) if one] == [f"hush-{i}" for i in range(1, 8)]
    shown = f"{settings!r} {settings} {dump_redacted(settings)} {settings.model_dump_json()}"
    assert "hush" not in shown
    assert dump_redacted(settings).count("<secret>") == 7


def test_a_secret_that_cannot_be_read_is_reported_with_its_key(write_config: Writer) -> None:
    path = write_config(
        "registries: [{name: r, kind: mlflow, url: 'http://h', token: {env: SURELY_NOT_SET}}]"
    )
    (problem,) = secret_problems(load_settings(path, {}))
    assert problem.path == "registries[0].token"
    assert "SURELY_NOT_SET" in str(problem)


def test_a_secret_can_come_from_a_file_beside_the_configuration(write_config: Writer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hush\n")
    settings = one(write_config, "huggingface", "token: {file: token}")
    assert isinstance(settings, HuggingFaceRegistrySettings)
    assert isinstance(settings.token, Secret)
    assert settings.token.reveal() == "hush"
