"""What a bucket has and other registries have not; the contract tests say the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from layerwatch.config.registries import ObjectStoreRegistrySettings
from layerwatch.daemon.registries.base import FoundRef, Listing, RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.downloads import Downloads
from layerwatch.daemon.registries.objectstore.registry import ObjectStoreSource, build
from layerwatch_testing.servers import ServerMissing
from layerwatch_testing.servers.objectstore import BUCKET
from layerwatch_testing.worlds.base import SECRET, WEIGHTS, WRONG_SECRET
from layerwatch_testing.worlds.objectstore import ObjectStoreWorld

server = pytest.mark.server
MIB = 2**20


@contextmanager
def opened(folder: Path, auth: bool = False, marker: str | None = None) -> Iterator[ObjectStoreWorld]:
    try:
        world = ObjectStoreWorld(folder, auth, marker)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    try:
        yield world
    finally:
        world.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ObjectStoreWorld]:
    """Without a marker, so that versions count once they settled."""
    with opened(tmp_path) as found:
        yield found


def now() -> datetime:
    return datetime.now(UTC)


def refused(act: Callable[[], object]) -> RegistryUnavailable:
    with pytest.raises(RegistryUnavailable) as caught:
        act()
    return caught.value


def source(world: ObjectStoreWorld, **settings: object) -> ObjectStoreSource:
    found = world.restarted(**settings).source
    assert isinstance(found, ObjectStoreSource)
    return found


def names(listing: Listing) -> list[str]:
    return [f"{found.model}/{found.version}" for found in listing.versions]


def put_raw(world: ObjectStoreWorld, key: str) -> None:
    """An object under a key that the client would not write."""
    connection = HTTPConnection(urlsplit(world.server_url).netloc)
    try:
        connection.request("PUT", quote(f"/{BUCKET}/{world.prefix}/{key}"), body=b"x")
        assert connection.getresponse().status == 200
    finally:
        connection.close()


@server
def test_a_version_is_complete_when_nothing_in_it_changed_for_the_settle_time(
    world: ObjectStoreWorld,
) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    first = now()
    assert world.registry.listing(first).unfinished == (("a", "v1"),)
    assert world.registry.listing(first + timedelta(seconds=4)).unfinished == (("a", "v1"),)
    assert names(world.registry.listing(first + timedelta(seconds=5))) == ["a/v1"]


@server
def test_at_the_first_sight_only_change_times_that_are_safely_past_are_believed(
    world: ObjectStoreWorld,
) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    written = now()
    assert source(world).listing(written + timedelta(seconds=60), True).versions == ()
    assert names(source(world).listing(written + timedelta(seconds=66), True)) == ["a/v1"]


@server
def test_a_store_whose_clock_is_ahead_delays_a_version_but_does_not_hide_it(world: ObjectStoreWorld) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    yesterday = now() - timedelta(days=1)
    assert world.registry.listing(yesterday).versions == ()
    assert names(world.registry.listing(yesterday + timedelta(seconds=5))) == ["a/v1"]


@server
def test_a_version_that_is_written_again_keeps_its_refs_until_it_settled(world: ObjectStoreWorld) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    world.put(f"a/v2/{WEIGHTS}", b"w")
    begin = now()
    world.registry.listing(begin)
    assert names(world.registry.listing(begin + timedelta(seconds=5))) == ["a/v1", "a/v2"]
    world.put(f"a/v2/{WEIGHTS}", b"other")
    listing = world.registry.listing(begin + timedelta(seconds=6))
    assert names(listing) == ["a/v1"]
    assert listing.unfinished == (("a", "v2"),)
    assert listing.refs == (FoundRef("a", "latest", "v2"),)


@server
def test_a_version_stays_complete_when_this_machines_clock_is_set_back(world: ObjectStoreWorld) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    assert names(world.look()) == ["a/v1"]
    assert names(world.registry.listing(now())) == ["a/v1"]
    assert names(world.registry.listing(now() - timedelta(hours=1))) == ["a/v1"]


@server
def test_a_text_beside_the_weights_does_not_make_a_version_unfinished_again(world: ObjectStoreWorld) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    before = world.look()
    world.put("a/v1/README.md", b"text")
    assert world.registry.listing(now()) == before


@server
def test_what_was_complete_before_a_restart_is_complete_at_once(world: ObjectStoreWorld) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    token = source(world).token("a/v1")
    assert token is not None
    again = world.restarted()
    again.recall({"a/v1": token})
    assert names(again.listing(now())) == ["a/v1"]


@server
def test_a_set_of_shards_with_a_gap_is_waited_for_an_hour(world: ObjectStoreWorld) -> None:
    for number in (1, 3):
        world.put(f"a/v1/model-0000{number}-of-00003.safetensors", b"w")
    written = now()
    assert world.registry.listing(written + timedelta(minutes=59)).unfinished == (("a", "v1"),)
    # Somebody gave up: the version is listed, and examining it tells what is missing.
    assert names(world.restarted().listing(written + timedelta(minutes=62))) == ["a/v1"]
    world.put("a/v1/model-00002-of-00003.safetensors", b"w")
    assert names(world.restarted().listing(now() + timedelta(seconds=66))) == ["a/v1"]


@server
def test_a_version_without_weights_is_waited_for_and_listed_where_a_ref_points_at_it(
    world: ObjectStoreWorld,
) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    world.put("a/v2/README.md", b"soon")
    world.point("a", "champion", "v2")
    written = now()
    listing = world.registry.listing(written + timedelta(minutes=59))
    assert (names(listing), listing.unfinished) == (["a/v1"], (("a", "v2"),))
    assert listing.refs == (FoundRef("a", "champion", "v2"), FoundRef("a", "latest", "v1"))
    listing = world.registry.listing(written + timedelta(minutes=120))
    assert (sorted(names(listing)), listing.unfinished) == (["a/v1", "a/v2"], ())
    assert listing.refs == (FoundRef("a", "champion", "v2"), FoundRef("a", "latest", "v1"))
    found = next(one for one in listing.versions if one.version == "v2")
    assert world.registry.token("a/v2") == found.token
    assert "holds no weight file" in listing.remarks[0]
    world.unpoint("a", "champion")
    assert names(world.registry.listing(written + timedelta(minutes=121))) == ["a/v1"]
    assert world.registry.token("a/v2") is None


@server
def test_names_that_begin_with_a_dot_or_end_as_temporary_ones_are_invisible(world: ObjectStoreWorld) -> None:
    for key in (".hidden/v1", "a/.v1", "a/v2.tmp", "a/v3.partial", "a/v4~", "b.tmp/v1", "a/v5/.cache"):
        world.put(f"{key}/{WEIGHTS}", b"w")
    world.put("a/v6/README.md", b"no weights")
    world.put("a/.refs/.champion", b"v1")
    listing = world.look()
    assert (listing.versions, listing.refs, listing.unfinished, listing.remarks) == ((), (), (), ())


@server
def test_marks_of_empty_folders_are_no_versions(world: ObjectStoreWorld) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    for key in ("a/", "a/v1/", "a/v2/", "b/"):
        put_raw(world, key)
    assert names(world.look()) == ["a/v1"]


@server
def test_weights_outside_of_a_versions_folder_are_told(world: ObjectStoreWorld) -> None:
    world.put("a/v1.safetensors", b"w")
    world.put("a/README.md", b"text")
    listing = world.look()
    assert listing.versions == ()
    (remark,) = listing.remarks
    assert remark.startswith("a/v1.safetensors: ")


@server
@pytest.mark.parametrize(
    "key", ["bad//v2/x.bin", "bad/v1/../x.bin", "bad/v1/./x.bin", "bad/v1/new\x01line.bin"]
)
def test_a_key_that_is_no_path_blinds_its_own_model_alone(world: ObjectStoreWorld, key: str) -> None:
    world.put(f"bad/v1/{WEIGHTS}", b"w")
    world.put(f"good/v1/{WEIGHTS}", b"w")
    world.look()
    put_raw(world, key)
    listing = world.look()
    assert names(listing) == ["good/v1"]
    assert listing.unlisted == (("bad", RegistryReason.BAD_RESPONSE),)
    assert len(listing.remarks) == 1
    assert "delete or rename" in listing.remarks[0]
    assert "\x01" not in listing.remarks[0]
    error = refused(lambda: source(world).resolve("bad", "v1"))
    assert error.reason is RegistryReason.BAD_RESPONSE


@server
def test_a_key_that_hides_all_models_is_named(world: ObjectStoreWorld) -> None:
    world.put(f"good/v1/{WEIGHTS}", b"w")
    put_raw(world, "/v1/x.bin")
    error = refused(world.look)
    assert error.reason is RegistryReason.BAD_RESPONSE
    assert "//v1/x.bin" in error.detail


@server
def test_keys_with_unusual_characters_are_read_as_they_are(world: ObjectStoreWorld) -> None:
    name = "a b#c%20d~ü+&=[q]'.safetensors"
    world.put(f"mödel 1/v 1+1/{name}", world.weights())
    (found,) = world.look().versions
    assert (found.model, found.version) == ("mödel 1", "v 1+1")
    with world.registry.open(found.location) as path:
        assert (path / name).read_bytes() == world.weights()


@server
@pytest.mark.parametrize(
    "content",
    [b"", b"v9", b"v1 v2", b"\xff\xfe", b"../b/v1", b"v1" * 1000, b"a/v1"],
    ids=lambda text: text[:7],
)
def test_a_ref_that_names_no_version_of_its_model_is_told(world: ObjectStoreWorld, content: bytes) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    world.put("a/.refs/champion", content)
    listing = world.look()
    assert listing.refs == (FoundRef("a", "latest", "v1"),)
    (remark,) = listing.remarks
    assert remark.startswith("a/.refs/champion: ")


@server
def test_an_object_called_latest_says_what_is_latest(world: ObjectStoreWorld) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    world.put(f"a/v2/{WEIGHTS}", b"w")
    world.point("a", "latest", "v1")
    assert world.look().refs == (FoundRef("a", "latest", "v1"),)


@server
def test_refs_are_read_again_only_when_they_were_written_again(world: ObjectStoreWorld) -> None:
    for number in range(5):
        world.put(f"m{number}/v1/{WEIGHTS}", b"w")
        world.put(f"m{number}/v2/{WEIGHTS}", b"w")
        world.point(f"m{number}", "champion", "v1")
        world.point(f"m{number}", "unwatched", "v1")
    world.look()
    reads = [one.path for one in world.front.requests if "/.refs/" in one.path]
    assert len(reads) == 5
    world.point("m3", "champion", "v2")
    world.front.forget()
    assert FoundRef("m3", "champion", "v2") in world.look().refs
    assert [one.path.rsplit("/", 3)[1:] for one in world.front.requests if "/.refs/" in one.path] == [
        ["m3", ".refs", "champion"]
    ]


@server
def test_versions_can_be_ordered_by_the_time_of_their_weights(world: ObjectStoreWorld) -> None:
    for version in ("zebra", "ant"):
        world.put(f"a/{version}/{WEIGHTS}", b"w")
        # S3 tells times by the second.
        written = int(now().timestamp())
        while int(now().timestamp()) == written:
            threading.Event().wait(0.05)
    listing = world.restarted(order="time").listing(world.later)
    assert names(listing) == ["a/zebra", "a/ant"]
    assert listing.refs == (FoundRef("a", "latest", "ant"),)


@server
def test_only_models_that_are_named_are_asked_for(world: ObjectStoreWorld) -> None:
    for model in ("a", "ab", "b"):
        world.put(f"{model}/v1/{WEIGHTS}", b"w")
    assert names(world.restarted(models=["a", "b"]).listing(world.later)) == ["a/v1", "b/v1"]
    assert [parse_qs(urlsplit(one.path).query)["prefix"] for one in world.front.requests] == [
        [f"{world.prefix}/a/"],
        [f"{world.prefix}/b/"],
    ]
    assert names(world.restarted(models=["a*"]).listing(world.later)) == ["a/v1", "ab/v1"]


@server
def test_an_overwrite_between_two_blocks_ends_the_download(world: ObjectStoreWorld) -> None:
    world.put(f"a/v1/{WEIGHTS}", bytes(5 * MIB))
    (file,) = source(world).files("a/v1")
    stream = source(world).stream("a/v1", file, 0)
    assert next(stream) == bytes(4 * MIB)
    world.put(f"a/v1/{WEIGHTS}", b"\1" * (5 * MIB))
    error = refused(lambda: next(stream))
    assert error.reason is RegistryReason.VERSION_GONE
    assert "overwritten" in error.detail


@server
def test_an_object_that_was_taken_away_ends_the_download(world: ObjectStoreWorld) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    (file,) = source(world).files("a/v1")
    world.remove("a", "v1")
    assert refused(lambda: list(source(world).stream("a/v1", file, 0))).reason is RegistryReason.VERSION_GONE


@server
def test_a_part_of_an_object_is_read_to_the_byte(world: ObjectStoreWorld) -> None:
    data = bytes(range(256)) * 40
    world.put(f"a/v1/{WEIGHTS}", data)
    world.put("a/v1/empty.bin", b"")
    empty, file = source(world).files("a/v1")
    assert b"".join(source(world).stream("a/v1", file, 100, 300)) == data[100:300]
    assert b"".join(source(world).stream("a/v1", file, 10_000, 99_999)) == data[10_000:]
    assert list(source(world).stream("a/v1", empty, 0)) == []


@server
def test_a_person_finds_a_version_by_name_by_ref_and_as_the_newest(world: ObjectStoreWorld) -> None:
    for version in ("v2", "v10"):
        world.put(f"a/{version}/{WEIGHTS}", b"w")
    world.point("a", "champion", "v2")
    later = ObjectStoreSource(world.settings(world.front.url), clock=lambda: world.later)
    assert later.resolve("a", "v2").location == "a/v2"
    assert later.resolve("a", "champion").version == "v2"
    assert later.resolve("a", None).version == "v10"
    assert later.resolve("a", "latest").version == "v10"
    unknown = refused(lambda: later.resolve("a", "v3"))
    assert unknown.reason is RegistryReason.NOT_FOUND
    assert "champion, v2, v10" in unknown.detail
    assert refused(lambda: later.resolve("nobody", None)).reason is RegistryReason.NOT_FOUND
    assert refused(lambda: later.resolve("../a", "v2")).reason is RegistryReason.NOT_FOUND


@server
def test_a_version_that_is_named_need_not_have_settled_and_the_newest_must(world: ObjectStoreWorld) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    assert source(world).resolve("a", "v1").version == "v1"
    assert "complete" in refused(lambda: source(world).resolve("a", None)).detail


@server
def test_a_version_without_its_marker_is_not_given_to_anybody(tmp_path: Path) -> None:
    with opened(tmp_path, marker="DONE") as world:
        world.begin("a", "v1")
        assert "DONE" in refused(lambda: source(world).resolve("a", "v1")).detail


@server
def test_keys_of_the_settings_are_not_mixed_with_those_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, auth=True) as world:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.setenv(name, "of-somebody-else")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
        world.put(f"a/v1/{WEIGHTS}", b"w")
        assert names(world.look()) == ["a/v1"]
        assert not any("of-somebody-else" in str(one.headers) for one in world.front.requests)


@server
def test_without_keys_in_the_settings_those_of_the_environment_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, auth=True) as world:
        world.put(f"a/v1/{WEIGHTS}", b"w")
        key = world.settings("http://x").access_key
        assert key is not None
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.reveal())
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        registry = world.restarted(access_key=None, secret_key=None)
        assert names(registry.listing(world.later)) == ["a/v1"]


@server
def test_a_key_that_was_rotated_is_used_without_a_restart(tmp_path: Path) -> None:
    held = tmp_path / "key"
    held.write_text(WRONG_SECRET)
    with opened(tmp_path, auth=True) as world:
        world.put(f"a/v1/{WEIGHTS}", b"w")
        registry = world.restarted(secret_key={"file": str(held)})
        assert refused(lambda: registry.listing(world.later)).reason is RegistryReason.NOT_PERMITTED
        held.write_text(SECRET)
        assert names(registry.listing(world.later)) == ["a/v1"]
        held.unlink()
        gone = refused(lambda: registry.listing(world.later))
        assert gone.reason is RegistryReason.NOT_PERMITTED
        assert str(held) in gone.detail


@server
def test_a_bucket_that_does_not_exist_is_named(world: ObjectStoreWorld) -> None:
    missing = ObjectStoreSource(world.settings(world.front.url, url="s3://no-such-bucket"))
    error = refused(lambda: missing.listing(world.later, True))
    assert error.reason is RegistryReason.NOT_FOUND
    assert "no-such-bucket" in error.detail


def test_a_workload_without_any_credentials_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    error = refused(lambda: elsewhere("http://127.0.0.1:9").listing(now(), True))
    assert error.reason is RegistryReason.NOT_PERMITTED
    assert "access_key" in error.detail


@pytest.mark.parametrize("content", [b"nonsense", None])
def test_a_file_of_authorities_that_is_none_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    error = refused(lambda: elsewhere("https://127.0.0.1:9", ca_file=path).listing(now(), True))
    assert error.reason is RegistryReason.CERTIFICATE
    assert str(path) in error.detail


def elsewhere(endpoint: str, **settings: object) -> ObjectStoreSource:
    """A registry over a bucket at an address where there may be none."""
    values = {"name": "reg", "kind": "objectstore", "url": "s3://models", "endpoint": endpoint, "region": "r"}
    return ObjectStoreSource(ObjectStoreRegistrySettings.model_validate(values | settings))


def page(keys: list[str], following: str | None) -> bytes:
    """A page of a listing, in the words of S3."""
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{key}&quot;</ETag><Size>5</Size></Contents>"
        for key in keys
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{following}</NextContinuationToken>"
    return f"<ListBucketResult>{entries}{more if following else ''}</ListBucketResult>".encode()


Answer = Callable[[dict[str, list[str]]], tuple[int, bytes]]


@contextmanager
def bucket_of_lies(answer: Answer, data: bytes = b"", e_tag: str = "") -> Iterator[ObjectStoreSource]:
    """A server that says whatever a test wants to the query of a request.

    Args:
        data: what every object holds; without it none is there.
        e_tag: of every object; a request for another one is refused.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            asked = self.headers.get("If-Match", e_tag)
            begin, _, end = self.headers.get("Range", "bytes=0-0").removeprefix("bytes=").partition("-")
            if "list-type" in query:
                status, body = answer(query)
            elif not data:
                status, body = 404, b""
            else:
                status, body = (206, data[int(begin) : int(end) + 1]) if asked == e_tag else (412, b"")
            self.send_response(status)
            if status == 206:
                self.send_header("ETag", e_tag)
                self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
                self.send_header("Content-Range", f"bytes {begin}-{end}/{len(data)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - named by the protocol

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        try:
            yield elsewhere(f"http://127.0.0.1:{listener.server_port}", anonymous=True, timeout="500ms")
        finally:
            listener.shutdown()
            thread.join()


def keys_of(first: int, count: int) -> list[str]:
    return [f"a/v{number:03}/model.safetensors" for number in range(first, first + count)]


HTML = b"<html><body>Please log in</body></html>"


@pytest.mark.parametrize("e_tag", ['"0x1FB"', "0x1FB"])
def test_an_entity_tag_is_the_same_with_and_without_quotes(e_tag: str) -> None:
    # Azure lists them without, and answers with them.
    listed = page(["a/v1/model.safetensors"], None).replace(
        b"&quot;a/v1/model.safetensors&quot;", e_tag.encode()
    )
    with bucket_of_lies(lambda _: (200, listed), b"bytes", '"0x1FB"') as found:
        (file,) = found.files("a/v1")
        assert b"".join(found.stream("a/v1", file, 1, 4)) == b"yte"


def test_an_entity_tag_that_cannot_be_asked_for_is_compared_afterwards() -> None:
    listed = page(["a/v1/model.safetensors"], None).replace(b"&quot;a/v1/model.safetensors&quot;", b'W/"1"')
    with bucket_of_lies(lambda _: (200, listed), b"bytes", 'W/"1"') as found:
        (file,) = found.files("a/v1")
        assert b"".join(found.stream("a/v1", file, 0)) == b"bytes"
    with bucket_of_lies(lambda _: (200, listed), b"bytes", 'W/"2"') as found:
        assert refused(lambda: list(found.stream("a/v1", file, 0))).reason is RegistryReason.VERSION_GONE


@server
def test_a_portal_that_answers_everything_is_no_object_store(world: ObjectStoreWorld) -> None:
    world.put(f"a/v1/{WEIGHTS}", b"w")
    world.look()
    world.front.answer(200, HTML)
    error = refused(world.look)
    assert error.reason is RegistryReason.BAD_RESPONSE
    world.front.behave()
    assert names(world.look()) == ["a/v1"]


def test_a_page_of_a_proxy_in_the_middle_of_a_listing_does_not_end_it() -> None:
    pages = {
        None: page(keys_of(0, 10), "2"),
        "2": page(keys_of(10, 10), "3"),
        "3": page(keys_of(20, 10), None),
    }
    broken: list[bytes] = []

    def flaky(query: dict[str, list[str]]) -> tuple[int, bytes]:
        if "start-after" in query:
            after = query["start-after"][0]
            return 200, page([key for key in keys_of(0, 30) if key > after], None)
        token = query.get("continuation-token", [None])[0]
        return 200, broken.pop() if token == "2" and broken else pages[token]

    with bucket_of_lies(flaky) as found:
        assert len(found.listing(now(), True).versions) == 30
        before = found.listing(now(), True)
        broken.append(HTML)
        assert found.listing(now(), True) == before
        assert not broken


def test_versions_that_are_gone_are_gone_after_one_more_question() -> None:
    held = keys_of(0, 3)
    asked: list[str] = []

    def honest(query: dict[str, list[str]]) -> tuple[int, bytes]:
        after = query.get("start-after", [""])[0]
        asked.append(after)
        return 200, page([key for key in held if key > after], None)

    with bucket_of_lies(honest) as found:
        found.listing(now(), True)
        held.pop()
        assert len(found.listing(now(), True).versions) == 2
        assert asked == ["", "", held[-1]]
        found.listing(now(), True)
        assert len(asked) == 4


@pytest.mark.parametrize("count", [1, 10, 999, 1000, 1001])
def test_a_listing_that_goes_round_in_circles_ends(count: int) -> None:
    with bucket_of_lies(
        lambda _: (200, page([f"a/v{number}/x.bin" for number in range(count)], "again"))
    ) as found:
        error = refused(lambda: found.listing(now(), True))
    assert error.reason is RegistryReason.BAD_RESPONSE
    assert "over and over" in error.detail


def test_a_listing_of_empty_pages_without_end_ends() -> None:
    with bucket_of_lies(lambda _: (200, page([], "again"))) as found:
        error = refused(lambda: found.listing(now(), True))
    assert error.reason is RegistryReason.UNREACHABLE


def test_an_error_in_the_middle_of_a_listing_takes_nothing_of_it() -> None:
    fail: list[bool] = []

    def failing(query: dict[str, list[str]]) -> tuple[int, bytes]:
        if "continuation-token" not in query:
            return 200, page(keys_of(0, 10), "2")
        return (503, b"<Error><Code>SlowDown</Code></Error>") if fail else (200, page(keys_of(10, 10), None))

    with bucket_of_lies(failing) as found:
        before = found.listing(now(), True)
        fail.append(True)
        assert refused(lambda: found.listing(now(), True)).reason is RegistryReason.RATE_LIMITED
        fail.clear()
        assert found.listing(now(), True) == before


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (400, "ExpiredToken", RegistryReason.NOT_PERMITTED),
        (403, "SignatureDoesNotMatch", RegistryReason.NOT_PERMITTED),
        (401, "", RegistryReason.NOT_PERMITTED),
        (400, "AuthorizationHeaderMalformed", RegistryReason.BAD_RESPONSE),
        (404, "NoSuchBucket", RegistryReason.NOT_FOUND),
        (429, "", RegistryReason.RATE_LIMITED),
        (503, "SlowDown", RegistryReason.RATE_LIMITED),
        (503, "ServiceUnavailable", RegistryReason.SERVER_ERROR),
        (500, "InternalError", RegistryReason.SERVER_ERROR),
        (301, "PermanentRedirect", RegistryReason.BAD_RESPONSE),
    ],
)
def test_an_error_is_told_by_its_code_and_never_by_its_text(
    status: int, code: str, reason: RegistryReason
) -> None:
    body = f"<Error><Code>{code}</Code><Message>the key is hunter2</Message></Error>".encode()
    with bucket_of_lies(lambda _: (status, body)) as found:
        error = refused(lambda: found.listing(now(), True))
    assert error.reason is reason
    assert (code in error.detail) or status == 301
    assert "hunter2" not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "with space"
    (root / "a" / "v1").mkdir(parents=True)
    (root / "a" / "v1" / WEIGHTS).write_bytes(b"weights")
    (root / "a" / ".refs").mkdir()
    (root / "a" / ".refs" / "champion").write_text("v1\n")
    return root


def local(folder: Path, **settings: object) -> ObjectStoreSource:
    values = {"name": "reg", "kind": "objectstore", "url": folder.as_uri(), "refs": ["*"]}
    return ObjectStoreSource(ObjectStoreRegistrySettings.model_validate(values | settings))


def test_a_folder_is_read_like_a_bucket(folder: Path) -> None:
    found = local(folder)
    listing = found.listing(now() + timedelta(hours=1), True)
    assert names(listing) == ["a/v1"]
    assert listing.refs == (FoundRef("a", "champion", "v1"), FoundRef("a", "latest", "v1"))
    (file,) = found.files("a/v1")
    assert b"".join(found.stream("a/v1", file, 2)) == b"ights"
    (folder / "a" / "v1" / WEIGHTS).write_bytes(b"replaced")
    assert refused(lambda: list(found.stream("a/v1", file, 0))).reason is RegistryReason.VERSION_GONE


def test_a_folder_that_vanishes_is_not_taken_for_an_empty_bucket(folder: Path) -> None:
    found = local(folder)
    found.listing(now(), True)
    folder.rename(folder.with_name("elsewhere"))
    error = refused(lambda: found.listing(now(), True))
    assert error.reason is RegistryReason.NOT_FOUND
    assert str(folder) in error.detail


def test_a_registry_says_its_name_and_contacts_nobody_until_it_is_asked(tmp_path: Path) -> None:
    settings = ObjectStoreRegistrySettings.model_validate(
        {"name": "reg", "kind": "objectstore", "url": "s3://b/p", "access_key": "AK", "secret_key": SECRET}
    )
    registry = build(settings, Downloads(tmp_path, MIB))
    assert registry.name == "reg"
    assert registry.verdict_writer is None
    assert SECRET not in repr(vars(registry)) + repr(vars(registry.source))
