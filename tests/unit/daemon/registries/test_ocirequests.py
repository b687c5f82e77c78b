"""Registries that lie, wander off or fall silent: what is believed, and what credentials are told to whom."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from layerwatch.config.registries import OciRegistrySettings
from layerwatch.daemon.registries.base import FoundVersion, RegistryReason, RegistryUnavailable
from layerwatch.daemon.registries.downloads import RemoteFile
from layerwatch.daemon.registries.oci.registry import OciSource
from layerwatch.daemon.registries.oci.requests import next_query
from layerwatch_testing.servers import free_port
from layerwatch_testing.servers.oci import Blob, digest_of, manifest_of

SECRET = "s3cret-that-nobody-may-see"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
WEIGHTS = b"0123456789" * 1000
MANIFEST = json.dumps(manifest_of([Blob(WEIGHTS, title="model.pt")])).encode()
DIGEST = digest_of(MANIFEST)
Answer = tuple[int, Mapping[str, str], bytes]
UNKNOWN: Answer = (404, {}, b'{"errors": [{"code": "NAME_UNKNOWN"}]}')

Script = Callable[[str, Mapping[str, str]], Answer]


class Scripted:
    """A server on 127.0.0.1 that answers as a test says.

    Attributes:
        asked: path and headers (with lower-case names) of each request.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                scripted.asked.append((self.path, headers))
                status, answered, body = scripted.script(self.path, headers)
                self.send_response(status)
                for name, value in answered.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def scripted(script: Script) -> Iterator[Scripted]:
    server = Scripted(script)
    try:
        yield server
    finally:
        server.close()


def honest(path: str, headers: Mapping[str, str]) -> Answer:
    """A registry with one repository, one tag and one model."""
    plain = path.partition("?")[0]
    if plain == "/v2/_catalog":
        return 200, {}, b'{"repositories": ["team/a"]}'
    if plain == "/v2/team/a/tags/list":
        return 200, {}, b'{"tags": ["v1"]}'
    if plain in ("/v2/team/a/manifests/v1", f"/v2/team/a/manifests/{DIGEST}"):
        return 200, {"Docker-Content-Digest": DIGEST}, MANIFEST
    if plain == f"/v2/team/a/blobs/{digest_of(WEIGHTS)}":
        return 200, {}, WEIGHTS
    return (200, {}, b"{}") if plain == "/v2/" else UNKNOWN


def source(url: str, **settings: object) -> OciSource:
    values = {"name": "reg", "kind": "oci", "url": url, "timeout": "5s"}
    return OciSource(OciRegistrySettings.model_validate(values | settings))


def signed_in(url: str, **settings: object) -> OciSource:
    return source(url, username="reader", password=SECRET, **settings)


def look(found: OciSource, everything: bool = True) -> list[FoundVersion]:
    return list(found.listing(NOW, everything).versions)


def refused(act: Callable[[], object]) -> RegistryUnavailable:
    with pytest.raises(RegistryUnavailable) as caught:
        act()
    assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
    return caught.value


def weights(found: OciSource, begin: int = 0, end: int | None = None) -> bytes:
    digest = digest_of(WEIGHTS)
    file = RemoteFile("model.pt", len(WEIGHTS), digest, address=f"raw {digest}")
    return b"".join(found.stream(f"team/a@{DIGEST}", file, begin, end))


def test_an_honest_registry_is_read() -> None:
    with scripted(honest) as server:
        found = source(server.url)
        assert [one.version for one in look(found)] == [DIGEST]
        assert weights(found) == WEIGHTS


def test_a_registry_that_serves_no_ranges_is_read_all_the_same() -> None:
    with scripted(honest) as server:
        assert weights(source(server.url), 5000, 5010) == WEIGHTS[5000:5010]
        assert weights(source(server.url), 9_990) == WEIGHTS[9_990:]
        assert weights(source(server.url), 10, 10) == b""


def test_other_bytes_than_those_that_were_asked_for_are_not_taken() -> None:
    def shifted(path: str, headers: Mapping[str, str]) -> Answer:
        return 206, {"Content-Range": "bytes 0-9/10000"}, WEIGHTS[:10]

    with scripted(shifted) as server:
        assert refused(lambda: weights(source(server.url), 5000)).reason is RegistryReason.BAD_RESPONSE


def test_a_registry_need_not_tell_digests() -> None:
    def silent(path: str, headers: Mapping[str, str]) -> Answer:
        status, _, body = honest(path, headers)
        return status, {}, body

    with scripted(silent) as server:
        found = source(server.url)
        assert [one.version for one in look(found)] == [one.version for one in look(found)] == [DIGEST]
        assert found.token(f"team/a@{DIGEST}") == DIGEST


@pytest.mark.parametrize("promised", [digest_of(b"other"), "sha256:xyz", "md5:7"])
def test_a_manifest_that_is_not_the_one_of_its_digest_is_not_believed(promised: str) -> None:
    def lying(path: str, headers: Mapping[str, str]) -> Answer:
        status, answered, body = honest(path, headers)
        return status, {"Docker-Content-Digest": promised} if answered else {}, body

    with scripted(lying) as server:
        assert refused(lambda: look(source(server.url))).reason is RegistryReason.BAD_RESPONSE


def with_pages(pages: Mapping[str, tuple[list[str], str]]) -> Script:
    """The catalogue by the ``last`` that is asked for: names, and the address of the next page."""

    def script(path: str, headers: Mapping[str, str]) -> Answer:
        plain, _, query = path.partition("?")
        if plain == "/v2/_catalog":
            names, link = pages[query.partition("last=")[2]]
            headers = {"Link": f'<{link}>; rel="next"'} if link else {}
            return 200, headers, json.dumps({"repositories": names}).encode()
        return (200, {}, b'{"tags": []}') if plain.endswith("/tags/list") else UNKNOWN

    return script


def tags_asked(server: Scripted) -> list[str]:
    return sorted(path.split("/")[2] for path, _ in server.asked if "/tags/list" in path)


@pytest.mark.parametrize(
    "link", ["/v2/_catalog?last=b&n=2", "?last=b", "http://elsewhere.invalid/x?n=2&last=b"]
)
def test_a_next_page_is_asked_of_the_same_address_whatever_the_link_says(link: str) -> None:
    with scripted(with_pages({"": (["a", "b"], link), "b": (["c"], "")})) as server:
        look(source(server.url))
        assert tags_asked(server) == ["a", "b", "c"]


def test_a_full_page_without_a_link_is_doubted_once() -> None:
    with scripted(with_pages({"": (["a", "b"], ""), "b": (["c"], "")})) as server:
        found = source(server.url)
        found.page_size = 2
        look(found)
        assert tags_asked(server) == ["a", "b", "c"]
    with scripted(with_pages({"": (["a", "b"], ""), "b": (["a", "b"], "")})) as server:
        found = source(server.url)
        found.page_size = 2
        look(found)
        assert tags_asked(server) == ["a", "b"]


def test_pages_that_lead_in_a_circle_are_told() -> None:
    pages = {"": (["a"], "?last=a"), "a": (["b"], "?last=b"), "b": (["a"], "?last=a")}
    with scripted(with_pages(pages)) as server:
        error = refused(lambda: look(source(server.url)))
        assert error.reason is RegistryReason.BAD_RESPONSE
        assert "circle" in error.detail
        assert len(server.asked) < 10


def test_empty_pages_without_end_are_told() -> None:
    def endless(path: str, headers: Mapping[str, str]) -> Answer:
        return 200, {"Link": f'<?last={len(server.asked)}>; rel="next"'}, b'{"repositories": []}'

    with scripted(endless) as server:
        assert refused(lambda: look(source(server.url))).reason is RegistryReason.BAD_RESPONSE
        assert len(server.asked) <= 101


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"repositories": 7}', b"[" * 100_000])
def test_what_is_no_catalogue_is_told(body: bytes) -> None:
    with scripted(lambda path, headers: (200, {}, body)) as server:
        error = refused(lambda: look(source(server.url)))
    assert error.reason is RegistryReason.BAD_RESPONSE


def test_an_answer_larger_than_any_manifest_is_not_read_to_its_end() -> None:
    def huge(path: str, headers: Mapping[str, str]) -> Answer:
        return (200, {}, b" " * (5 * 2**20)) if "/manifests/" in path else honest(path, headers)

    with scripted(huge) as server:
        assert "larger than" in refused(lambda: look(source(server.url))).detail


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_registry_without_a_catalogue_says_to_name_the_repositories(status: int) -> None:
    def closed(path: str, headers: Mapping[str, str]) -> Answer:
        if path.startswith("/v2/_catalog"):
            return status, {}, b'{"errors": [{"code": "UNSUPPORTED"}]}'
        return honest(path, headers)

    with scripted(closed) as server:
        error = refused(lambda: look(source(server.url)))
        assert error.reason is RegistryReason.NOT_PERMITTED
        assert "`repositories`" in error.detail
        assert len(look(source(server.url, repositories=["team/a"]))) == 1


def test_one_repository_in_trouble_hides_no_others_and_all_of_them_are_told() -> None:
    def partly(path: str, headers: Mapping[str, str]) -> Answer:
        if path.startswith("/v2/_catalog"):
            return 200, {}, b'{"repositories": ["team/a", "team/broken"]}'
        return (500, {}, b"") if "team/broken" in path else honest(path, headers)

    with scripted(partly) as server:
        found = source(server.url)
        listing = found.listing(NOW, True)
        assert [one.model for one in listing.versions] == ["team/a"]
        assert listing.unlisted == (("team/broken", RegistryReason.SERVER_ERROR),)
        assert "team/broken could not be listed" in listing.remarks[0]
        server.script = lambda path, headers: (500, {}, b"") if "team/" in path else honest(path, headers)
        assert refused(lambda: look(found)).reason is RegistryReason.SERVER_ERROR


def test_a_404_without_the_registrys_own_word_is_no_deletion() -> None:
    with scripted(honest) as server:
        found = source(server.url)
        (version,) = look(found)
        server.script = lambda path, headers: (404, {}, b"<html>no such page</html>")
        for act in (
            lambda: look(found),
            lambda: found.token(version.location),
            lambda: found.files(version.location),
        ):
            assert refused(act).reason is RegistryReason.BAD_RESPONSE
        server.script = lambda path, headers: UNKNOWN
        assert found.token(version.location) is None
        assert refused(lambda: found.files(version.location)).reason is RegistryReason.VERSION_GONE


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("120", timedelta(minutes=2)),
        ("Sat, 21 Nov 2099 10:00:00 GMT", timedelta(days=365 * 50)),
        ("Sat, 21 Nov 2020 10:00:00 GMT", timedelta()),
        ("soon", None),
        ("-5", None),
        ("9" * 30, None),
    ],
)
def test_how_long_to_wait_is_what_the_registry_says(said: str, expected: timedelta | None) -> None:
    """A point in time is measured by the server's own clock."""
    with scripted(lambda path, asked: (429, {"Retry-After": said}, b"")) as server:
        error = refused(lambda: look(source(server.url)))
    assert error.reason is RegistryReason.RATE_LIMITED
    if expected is not None and expected > timedelta(days=1):
        assert error.retry_after is not None
        assert error.retry_after > expected
    else:
        assert error.retry_after == expected


def basic() -> str:
    return f"Basic {base64.b64encode(f'reader:{SECRET}'.encode()).decode()}"


def test_a_blob_is_fetched_from_where_the_registry_sends_us_without_the_password() -> None:
    with scripted(lambda path, headers: (200, {}, WEIGHTS)) as storage:

        def sending(path: str, headers: Mapping[str, str]) -> Answer:
            if headers.get("authorization") != basic():
                return 401, {"WWW-Authenticate": 'Basic realm="r"'}, b""
            if "/blobs/" in path:
                return 307, {"Location": f"{storage.url}/bucket/x?signature=abc"}, b""
            return honest(path, headers)

        with scripted(sending) as server:
            found = signed_in(server.url)
            look(found)
            assert weights(found) == WEIGHTS
        assert [path for path, _ in storage.asked] == ["/bucket/x?signature=abc"]
        assert all("authorization" not in headers for _, headers in storage.asked)


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_storage_that_asks_who_is_there_is_told_nothing(scheme: str) -> None:
    def asking(path: str, headers: Mapping[str, str]) -> Answer:
        return 401, {"WWW-Authenticate": f'{scheme} realm="{storage.url}/token",service="s"'}, b""

    with scripted(asking) as storage:

        def sending(path: str, headers: Mapping[str, str]) -> Answer:
            if headers.get("authorization") != basic():
                return 401, {"WWW-Authenticate": 'Basic realm="r"'}, b""
            if "/blobs/" in path:
                return 307, {"Location": f"{storage.url}/x?signature=abc"}, b""
            return honest(path, headers)

        with scripted(sending) as server:
            error = refused(lambda: weights(signed_in(server.url)))
        assert error.reason is RegistryReason.NOT_PERMITTED
        assert "signature" not in error.detail
        assert [path for path, _ in storage.asked] == ["/x?signature=abc"]
        assert all("authorization" not in headers for _, headers in storage.asked)


def with_token(server_of_tokens: str, token: str = "t0ken") -> Script:
    def script(path: str, headers: Mapping[str, str]) -> Answer:
        if headers.get("authorization") != f"Bearer {token}":
            return (
                401,
                {"WWW-Authenticate": f'Bearer realm="{server_of_tokens}",service="s",scope="x:y:z"'},
                b"",
            )
        return honest(path, headers)

    return script


def test_a_token_is_got_anonymously_or_with_the_password() -> None:
    with (
        scripted(lambda path, headers: (200, {}, b'{"access_token": "t0ken"}')) as tokens,
        scripted(with_token(f"{tokens.url}/token")) as server,
    ):
        assert len(look(source(server.url))) == 1
        assert all("authorization" not in headers for _, headers in tokens.asked)
        tokens.asked.clear()
        assert len(look(signed_in(server.url))) == 1
        assert {headers.get("authorization") for _, headers in tokens.asked} == {basic()}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((401, {}, b""), RegistryReason.NOT_PERMITTED),
        ((403, {}, b""), RegistryReason.NOT_PERMITTED),
        ((404, {}, b""), RegistryReason.BAD_RESPONSE),
        ((200, {}, b"<html>"), RegistryReason.BAD_RESPONSE),
        ((200, {}, b"{}"), RegistryReason.BAD_RESPONSE),
        ((200, {}, b'{"token": "a\\r\\nb"}'), RegistryReason.BAD_RESPONSE),
        ((200, {}, b'{"token": "another"}'), RegistryReason.NOT_PERMITTED),
        ((302, {"Location": "http://elsewhere.invalid/"}, b""), RegistryReason.BAD_RESPONSE),
        ((429, {"Retry-After": "7"}, b""), RegistryReason.RATE_LIMITED),
        ((500, {}, b""), RegistryReason.SERVER_ERROR),
    ],
)
def test_what_goes_wrong_with_a_token_is_told_for_what_it_is(answer: Answer, reason: RegistryReason) -> None:
    with (
        scripted(lambda path, headers: answer) as tokens,
        scripted(with_token(f"{tokens.url}/token")) as server,
    ):
        assert refused(lambda: look(signed_in(server.url))).reason is reason
        assert len(tokens.asked) <= 3


def test_a_server_of_tokens_that_is_down_is_told_as_such() -> None:
    with scripted(with_token(f"http://127.0.0.1:{free_port()}/token")) as server:
        assert refused(lambda: look(signed_in(server.url))).reason is RegistryReason.UNREACHABLE


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "ftp://example.org/", "/token", "http://[::/"])
def test_credentials_go_to_no_strange_place_for_a_token(realm: str) -> None:
    with scripted(with_token(realm)) as server:
        assert refused(lambda: look(signed_in(server.url))).reason is RegistryReason.BAD_RESPONSE


def test_a_wrong_password_is_tried_once() -> None:
    with scripted(lambda path, headers: (401, {"WWW-Authenticate": 'Basic realm="r"'}, b"")) as server:
        error = refused(lambda: look(signed_in(server.url)))
        assert error.reason is RegistryReason.NOT_PERMITTED
        assert sum("authorization" in headers for _, headers in server.asked) == 1


def test_a_password_that_changes_in_its_file_is_read_again(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("old")
    allowed = ["old"]

    def script(path: str, headers: Mapping[str, str]) -> Answer:
        expected = f"Basic {base64.b64encode(f'reader:{allowed[0]}'.encode()).decode()}"
        if headers.get("authorization") != expected:
            return 401, {"WWW-Authenticate": 'Basic realm="r"'}, b""
        return honest(path, headers)

    with scripted(script) as server:
        found = source(server.url, username="reader", password={"file": str(password)})
        assert len(look(found)) == 1
        allowed[0] = "new"
        assert refused(lambda: look(found)).reason is RegistryReason.NOT_PERMITTED
        password.write_text("new")
        assert len(look(found)) == 1
        password.unlink()
        error = refused(lambda: look(found))
        assert error.reason is RegistryReason.NOT_PERMITTED
        assert "password" in error.detail


def test_nothing_is_taken_from_the_files_and_variables_of_other_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    (tmp_path / ".docker").mkdir()
    auths = {"auths": {"127.0.0.1": {"auth": "b3RoZXI6b3RoZXI="}}}
    (tmp_path / ".docker" / "config.json").write_text(json.dumps(auths))
    for name, value in {"HOME": str(tmp_path), "ORAS_USER": "other", "ORAS_PASS": "other"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with scripted(honest) as server:
        look(source(server.url))
        assert all("authorization" not in headers for _, headers in server.asked)


def test_nothing_of_ours_is_told_to_the_registry_but_what_it_needs() -> None:
    with scripted(honest) as server:
        look(source(server.url))
        names = {name for _, headers in server.asked for name in headers}
    assert names <= {"host", "user-agent", "accept", "accept-encoding", "connection"}


def test_a_registry_that_falls_silent_costs_the_timeout() -> None:
    wake = Event()

    def silent(path: str, headers: Mapping[str, str]) -> Answer:
        wake.wait(30)
        return honest(path, headers)

    with scripted(silent) as server:
        error = refused(lambda: look(source(server.url, timeout="200ms")))
        wake.set()
        assert len(server.asked) == 1
    assert error.reason is RegistryReason.UNREACHABLE
    assert "0.2 s (timeout)" in error.detail


def test_names_that_could_lead_elsewhere_are_left_out() -> None:
    odd = ["../../etc", "a//b", "a?b", "a#b", "", "x" * 300, "a b", "team/a"]

    def script(path: str, headers: Mapping[str, str]) -> Answer:
        if path.startswith("/v2/_catalog"):
            return 200, {}, json.dumps({"repositories": [*odd, 7, None]}).encode()
        if "tags/list" in path:
            return 200, {}, json.dumps({"tags": ["v1", "../x", "a b", "", 7, "x" * 129]}).encode()
        return honest(path, headers)

    with scripted(script) as server:
        listing = source(server.url).listing(NOW, True)
        assert [one.model for one in listing.versions] == ["team/a"]
        assert [one.ref for one in listing.refs] == ["v1"]
        assert "left out, no names of repositories" in listing.remarks[0]
        assert all(path.startswith(("/v2/_catalog", "/v2/team/a/")) for path, _ in server.asked)


def test_two_registries_in_one_process_keep_their_credentials_apart() -> None:
    def script(path: str, headers: Mapping[str, str]) -> Answer:
        if "authorization" not in headers:
            return 401, {"WWW-Authenticate": 'Basic realm="r"'}, b""
        return honest(path, headers)

    with scripted(script) as server:
        one, other = signed_in(server.url), source(server.url, username="other", password="other-secret")
        look(one)
        look(other)
        look(one, everything=False)
        sent = [headers["authorization"] for _, headers in server.asked if "authorization" in headers]
    users = [base64.b64decode(one.removeprefix("Basic ")).decode().partition(":")[0] for one in sent]
    assert list(dict.fromkeys(users)) == ["reader", "other"]
    assert users[-1] == "reader"


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ('</v2/_catalog?last=b&n=2>; rel="next"', ("2", "b")),
        ('</v2/_catalog?n=2&last=a%2Fb>; rel="next"', ("2", "a/b")),
        ("<?last=b>; rel=next", (None, "b")),
        ('<?last=a>; rel="prev", <?last=b>; rel="next"', (None, "b")),
        ("", None),
        ('<?last=a>; rel="first"', None),
    ],
)
def test_a_link_is_read_for_where_the_next_page_begins(
    link: str, expected: tuple[str | None, str | None] | None
) -> None:
    assert next_query(link) == expected


def test_a_digest_of_another_kind_is_believed_when_it_fits() -> None:
    digest = f"sha512:{hashlib.sha512(MANIFEST).hexdigest()}"

    def script(path: str, headers: Mapping[str, str]) -> Answer:
        if "/manifests/" in path:
            return 200, {"Docker-Content-Digest": digest}, MANIFEST
        return honest(path, headers)

    with scripted(script) as server:
        assert [one.version for one in look(source(server.url))] == [digest]
