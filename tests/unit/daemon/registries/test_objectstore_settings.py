"""Which settings of an object store are accepted, and what is read out of its URL."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from layerwatch.config.registries.objectstore import ObjectStoreRegistrySettings, Provider


def settings(**values: object) -> ObjectStoreRegistrySettings:
    return ObjectStoreRegistrySettings.model_validate({"name": "reg", "kind": "objectstore", **values})


@pytest.mark.parametrize(
    ("url", "provider", "bucket", "prefix"),
    [
        ("s3://models", Provider.S3, "models", ""),
        ("s3://models/", Provider.S3, "models", ""),
        ("s3://models/team a/llm%20/", Provider.S3, "models", "team a/llm%20"),
        ("gs://models/x", Provider.GOOGLE, "models", "x"),
        ("az://container/x/y", Provider.AZURE, "container", "x/y"),
        ("file:///srv/models/", Provider.LOCAL, "", "/srv/models"),
        ("file:///srv/with%20space", Provider.LOCAL, "", "/srv/with space"),
    ],
)
def test_a_url_names_provider_bucket_and_prefix(
    url: str, provider: Provider, bucket: str, prefix: str
) -> None:
    found = settings(url=url)
    assert (found.provider, found.bucket, found.prefix) == (provider, bucket, prefix)


@pytest.mark.parametrize(
    "url",
    [
        "models",
        "http://host/models",
        "s3://",
        "s3:///models",
        "s3://key:secret@models",
        "s3://models:9000/x",
        "s3://models?versionId=1",
        "s3://models//x",
        "s3://models/a/../b",
        "file://host/folder",
        "file:///",
        "file:///srv/../etc",
    ],
)
def test_what_is_no_url_of_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        settings(url=url)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"url": "s3://b", "access_key": "a"}, "belong together"),
        ({"url": "s3://b", "secret_key": "s"}, "belong together"),
        ({"url": "az://b", "secret_key": "s"}, "access_key"),
        ({"url": "gs://b", "access_key": "a", "secret_key": "s"}, "service account"),
        ({"url": "s3://b", "access_key": "a", "secret_key": "s", "anonymous": True}, "anonymous"),
        ({"url": "file:///srv", "endpoint": "http://host"}, "endpoint"),
        ({"url": "file:///srv", "access_key": "a", "secret_key": "s"}, "access_key"),
        ({"url": "s3://b", "complete_marker": "a/b"}, "without /"),
        ({"url": "s3://b", "complete_marker": ".."}, "without /"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_with_the_reason(
    values: dict[str, object], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        settings(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"url": "s3://b"},
        {"url": "s3://b", "access_key": "a", "secret_key": {"env": "KEY"}},
        {"url": "s3://b", "anonymous": True},
        {"url": "az://c", "access_key": "account"},
        {"url": "az://c", "access_key": "account", "secret_key": "k"},
        {"url": "gs://b", "secret_key": {"file": "/run/key.json"}},
        {"url": "file:///srv"},
    ],
)
def test_every_way_to_give_credentials_is_accepted(values: dict[str, object]) -> None:
    assert settings(**values).kind == "objectstore"
