"""The Hugging Face Hub as a registry: a model is ``owner/name``, a version a commit, a location ``owner/name@sha``.

Versions are the commits that a watched branch, tag or pull request leads to. A commit never changes, so that its sha
is its token too, and the files' sha256 in its tree (git LFS, Xet) are the manifest: a commit that only touches the
card brings the fingerprint that is known already, and no download. A commit that lacks shards is waited for, and listed
as it is after an hour; so is one without weights, where the ref led to weights before or the repository is watched by
its name. Other commits without weights are left out.

An owner's repositories are listed by the time of their last change, down to what was seen the last time. As it is not
documented whether new tags and pull requests count as changes, a few repositories that did not change are asked for
their refs at each look as well, those first that were not asked for the longest time.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import islice
from threading import Lock

from huggingface_hub import hf_hub_url

from layerwatch.config.registries import HuggingFaceRegistrySettings
from layerwatch.daemon.registries.base import (
    DeclaredLineage,
    FoundRef,
    FoundVersion,
    Listing,
    Progress,
    Registry,
    RegistryReason,
    RegistryUnavailable,
    no_progress,
)
from layerwatch.daemon.registries.downloads import Downloads, RemoteFile
from layerwatch.daemon.registries.huggingface.connection import HubConnection, RepositoryGone
from layerwatch.daemon.registries.huggingface.questions import REPOSITORY, SHA, Entry, HubQuestions, owner_of
from layerwatch.daemon.registries.patterns import is_glob, matches
from layerwatch.daemon.registries.remote import RemoteRegistry, is_weight
from layerwatch.daemon.store.ordering import sort_key

_LOGGER = logging.getLogger(__name__)

MAIN = "main"

_AT_A_TIME = 4
_OVERLAP = timedelta(minutes=5)
"""So far the clocks of the Hub's servers may differ."""

_ASKED_ANYWAY = 16
"""Repositories without a change that are asked for their refs at each look."""

_VERIFIED_AT_ONCE = 128
"""Commits that no ref leads to which are looked for at each full look; the others have their turn later."""

_REMEMBERED_FILES = 20_000
"""Files of the trees that a look has read and that were not asked for yet."""

_GIVEN_TIME = timedelta(hours=1)
"""So long after the first sight a commit that lacks shards, or weights where there were some, counts as being written."""

_SHORT_SHA = re.compile(r"[0-9a-f]{7,63}")
_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5,6})-of-(?P<count>\d{5,6})(?P<suffix>\.\w+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Commit:
    """What a commit is good for.

    Attributes:
        seen: when it was seen first. Its own date is its author's.
        lacking: what is missing, or empty.
        bare: there are no weights at all.
    """

    date: str
    seen: datetime
    lacking: str = ""
    bare: bool = False


@dataclass(slots=True)
class _Repository:
    """What is known of a watched repository: targets of its watched refs, and when it changed last."""

    refs: dict[str, str] = field(default_factory=dict)
    modified: datetime | None = None


@dataclass(slots=True)
class _Look:
    """What one look has found so far."""

    now: datetime
    gone: set[str] = field(default_factory=set)
    failed: dict[str, RegistryUnavailable] = field(default_factory=dict)


class HuggingFaceSource:
    """What there is on a Hub. Safe for several threads.

    Args:
        settings: of the registry.
        connection: the way to the Hub.
    """

    def __init__(self, settings: HuggingFaceRegistrySettings, connection: HubConnection) -> None:
        self._settings = settings
        self._connection = connection
        self._questions = HubQuestions(connection)
        self._explicit = tuple(
            one
            for one in dict.fromkeys(settings.repositories)
            if not is_glob(one) and matches(one, settings.models)
        )
        self._globs: dict[str, list[str]] = {}
        for one in filter(is_glob, settings.repositories):
            self._globs.setdefault(owner_of(one), []).append(one)
        self._only_main = set(settings.refs) == {MAIN}
        self._pull_requests = any(
            one.startswith("refs/pr/") or fnmatchcase("refs/pr/1", one) for one in settings.refs
        )
        # One look at a time; the trees are what other threads use besides.
        self._looking = Lock()
        self._looked = False
        self._repositories: OrderedDict[str, _Repository] = OrderedDict()  # the longest unasked first
        self._due: set[str] = set()
        self._watermarks: dict[str, datetime] = {}
        self._commits: dict[str, _Commit] = {}
        self._reported: set[str] = set()
        self._leading: set[tuple[str, str]] = set()  # refs that lead, or led, to versions
        self._offered: dict[str, None] = {}  # the longest unverified first
        self._tree_lock = Lock()
        self._trees: OrderedDict[str, tuple[RemoteFile, ...]] = OrderedDict()
        self._tree_files = 0

    def recall(self, published: Mapping[str, str]) -> None:
        """Locations of commits that were found complete, which spares asking what they hold."""
        self._offered.update(dict.fromkeys(published))

    def listing(self, now: datetime, everything: bool) -> Listing:
        """Ask for the repositories that changed, or all, and the refs of these."""
        with self._looking:
            everything = everything or not self._looked
            look = _Look(now)
            entries, watermarks = self._listed(everything)
            asked = self._to_ask(entries, everything)
            self._ask_all(asked, entries, everything, look)
            self._judge_trouble(asked, look)
            for name in look.gone:
                self._repositories.pop(name, None)
            self._leading = {one for one in self._leading if one[0] not in look.gone}
            self._due = set(look.failed)
            self._watermarks |= watermarks
            self._looked = True
            return self._told(look, everything)

    def token(self, location: str) -> str | None:
        """The sha, as long as the commit is there."""
        repository, sha = _parts(location)
        try:
            self._questions.commit_of(repository, sha)
        except RepositoryGone:
            return None
        except RegistryUnavailable as error:
            if error.reason is RegistryReason.VERSION_GONE:
                return None
            raise
        return sha

    def files(self, location: str, progress: Progress = no_progress) -> tuple[RemoteFile, ...]:
        """The tree of the commit; what a look has just read of it serves once."""
        known = self._taken_tree(location)
        return self._tree(location, progress) if known is None else known

    def stream(self, location: str, file: RemoteFile, begin: int, end: int | None = None) -> Iterator[bytes]:
        """Bytes of a file of the commit."""
        repository, sha = _parts(location)
        url = hf_hub_url(repository, file.path, revision=sha, endpoint=self._connection.endpoint)
        return self._connection.fetch(
            f"{file.path} of {location}", url, begin, file.size_bytes if end is None else end
        )

    def declared(self, found: FoundVersion) -> tuple[DeclaredLineage, ...]:
        """``base_model`` of the model card. It is copied, inferred and unpinned: believed the least."""
        try:
            lineage = self._questions.origin(*_parts(found.location))
        except RegistryUnavailable as error:
            if error.reason is not RegistryReason.BAD_RESPONSE:
                raise
            _LOGGER.warning("the model card is not used: %s", error.detail)
            return ()
        return () if lineage is None else (lineage,)

    def resolve(self, model: str, reference: str | None) -> FoundVersion:
        """A branch, a tag, a pull request, a full or a short sha; None for the main branch."""
        if not REPOSITORY.fullmatch(model):
            raise RegistryUnavailable(
                RegistryReason.NOT_FOUND, f"{model!r} is no repository: write owner/name"
            )
        wanted = MAIN if reference is None else reference
        refs = self._questions.refs(model, pull_requests=wanted.startswith("refs/pr/"))
        for name in (wanted, wanted.removeprefix("refs/heads/"), wanted.removeprefix("refs/tags/")):
            if name in refs:
                return self._found(model, refs[name], self._questions.commit_of(model, refs[name])[1])
        if reference is None and refs:
            dated = [
                (self._questions.commit_of(model, sha)[1], sha)
                for sha in dict.fromkeys(islice(refs.values(), 32))
            ]
            date, sha = max(dated)
            return self._found(model, sha, date)
        if _SHORT_SHA.fullmatch(wanted) or SHA.fullmatch(wanted):
            known = {
                sha
                for repository, sha in map(_parts, [*self._offered, *self._commits])
                if repository == model and sha.startswith(wanted)
            }
            revision = known.pop() if len(known) == 1 else wanted
            try:
                sha, date = self._questions.commit_of(model, revision)
            except RegistryUnavailable as error:
                if error.reason not in (RegistryReason.VERSION_GONE, RegistryReason.NOT_FOUND):
                    raise
            else:
                if sha.startswith(wanted):
                    return self._found(model, sha, date)
        there = ", ".join(sorted(refs)[:20]) or "no branch and no tag"
        raise RegistryUnavailable(
            RegistryReason.NOT_FOUND,
            f"{model} has no branch, tag, pull request or commit {wanted}; there is {there}",
        )

    def _listed(self, everything: bool) -> tuple[dict[str, Entry], dict[str, datetime]]:
        """The repositories below the owners that changed lately, or all; and the latest change of each owner's."""
        entries: dict[str, Entry] = {}
        watermarks: dict[str, datetime] = {}
        for owner, patterns in self._globs.items():
            since = None if everything else self._watermarks.get(owner)
            found = self._questions.models(owner, None if since is None else since - _OVERLAP)
            if everything and found and found[0].modified is not None:
                # What changed while pages were read moved to the first one, which was read already.
                found = self._questions.models(owner, found[0].modified) + found
            changes = [entry.modified for entry in found if entry.modified is not None]
            if changes:
                watermarks[owner] = max(changes)
            for entry in found:
                if matches(entry.name, patterns) and matches(entry.name, self._settings.models):
                    entries.setdefault(entry.name, entry)
        return entries, watermarks

    def _to_ask(self, entries: Mapping[str, Entry], everything: bool) -> list[str]:
        """The repositories to ask. Those that vanished from a list are among them before they count as gone."""
        names = dict.fromkeys([*self._explicit, *entries, *self._due, *self._repositories])
        if everything:
            return list(names)
        asked: list[str] = []
        for name in names:
            known, entry = self._repositories.get(name), entries.get(name)
            changed = entry is not None and (known is None or entry.modified != known.modified)
            if changed or name in self._due or name in self._explicit:
                asked.append(name)
        if not self._only_main:
            already = set(asked)
            asked += islice((name for name in self._repositories if name not in already), _ASKED_ANYWAY)
        return asked

    def _ask_all(self, names: list[str], entries: Mapping[str, Entry], everything: bool, look: _Look) -> None:
        """Ask each repository, a few at a time, and stop where no other would be answered either."""
        stop: list[RegistryUnavailable] = []

        def ask(name: str) -> _Repository | RegistryUnavailable:
            if stop:
                return stop[0]
            try:
                return self._asked(name, entries.get(name), everything, look.now)
            except RegistryUnavailable as error:
                if error.reason in _FOR_ALL:
                    stop.append(error)
                return error

        recalled = {_parts(location)[0] for location in self._offered}
        with ThreadPoolExecutor(_AT_A_TIME, "hub") as pool:
            for name, answer in zip(names, pool.map(ask, names), strict=True):
                if isinstance(answer, _Repository):
                    self._repositories[name] = answer
                    self._repositories.move_to_end(name)
                elif isinstance(answer, RepositoryGone) and (name in self._repositories or name in recalled):
                    look.gone.add(name)
                else:
                    look.failed[name] = answer

    def _asked(self, name: str, entry: Entry | None, everything: bool, now: datetime) -> _Repository:
        known = self._repositories.get(name)
        if entry is None and everything and name not in self._explicit and not self._questions.has_name(name):
            raise RepositoryGone(RegistryReason.NOT_FOUND, f"{name} has another name now")
        if self._only_main and entry is not None:
            refs = {} if entry.head is None else {MAIN: entry.head}
        else:
            refs = {
                ref: sha
                for ref, sha in self._questions.refs(name, self._pull_requests).items()
                if matches(ref, self._settings.refs)
            }
        for sha in dict.fromkeys(refs.values()):
            location = f"{name}@{sha}"
            if location not in self._commits:
                _, date = self._questions.commit_of(name, sha)
                complete = location in self._offered
                self._commits[location] = (
                    _Commit(date, now) if complete else _judged(date, now, self._kept_tree(location))
                )
        if entry is not None:
            return _Repository(refs, entry.modified)
        return _Repository(refs, None if known is None else known.modified)

    def _tree(self, location: str, progress: Progress = no_progress) -> tuple[RemoteFile, ...]:
        try:
            return self._questions.tree(*_parts(location), progress)
        except RepositoryGone as error:
            raise RegistryUnavailable(RegistryReason.VERSION_GONE, error.detail) from error

    def _taken_tree(self, location: str) -> tuple[RemoteFile, ...] | None:
        with self._tree_lock:
            tree = self._trees.pop(location, None)
            self._tree_files -= len(tree or ())
        return tree

    def _kept_tree(self, location: str) -> tuple[RemoteFile, ...]:
        """The tree, kept for whoever asks next: a new version's manifest."""
        tree = self._tree(location)
        with self._tree_lock:
            self._tree_files += len(tree) - len(self._trees.get(location, ()))
            self._trees[location] = tree
            while self._tree_files > _REMEMBERED_FILES:
                self._tree_files -= len(self._trees.popitem(last=False)[1])
        return tree

    def _judge_trouble(self, asked: list[str], look: _Look) -> None:
        """Raise where it is the server that is in trouble, and not one repository or another."""
        if not look.failed:
            return
        for error in look.failed.values():
            if error.reason in _BREAKS_A_LOOK:
                raise error
        answered = len(asked) - len(look.failed)
        in_trouble = [one for one in look.failed.values() if one.reason is RegistryReason.SERVER_ERROR]
        if not answered or len(in_trouble) > answered:
            raise next(iter(in_trouble or look.failed.values()))

    def _told(self, look: _Look, everything: bool) -> Listing:
        versions: list[FoundVersion] = []
        refs: list[FoundRef] = []
        unfinished: set[tuple[str, str]] = set()
        remarks: dict[str, None] = {}
        referenced: set[str] = set()
        for name, repository in sorted(self._repositories.items()):
            for ref, sha in sorted(repository.refs.items()):
                location = f"{name}@{sha}"
                commit = self._commits[location]
                waiting = bool(commit.lacking) and look.now - commit.seen < _GIVEN_TIME
                if commit.bare and not self._is_expected(name, ref, location):
                    remarks[f"{location}: {commit.lacking}, so it is no version"] = None
                    continue
                refs.append(FoundRef(name, ref, sha))
                if waiting:
                    remarks[f"{location}: {commit.lacking}, so it is being written"] = None
                    unfinished.add((name, sha))
                    continue
                if commit.lacking:
                    remarks[f"{location}: {commit.lacking}, for so long that it is listed as it is"] = None
                self._leading.add((name, ref))
                if location in referenced:
                    continue
                referenced.add(location)
                if everything or location not in self._reported:
                    versions.append(self._found(name, sha, commit.date))
        for name, error in look.failed.items():
            remarks[f"{name} could not be listed: {error.detail}"] = None
        for name in sorted(look.gone & set(self._explicit)):
            remarks[f"{name} is gone, or the registry's token may not know of it any more"] = None
        still_there = self._verified(referenced, look) if everything else frozenset()
        if everything:
            self._commits = {
                location: commit
                for location, commit in self._commits.items()
                if location in self._offered or _is_target(self._repositories, location)
            }
        self._reported = set(referenced) if everything else self._reported | referenced
        self._offered.update(dict.fromkeys(referenced))
        versions.sort(key=lambda found: (found.model, sort_key(found.order_key), found.version))
        return Listing(
            tuple(versions),
            tuple(refs),
            tuple(sorted(unfinished)),
            tuple(remarks),
            tuple((name, error.reason) for name, error in sorted(look.failed.items())),
            empty=not self._repositories and not look.failed,
            complete=everything,
            still_there=still_there,
        )

    def _is_expected(self, name: str, ref: str, location: str) -> bool:
        """Whether a ref is to lead to weights: its repository is watched by name, or there were some before."""
        return name in self._explicit or (name, ref) in self._leading or location in self._offered

    def _verified(self, referenced: set[str], look: _Look) -> frozenset[str]:
        """Commits that no ref leads to any more and that exist; some are asked for, the others believed till then."""
        for location in [one for one in self._offered if _parts(one)[0] in look.gone]:
            del self._offered[location]
        repositories = self._repositories.keys() | look.failed.keys()
        alone = [one for one in self._offered if one not in referenced and _parts(one)[0] in repositories]
        asked = [one for one in alone[:_VERIFIED_AT_ONCE] if _parts(one)[0] not in look.failed]
        with ThreadPoolExecutor(_AT_A_TIME, "hub") as pool:
            for location, exists in zip(asked, pool.map(self._exists, asked), strict=True):
                if exists:
                    self._offered[location] = self._offered.pop(location)
                else:
                    del self._offered[location]
                    self._commits.pop(location, None)
                    self._taken_tree(location)
        return frozenset(one for one in alone if one in self._offered)

    def _exists(self, location: str) -> bool:
        try:
            return self.token(location) is not None
        except RegistryUnavailable:
            return True  # nothing is known; its turn comes again

    def _found(self, model: str, sha: str, date: str) -> FoundVersion:
        return FoundVersion(model, sha, f"{model}@{sha}", f"{date} {sha}", sha)


_BREAKS_A_LOOK = frozenset({RegistryReason.UNREACHABLE, RegistryReason.CERTIFICATE})
_FOR_ALL = _BREAKS_A_LOOK | {RegistryReason.RATE_LIMITED}
"""What one repository's question ended with and every other's would, too."""


def build(settings: HuggingFaceRegistrySettings, downloads: Downloads) -> Registry:
    """The registry that the settings describe."""
    connection = HubConnection(settings.url, settings.token, settings.ca_file, settings.timeout)
    source = HuggingFaceSource(settings, connection)
    return RemoteRegistry(settings.name, source, downloads, place=connection.endpoint)


def _parts(location: str) -> tuple[str, str]:
    repository, _, sha = location.rpartition("@")
    return repository, sha


def _is_target(repositories: Mapping[str, _Repository], location: str) -> bool:
    name, sha = _parts(location)
    return name in repositories and sha in repositories[name].refs.values()


def _judged(date: str, now: datetime, files: Iterable[RemoteFile]) -> _Commit:
    """A commit is complete when it holds weights, and of each set of shards all: uploads may take several commits."""
    weights = [file.path for file in files if is_weight(file.path)]
    if not weights:
        return _Commit(date, now, "holds no weight file", bare=True)
    shards: dict[tuple[str, str, int], set[int]] = {}
    for path in weights:
        shard = _SHARD.fullmatch(path)
        if shard:
            key = shard["stem"], shard["suffix"], int(shard["count"])
            shards.setdefault(key, set()).add(int(shard["number"]))
    for (stem, suffix, count), numbers in sorted(shards.items()):
        if len(numbers) < count:
            return _Commit(date, now, f"{len(numbers)} of {count} shards {stem}-*{suffix} are there")
    return _Commit(date, now)
