"""What an OCI registry has and other registries have not; the contract tests say the rest. Against a real server."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from layerwatch.config.registries import OciRegistrySettings
from layerwatch.daemon.registries.base import FoundVersion, RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.downloads import Downloads
from layerwatch.daemon.registries.oci.hook import verify_hook
from layerwatch.daemon.registries.oci.registry import OciSource, build
from layerwatch.daemon.registries.remote import RemoteRegistry
from layerwatch.metrics.errors import UnreadableError, UnreadableReason
from layerwatch.metrics.relation import Relation
from layerwatch_testing.networks import network
from layerwatch_testing.servers import ServerMissing
from layerwatch_testing.servers.oci import (
    CREATED,
    FILEPATH,
    INDEX,
    MANIFEST,
    RAW_WEIGHTS,
    USER,
    Blob,
    OciServer,
    TokenServer,
    digest_of,
)
from layerwatch_testing.unreliable import UnreliableServer, private_authority
from layerwatch_testing.waiting import until
from layerwatch_testing.worlds.base import SECRET, TINY, WEIGHTS, WRONG_SECRET
from layerwatch_testing.worlds.oci import OciWorld

pytestmark = pytest.mark.server

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PACK = "application/vnd.cncf.model.weight.v1"
KIT = "application/vnd.kitops.modelkit"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OciWorld]:
    try:
        found = OciWorld(tmp_path)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    yield found
    found.close()


def source(registry: RemoteRegistry) -> OciSource:
    assert isinstance(registry.source, OciSource)
    return registry.source


def refused(act: Callable[[], object]) -> RegistryUnavailable:
    with pytest.raises(RegistryUnavailable) as caught:
        act()
    return caught.value


def tar(*files: tuple[str, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return output.getvalue()


def push(world: OciWorld, *blobs: Blob, tag: str = "v1", **annotations: str) -> str:
    return world.server.push(world.model_name("a"), tag, blobs, annotations)


def location(world: OciWorld, digest: str) -> str:
    return f"{world.model_name('a')}@{digest}"


def found_files(world: OciWorld, digest: str) -> dict[str, bytes]:
    """Weights and what lies beside them, as they reach the disk."""
    with world.registry.open(location(world, digest)) as path:
        return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


# What is a version


def test_versions_are_digests_and_refs_are_tags(world: OciWorld) -> None:
    world.publish("a", "v1")
    listing = world.look()
    (version,) = listing.versions
    digest = world.version_name("a", "v1")
    assert (version.version, version.token, version.location) == (digest, digest, location(world, digest))
    assert {(one.ref, one.version) for one in listing.refs} == {("v1", digest), ("latest", digest)}


def test_a_tag_for_the_same_bytes_makes_no_new_version(world: OciWorld) -> None:
    world.publish("a", "v1")
    before = world.look()
    world.point("a", "champion", "v1")
    after = world.look()
    assert after.versions == before.versions
    assert {one.ref for one in after.refs} == {"v1", "latest", "champion"}
    assert world.look(everything=False).versions == ()


def test_a_version_that_lost_its_tags_is_still_there_until_it_is_deleted(world: OciWorld) -> None:
    world.publish("a", "v1")
    first = world.look().versions[0]
    world.publish("a", "v1", TINY)
    listing = world.look()
    assert [one.version for one in listing.versions] == [world.version_name("a", "v1")]
    assert listing.still_there == {first.location}
    assert world.registry.token(first.location) == first.token
    world.server.delete(world.model_name("a"), first.version)
    assert world.look().still_there == frozenset()
    assert world.registry.token(first.location) is None


def test_what_an_earlier_process_knew_is_still_there_without_a_tag(world: OciWorld) -> None:
    world.publish("a", "v1")
    old = world.look().versions[0]
    world.publish("a", "v1", TINY)
    registry = world.restarted()
    registry.recall({old.location: old.token, f"gone@{old.version}": old.token})
    assert registry.listing(NOW).still_there == {old.location}


def test_age_is_the_time_that_the_author_gives_whatever_the_order_of_pushes(world: OciWorld) -> None:
    weights = Blob(b"x", title="model.pt")
    new = push(world, weights, tag="v1", **{CREATED: "2026-05-01T00:00:00Z"})
    old = push(world, weights, tag="v2", **{CREATED: "2026-04-30T23:00:00-00:30"})
    assert [one.version for one in world.look().versions] == [old, new]


def test_without_an_annotation_the_configuration_tells_the_age_and_else_the_first_sight(
    world: OciWorld,
) -> None:
    weights = Blob(b"x", title="model.pt")
    config = (
        f"{PACK.rpartition('.weight')[0]}.config.v1+json",
        b'{"descriptor": {"createdAt": "2026-07-01T00:00:00Z"}}',
    )
    dated = world.server.push(world.model_name("a"), "v1", [weights], config=config)
    first = push(world, weights, Blob(b"1", title="note"), tag="v2")
    look = datetime(2026, 8, 1, tzinfo=UTC)
    registry = world.restarted()
    registry.listing(look)
    second = push(world, weights, Blob(b"2", title="note"), tag="v3")
    listing = registry.listing(look + timedelta(minutes=2))
    assert [one.version for one in listing.versions] == [dated, first, second]
    assert registry.listing(look + timedelta(days=1)).versions == listing.versions


def test_tags_of_signatures_are_no_refs(world: OciWorld) -> None:
    world.publish("a", "v1")
    signed = world.version_name("a", "v1").replace(":", "-")
    push(world, Blob(b"{}", "application/vnd.dev.cosign.simplesigning.v1+json"), tag=f"{signed}.sig")
    registry = world.restarted(refs=("*",))
    listing = registry.listing(NOW)
    assert {one.ref for one in listing.refs} == {"v1", "latest"}
    assert listing.remarks == ()


def test_an_image_without_a_model_is_left_out_without_a_word(world: OciWorld) -> None:
    push(world, Blob(b"x", "application/vnd.oci.image.layer.v1.tar+gzip"))
    listing = world.look()
    assert (listing.versions, listing.refs, listing.remarks, listing.empty) == ((), (), (), False)


def test_a_manifest_that_is_not_understood_is_listed_with_a_remark_and_its_tag_stays(world: OciWorld) -> None:
    digest = push(world, Blob(b"x", RAW_WEIGHTS))
    world.publish("b", "v1")
    listing = world.look()
    assert [one.version for one in listing.versions] == [digest, world.version_name("b", "v1")]
    assert (world.model_name("a"), "v1", digest) in {
        (one.model, one.ref, one.version) for one in listing.refs
    }
    assert "v1 cannot be read" in listing.remarks[0]
    assert FILEPATH in listing.remarks[0]
    assert world.registry.token(location(world, digest)) == digest
    with pytest.raises(UnreadableError) as caught:
        world.registry.manifest(listing.versions[0])
    assert caught.value.reason is UnreadableReason.CORRUPT
    assert (
        "not understood"
        in refused(lambda: source(world.registry).resolve(world.model_name("a"), "v1")).detail
    )


def test_a_layer_that_cannot_be_unpacked_here_is_listed_and_refused_when_it_is_read(
    world: OciWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerwatch.daemon.registries.oci.unpacking._zstd_module", lambda: None)
    digest = push(world, Blob(b"zstd", f"{PACK}.tar+zstd"))
    listing = world.look()
    assert [one.version for one in listing.versions] == [digest]
    assert [(one.ref, one.version) for one in listing.refs] == [("v1", digest)]
    assert "pip install zstandard" in listing.remarks[0]
    with pytest.raises(UnreadableError, match="zstandard"):
        world.registry.manifest(listing.versions[0])


def test_a_tag_that_is_moved_from_a_model_to_an_image_stays(world: OciWorld) -> None:
    push(world, Blob(b"x", title="model.pt"))
    world.look()
    image = push(world, Blob(b"x", "application/vnd.oci.image.layer.v1.tar+gzip"))
    (found,) = world.look(everything=False).versions
    assert found.version == image
    again = world.restarted()
    again.recall({found.location: found.token})
    for registry in (world.registry, again):
        listing = registry.listing(NOW)
        assert [(one.ref, one.version) for one in listing.refs] == [("v1", image)]
        assert [one.version for one in listing.versions] == [image]
        assert "holds no model" in listing.remarks[0]


def index(world: OciWorld, *digests: str) -> str:
    entries = [{"mediaType": MANIFEST, "digest": digest, "size": 1} for digest in digests]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return world.server.manifest(world.model_name("a"), "v1", document)


def test_the_one_model_in_an_index_is_the_version(world: OciWorld) -> None:
    model = push(world, Blob(b"weights", title="model.pt"), tag="")
    image = push(world, Blob(b"x", "application/vnd.oci.image.layer.v1.tar+gzip"), tag="")
    index(world, image, model)
    listing = world.look()
    assert [one.version for one in listing.versions] == [model]
    assert [(one.ref, one.version) for one in listing.refs] == [("v1", model)]
    assert found_files(world, model) == {"model.pt": b"weights"}
    assert source(world.registry).resolve(world.model_name("a"), "v1").version == model


def test_an_index_of_several_models_is_listed_and_refused_when_it_is_read(world: OciWorld) -> None:
    digest = index(world, *(push(world, Blob(data, title="model.pt"), tag="") for data in (b"1", b"2")))
    listing = world.look()
    assert [one.version for one in listing.versions] == [digest]
    assert [(one.ref, one.version) for one in listing.refs] == [("v1", digest)]
    with pytest.raises(UnreadableError, match="an index of manifests"):
        world.registry.manifest(listing.versions[0])
    assert "an index of 2 models: tag each of them by itself" in listing.remarks[0]


# What lies in it


@pytest.mark.parametrize(
    "media_type", [f"{PACK}.tar", f"{PACK}.tar+gzip", f"{KIT}.model.v1.tar", f"{KIT}.model.v1.tar+gzip"]
)
def test_weights_in_an_archive_have_the_fingerprint_that_they_have_as_a_file(
    world: OciWorld, media_type: str
) -> None:
    weights, config = world.weights(network()), b'{"model_type": "tiny"}'
    archive = tar((f"./{WEIGHTS}", weights), ("./config.json", config), ("./README.md", b"words"))
    data = gzip.compress(archive) if media_type.endswith("gzip") else archive
    packed = push(world, Blob(data, media_type), tag="v1")
    plain = push(world, Blob(weights, RAW_WEIGHTS, annotations={FILEPATH: WEIGHTS}), tag="v2")
    assert found_files(world, packed) == {WEIGHTS: weights, "config.json": config}

    def fingerprint(digest: str) -> str:
        found = next(one for one in world.look().versions if one.version == digest)
        return world.registry.manifest(found).fingerprint

    assert fingerprint(packed) == fingerprint(plain)


def test_the_shards_of_a_gzip_archive_cost_little_more_than_two_passes(world: OciWorld) -> None:
    shards = [
        (f"model-{number}.bin", bytes([number]) * 7 + world.weights(network(number)) * 40)
        for number in range(8)
    ]
    data = gzip.compress(tar(*shards), 1)
    digest = push(world, Blob(data, f"{KIT}.model.v1.tar+gzip"))
    world.front.forget()
    assert found_files(world, digest) == dict(shards)
    assert world.front.bytes_sent < 3 * len(data) + 8 * 2**20


def test_raw_layers_promise_their_digests_so_that_nothing_is_fetched_to_know_them(world: OciWorld) -> None:
    weights = world.weights(network())
    push(world, Blob(weights, title=WEIGHTS))
    found = world.look().versions[0]
    world.front.forget()
    (entry,) = world.registry.manifest(found).entries
    assert f"sha256:{entry.sha256}" == digest_of(weights)
    assert world.front.bytes_sent < 5000


def test_a_layer_that_was_damaged_in_the_store_is_refused(world: OciWorld) -> None:
    weights = world.weights(
        network(987_654)
    )  # which no other test publishes: the server keeps equal blobs once
    digest = push(world, Blob(weights, title=WEIGHTS))
    world.server.damage(digest_of(weights))
    with pytest.raises(UnreadableError) as caught:
        found_files(world, digest)
    assert caught.value.reason is UnreadableReason.CORRUPT


def test_two_weight_files_of_one_name_are_refused(world: OciWorld) -> None:
    digest = push(world, Blob(b"1", title="model.pt"), Blob(b"2", title="./model.pt"))
    with pytest.raises(UnreadableError) as caught:
        source(world.registry).files(location(world, digest))
    assert "which of them is loaded depends on the reader" in caught.value.detail


@pytest.mark.parametrize("name", ["../model.pt", "/etc/model.pt", "a/../../model.pt"])
def test_a_version_that_names_a_file_outside_itself_is_listed_and_refused_when_it_is_read(
    world: OciWorld, name: str
) -> None:
    digest = push(world, Blob(b"1", title=name))
    assert [one.version for one in world.look().versions] == [digest]
    with pytest.raises(UnreadableError) as caught:
        found_files(world, digest)
    assert caught.value.reason is UnreadableReason.CORRUPT


def test_an_archive_without_weights_says_so(world: OciWorld) -> None:
    digest = push(world, Blob(tar(("README.md", b"words")), f"{KIT}.model.v1.tar"))
    with pytest.raises(UnreadableError, match="holds no weight file"):
        found_files(world, digest)


def test_a_kit_with_data_and_code_fetches_its_model_alone(world: OciWorld) -> None:
    data = Blob(tar(("train.npy", bytes(2**20))), f"{KIT}.dataset.v1.tar")
    code = Blob(gzip.compress(tar(("hidden.bin", bytes(100)))), f"{KIT}.code.v1.tar+gzip")
    model = Blob(tar(("model.onnx", b"weights")), f"{KIT}.model.v1.tar")
    digest = push(world, data, code, model)
    world.front.forget()
    assert found_files(world, digest) == {"model.onnx": b"weights"}
    assert world.front.bytes_sent < 2**19


def test_a_location_of_another_kind_of_registry_is_gone(world: OciWorld) -> None:
    error = refused(lambda: source(world.registry).files("/models/a/v1"))
    assert error.reason is RegistryReason.VERSION_GONE


# Where it came from


def declared(world: OciWorld, digest: str) -> list[tuple[str, Relation | None, str]]:
    found = FoundVersion(world.model_name("a"), digest, location(world, digest), "", digest)
    return [(one.parent, one.relation, one.source) for one in source(world.registry).declared(found)]


def test_annotations_declare_the_parent_by_tag_digest_or_reference(world: OciWorld) -> None:
    weights = Blob(b"x", title="model.pt")
    parent = push(world, weights)
    host = world.front.url.removeprefix("http://")
    repository = world.model_name("a")
    world.publish("base", "v1")
    base = f"{world.model_name('base')}/{world.version_name('base', 'v1')}"
    for text, expected in {
        "v1": parent,
        parent: parent,
        f"{repository}:v1": parent,
        f"{host}/{repository}:v1": parent,
        f"{host}/{repository}@{parent}": parent,
        f"{world.model_name('base')}:v1": base,
        f"{host}/{world.model_name('base')}": base,
        "hf:owner/name@main": "hf:owner/name@main",
        "registry.example.org/team/a:v1": "registry.example.org/team/a:v1",
        "v7": "v7",
        "meta-llama/Llama-3.1-8B": "meta-llama/Llama-3.1-8B",
    }.items():
        child = push(
            world, weights, tag="", **{"layerwatch.parent": text, "layerwatch.relation": "quantized"}
        )
        assert declared(world, child) == [(expected, Relation.QUANTIZED, "annotation layerwatch.parent")], (
            text
        )


def test_the_standard_annotations_of_a_base_image_declare_a_parent(world: OciWorld) -> None:
    weights = Blob(b"x", title="model.pt")
    parent = push(world, weights)
    repository = world.model_name("a")
    names = {
        "org.opencontainers.image.base.name": f"{repository}:v1",
        "org.opencontainers.image.base.digest": parent,
    }
    child = push(world, weights, tag="v2", **names, **{"layerwatch.relation": "nonsense"})
    assert declared(world, child) == [(parent, None, "annotation org.opencontainers.image.base.name")]


def test_a_kit_that_adds_to_another_declares_it(world: OciWorld) -> None:
    world.publish("base", "v1")
    kitfile = json.dumps({"model": {"path": f"{world.model_name('base')}:v1"}}).encode()
    blob = Blob(tar(("adapter_model.safetensors", b"x")), f"{KIT}.modelpart.v1.tar")
    config = (f"{KIT}.config.v1+json", kitfile)
    digest = world.server.push(world.model_name("a"), "v1", [blob], config=config)
    base = f"{world.model_name('base')}/{world.version_name('base', 'v1')}"
    assert declared(world, digest) == [(base, None, "Kitfile model.path")]
    whole = Blob(tar(("model.safetensors", b"x")), f"{KIT}.model.v1.tar")
    own = json.dumps({"model": {"path": "./model.safetensors"}}).encode()
    digest = world.server.push(world.model_name("a"), "v2", [whole], config=(config[0], own))
    assert declared(world, digest) == []


# What a person means


def test_a_person_names_a_version_by_tag_or_digest_or_not_at_all(world: OciWorld) -> None:
    for label in ("v1", "v2"):
        world.publish("a", label)
    found = source(world.registry)
    model = world.model_name("a")
    for reference, label in {
        "v1": "v1",
        world.version_name("a", "v1"): "v1",
        "latest": "v2",
        None: "v2",
    }.items():
        resolved = found.resolve(model, reference)
        assert world.label_of(model, resolved.version) == label
        assert resolved in world.look().versions


def test_without_a_tag_latest_only_what_all_tags_lead_to_is_meant(world: OciWorld) -> None:
    world.publish("a", "v1")
    world.unpoint("a", "latest")
    found, model = source(world.registry), world.model_name("a")
    assert world.label_of(model, found.resolve(model, None).version) == "v1"
    world.publish("a", "v2")
    world.unpoint("a", "latest")
    error = refused(lambda: found.resolve(model, None))
    assert error.reason is RegistryReason.NOT_FOUND
    assert "its tags are v1, v2: say which" in error.detail


@pytest.mark.parametrize("reference", ["v9", f"sha256:{'0' * 64}", "no tag at all!", None])
def test_what_cannot_be_found_is_told_with_what_there_is(world: OciWorld, reference: str | None) -> None:
    push(world, Blob(b"x", "text/plain"), tag="v1")
    error = refused(lambda: source(world.registry).resolve(world.model_name("a"), reference))
    assert error.reason is RegistryReason.NOT_FOUND
    if reference == "v9":
        assert "its tags are v1" in error.detail


@pytest.mark.parametrize("model", ["nobody/nothing", "../v2", "UPPER lower", ""])
def test_a_repository_that_there_is_not_is_not_found(world: OciWorld, model: str) -> None:
    error = refused(lambda: source(world.registry).resolve(model, "v1"))
    assert error.reason is RegistryReason.NOT_FOUND


# How it is reached


def test_named_repositories_need_no_catalogue(world: OciWorld) -> None:
    world.publish("a", "v1")
    missing = world.model_name("missing")
    registry = world.restarted(repositories=(world.model_name("a"), missing))
    world.front.forget()
    listing = registry.listing(NOW)
    assert [one.model for one in listing.versions] == [world.model_name("a")]
    assert not any("_catalog" in one.path for one in world.front.requests)
    assert f"{missing} is not in the registry" in listing.remarks[0]


def test_an_idle_look_asks_once_for_the_tags_and_once_for_each_watched_tag(world: OciWorld) -> None:
    for label in ("v1", "v2", "v3"):
        world.publish("a", label)
    registry = world.restarted(repositories=(world.model_name("a"),))
    registry.listing(NOW)
    world.front.forget()
    listing = registry.listing(NOW, everything=False)
    assert (listing.versions, listing.complete) == ((), False)
    assert len(listing.refs) == 4
    assert sorted(one.method for one in world.front.requests) == ["GET", "HEAD", "HEAD", "HEAD", "HEAD"]


def test_a_proxy_that_answers_404_to_everything_deletes_nothing(world: OciWorld) -> None:
    world.publish("a", "v1")
    found = world.look().versions[0]
    world.front.answer(404, b"<html>not here</html>")
    assert refused(world.look).reason is RegistryReason.BAD_RESPONSE
    assert refused(lambda: world.registry.token(found.location)).reason is RegistryReason.BAD_RESPONSE


def test_a_private_authority_is_believed_when_it_is_named(world: OciWorld, tmp_path: Path) -> None:
    world.publish("a", "v1")
    authority = private_authority(tmp_path)
    front = UnreliableServer(world.server.url, authority.context)
    try:
        registry = world.through(front.url, ca_file=authority.ca_file)
        (found,) = registry.listing(NOW).versions
        with registry.open(found.location) as path:
            assert (path / WEIGHTS).read_bytes() == world.weights(network())
        strange = refused(lambda: world.through(front.url).listing(NOW))
        plain = refused(lambda: world.through(world.server.url.replace("http:", "https:")).listing(NOW))
        nowhere = refused(lambda: world.through(front.url, ca_file=tmp_path / "no.pem").listing(NOW))
    finally:
        front.close()
    assert {one.reason for one in (strange, plain, nowhere)} == {RegistryReason.CERTIFICATE}
    assert "set ca_file" in strange.detail
    assert "write http:// in url" in plain.detail
    assert "no.pem" in nowhere.detail


@pytest.fixture
def with_tokens(tmp_path: Path) -> Iterator[tuple[OciServer, TokenServer]]:
    """A registry that lets in whoever has a token, as Harbor and the public ones do."""
    tokens = TokenServer(tmp_path, SECRET)
    folder = tmp_path / "registry"
    folder.mkdir()
    try:
        server = OciServer(folder, token_server=(tokens.address, tokens.certificate))
    except ServerMissing as missing:
        tokens.stop()
        pytest.skip(str(missing))
    yield server, tokens
    server.stop()
    tokens.stop()


def test_bearer_tokens_are_fetched_for_each_repository_and_again_when_they_expire(
    with_tokens: tuple[OciServer, TokenServer], tmp_path: Path
) -> None:
    server, tokens = with_tokens
    for repository in ("team/a", "team/b"):
        server.sign_in(tokens.token(f"repository:{repository}:pull,push"))
        server.push(repository, "v1", [Blob(repository.encode(), title="model.pt")])
    settings = {"name": "reg", "kind": "oci", "url": server.url, "username": USER, "refs": ["*"]}
    registry = build(
        OciRegistrySettings.model_validate({**settings, "password": SECRET}), Downloads(tmp_path / "d", 2**20)
    )
    tokens.lifetime = timedelta(seconds=-120)  # the server allows for clocks that differ by a minute
    expired = refused(lambda: registry.listing(NOW))
    assert expired.reason is RegistryReason.NOT_PERMITTED
    tokens.lifetime = timedelta(minutes=5)
    tokens.scopes.clear()
    listing = registry.listing(NOW)
    assert [one.model for one in listing.versions] == ["team/a", "team/b"]
    assert set(tokens.scopes) == {"registry:catalog:*", "repository:team/a:pull", "repository:team/b:pull"}
    asked = len(tokens.scopes)
    assert registry.listing(NOW) == listing
    assert len(tokens.scopes) == asked
    with registry.open(listing.versions[0].location) as path:
        assert (path / "model.pt").read_bytes() == b"team/a"

    wrong = build(
        OciRegistrySettings.model_validate({**settings, "password": WRONG_SECRET}),
        Downloads(tmp_path / "d", 2**20),
    )
    error = refused(lambda: wrong.listing(NOW))
    assert error.reason is RegistryReason.NOT_PERMITTED
    assert WRONG_SECRET not in f"{error!r}{error}{wrong!r}{wrong.source!r}"


def test_a_registry_with_a_password_says_what_is_missing(tmp_path: Path) -> None:
    try:
        world = OciWorld(tmp_path, auth=True)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    try:
        world.publish("a", "v1")
        assert world.names() == ["a/v1"]
        nobody = refused(lambda: world.restarted(username=None, password=None).listing(NOW))
        wrong = refused(lambda: world.restarted(**world.wrong_credentials).listing(NOW))
    finally:
        world.close()
    assert nobody.reason is wrong.reason is RegistryReason.NOT_PERMITTED
    assert "set username and password" in nobody.detail
    assert f"the user {USER} may not do this" in wrong.detail


def test_a_push_is_told_at_once_by_the_registrys_own_notification(tmp_path: Path) -> None:
    told: list[tuple[dict[str, str], bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            told.append((headers, self.rfile.read(int(headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=receiver.serve_forever, daemon=True).start()
    try:
        server = OciServer(tmp_path, notify=f"http://127.0.0.1:{receiver.server_address[1]}/", bearer=SECRET)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    try:
        digest = server.push("team/a", "v1", [Blob(b"x", title="model.pt")])

        def events() -> list[tuple[bool, str | None, bytes]]:
            found = [(verify_hook(SECRET, headers, body, NOW), body) for headers, body in told]
            return [(event.relevant, event.model, body) for event, body in found]

        until(lambda: any(relevant for relevant, _, _ in events()), "an event of the pushed manifest")
        relevant = [(model, body) for is_relevant, model, body in events() if is_relevant]
        assert [model for model, _ in relevant] == ["team/a"]
        assert digest.encode() in relevant[0][1]
        assert len(events()) > len(relevant), "the layers are told too"
    finally:
        server.stop()
        receiver.shutdown()
        receiver.server_close()
