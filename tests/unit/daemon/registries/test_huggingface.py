"""The Hub as a registry, by its real client against a stand-in of the server."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from layerwatch.config.registries import HuggingFaceRegistrySettings
from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundRef,
    FoundVersion,
    RegistryReason,
    RegistryUnavailable,
)
from layerwatch.daemon.registries.downloads import Downloads
from layerwatch.daemon.registries.huggingface.registry import build
from layerwatch.daemon.registries.remote import RemoteRegistry
from layerwatch.metrics.relation import Relation
from layerwatch_testing.models import write_safetensors
from layerwatch_testing.networks import network
from layerwatch_testing.servers.huggingface import HubServer
from layerwatch_testing.unreliable import UnreliableServer, private_authority

NOW = datetime(2026, 11, 21, tzinfo=UTC)
TOKEN = "hf_t0kenThatNobodyMaySee"
MODEL = "lab/net"


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    return write_safetensors(tmp_path / "weights", network()).read_bytes()


@pytest.fixture
def hub() -> Iterator[HubServer]:
    server = HubServer(tokens=[TOKEN], storage=True)
    yield server
    server.stop()


@pytest.fixture
def connect(hub: HubServer, tmp_path: Path) -> Callable[..., RemoteRegistry]:
    def connected(*repositories: str, **settings: object) -> RemoteRegistry:
        values = {"name": "hub", "kind": "huggingface", "url": hub.url, "timeout": "5s"}
        values["repositories"] = list(repositories) or ["lab/*"]  # type: ignore[assignment]
        parsed = HuggingFaceRegistrySettings.model_validate(values | settings)
        registry = build(parsed, Downloads(tmp_path / "downloads", 2**30, wait=lambda _: None))
        assert isinstance(registry, RemoteRegistry)
        return registry

    return connected


Connect = Callable[..., RemoteRegistry]


def only(registry: RemoteRegistry) -> FoundVersion:
    (found,) = registry.listing(NOW).versions
    return found


def only_new(versions: tuple[FoundVersion, ...]) -> FoundVersion:
    (found,) = versions
    return found


def refusal(call: Callable[[], object]) -> RegistryUnavailable:
    with pytest.raises(RegistryUnavailable) as caught:
        call()
    return caught.value


class TestListing:
    def test_a_version_is_a_commit(self, hub: HubServer, connect: Connect, weights: bytes) -> None:
        sha = hub.commit(MODEL, {"model.safetensors": weights})
        found = only(connect())
        assert (found.model, found.version, found.location, found.token) == (
            MODEL,
            sha,
            f"{MODEL}@{sha}",
            sha,
        )
        assert found.order_key.endswith(sha)

    def test_branches_tags_and_pull_requests_are_refs(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        first = hub.commit(MODEL, {"model.safetensors": weights})
        hub.tag(MODEL, "v1.0", first)
        second = hub.commit(MODEL, {"model.safetensors": weights + b" "}, ref="refs/pr/7")
        hub.branch(MODEL, "dev", first)
        listing = connect(refs=["main", "v*", "refs/pr/*"]).listing(NOW)
        assert listing.refs == (
            FoundRef(MODEL, "main", first),
            FoundRef(MODEL, "refs/pr/7", second),
            FoundRef(MODEL, "v1.0", first),
        )
        assert {found.version for found in listing.versions} == {first, second}

    def test_globs_and_names_and_model_patterns_choose(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        for name in ("lab/net-a", "lab/net-b", "lab/other", "friend/net", "friend/more"):
            hub.commit(name, {"model.safetensors": weights})
        listing = connect("lab/net-*", "friend/net", models=["*a", "friend/*"]).listing(NOW)
        assert [found.model for found in listing.versions] == ["friend/net", "lab/net-a"]

    def test_a_commit_without_weights_is_no_version_and_says_so(
        self, hub: HubServer, connect: Connect
    ) -> None:
        sha = hub.commit(MODEL, {"README.md": b"soon"})
        listing = connect().listing(NOW)
        assert (listing.versions, listing.refs, listing.unfinished) == ((), (), ())
        assert any(sha in remark and "no weight file" in remark for remark in listing.remarks)
        assert not listing.empty

    def test_shards_that_come_in_several_commits_are_unfinished_until_the_last(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        registry = connect()
        first = hub.commit(MODEL, {"model-00001-of-00002.safetensors": weights})
        listing = registry.listing(NOW)
        assert (listing.versions, listing.unfinished) == ((), ((MODEL, first),))
        second = hub.commit(MODEL, {"model-00002-of-00002.safetensors": weights})
        listing = registry.listing(NOW, everything=False)
        assert [found.version for found in listing.versions] == [second]
        assert listing.unfinished == ()

    def test_a_stray_shard_is_waited_for_an_hour_and_then_the_commit_is_listed(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        registry = connect()
        sha = hub.commit(MODEL, {"model.safetensors": weights, "a-00001-of-00002.safetensors": weights})
        for minutes in (0, 59):
            listing = registry.listing(NOW + timedelta(minutes=minutes), everything=False)
            assert (listing.versions, listing.unfinished) == ((), ((MODEL, sha),))
            assert listing.refs == (FoundRef(MODEL, "main", sha),)
        listing = registry.listing(NOW + timedelta(minutes=60), everything=False)
        assert [found.version for found in listing.versions] == [sha]
        assert (listing.unfinished, listing.refs) == ((), (FoundRef(MODEL, "main", sha),))
        assert "listed as it is" in listing.remarks[0]
        assert registry.listing(NOW + timedelta(minutes=61), everything=False).versions == ()

    @pytest.mark.parametrize("restarts", [False, True])
    def test_a_ref_that_led_to_weights_stays_on_a_commit_that_has_none(
        self, hub: HubServer, connect: Connect, weights: bytes, restarts: bool
    ) -> None:
        registry = connect()
        hub.commit(MODEL, {"model.safetensors": weights})
        registry.listing(NOW)
        sha = hub.commit(MODEL, {"model.safetensors": None, "README.md": b"moved"})
        listing = registry.listing(NOW, everything=False)
        assert (listing.versions, listing.unfinished) == ((), ((MODEL, sha),))
        assert listing.refs == (FoundRef(MODEL, "main", sha),)
        later = NOW + timedelta(hours=1)
        found = only_new(registry.listing(later, everything=False).versions)
        assert found.version == sha
        if restarts:
            registry = connect()
            registry.recall({found.location: found.token})
        listing = registry.listing(later + timedelta(minutes=1))
        assert listing.versions == (found,)
        assert listing.refs == (FoundRef(MODEL, "main", sha),)

    def test_a_repository_watched_by_its_name_is_listed_although_it_never_held_weights(
        self, hub: HubServer, connect: Connect
    ) -> None:
        sha = hub.commit(MODEL, {"README.md": b"soon"})
        registry = connect(MODEL)
        assert registry.listing(NOW).unfinished == ((MODEL, sha),)
        listing = registry.listing(NOW + timedelta(hours=1))
        assert [found.version for found in listing.versions] == [sha]

    def test_a_repository_that_is_disabled_or_fails_does_not_hide_the_others(
        self, hub: HubServer, connect: Connect, weights: bytes, tmp_path: Path
    ) -> None:
        hub.commit("lab/good", {"model.safetensors": weights})
        hub.commit("lab/better", {"model.safetensors": weights})
        hub.commit("lab/secret", {"model.safetensors": weights}, private=True)
        listing = connect("lab/good", "lab/secret", "lab/better").listing(NOW)
        assert [found.model for found in listing.versions] == ["lab/better", "lab/good"]
        assert listing.unlisted == (("lab/secret", RegistryReason.NOT_PERMITTED),)
        assert any("lab/secret" in remark and "token" in remark for remark in listing.remarks)

    def test_large_listings_come_in_pages_of_repositories_and_of_files(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.page_size = 7
        files: dict[str, bytes | None] = {f"deep/{number:03}.txt": b"" for number in range(40)}
        for number in range(20):
            hub.commit(f"lab/net-{number}", {"model.safetensors": weights, **files})
        registry = connect()
        listing = registry.listing(NOW)
        assert len({found.model for found in listing.versions}) == len(listing.versions) == 20
        assert len(registry.source.files(listing.versions[0].location)) == 41

    def test_a_repository_that_changes_while_pages_are_read_is_not_missed(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.page_size = 3
        for number in range(9):
            hub.commit(f"lab/net-{number}", {"model.safetensors": weights})
        pushed = threading.Event()

        def before(path: str) -> None:
            # Just before the second page, on which net-0 would have been, it moves to the first.
            if "cursor=" in path and not pushed.is_set():
                pushed.set()
                hub.commit("lab/net-0", {"README.md": b"new"})

        hub.before = before
        listing = connect().listing(NOW)
        assert pushed.is_set()
        assert {found.model for found in listing.versions} == {f"lab/net-{number}" for number in range(9)}


class TestChanges:
    def test_an_idle_look_asks_for_no_repository_by_name(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        for number in range(30):
            hub.commit(f"lab/net-{number}", {"model.safetensors": weights})
        registry = connect()
        before = registry.listing(NOW)
        hub.asked.clear()
        listing = registry.listing(NOW, everything=False)
        assert (listing.versions, listing.complete) == ((), False)
        assert listing.refs == before.refs
        assert len(hub.asked) == 1

    def test_only_what_changed_is_asked_for(self, hub: HubServer, connect: Connect, weights: bytes) -> None:
        for number in range(30):
            hub.commit(f"lab/net-{number}", {"model.safetensors": weights})
        registry = connect()
        registry.listing(NOW)
        sha = hub.commit("lab/net-3", {"model.safetensors": weights + b" "})
        hub.asked.clear()
        listing = registry.listing(NOW, everything=False)
        assert [found.version for found in listing.versions] == [sha]
        assert FoundRef("lab/net-3", "main", sha) in listing.refs
        assert len(listing.refs) == 30
        assert {path for path in hub.paths() if "lab/net-" in path} == set(hub.paths("lab/net-3/"))

    def test_a_new_tag_is_found_although_its_repository_did_not_change(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        shas = [hub.commit(f"lab/net-{number}", {"model.safetensors": weights}) for number in range(40)]
        registry = connect(refs=["main", "v*"])
        registry.listing(NOW)
        hub.tag("lab/net-11", "v1", shas[11])
        seen = [registry.listing(NOW, everything=False).refs for _ in range(3)]
        assert FoundRef("lab/net-11", "v1", shas[11]) in seen[-1]

    def test_a_ref_that_moves_back_leads_to_the_version_that_is_known(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        first = hub.commit(MODEL, {"model.safetensors": weights})
        second = hub.commit(MODEL, {"model.safetensors": weights + b" "})
        registry = connect()
        registry.listing(NOW)
        hub.branch(MODEL, "main", first)
        listing = registry.listing(NOW)
        assert [found.version for found in listing.versions] == [first]
        assert listing.refs == (FoundRef(MODEL, "main", first),)
        assert listing.still_there == {f"{MODEL}@{second}"}

    def test_what_no_ref_leads_to_is_still_there_after_a_restart_until_it_is_deleted(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        first = hub.commit(MODEL, {"model.safetensors": weights})
        hub.commit(MODEL, {"model.safetensors": weights + b" "})
        registry = connect()
        registry.recall({f"{MODEL}@{first}": first, "elsewhere/net@" + "0" * 40: "0" * 40})
        assert registry.listing(NOW).still_there == {f"{MODEL}@{first}"}
        hub.forget_commit(MODEL, first)
        assert registry.listing(NOW).still_there == frozenset()
        assert registry.token(f"{MODEL}@{first}") is None

    def test_a_deleted_repository_is_gone_and_one_that_became_private_too(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        for name in ("lab/a", "lab/b", "lab/c"):
            hub.commit(name, {"model.safetensors": weights})
        for registry in (connect(), connect("lab/a", "lab/b", "lab/c"), connect(token=TOKEN)):
            location = next(one.location for one in registry.listing(NOW).versions if one.model == "lab/b")
            kept = hub.repositories.pop("lab/b")
            listing = registry.listing(NOW)
            assert {found.model for found in listing.versions} == {"lab/a", "lab/c"}
            assert (listing.unlisted, listing.still_there) == ((), frozenset())
            assert registry.token(location) is None
            hub.repositories["lab/b"] = kept

    def test_a_renamed_repository_is_listed_under_its_new_name_alone(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.commit("lab/old", {"model.safetensors": weights})
        registry = connect()
        registry.listing(NOW)
        hub.rename("lab/old", "lab/new")
        assert only(registry).model == "lab/new"

    def test_a_renamed_repository_that_is_watched_by_name_is_still_found(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.commit("lab/old", {"model.safetensors": weights})
        registry = connect("lab/old")
        hub.rename("lab/old", "lab/new")
        found = only(registry)
        with registry.open(found.location) as path:
            assert (path / "model.safetensors").read_bytes() == weights


class TestFiles:
    def test_a_commit_that_only_touches_the_card_has_the_same_fingerprint_without_a_download(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        registry = connect()
        hub.commit(MODEL, {"model.safetensors": weights, "README.md": b"one"})
        before = only(registry)
        hub.commit(MODEL, {"README.md": b"two"})
        after = only(registry)
        assert before.version != after.version
        assert registry.manifest(before).fingerprint == registry.manifest(after).fingerprint
        assert not hub.paths("/resolve/")

    def test_small_weights_without_a_sha256_are_fetched_and_hashed(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.commit("lab/large", {"model.safetensors": weights})
        hub.commit("lab/small", {"model.safetensors": weights})
        commit = hub.repositories["lab/small"].find("main")
        assert commit is not None
        object.__setattr__(commit.tree["model.safetensors"], "large", False)
        registry = connect()
        large, small = registry.listing(NOW).versions
        assert registry.manifest(large).fingerprint == registry.manifest(small).fingerprint
        assert len(hub.paths("/resolve/")) > 0

    def test_the_token_goes_to_the_hub_and_never_to_where_it_keeps_its_files(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.commit(MODEL, {"model.safetensors": weights}, private=True)
        registry = connect(token=TOKEN)
        with registry.open(only(registry).location) as path:
            assert (path / "model.safetensors").read_bytes() == weights
        stored = [headers for _, path, headers in hub.asked if "signature=" in path]
        own = [headers for _, path, headers in hub.asked if "signature=" not in path]
        assert stored and not any("authorization" in headers for headers in stored)
        assert all(headers["authorization"] == f"Bearer {TOKEN}" for headers in own)

    def test_a_range_is_asked_for_and_only_that_comes(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.commit(MODEL, {"model.safetensors": weights, "a b#c?.txt": b"0123456789"})
        source = connect().source
        location = only(connect()).location
        files = {file.path: file for file in source.files(location)}
        large, small = files["model.safetensors"], files["a b#c?.txt"]
        assert b"".join(source.stream(location, large, 8, 20)) == weights[8:20]
        assert b"".join(source.stream(location, large, len(weights) - 3)) == weights[-3:]
        assert b"".join(source.stream(location, small, 2, 4)) == b"23"
        assert b"".join(source.stream(location, small, 4, 4)) == b""
        assert b"".join(source.stream(location, small, 0)) == b"0123456789"

    def test_a_server_that_ignores_ranges_is_read_from_the_right_place_on(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.commit(MODEL, {"model.safetensors": weights})
        location = only(connect()).location
        front = UnreliableServer(hub.url)
        try:
            front.answer(200, weights)
            source = connect(url=front.url).source
            (file,) = connect().source.files(location)
            assert b"".join(source.stream(location, file, 100, 5000)) == weights[100:5000]
            front.answer(206, b"xy", {"Content-Range": "bytes 7-8/9"})
            error = refusal(lambda: list(source.stream(location, file, 4, 6)))
            assert error.reason is RegistryReason.BAD_RESPONSE
        finally:
            front.close()

    def test_a_gated_repository_is_listed_and_says_what_to_do_when_it_is_opened(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.commit(MODEL, {"model.safetensors": weights}, gated=True)
        registry = connect()
        found = only(registry)
        assert registry.manifest(found).size_bytes == len(weights)

        def opened() -> None:
            with registry.open(found.location):
                pass

        error = refusal(opened)
        assert error.reason is RegistryReason.NOT_PERMITTED
        assert "conditions" in error.detail
        with connect(token=TOKEN).open(found.location) as path:
            assert (path / "model.safetensors").exists()


class TestLineage:
    def card(
        self, hub: HubServer, connect: Connect, weights: bytes, text: str
    ) -> tuple[DeclaredLineage, ...]:
        readme = f"---\n{text}\n---\n# net".encode()
        hub.commit(MODEL, {"model.safetensors": weights, "README.md": readme})
        registry = connect()
        return registry.lineage(only(registry))

    @pytest.mark.parametrize(
        ("relation", "kind"),
        [
            ("finetune", Relation.FINETUNED),
            ("adapter", Relation.ADAPTER),
            ("quantized", Relation.QUANTIZED),
            ("merge", Relation.MERGED),
            ("something-new", None),
        ],
    )
    def test_the_card_names_the_base_model_and_the_relation(
        self, hub: HubServer, connect: Connect, weights: bytes, relation: str, kind: Relation | None
    ) -> None:
        text = f"base_model: other/base\nbase_model_relation: {relation}"
        assert self.card(hub, connect, weights, text) == (DeclaredLineage("other/base", kind, "card"),)

    def test_a_merge_names_its_parents(self, hub: HubServer, connect: Connect, weights: bytes) -> None:
        text = "base_model: [a/one, b/two]\nbase_model_relation: merge"
        (declared,) = self.card(hub, connect, weights, text)
        assert (declared.parent, declared.parents) == ("a/one", ("a/one", "b/two"))

    @pytest.mark.parametrize(
        "text",
        [
            "license: mit",
            "base_model: lab/net",
            "base_model: 7",
            "base_model: ../../etc",
            "base_model: [[a/b]]",
            "base_model: {a: b}",
            "just text",
            "model-index: [1, {results: 7}]",
        ],
    )
    def test_a_card_that_says_nothing_sound_declares_nothing(
        self, hub: HubServer, connect: Connect, weights: bytes, text: str
    ) -> None:
        assert self.card(hub, connect, weights, text) == ()

    def test_a_declaration_beside_the_weights_comes_after_that_of_the_card(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        lineage = json.dumps({"parent": "v1"}).encode()
        hub.commit(MODEL, {"model.safetensors": weights, "lineage.json": lineage})
        registry = connect()
        assert [one.parent for one in registry.lineage(only(registry))] == ["v1"]


class TestResolve:
    def test_every_way_to_name_a_commit_leads_to_it(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        first = hub.commit(MODEL, {"model.safetensors": weights})
        hub.tag(MODEL, "v1", first)
        second = hub.commit(MODEL, {"model.safetensors": weights + b" "})
        third = hub.commit(MODEL, {"README.md": b""}, ref="refs/pr/3")
        source = connect().source
        named = {
            None: second,
            "main": second,
            "refs/heads/main": second,
            "v1": first,
            "refs/tags/v1": first,
            "refs/pr/3": third,
            first: first,
            first[:9]: first,
        }
        assert {reference: source.resolve(MODEL, reference).version for reference in named} == named
        assert source.resolve(MODEL, "v1").order_key < source.resolve(MODEL, "main").order_key

    @pytest.mark.parametrize("reference", ["v9", "0" * 40, "0000000", "refs/pr/9", "../main"])
    def test_what_is_not_there_is_answered_with_what_is(
        self, hub: HubServer, connect: Connect, weights: bytes, reference: str
    ) -> None:
        hub.tag(MODEL, "v1", hub.commit(MODEL, {"model.safetensors": weights}))
        error = refusal(lambda: connect().source.resolve(MODEL, reference))
        assert error.reason is RegistryReason.NOT_FOUND
        assert "main, v1" in error.detail

    def test_a_name_that_is_no_repository_is_not_asked_for(self, hub: HubServer, connect: Connect) -> None:
        assert refusal(lambda: connect().source.resolve("../../x", None)).reason is RegistryReason.NOT_FOUND
        assert hub.asked == []


class TestTrouble:
    def test_a_repository_by_name_that_nobody_may_see_says_that_a_token_may_be_needed(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.commit(MODEL, {"model.safetensors": weights}, private=True)
        error = refusal(lambda: connect(MODEL).listing(NOW))
        assert error.reason is RegistryReason.NOT_PERMITTED
        assert "token" in error.detail
        assert only(connect(MODEL, token=TOKEN)).model == MODEL

    def test_a_wrong_token_is_not_permitted_and_never_shown(
        self, hub: HubServer, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        for repositories in ((), (MODEL,)):
            error = refusal(lambda names=repositories: connect(*names, token="hf_wr0ng").listing(NOW))  # type: ignore[misc]
            assert error.reason is RegistryReason.NOT_PERMITTED
            assert "hf_wr0ng" not in f"{error} {caplog.text}"

    @pytest.mark.parametrize("token", ["two words", "line\nbreak", "größe"])
    def test_a_token_that_cannot_be_one_is_told_before_it_is_sent(
        self, hub: HubServer, connect: Connect, token: str
    ) -> None:
        error = refusal(lambda: connect(token=token).listing(NOW))
        assert error.reason is RegistryReason.NOT_PERMITTED
        assert token not in str(error)
        assert hub.asked == []

    def test_two_registries_with_different_tokens_do_not_mix(
        self, hub: HubServer, connect: Connect, weights: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_ofTheMachine")
        hub.commit("lab/open", {"model.safetensors": weights})
        hub.commit("lab/closed", {"model.safetensors": weights}, private=True)
        signed, anonymous = connect(token=TOKEN), connect()
        assert len(signed.listing(NOW).versions) == 2
        assert len(anonymous.listing(NOW).versions) == 1
        assert len(signed.listing(NOW).versions) == 2
        assert {headers.get("authorization") for _, _, headers in hub.asked} == {f"Bearer {TOKEN}", None}

    def test_a_used_up_allowance_is_told_with_the_time_and_respected_without_asking(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.commit(MODEL, {"model.safetensors": weights})
        registry = connect()
        registry.listing(NOW)
        hub.allow("api", 0, 55)
        hub.asked.clear()
        error = refusal(lambda: registry.listing(NOW))
        assert error.reason is RegistryReason.RATE_LIMITED
        assert error.retry_after == timedelta(seconds=55)
        again = refusal(lambda: registry.listing(NOW))
        assert again.reason is RegistryReason.RATE_LIMITED
        assert again.retry_after is not None and timedelta(seconds=40) < again.retry_after <= timedelta(
            seconds=55
        )
        assert len(hub.asked) == 1

    def test_an_allowance_that_ends_in_the_middle_leaves_the_rest_for_the_next_look(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.step = timedelta(hours=1)
        for number in range(20):
            hub.commit(f"lab/net-{number}", {"model.safetensors": weights})
        registry = connect()
        seen: set[str] = set()
        for look in range(10):
            hub.allow("api", 15, 0)
            listing = registry.listing(NOW, everything=look == 0)
            new = {found.model for found in listing.versions}
            assert not new & seen
            seen |= new
            assert all(reason is RegistryReason.RATE_LIMITED for _, reason in listing.unlisted)
            if not listing.unlisted:
                break
            hub.forgive()
        assert len(seen) == 20

    def test_pages_that_lead_elsewhere_or_in_a_circle_are_not_followed(
        self, hub: HubServer, connect: Connect
    ) -> None:
        with_elsewhere = HubServer()
        front = UnreliableServer(hub.url)
        try:
            registry = connect(url=front.url, token=TOKEN)
            link = f'<{with_elsewhere.url}/api/models?author=lab>; rel="next"'
            front.answer(200, b"[]", {"Link": link})
            error = refusal(lambda: registry.listing(NOW))
            assert error.reason is RegistryReason.BAD_RESPONSE
            assert with_elsewhere.asked == []
            front.answer(200, b"[]", {"Link": f'<{front.url}/api/models?author=lab>; rel="next"'})
            assert refusal(lambda: registry.listing(NOW)).reason is RegistryReason.BAD_RESPONSE
            front.answer(302, b"", {"Location": f"{with_elsewhere.url}/api/models"})
            assert refusal(lambda: registry.listing(NOW)).reason is RegistryReason.BAD_RESPONSE
            assert with_elsewhere.asked == []
        finally:
            front.close()
            with_elsewhere.stop()

    @pytest.mark.parametrize(
        "answer",
        [b"<html>hello</html>", b"7", b"null", b'[{"id": 5}]', b"[" * 100_000, b"[[]]", b'{"error": "x"}'],
    )
    def test_a_server_that_is_no_hub_is_told_as_such(
        self, hub: HubServer, connect: Connect, answer: bytes
    ) -> None:
        front = UnreliableServer(hub.url)
        try:
            front.answer(200, answer)
            error = refusal(lambda: connect(MODEL, url=front.url).listing(NOW))
            assert error.reason is RegistryReason.BAD_RESPONSE
            assert "url" in error.detail
        finally:
            front.close()

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_a_server_in_trouble_is_asked_once_and_not_for_minutes(
        self, hub: HubServer, connect: Connect, status: int
    ) -> None:
        front = UnreliableServer(hub.url)
        try:
            front.answer(status, b"trouble", {"Retry-After": "7"})
            error = refusal(lambda: connect(url=front.url).listing(NOW))
            assert (error.reason, error.retry_after) == (RegistryReason.SERVER_ERROR, timedelta(seconds=7))
            assert len(front.requests) == 1
        finally:
            front.close()

    def test_a_kept_connection_that_the_server_closed_is_opened_again(
        self, hub: HubServer, connect: Connect, weights: bytes
    ) -> None:
        hub.commit(MODEL, {"model.safetensors": weights})
        front = UnreliableServer(hub.url)
        try:
            registry = connect(url=front.url)
            registry.listing(NOW)
            front.refuse()
            front.behave()
            assert only(registry).model == MODEL
        finally:
            front.close()

    def test_offline_mode_is_named_as_the_reason(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        error = refusal(lambda: connect().listing(NOW))
        assert "HF_HUB_OFFLINE" in error.detail

    def test_a_private_authority_is_trusted_by_the_registry_that_names_it_alone(
        self, hub: HubServer, connect: Connect, weights: bytes, tmp_path: Path
    ) -> None:
        hub.commit(MODEL, {"README.md": b"", "model.safetensors": weights})
        (tmp_path / "authority").mkdir()
        authority = private_authority(tmp_path / "authority")
        front = UnreliableServer(hub.url, authority.context)
        try:
            trusting = connect(url=front.url, ca_file=authority.ca_file)
            assert only(trusting).model == MODEL
            assert refusal(lambda: connect(url=front.url).listing(NOW)).reason is RegistryReason.CERTIFICATE

            # What is kept at an address without TLS is not fetched on the word of one with it.
            def opened() -> None:
                with trusting.open(only(trusting).location):
                    pass

            assert refusal(opened).reason is RegistryReason.BAD_RESPONSE
        finally:
            front.close()

    def test_a_ca_file_that_is_none_is_told(self, connect: Connect, tmp_path: Path) -> None:
        for content in (None, b"no certificate"):
            path = tmp_path / "ca.pem"
            if content is not None:
                path.write_bytes(content)
            error = refusal(lambda: connect(ca_file=tmp_path / "ca.pem").listing(NOW))
            assert error.reason is RegistryReason.CERTIFICATE
            assert str(path) in error.detail


class TestSettings:
    @pytest.mark.parametrize(
        "repository", ["name", "*/name", "a/b/c", "lab/", "/net", "https://hub/lab/net", "lab /x"]
    )
    def test_a_repository_that_is_none_is_refused(self, repository: str) -> None:
        with pytest.raises(ValidationError, match="owner/name"):
            HuggingFaceRegistrySettings.model_validate(
                {"name": "hub", "kind": "huggingface", "repositories": [repository]}
            )

    def test_without_a_url_it_is_the_public_hub_or_what_the_environment_said(self, connect: Connect) -> None:
        from huggingface_hub import constants

        source = connect(url=None).source
        assert source._connection.endpoint == constants.ENDPOINT  # type: ignore[attr-defined]
