"""A registry that speaks the OCI distribution protocol: distribution, Harbor, Zot, and those of the clouds.

A model is a repository and a version the digest of a manifest in it, so that a version never changes; refs are tags.
Only what a watched tag leads to is a version, also where it cannot be read: then it is listed, so that nothing takes
what the tag led to before for what it leads to now. An image without a model is none, unless its tag led to a version
before. The location of a version is ``repository@digest``, and its token the digest.

What a look costs: one request per page of the catalogue (unless the repositories are named), one per page of a
repository's tags, one HEAD per watched tag (nothing else tells that a tag was moved), and one or two for each
manifest that was not seen before; a new tag is fetched at once. Watch fewer tags (``refs``) where that is too much.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import quote

from layerwatch.config.registries import OciRegistrySettings
from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundRef,
    FoundVersion,
    Listing,
    Progress,
    RegistryReason,
    RegistryUnavailable,
    no_progress,
)
from layerwatch.daemon.registries.downloads import Downloads, RemoteFile
from layerwatch.daemon.registries.oci.answers import NotThere
from layerwatch.daemon.registries.oci.artifacts import CONFIG_BODY, Artifacts, is_repository, is_tag, parts
from layerwatch.daemon.registries.oci.declared import LATEST, declared
from layerwatch.daemon.registries.oci.manifests import (
    MANIFEST_TYPES,
    Artifact,
    Index,
    Packing,
    config_moment,
    is_digest,
    parse_manifest,
)
from layerwatch.daemon.registries.oci.requests import Connection, next_query
from layerwatch.daemon.registries.oci.unpacking import zstd_missing
from layerwatch.daemon.registries.patterns import is_glob, matches
from layerwatch.daemon.registries.remote import RemoteRegistry

_AT_ONCE = 4
_PAGE_SIZE = 1000
_PAGE_BODY = 32 * 2**20
_MOST_NAMES = 1_000_000
_MOST_BARREN = 100
_MOST_IN_INDEX = 32
_MOST_TO_COMPARE = 200
_OF_ALL = frozenset({RegistryReason.UNREACHABLE, RegistryReason.RATE_LIMITED, RegistryReason.CERTIFICATE})
_LONG_AGO = datetime.min.replace(tzinfo=UTC)

_ATTACHED = re.compile(r"sha(256|512)-[0-9a-f]{64,128}(\..*)?", re.ASCII)
"""Tags under which signatures, attestations and the like of another manifest are kept."""
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True)
class _Examined:
    """What a tag's digest led to.

    Attributes:
        version: digest of the manifest that is the version; the tag's own where none can be made out.
        order_key: of the version.
        remark: why it cannot be read, or empty.
        is_model: False for what nobody takes for a model.
    """

    version: str
    order_key: str
    remark: str = ""
    is_model: bool = True


class _Trouble:
    """Repositories that cannot be listed in this look."""

    def __init__(self) -> None:
        self.of: dict[str, RegistryUnavailable] = {}

    def note(self, repository: str, error: RegistryUnavailable) -> None:
        """Raises the error where it cannot concern one repository alone."""
        if error.reason in _OF_ALL:
            raise error
        self.of.setdefault(repository, error)

    def require_some_left(self, repositories: Iterable[str]) -> None:
        """Raise the first error when no repository is left."""
        if self.of and not set(repositories) - self.of.keys():
            raise next(iter(self.of.values()))

    @property
    def unlisted(self) -> tuple[tuple[str, RegistryReason], ...]:
        """As in a listing."""
        return tuple((repository, error.reason) for repository, error in sorted(self.of.items()))

    @property
    def remarks(self) -> list[str]:
        """A sentence on each."""
        return [f"{repository} could not be listed: {error.detail}" for repository, error in self.of.items()]


def build(settings: OciRegistrySettings, downloads: Downloads) -> RemoteRegistry:
    """The registry that the settings describe. Nothing is contacted yet."""
    return RemoteRegistry(settings.name, OciSource(settings), downloads, place=settings.url)


class OciSource:
    """Lists and reads an OCI registry.

    Attributes:
        page_size: how many names are asked for at a time.
    """

    def __init__(self, settings: OciRegistrySettings) -> None:
        self.page_size = _PAGE_SIZE
        self._settings = settings
        self._connection = Connection(settings)
        self._artifacts = Artifacts(self._connection)
        self._recalled: set[str] = set()
        # Locations that were told or listed; what the digests of tags led to, by location; and the tags' digests.
        self._offered: set[str] = set()
        self._examined: dict[str, _Examined] = {}
        self._last: dict[tuple[str, str], str] = {}
        # Tags that lead to versions.
        self._leading: set[tuple[str, str]] = set()

    def __repr__(self) -> str:
        return f"OciSource({self._settings.url})"

    def recall(self, published: Mapping[str, str]) -> None:
        """Before the first listing: what an earlier process listed."""
        self._recalled |= published.keys()
        self._offered |= published.keys()

    def listing(self, now: datetime, everything: bool) -> Listing:
        """All watched tags are always looked at; unless ``everything``, only new versions are listed."""
        remarks: list[str] = []
        trouble = _Trouble()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="oci") as pool:
            try:
                repositories = self._repositories(remarks)
                tags = self._tags_of_all(pool, repositories, trouble, remarks)
                targets = self._targets(pool, tags, now, trouble)
                self._examine(pool, targets, now, trouble)
                trouble.require_some_left(repositories)
                versions, refs = self._found(targets, trouble, remarks)
                locations = {found.location for found in versions}
                still_there = self._still_there(pool, locations, trouble) if everything else frozenset()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        listed = versions
        if everything:
            kept = {location for location in self._offered if location.rpartition("@")[0] in trouble.of}
            self._offered = locations | still_there | kept
        else:
            listed = [found for found in versions if found.location not in self._offered]
            self._offered |= locations
        return Listing(
            tuple(listed),
            tuple(refs),
            remarks=(*remarks, *trouble.remarks),
            unlisted=trouble.unlisted,
            empty=not tags and not trouble.of,
            complete=everything,
            still_there=still_there,
        )

    def token(self, location: str) -> str | None:
        """The digest itself, for as long as the manifest is there."""
        repository, digest = parts(location)
        return None if self._artifacts.digest_of(repository, digest) is None else digest

    def files(self, location: str, progress: Progress = no_progress) -> tuple[RemoteFile, ...]:
        """Raw layers, and the members of archives that may hold weights (see ``layers.py`` for the cost)."""
        return self._artifacts.files(location, progress)

    def stream(self, location: str, file: RemoteFile, begin: int, end: int | None = None) -> Iterator[bytes]:
        """Ranges of raw layers and plain archives; compressed ones are unpacked on the way."""
        return self._artifacts.stream(location, file, begin, end)

    def declared(self, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
        """Annotations of the manifest, then the Kitfile's reference to another modelkit."""
        return declared(self._artifacts, found)

    def resolve(self, model: str, reference: str | None) -> FoundVersion:
        """By tag or digest; None is ``latest``, else what all tags lead to."""
        if not is_repository(model):
            raise RegistryUnavailable(RegistryReason.NOT_FOUND, f"{model!r} is no name of a repository")
        if reference is not None and is_digest(reference):
            return self._resolved(model, reference, reference)
        if reference is not None and not is_tag(reference):
            detail = f"{reference!r} is neither a tag nor a digest (sha256:...)"
            raise RegistryUnavailable(RegistryReason.NOT_FOUND, detail)
        wanted = reference or LATEST
        digest = self._artifacts.digest_of(model, wanted)
        if digest is not None:
            return self._resolved(model, digest, wanted)
        tags = self._tags(model)
        if reference is not None or not tags:
            there = f"its tags are {_some(tags)}" if tags else "it has no tags"
            detail = f"{self._settings.url}: {model} has no tag {wanted}; {there}"
            raise RegistryUnavailable(RegistryReason.NOT_FOUND, detail)
        return self._only(model, tags)

    def _only(self, model: str, tags: Sequence[str]) -> FoundVersion:
        """What all tags agree on: an artifact need not tell its age, and a guess would judge some version."""
        detail = f"{self._settings.url}: {model} has no tag {LATEST}; its tags are {_some(tags)}: say which"
        if len(tags) > _MOST_TO_COMPARE:
            raise RegistryUnavailable(RegistryReason.NOT_FOUND, detail)
        digests = {self._artifacts.digest_of(model, tag) for tag in tags} - {None}
        if len(digests) != 1:
            raise RegistryUnavailable(RegistryReason.NOT_FOUND, detail)
        digest = str(digests.pop())
        return self._resolved(model, digest, digest)

    def _resolved(self, model: str, digest: str, wanted: str) -> FoundVersion:
        try:
            _, examined = self._look_at(model, digest, _LONG_AGO)
        except NotThere as error:
            detail = f"{self._settings.url}: {model} has no {wanted}"
            raise RegistryUnavailable(RegistryReason.NOT_FOUND, detail) from error
        if examined.remark or not examined.is_model:
            detail = f"{self._settings.url}: {model} at {wanted}: {examined.remark or 'it is no model'}"
            raise RegistryUnavailable(RegistryReason.NOT_FOUND, detail)
        return _version(model, examined)

    def _repositories(self, remarks: list[str]) -> list[str]:
        patterns = self._settings.repositories
        named = [pattern for pattern in patterns if not is_glob(pattern)]
        found = set(named)
        globs = [pattern for pattern in patterns if is_glob(pattern)]
        if globs:
            found |= {name for name in self._catalogue() if matches(name, globs)}
        odd = sorted(name for name in found if not is_repository(name))
        if odd:
            remarks.append(f"{self._settings.url}: left out, no names of repositories: {_some(odd)}")
        return sorted(name for name in found if is_repository(name) and matches(name, self._settings.models))

    def _catalogue(self) -> Iterator[str]:
        try:
            yield from self._pages("_catalog", "repositories", "")
        except RegistryUnavailable as error:
            if error.reason not in (RegistryReason.NOT_FOUND, RegistryReason.NOT_PERMITTED):
                raise
            reason: RegistryReason = error.reason
            if isinstance(error, NotThere):
                reason = RegistryReason.NOT_PERMITTED if error.code else RegistryReason.BAD_RESPONSE
            detail = f"{error.detail}; it lists no catalogue for us: name the repositories in `repositories`"
            raise RegistryUnavailable(reason, detail) from error

    def _tags_of_all(
        self, pool: ThreadPoolExecutor, repositories: Iterable[str], trouble: _Trouble, remarks: list[str]
    ) -> dict[str, list[str]]:
        """Tags of each repository that there is."""
        tags: dict[str, list[str]] = {}
        for repository, outcome in _each(pool, repositories, self._tags):
            if isinstance(outcome, NotThere):
                # The catalogue may still name one that was deleted; a name in the settings may be misspelt.
                if repository in self._settings.repositories:
                    remarks.append(f"{repository} is not in the registry: {outcome.detail}")
            elif isinstance(outcome, RegistryUnavailable):
                trouble.note(repository, outcome)
            else:
                tags[repository] = outcome
        return tags

    def _tags(self, repository: str) -> list[str]:
        """Tags that can be refs; raises NotThere for a repository that the registry does not have."""
        try:
            names = list(self._pages(f"{repository}/tags/list", "tags", repository))
        except NotThere as error:
            raise self._artifacts.known_missing(error) from error
        return sorted(tag for tag in names if is_tag(tag) and not _ATTACHED.fullmatch(tag))

    def _pages(self, path: str, key: str, scope: str) -> Iterator[str]:
        """Names from all pages.

        Pages go on after a name, not after a number of names, so that what is added or removed meanwhile moves
        nothing out of sight.
        """
        seen: set[str] = set()
        asked: set[str] = set()
        barren = 0
        address = f"GET {self._settings.url}/v2/{path}"
        query = f"n={self.page_size}"
        while query not in asked and barren < _MOST_BARREN and len(seen) <= _MOST_NAMES:
            asked.add(query)
            body, headers = self._connection.small(f"{path}?{query}", scope, _PAGE_BODY)
            names = _names(body, key, address)
            fresh = [name for name in names if name not in seen]
            seen.update(fresh)
            yield from fresh
            barren = 0 if fresh else barren + 1
            link = next_query(headers.get("Link", ""))
            if link is None and (len(names) != self.page_size or not fresh):
                return  # without a link a full page is doubted once: not all registries know links
            number, last = link or (None, None)
            last = last or (names[-1] if names else None)
            if last is None:
                return
            size = number if number is not None and number.isascii() and number.isdigit() else self.page_size
            query = f"n={size}&last={quote(last, safe='')}"
        detail = f"{address}: its pages lead in a circle, or have no end"
        raise RegistryUnavailable(RegistryReason.BAD_RESPONSE, detail)

    def _targets(
        self, pool: ThreadPoolExecutor, tags: Mapping[str, list[str]], now: datetime, trouble: _Trouble
    ) -> dict[tuple[str, str], str]:
        """Digest of each watched tag, by repository and tag."""
        wanted = [
            (repository, tag)
            for repository, all_tags in tags.items()
            for tag in all_tags
            if matches(tag, self._settings.refs)
        ]

        def look(one: tuple[str, str]) -> tuple[str | None, _Examined | None]:
            if one in self._last:
                return self._artifacts.digest_of(*one), None
            return self._look_at(*one, now)

        targets: dict[tuple[str, str], str] = {}
        for (repository, tag), outcome in _each(pool, wanted, look):
            if isinstance(outcome, NotThere):
                continue  # deleted since the tags were listed
            if isinstance(outcome, RegistryUnavailable):
                trouble.note(repository, outcome)
                continue
            digest, examined = outcome
            if digest is not None:
                targets[repository, tag] = digest
            if examined is not None:
                self._examined.setdefault(f"{repository}@{digest}", examined)
        self._last = targets
        return targets

    def _examine(
        self,
        pool: ThreadPoolExecutor,
        targets: Mapping[tuple[str, str], str],
        now: datetime,
        trouble: _Trouble,
    ) -> None:
        """Look into the manifests that were not seen before, and forget those that no tag leads to."""
        wanted = {f"{repository}@{digest}" for (repository, _), digest in targets.items()}
        self._examined = {key: value for key, value in self._examined.items() if key in wanted}

        def look(location: str) -> _Examined:
            return self._look_at(*parts(location), now)[1]

        for location, outcome in _each(pool, sorted(wanted - self._examined.keys()), look):
            if isinstance(outcome, NotThere):
                continue  # deleted since the tag was asked for
            if isinstance(outcome, RegistryUnavailable):
                trouble.note(location.rpartition("@")[0], outcome)
            else:
                self._examined[location] = outcome

    def _found(
        self, targets: Mapping[tuple[str, str], str], trouble: _Trouble, remarks: list[str]
    ) -> tuple[list[FoundVersion], list[FoundRef]]:
        versions: dict[str, FoundVersion] = {}
        refs = []
        unread: dict[tuple[str, str], list[str]] = {}
        self._leading = {one for one in self._leading if one in targets or one[0] in trouble.of}
        for (repository, tag), digest in sorted(targets.items()):
            examined = self._examined.get(f"{repository}@{digest}")
            if examined is None or repository in trouble.of:
                continue
            found = _version(repository, examined)
            remark = examined.remark
            if not examined.is_model:
                if (repository, tag) not in self._leading and found.location not in self._offered:
                    continue
                remark = "it holds no model, and led to one before"
            if remark:
                unread.setdefault((repository, remark), []).append(tag)
            self._leading.add((repository, tag))
            versions.setdefault(found.location, found)
            refs.append(FoundRef(repository, tag, found.version))
        remarks.extend(
            f"{repository}:{_some(tags)} cannot be read: {reason}"
            for (repository, reason), tags in unread.items()
        )
        return sorted(versions.values(), key=lambda one: (one.model, *one.age)), refs

    def _still_there(self, pool: ThreadPoolExecutor, listed: set[str], trouble: _Trouble) -> frozenset[str]:
        """Of what was offered before and has lost its tags, what the registry still holds."""
        there = set()
        lost = [
            location
            for location in sorted(self._offered - listed)
            if location.rpartition("@")[0] not in trouble.of
        ]
        for location, outcome in _each(pool, lost, self.token):
            if isinstance(outcome, RegistryUnavailable) and outcome.reason in _OF_ALL:
                raise outcome
            if outcome is not None:
                there.add(location)  # also where it cannot be told now: the next reconcile will
        return frozenset(there)

    def _look_at(self, repository: str, reference: str, now: datetime) -> tuple[str, _Examined]:
        """The digest behind a tag or digest, and what it leads to; raises RegistryUnavailable, NotThere among it."""
        digest, body = self._artifacts.manifest_bytes(repository, reference)
        first_seen = _LONG_AGO if f"{repository}@{digest}" in self._recalled else now
        try:
            manifest = parse_manifest(body)
            if isinstance(manifest, Index):
                return digest, self._look_into(repository, digest, manifest, first_seen)
        except ValueError as error:
            return digest, _unread(digest, first_seen, f"its manifest is not understood: {error}")
        return digest, self._judge(repository, digest, manifest, first_seen)

    def _look_into(self, repository: str, digest: str, index: Index, first_seen: datetime) -> _Examined:
        inside = index.manifests
        if len(inside) > _MOST_IN_INDEX:
            return _unread(
                digest,
                first_seen,
                f"an index of {len(inside)} manifests is not looked through",
                is_model=False,
            )
        models = []
        for one in inside:
            if one.media_type not in MANIFEST_TYPES:
                continue
            try:
                manifest = self._artifacts.manifest(repository, one.digest)
            except NotThere:
                continue  # an index may name what was never pushed here
            if isinstance(manifest, Artifact) and manifest.is_model:
                models.append((one.digest, manifest))
        if not models:
            return _unread(digest, first_seen, is_model=False)
        if len({one for one, _ in models}) > 1:
            return _unread(
                digest, first_seen, f"an index of {len(models)} models: tag each of them by itself"
            )
        return self._judge(repository, *models[0], first_seen)

    def _judge(self, repository: str, digest: str, artifact: Artifact, first_seen: datetime) -> _Examined:
        if not artifact.is_model:
            return _unread(digest, first_seen, is_model=False)
        packed = any(layer.packing is Packing.TAR_ZSTD for layer in artifact.layers)
        created = artifact.created
        config = artifact.dated_config
        if created is None and config is not None and config.size_bytes <= CONFIG_BODY:
            body = self._artifacts.small_blob(repository, config.digest)
            created = None if body is None else config_moment(body)
        moment = (created or first_seen).isoformat(timespec="microseconds")
        return _Examined(digest, f"{moment} {digest}", (zstd_missing() or "") if packed else "")


def _each(
    pool: ThreadPoolExecutor, inputs: Iterable[_In], work: Callable[[_In], _Out]
) -> Iterator[tuple[_In, _Out | RegistryUnavailable]]:
    """Inputs with what came of them, in their order; a few at a time."""

    def one(value: _In) -> _Out | RegistryUnavailable:
        try:
            return work(value)
        except RegistryUnavailable as error:
            return error

    values = list(inputs)
    yield from zip(values, pool.map(one, values), strict=True)


def _unread(digest: str, first_seen: datetime, remark: str = "", is_model: bool = True) -> _Examined:
    return _Examined(digest, f"{first_seen.isoformat(timespec='microseconds')} {digest}", remark, is_model)


def _version(model: str, examined: _Examined) -> FoundVersion:
    digest = examined.version
    return FoundVersion(model, digest, f"{model}@{digest}", examined.order_key, digest)


def _names(body: bytes, key: str, asked: str) -> list[str]:
    try:
        names = json.loads(body)[key] or []
        if not isinstance(names, list):
            raise TypeError(key)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        detail = f"{asked}: no list of {key} came: is this the address of a registry?"
        raise RegistryUnavailable(RegistryReason.BAD_RESPONSE, detail) from error
    return [name for name in names if isinstance(name, str)]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
