"""Which layers of a manifest hold weights, and under which names."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwatch.daemon.registries.oci.manifests import (
    Artifact,
    Index,
    Packing,
    config_moment,
    moment,
    parse_manifest,
    plain_path,
)
from layerwatch_testing.servers.oci import FILEPATH, TITLE, Blob, manifest_of

KIT = "application/vnd.kitops.modelkit"
PACK = "application/vnd.cncf.model"
LAYER = "application/vnd.oci.image.layer.v1"


def artifact(media_type: str, annotations: dict[str, str] | None = None) -> Artifact:
    found = parse_manifest(
        json.dumps(manifest_of([Blob(b"x", media_type, annotations=annotations)])).encode()
    )
    assert isinstance(found, Artifact)
    return found


def layers(media_type: str, **named: str) -> list[tuple[Packing, str]]:
    keys = {"title": TITLE, "filepath": FILEPATH, "unpack": "io.deis.oras.content.unpack"}
    found = artifact(media_type, {keys[key]: value for key, value in named.items()})
    return [(layer.packing, layer.path) for layer in found.layers]


@pytest.mark.parametrize(
    ("media_type", "packing"),
    [
        (f"{PACK}.weight.v1.tar", Packing.TAR),
        (f"{PACK}.weight.v1.tar+gzip", Packing.TAR_GZIP),
        (f"{PACK}.weight.v1.tar+zstd", Packing.TAR_ZSTD),
        (f"{PACK}.weight.config.v1.tar", Packing.TAR),
        (f"{KIT}.model.v1.tar", Packing.TAR),
        (f"{KIT}.model.v1.tar+gzip", Packing.TAR_GZIP),
        (f"{KIT}.model.v1.tar+zstd", Packing.TAR_ZSTD),
        (f"{KIT}.modelpart.v1.tar+gzip", Packing.TAR_GZIP),
    ],
)
def test_archives_of_models_may_hold_weights(media_type: str, packing: Packing) -> None:
    assert layers(media_type) == layers(media_type, title="model", filepath="model") == [(packing, "")]
    assert artifact(media_type).is_model


@pytest.mark.parametrize("kind", ["dataset", "code", "doc"])
def test_archives_of_other_things_are_not_looked_into(kind: str) -> None:
    for family in (PACK, KIT):
        assert layers(f"{family}.{kind}.v1.tar+gzip", title=f"{kind}.bin") == []


def test_a_raw_layer_is_the_file_that_it_names() -> None:
    assert layers(f"{PACK}.weight.v1.raw", filepath="a/model.gguf") == [(Packing.RAW, "a/model.gguf")]
    assert layers(f"{PACK}.weight.v1.raw", title="model.gguf") == [(Packing.RAW, "model.gguf")]
    both = layers(f"{PACK}.weight.v1.raw", title="model.gguf", filepath="a/model.gguf")
    assert both == [(Packing.RAW, "a/model.gguf")]
    assert layers(f"{KIT}.model.v1.raw", filepath="m.safetensors") == [(Packing.RAW, "m.safetensors")]


def test_raw_weights_without_a_name_are_not_left_out_silently() -> None:
    with pytest.raises(ValueError, match=r"org\.cncf\.model\.filepath"):
        layers(f"{PACK}.weight.v1.raw")


def test_a_raw_data_set_is_no_weights_whatever_it_is_called() -> None:
    assert not artifact(f"{PACK}.dataset.v1.raw", {FILEPATH: "data.npz"}).is_model


def test_a_model_of_docker_has_a_name_even_without_one() -> None:
    assert layers("application/vnd.docker.ai.gguf.v3") == [(Packing.RAW, "model.gguf")]
    assert layers("application/vnd.docker.ai.gguf.v3", filepath="q4.gguf") == [(Packing.RAW, "q4.gguf")]
    assert layers("application/vnd.docker.ai.license") == []


def test_a_file_pushed_by_oras_without_a_type_is_a_file_and_a_folder_is_an_archive() -> None:
    assert layers(f"{LAYER}.tar", title="model.safetensors") == [(Packing.RAW, "model.safetensors")]
    assert layers(f"{LAYER}.tar+gzip", title="model", unpack="true") == [(Packing.TAR_GZIP, "")]
    assert layers(f"{LAYER}.tar+gzip", title="model") == [(Packing.TAR_GZIP, "")]
    assert layers(f"{LAYER}.tar+gzip", title="model.pth") == [(Packing.RAW, "model.pth")]
    assert layers("application/octet-stream", title="model.pt") == [(Packing.RAW, "model.pt")]


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        f"{LAYER}.tar+gzip",
        "application/vnd.dev.cosign.simplesigning.v1+json",
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
    ],
)
def test_images_signatures_and_charts_are_no_models(media_type: str) -> None:
    assert not artifact(media_type).is_model


def test_an_index_lists_its_manifests() -> None:
    one = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{'a' * 64}",
        "size": 3,
    }
    found = parse_manifest(json.dumps({"schemaVersion": 2, "manifests": [one]}).encode())
    assert isinstance(found, Index)
    assert [two.digest for two in found.manifests] == [one["digest"]]


def broken(**change: Any) -> bytes:
    document = manifest_of([Blob(b"x", title="model.pt")])
    document["layers"][0] |= change
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"layers": {}}',
        b'{"layers": [1]}',
        b'{"layers": [], "config": 7}',
        b"[" * 100_000,
        broken(digest="sha256:xyz"),
        broken(digest=7),
        broken(digest="md5:00"),
        broken(size=-1),
        broken(size=True),
        broken(size="7"),
        broken(size=2**60),
        broken(mediaType=None),
    ],
)
def test_what_is_no_manifest_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"it is|it has|descriptors"):
        parse_manifest(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    ["layers", "config", "manifests", "annotations", "digest", "size", "mediaType"]
                ),
                x,
            )
        ),
    )
)
def test_any_json_is_a_manifest_or_refused(document: object) -> None:
    with suppress(ValueError):
        parse_manifest(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-21T10:00:00Z", datetime(2026, 11, 21, 10, tzinfo=UTC)),
        ("2026-11-21T12:00:00.123456789+02:00", datetime(2026, 11, 21, 10, 0, 0, 123456, tzinfo=UTC)),
        ("2026-11-21T10:00:00", datetime(2026, 11, 21, 10, tzinfo=UTC)),
        ("yesterday", None),
        ("0001-01-01T00:00:00+23:00", None),
        (7, None),
        (None, None),
    ],
)
def test_a_time_of_creation_is_read_as_utc(text: object, expected: datetime | None) -> None:
    assert moment(text) == expected


def test_the_configuration_of_a_model_says_when_it_was_made() -> None:
    made = datetime(2026, 1, 2, tzinfo=UTC)
    assert config_moment(b'{"descriptor": {"createdAt": "2026-01-02T00:00:00Z"}}') == made
    assert config_moment(b'{"created": "2026-01-02T00:00:00Z"}') == made
    for other in (b"", b"[]", b"{}", b'{"descriptor": 7}', b'{"created": 7}'):
        assert config_moment(other) is None


@pytest.mark.parametrize(
    "path", ["../a", "/a", "a/../b", "a//b", "a/./b", "", ".", "./", "a\\b", "a\nb", "a\0b"]
)
def test_a_path_that_is_not_inside_a_version_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="cannot be its own"):
        plain_path(path)


def test_a_path_is_taken_without_the_dot_that_tar_puts_before_it() -> None:
    assert plain_path("./a/b.bin") == plain_path("././/a/b.bin") == "a/b.bin"
